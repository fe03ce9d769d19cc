"""Measures one peer, in a process of its own: what :class:`~.worker_process.WorkerProcess` makes and calls there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from backprop_gpu.errors import DeviceError

from .peers.spec import PeerSpec
from .workloads import Task, Workload, checked_orders, make_task


class NetworkWorker:
    """A peer, made from its spec."""

    def __init__(self, spec: PeerSpec) -> None:
        self.peer, self.rng = spec.load(), np.random.default_rng(3)

    def losses(self, work: Workload) -> np.ndarray:
        """What the peer's loss is at each of the compared steps."""
        return losses_of(self.peer.prepare, self.peer.checked_epoch, work)

    def probabilities(self, work: Workload) -> np.ndarray:
        """Predictions with the initial weights, flattened."""
        task = make_task(work, rows=2 * work.batch_size)
        self.peer.prepare(task)
        return self.peer.predict(task.X).reshape(-1)

    def prepare(self, work: Workload, mode: str) -> None:
        """Make the task; a fit prepares itself, within its time."""
        self.work, self.mode, self.task, self.reached = work, mode, make_task(work), ""
        if mode != "fit":
            self.peer.prepare(self.task)

    def measure(self, min_time: float) -> float:
        """Seconds that a step, an epoch, a fit or a pass of predictions takes, the mean over ``min_time`` seconds."""
        done, spent = 0, 0.0
        while not done or spent < min_time:
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
                raise DeviceError(f"an epoch of {self.work.batches} steps left the losses {losses}")

    def _fit(self) -> None:
        task, rng, right = self.task, np.random.default_rng(0), 0.0
        if task.work.target is None:
            self.peer.fit(task)
            return
        self.peer.prepare(task)
        for epoch in range(1, task.work.epochs + 1):
            self.peer.epoch(rng.permutation(len(task.X)))
            right = float(np.mean(self.peer.predict(task.X_test).argmax(axis=1) == task.y_test))
            self.reached = f"{epoch} epochs, test accuracy {right:.3f}"
            if right >= task.work.target:
                return
        raise DeviceError(f"{self.reached}, wanted {task.work.target}")

    def note(self) -> str:
        """What the last fit to a target has reached."""
        return self.reached

    def pools(self) -> list[str]:
        """See the function."""
        return pools()


def losses_of(
    prepare: Callable[[Task], None],
    epoch: Callable[[np.ndarray], np.ndarray],
    work: Workload,
    perturbed: int | None = None,
) -> np.ndarray:
    """Losses over the compared steps of an object with these two methods; ``perturbed``: see ``make_task``."""
    orders = list(checked_orders(work))
    prepare(make_task(replace(work, rows=len(orders[0])), perturbed=perturbed))
    return np.concatenate([np.array(epoch(order), np.float64) for order in orders])


def pools() -> list[str]:
    """The thread pools of this process, BLAS core type included, if threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    keys = ("internal_api", "version", "architecture", "num_threads")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [" ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in threadpool_info()]
