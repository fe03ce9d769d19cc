"""Locks of networks and estimators: one thread at a time, those who wait in turn, and none left taken by a fork."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

WAY_SECONDS = 5e-4  # that a thread gives those who wait, before it may take the lock again
FORK_SECONDS = 10.0  # that a fork waits for a thread to come to the end of its steps


class Turns:
    """A lock that its thread may take again while it has it.

    Python's own are not fair: a thread that lets go and takes again at once, as training does, keeps all others out.
    Here whoever leaves waits a moment if somebody else wants to come in. It is copied and pickled as a free lock.

    Parameters
    ----------
    brief : bool, default True
        Held for some steps or a prediction: a fork waits for that, so that the child finds weights of a step's end. Of
        a lock that is held for a whole fit the child has a new one.
    """

    def __init__(self, brief: bool = True) -> None:
        self.brief, self._lock, self._waiting = brief, threading.RLock(), list[None]()
        self._depth, self._owner = 0, 0  # of the thread that has it, which alone writes them
        _ALL[id(self)] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, (self.brief,)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Within it no other thread has the lock. A generator, which is closed wherever Ctrl-C comes in between."""
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
            time.sleep(WAY_SECONDS)

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Within it others may have the lock that this thread has, such as threads that a callback waits for."""
        depth = self._depth if self._owner == threading.get_ident() else 0
        if depth:
            self._depth = self._owner = 0
        for _ in range(depth):
            self._lock.release()
        try:
            yield
        finally:
            interrupted: KeyboardInterrupt | None = None
            while depth and not self._owner:
                try:
                    self._lock.acquire()
                    self._depth, self._owner = 1, threading.get_ident()
                except KeyboardInterrupt as error:  # whoever is around this is going to release the lock
                    interrupted = error
            for _ in range(depth - 1):
                self._lock.acquire()
            if depth:
                self._depth = depth
            if interrupted is not None:
                raise interrupted

    def _of_child(self) -> None:
        """In a forked process: free, unless the thread that goes on has it."""
        self._waiting.clear()
        if self._owner not in (0, threading.get_ident()):
            self._lock, self._depth, self._owner = threading.RLock(), 0, 0


F = TypeVar("F", bound=Callable[..., Any])


def in_turn(method: F) -> F:
    """A method of an object with ``turns``, with that lock taken while it runs."""

    @functools.wraps(method)
    def alone(self: Any, *given: Any, **named: Any) -> Any:
        with self.turns.taken():
            return method(self, *given, **named)

    return cast(F, alone)


_ALL: weakref.WeakValueDictionary[int, Turns] = weakref.WeakValueDictionary()
_last: list[Any] = []
_held: list[Any] = []


def hold_while_forking(lock: Any) -> None:
    """A lock that is taken before every fork, after those of all networks, as training takes it."""
    _last.append(lock)


# Taken around imports that are put off until they are needed: a child forked meanwhile would wait for them for ever.
IMPORTS = threading.RLock()
hold_while_forking(IMPORTS)


def _before_fork() -> None:
    alive = [turns for turns in (reference() for reference in _ALL.valuerefs()) if turns is not None]
    brief = [turns._lock for turns in alive if turns.brief]
    _held.append([lock for lock in (*brief, *_last) if lock.acquire(timeout=FORK_SECONDS)])


def _after_fork() -> None:
    for lock in _held.pop() if _held else ():
        lock.release()


def _in_child() -> None:
    _after_fork()
    for reference in _ALL.valuerefs():
        turns = reference()
        if turns is not None:
            turns._of_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
