"""A process per peer, asked for one thing at a time over a pipe.

Two thread pools in one process, or two libraries that each believe to own the cores, would disturb each other. In a
process of its own a peer's pool sleeps while the others are measured, and rounds can still go around from peer to peer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..errors import BackpropError, DeviceError, MissingDependencyError
from .peers import PeerSpec
from .workloads import Task, Workload, make_task


def checked_orders(work: Workload) -> Iterator[np.ndarray]:
    """The orders of the epochs over which losses are compared: ``work.checked`` steps, all of them full batches."""
    rng, batches = np.random.default_rng(2), min(work.checked, work.rows // work.batch_size)
    for _ in range(-(-work.checked // batches)):
        yield rng.permutation(batches * work.batch_size)


class Desk:
    """One peer at work, in the worker's process: :class:`Worker` calls these methods by name."""

    def __init__(self, spec: PeerSpec) -> None:
        self.peer, self.rng = spec.load(), np.random.default_rng(3)
        self.reached: tuple[int, float] | None = None

    def adam(self) -> str:
        """Where the peer's Adam has its epsilon."""
        return self.peer.adam

    def can(self, work: Workload) -> bool:
        """Whether the peer has the network's activation."""
        return work.activation in self.peer.activations

    def about(self) -> list[str]:
        """The thread pools of this process, BLAS core type included, where threadpoolctl can tell."""
        return pools()

    def note(self) -> str:
        """What a fit to a target has reached."""
        return "{} epochs, test accuracy {:.3f}".format(*self.reached) if self.reached else ""

    def losses(self, work: Workload) -> np.ndarray:
        """What the peer's loss is at each of the compared steps."""
        return losses_of(self.peer.prepare, self.peer.checked_epoch, work)

    def probabilities(self, work: Workload) -> np.ndarray:
        """Predictions with the initial weights, flattened."""
        task = make_task(work, rows=2 * work.batch_size)
        self.peer.prepare(task)
        return self.peer.predict(task.X).reshape(-1)

    def prepare(self, work: Workload, mode: str) -> None:
        """Make the task."""
        self.work, self.mode, self.task = work, mode, make_task(work)
        self.reached = None
        if mode != "fit":
            self.peer.prepare(self.task)

    def turn(self, at_least: float) -> float:
        """Seconds a step, an epoch, a fit or a pass of predictions takes: the mean over ``at_least`` so many seconds."""
        done, spent = 0, 0.0
        while not done or spent < at_least:
            order = self.rng.permutation(len(self.task.X))
            start = time.perf_counter()
            self._once(order)
            spent += time.perf_counter() - start
            done += self.work.batches if self.mode == "step" else 1
        return spent / done

    def _once(self, order: np.ndarray) -> None:
        if self.mode == "inference":
            self.peer.predict(self.task.X)
        elif self.mode == "fit":
            self._fit()
        else:
            # An epoch is what a user waits for, so its order is drawn within it.
            losses = self.peer.epoch(order if self.mode == "step" else self.rng.permutation(len(order)))
            if len(losses) not in (1, self.work.batches) or not np.isfinite(losses).all():
                raise DeviceError(
                    f"an epoch of {self.work.batches} steps left {len(losses)} losses, {losses[-1]} the last"
                )

    def _fit(self) -> None:
        task = self.task
        if task.work.target is None:
            self.peer.fit(task)
            return
        self.peer.prepare(task)
        rng = np.random.default_rng(0)
        for epoch in range(1, task.work.epochs + 1):
            self.peer.epoch(rng.permutation(len(task.X)))
            right = float(np.mean(self.peer.predict(task.X_test).argmax(axis=1) == task.y_test))
            self.reached = epoch, right
            if right >= task.work.target:
                return
        raise DeviceError(f"test accuracy {right:.3f} after {epoch} epochs, wanted {task.work.target}")


def losses_of(
    prepare: Callable[[Task], None], epoch: Callable[[np.ndarray], np.ndarray], work: Workload, ulps: int | None = None
) -> np.ndarray:
    """Losses over the compared steps of whoever has these two functions; ``ulps``: see ``make_task``."""
    orders = list(checked_orders(work))
    prepare(make_task(replace(work, rows=len(orders[0])), ulps=ulps))
    return np.concatenate([np.array(epoch(order), np.float64) for order in orders])


def pools() -> list[str]:
    """What threadpoolctl says of this process."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = threadpool_info()
    keys = ("internal_api", "version", "architecture", "num_threads")
    return [" ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in found]


@contextlib.contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or with None remove them, meanwhile: what a process started now inherits."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


class Worker:
    """Runs ``factory(*arguments)`` in a process of its own, and its methods when asked.

    Raises
    ------
    MissingDependencyError, DeviceError
        If the object cannot be made, or a method fails there; the message is the process's own, in one line.
    """

    def __init__(self, factory: Any, *arguments: Any, changes: Mapping[str, str | None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, factory, arguments))
        with environment(changes or {}):
            self._process.start()
        there.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method returns there."""
        self._pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, value = self._pipe.recv()
        except EOFError:
            raise DeviceError("its process died") from None
        if error is not None:
            raise error(value)
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(pipe: Connection, factory: Any, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this process
    here: Any = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            try:
                if here is None:
                    here, value = factory(*arguments), None
                else:
                    method, given = pipe.recv()
                    value = getattr(here, method)(*given)
                answer: tuple[Any, Any] = (None, value)
            except EOFError:
                return
            except Exception as error:
                known = MissingDependencyError if isinstance(error, MissingDependencyError) else DeviceError
                text = " ".join(str(error).split())
                answer = (known, text if isinstance(error, BackpropError) else f"{type(error).__name__}: {text}")
            pipe.send(answer)
            if here is None:
                return
