"""Products of the sizes that networks have, on one core: this package's own code beside NumPy's OpenBLAS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError
from .process import Worker
from .rounds import interleave, summary

# C (n, m) is a sum over k: layers of the tables of ``bench estimators`` with 200 examples, of W1 and W4, larger ones.
SIZES = (
    *((100, 200, 13), (100, 200, 30), (64, 200, 64), (64, 200, 128), (100, 30, 200), (64, 128, 200)),
    *((10, 200, 64), (10, 64, 200), (64, 64, 256), (512, 128, 784), (512, 784, 128), (1024, 1024, 200)),
)
MAKERS = ("ours", "OpenBLAS")


class Bench:
    """Both makers at work in one process."""

    def __init__(self) -> None:
        from ..backends.host.compiled.products import products
        from ..backends.host.openblas import numpys_openblas

        blas = numpys_openblas()
        if blas is None:
            raise DeviceError("bench products needs the OpenBLAS of NumPy's wheels, which this NumPy does not use")
        found = products(blas)
        if not found.own:
            raise DeviceError("bench products: this processor has no product code of its own (AVX2 with FMA is needed)")
        self._addresses, self._blas = {"ours": found.own, "OpenBLAS": found.blas}, blas

    def prepare(self, dtype: str, size: tuple[int, int, int], turned: bool) -> None:
        """C <- A B; ``turned``: B lies transposed."""
        from ..backends.host.compiled.layers import dense_vjp_params
        from ..backends.host.compiled.recording import Call, Tape

        (n, m, k), rng = size, np.random.default_rng(0)
        A, B = (rng.standard_normal(shape).astype(dtype) for shape in ((n, k), (m, k) if turned else (k, m)))
        C, kernel = np.empty((n, m), dtype), dense_vjp_params(dtype)
        self._tapes = {
            maker: Tape([Call(kernel, (found[dtype], A, int(not turned), B, C, n, m, k, None, 0, m))])
            for maker, found in self._addresses.items()
        }

    def turn(self, maker: str, at_least: float) -> float:
        """Seconds of a product, the mean over ``at_least`` seconds."""
        tape, times, spent = self._tapes[maker], 1, 0.0
        with self._blas.one_thread():
            while True:
                start = time.perf_counter()
                tape.play(times)
                spent = time.perf_counter() - start
                if spent >= at_least or times >= 2**20:
                    return spent / times
                times *= 2


def rows(
    rounds: int,
    at_least: float,
    variables: Mapping[str, str | None],
    sizes: Sequence[tuple[int, int, int]] = SIZES,
) -> Iterator[dict[str, Any]]:
    """Two rows a product, ours and OpenBLAS's; ratios are to ours.

    Raises
    ------
    DeviceError
        Where there is nothing to compare.
    """
    worker = Worker(".products:Bench", variables=variables)
    try:
        for dtype in ("float32", "float64"):
            for n, m, k in sizes:
                for turned in (False, True):
                    worker.ask("prepare", dtype, (n, m, k), turned)
                    seconds = interleave(MAKERS, rounds, lambda maker: float(worker.ask("turn", maker, at_least)))
                    name = f"{dtype}: {n} x {m} over {k}{', B transposed' if turned else ''}"
                    for maker in MAKERS:
                        found = summary(seconds[maker], seconds["ours"])
                        rate = 2e-9 * n * m * k / found["median"]
                        yield {"workload": name, "peer": maker, "base": "ours", "gflops": rate} | found
    finally:
        worker.close()
