"""What a step cannot be faster than on this machine: its products at the measured GEMM rate, its bytes at the
measured bandwidth. And the reference runs of the equal-work check, which plain NumPy makes in the same process."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backends.host.blas import blas, core_hint, cpu_flags
from .equal import DISTURBED
from .peers.plain_numpy import PlainNumpy
from .worker import losses_of, pools
from .workloads import Workload, make_task

_SMALL = 20_000_000  # smaller products are repeated within one call, so that the call's own cost does not count
Products = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def products(work: Workload, train: bool) -> Products:
    """(left, right, out) of every product of a step, in the layout that the network uses; each of them stacked."""
    found: Products = []
    for l, (k, n) in enumerate(zip(work.sizes, work.sizes[1:], strict=False), 1):
        m = work.batch_size
        copies = min(64, max(1, _SMALL // (2 * n * k * m)))
        W, dZ, Z = np.ones((n, k), np.float32), np.ones((n, m), np.float32), np.empty((copies, n, m), np.float32)
        A_prev = np.ones((m, k), np.float32).T if l == 1 else np.ones((k, m), np.float32)
        found.append((W, A_prev, Z))
        if train:
            found.append((dZ, A_prev.T, np.empty((copies, n, k), np.float32)))
        if train and l > 1:
            found.append((W.T, dZ, np.empty((copies, k, m), np.float32)))
    return found


def best_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def reference_losses(work: Workload, adam: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses of plain NumPy in float64, and in float32 from disturbed starts (see ``equal.bound``)."""
    peers = [PlainNumpy("float32" if k else "float64", adam) for k in range(DISTURBED + 1)]
    runs = [losses_of(peer.prepare, peer.epoch, work, ulps=k or None) for k, peer in enumerate(peers)]
    return runs[0], runs[1:]


def reference_probabilities(work: Workload) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same for predictions; having no order in time, each entry may be off by what the worst one is."""
    runs = []
    for k in range(DISTURBED + 1):
        peer, task = (
            PlainNumpy("float32" if k else "float64"),
            make_task(work, rows=2 * work.batch_size, ulps=k or None),
        )
        peer.prepare(task)
        runs.append(peer.predict(task.X).reshape(-1).astype(np.float64))
    return runs[0], [runs[0] + np.abs(run - runs[0]).max() for run in runs[1:]]


class Machine:
    """The desk of the floor and the reference."""

    def hint(self) -> str:
        """Why this process's BLAS is slower than it could be, if it is."""
        return core_hint(blas(), cpu_flags())

    def about(self) -> list[str]:
        """The thread pools of this process."""
        return pools()

    def prepare(self, work: Workload, mode: str) -> None:
        """Buffers for ``turn``."""
        self.work, self.mode = work, mode
        self.products = products(work, mode != "inference")
        train = 4 * work.parameters  # parameters, gradient and two moments
        values = work.batch_size * (work.sizes[0] + work.sizes[-1]) if mode == "inference" else train
        self.copied = np.ones((2, max(values // 2, 1)), np.float32)  # a copy reads one half and writes the other

    def turn(self, at_least: float) -> float:
        """The floor of a step, an epoch, a fit or a pass of predictions, now."""
        gemm = sum(min(self._product(p, threads) for threads in (None, 1)) for p in self.products)
        return (gemm + self._bytes()) * self.steps()

    def steps(self) -> float:
        """Steps in what a turn measures."""
        if self.mode == "inference":
            return self.work.rows / self.work.batch_size
        return {"step": 1, "epoch": self.work.batches, "fit": self.work.batches * self.work.epochs}[self.mode]

    def _product(self, product: tuple[np.ndarray, np.ndarray, np.ndarray], threads: int | None) -> float:
        left, right, out = product
        with _blas_threads(threads):
            return best_seconds(lambda: np.matmul(left, right, out=out)) / len(out)

    def _bytes(self) -> float:
        """Training reads parameters, gradient and moments and writes all but the gradient: 7 values a parameter.

        A copy over the same memory moves 4 of them. Prediction reads its rows and writes its probabilities: one copy.
        """
        one = best_seconds(lambda: np.copyto(self.copied[1], self.copied[0]))
        return one if self.mode == "inference" else one * 7 / 4

    losses = staticmethod(functools.cache(reference_losses))
    probabilities = staticmethod(functools.cache(reference_probabilities))


@contextlib.contextmanager
def _blas_threads(threads: int | None) -> Iterator[None]:
    """Limit BLAS where threadpoolctl is installed; None leaves it alone."""
    limits: Any = contextlib.nullcontext
    if threads is not None:
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits as limits
    with limits(threads):
        yield
