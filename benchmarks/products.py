"""Products of the sizes that networks have, on one core: the native kernels' own beside NumPy's BLAS.

Where PyTorch is installed, its MKL and (in float32) its oneDNN are measured too. oneDNN gets its factors in its own
layout; laying them out is not timed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backprop_gpu.backends.cpu.calls import Argument, Call, Units, columns, rows
from backprop_gpu.backends.cpu.library import native_library

from .interleaved import interleave, summary
from .worker_process import WorkerProcess

# C (n, m) is a sum over k: layers of the tables of ``estimators`` with 200 examples, of W1 and W4, larger ones.
SIZES = (
    *((100, 200, 13), (100, 200, 30), (64, 200, 64), (64, 200, 128), (100, 30, 200), (64, 128, 200)),
    *((10, 200, 64), (10, 64, 200), (64, 64, 256), (512, 128, 784), (512, 784, 128), (1024, 1024, 200)),
    *((1024, 1024, 1024), (2048, 2048, 2048), (256, 8192, 784), (4096, 4096, 3000)),
)
MAKERS = ("native", "NumPy", *(("MKL", "oneDNN") if importlib.util.find_spec("torch") else ()))
FORMS = ("AB", "AB^T", "A^TB")  # forward pass; gradient of the weights, in blocks of 256; of the input


class ProductWorker:
    """All implementations in one process, with one thread each (the caller sets BLAS's in the environment)."""

    def prepare(self, dtype: str, size: tuple[int, int, int], form: str) -> None:
        """C <- a product of one of the forms."""
        (n, m, k), rng = size, np.random.default_rng(0)
        A = rng.standard_normal((k, n) if form == "A^TB" else (n, k)).astype(dtype)
        B = rng.standard_normal((m, k) if form == "AB^T" else (k, m)).astype(dtype)
        C, zeros = np.empty((n, m), dtype), np.zeros(max(n, m), dtype)
        kernel, given = native_library().kernel, tuple[Argument, ...]()
        # The operations of a layer that are a product and next to nothing else.
        if form == "AB":
            given = (A, 0, B, zeros, rows(C, written=True), Units(n), k, m, zeros, None, m)
            call = Call(kernel(f"dense_identity_{dtype}"), given)
        elif form == "AB^T":
            given = (A, 0, B, rows(C, written=True), Units(n), m, k, None, 0, m)
            call = Call(kernel(f"dense_vjp_params_{dtype}"), given)
        else:
            ones = np.ones((n, m), dtype)
            given = (columns(A), B, ones, rows(C, written=True), None, k, Units(n), m, zeros, ones, None, 0, None, n, m)
            call = Call(kernel(f"dense_vjp_input_identity_{dtype}"), given)
        self._arrays = {"AB": (A, B), "AB^T": (A, B.T), "A^TB": (A.T, B)}[form]
        self._C, self._call = C, call
        self._program = ctypes.c_int64(call.kernel), ctypes.c_int64(call.row_addresses[0])

    def measure(self, maker: str, min_time: float) -> float:
        """Seconds of a product, the mean over ``min_time`` seconds."""
        times = 1
        while True:
            start = time.perf_counter()
            if maker == "native":
                native_library().run(*(ctypes.addressof(word) for word in self._program), 1, times)
            else:
                product = self._product(maker)
                start = time.perf_counter()
                for _ in range(times):
                    product()
            spent = time.perf_counter() - start
            if spent >= min_time or times >= 2**20:
                return spent / times
            times *= 2

    def _product(self, maker: str) -> Callable[[], object]:
        A, B = self._arrays
        if maker == "NumPy":
            return lambda: np.matmul(A, B, out=self._C)
        import torch

        torch.set_num_threads(1)
        if maker == "MKL":
            given, out = (torch.from_numpy(A), torch.from_numpy(B)), torch.from_numpy(self._C)
            return lambda: torch.mm(*given, out=out)
        left, right = (torch.from_numpy(np.ascontiguousarray(factor)).to_mkldnn() for factor in (A, B.T))
        return lambda: torch.nn.functional.linear(left, right)


def makers_of(dtype: str) -> Sequence[str]:
    """oneDNN's products through PyTorch are float32."""
    return [maker for maker in MAKERS if maker != "oneDNN" or dtype == "float32"]


def rows_of(
    repeats: int,
    min_time: float,
    variables: Mapping[str, str | None],
    sizes: Sequence[tuple[int, int, int]] = SIZES,
) -> Iterator[dict[str, Any]]:
    """A row for each maker of a product; ratios are to the native kernels'."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    worker = WorkerProcess(".products:ProductWorker", variables={**variables, **one_thread})
    try:
        for dtype in ("float32", "float64"):
            makers = makers_of(dtype)
            for n, m, k in sizes:
                for form in FORMS:
                    worker.call("prepare", dtype, (n, m, k), form)
                    seconds = interleave(makers, repeats, lambda maker: float(worker.call("measure", maker, min_time)))
                    for maker in makers:
                        found = summary(seconds[maker], seconds["native"])
                        rate = 2e-9 * n * m * k / found["median"]
                        name = f"{dtype} {form} {n}x{m}x{k}"
                        yield {"workload": name, "peer": maker, "base": "native", "gflops": rate} | found
    finally:
        worker.close()
