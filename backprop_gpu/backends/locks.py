"""Locks of networks and estimators: fair to waiting threads, and never left held in a forked process."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

YIELD_SECONDS = 5e-4  # how long a thread that releases the lock sleeps if others wait for it
FORK_SECONDS = 10.0  # how long a fork waits for a thread to finish its steps


class FairLock:
    """A reentrant lock that lets waiting threads in.

    Python's own locks are not fair: a thread that releases one and acquires it again at once, as training does, starves
    all others. Here a thread that releases the lock sleeps for a moment if others wait. A copy or pickle is unlocked.

    Parameters
    ----------
    brief : bool, default True
        True: held for some steps or a prediction; a fork waits for it, so the child has the weights of the end of a
        step. False: held for a whole fit; the child gets a new lock.
    """

    def __init__(self, brief: bool = True) -> None:
        self.brief, self._lock, self._waiting = brief, threading.RLock(), list[None]()
        self._depth, self._owner = 0, 0  # of the thread that has it, which alone writes them
        _ALL[id(self)] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return FairLock, (self.brief,)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock within the block. A generator, so that it is released wherever Ctrl-C interrupts."""
        waits = True
        self._waiting.append(None)
        try:
            with self._lock:
                waits = False
                del self._waiting[:1]
                self._depth, self._owner = self._depth + 1, threading.get_ident()
                try:
                    yield
                finally:
                    self._depth -= 1
                    outermost = not self._depth
                    self._owner = 0 if outermost else self._owner
        finally:
            if waits:
                del self._waiting[:1]
        if outermost and self._waiting:
            time.sleep(YIELD_SECONDS)

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Release the lock of this thread within the block, for instance for threads that a callback waits for.

        Threads that wait for it get it first.
        """
        depth = self._depth if self._owner == threading.get_ident() else 0
        if depth:
            self._depth = self._owner = 0
        for _ in range(depth):
            self._lock.release()
        try:
            if depth and self._waiting:
                time.sleep(YIELD_SECONDS)
            yield
        finally:
            interrupted: KeyboardInterrupt | None = None
            while depth and not self._owner:
                try:
                    self._lock.acquire()
                    self._depth, self._owner = 1, threading.get_ident()
                except KeyboardInterrupt as error:  # the caller is going to release the lock
                    interrupted = error
            for _ in range(depth - 1):
                self._lock.acquire()
            if depth:
                self._depth = depth
            if interrupted is not None:
                raise interrupted

    def _of_child(self) -> None:
        """In a forked process: unlock it, unless the forking thread holds it."""
        self._waiting.clear()
        if self._owner not in (0, threading.get_ident()):
            self._lock, self._depth, self._owner = threading.RLock(), 0, 0


F = TypeVar("F", bound=Callable[..., Any])


def locked(method: F) -> F:
    """Decorate a method: it holds ``self.lock`` while it runs."""

    @functools.wraps(method)
    def alone(self: Any, *given: Any, **named: Any) -> Any:
        with self.lock.held():
            return method(self, *given, **named)

    return cast(F, alone)


_ALL: weakref.WeakValueDictionary[int, FairLock] = weakref.WeakValueDictionary()
_last: list[Any] = []
_held: list[Any] = []


def hold_while_forking(lock: Any) -> None:
    """Have a lock acquired before every fork, after those of all networks: the order in which training acquires it."""
    _last.append(lock)


# Held around imports inside functions: a child forked during one would wait for it for ever.
IMPORTS = threading.RLock()
hold_while_forking(IMPORTS)


def _before_fork() -> None:
    alive = [lock for lock in (reference() for reference in _ALL.valuerefs()) if lock is not None]
    brief = [lock._lock for lock in alive if lock.brief]
    _held.append([lock for lock in (*brief, *_last) if lock.acquire(timeout=FORK_SECONDS)])


def _after_fork() -> None:
    for lock in _held.pop() if _held else ():
        lock.release()


def _in_child() -> None:
    _after_fork()
    for reference in _ALL.valuerefs():
        lock = reference()
        if lock is not None:
            lock._of_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
