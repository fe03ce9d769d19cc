"""What a step cannot be faster than on this machine: its products at the measured GEMM rate, its bytes at the
measured bandwidth. And the reference runs of the equal-work check, which plain NumPy makes in the same process."""

from __future__ import annotations

import contextlib
import functools
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_gpu.backends.cpu.blas import blas, core_hint, cpu_flags

from .equal_work import PERTURBED_RUNS
from .network_worker import losses_of, pools
from .peers.plain_numpy import PlainNumpy
from .workloads import Workload, make_task

_SMALL = 20_000_000  # smaller products are repeated within one call, so that the call's own cost does not count
Product = tuple[np.ndarray, np.ndarray, np.ndarray]


def products(work: Workload, train: bool) -> list[Product]:
    """(left, right, out) of every product of a step, in the network's layout; ``out`` is a stack of them."""
    found, m = [], work.batch_size
    for l, (k, n) in enumerate(work.layers):
        W, dZ = np.ones((n, k), np.float32), np.ones((n, m), np.float32)
        A_prev = np.ones((k, m), np.float32) if l else np.ones((m, k), np.float32).T
        pairs = [(W, A_prev), (dZ, A_prev.T), (W.T, dZ)]
        for left, right in pairs if train and l else pairs[:2] if train else pairs[:1]:
            copies = min(64, max(1, _SMALL // (2 * n * k * m)))
            found.append((left, right, np.empty((copies, left.shape[0], right.shape[1]), np.float32)))
    return found


def best_seconds(call: Callable[[], object]) -> float:
    """The fastest of five calls."""
    return min(timeit.repeat(call, number=1, repeat=5))


@functools.cache
def reference_losses(work: Workload, adam: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Losses of plain NumPy in float64, and in float32 from perturbed starts (see ``equal_work.bound``)."""
    peers = [PlainNumpy("float32" if k else "float64", adam) for k in range(PERTURBED_RUNS + 1)]
    runs = [losses_of(peer.prepare, peer.epoch, work, perturbed=k or None) for k, peer in enumerate(peers)]
    return runs[0], runs[1:]


@functools.cache
def reference_probabilities(work: Workload) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same for predictions; each entry may differ by as much as the worst one."""
    runs = []
    for k in range(PERTURBED_RUNS + 1):
        peer, task = (
            PlainNumpy("float32" if k else "float64"),
            make_task(work, rows=2 * work.batch_size, perturbed=k or None),
        )
        peer.prepare(task)
        runs.append(peer.predict(task.X).reshape(-1).astype(np.float64))
    return runs[0], [runs[0] + np.abs(run - runs[0]).max() for run in runs[1:]]


class RooflineWorker:
    """Measures the roofline, and runs the reference of the equal-work check."""

    losses, probabilities = staticmethod(reference_losses), staticmethod(reference_probabilities)
    pools = staticmethod(pools)

    def hint(self) -> str:
        """Why this process's BLAS is slower than it could be, if it is."""
        return core_hint(blas(), cpu_flags())

    def prepare(self, work: Workload, mode: str) -> None:
        """Buffers for ``measure``, and of how many steps ``measure`` gives the time.

        Training reads parameters, gradient and moments and writes all but the gradient: 7 values a parameter, where a
        copy within the same memory moves 4. Prediction reads its rows and writes its probabilities: one copy.
        """
        train = mode != "inference"
        self.products = products(work, train)
        values = 4 * work.parameters if train else work.batch_size * (work.sizes[0] + work.sizes[-1])
        self.copied, self.copies = np.ones((2, max(values // 2, 1)), np.float32), 7 / 4 if train else 1.0
        steps = {"step": 1.0, "epoch": work.batches, "fit": work.batches * work.epochs}
        self.steps = steps.get(mode, work.rows / work.batch_size)

    def measure(self, min_time: float) -> float:
        """The roofline of a step, an epoch, a fit or a pass of predictions, as it is now."""
        gemm = sum(min(_product(product, threads) for threads in (None, 1)) for product in self.products)
        return (gemm + self.copies * best_seconds(lambda: np.copyto(self.copied[1], self.copied[0]))) * self.steps


def _product(product: Product, threads: int | None) -> float:
    """Seconds of one product, with all BLAS threads or, where threadpoolctl can limit them, fewer."""
    left, right, out = product
    limit: Any = contextlib.nullcontext()
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        limit = threadpool_limits(threads)
    with limit:
        return best_seconds(lambda: np.matmul(left, right, out=out)) / len(out)
