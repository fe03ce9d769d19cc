"""Which code makes a product: our own (``product_code``), or OpenBLAS.

Measured on one core (``bench products``): ours is up to twice as fast where OpenBLAS packs matrices that are small, or
transposed. It is not where there are few columns for its vectors or few rows for which to turn a factor over, nor where
products are so large that packing pays (a factor that is turned over is packed).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ...cpu.blas import cpu_flags
from ..openblas import OpenBlas
from .native import Native
from .tiles import Tiles

# The feature by which a processor is known, its tiles, and the most operations of a product: with B as it is, turned.
_WIDE = "avx512f", Tiles(vector=64, rows=8, vectors=3), (1e9, 1e12)
_NARROW = "avx2", Tiles(vector=32, rows=4, vectors=3), (2.5e7, 2.5e7)
FEWEST_COLUMNS, FEWEST_ROWS = 12, 16  # FEWEST_ROWS where a factor has to be turned over


@dataclass(frozen=True)
class Products:
    """Addresses of functions with the signature of ``cblas_sgemm`` and ``cblas_dgemm``.

    Attributes
    ----------
    blas, own : dict
        By dtype name; ``own`` is empty where there is none for this processor.
    most : (float, float)
        Operations of the largest product that is left to ``own``: with B as it is, and transposed.
    """

    blas: dict[str, int]
    own: dict[str, int]
    most: tuple[float, float] = (0.0, 0.0)

    def gemm(self, dtype: str, n: int, m: int, k: int, turned: bool) -> int:
        """For C (n, m) <- op(A) (n, k) op(B) (k, m), all of it: parts of it are made the same way.

        ``turned``: B lies transposed, (m, k).
        """
        large = 2 * n * m * k > self.most[turned]
        if large or m < FEWEST_COLUMNS or (turned and n < FEWEST_ROWS) or dtype not in self.own:
            return self.blas[dtype]
        return self.own[dtype]


Gemm = Callable[[str, int, int, int, bool], int]


def products(blas: OpenBlas) -> Products:
    """What this processor has, as far as Linux tells; compiled once, in a tenth of a second, and kept on disk."""
    found = _processor()
    if found is None:
        return Products(blas.gemm, {})
    tiles, most = found
    return Products(blas.gemm, {dtype: product(dtype, tiles).address for dtype in blas.gemm}, most)


@functools.cache
def _processor() -> tuple[Tiles, tuple[float, float]] | None:
    flags = cpu_flags()
    fits = ((tiles, most) for name, tiles, most in (_WIDE, _NARROW) if {name, "fma"} <= flags)
    return next(fits, None)


def product(dtype: str, tiles: Tiles) -> Native:
    """The machine code; its arguments are those of ``cblas_sgemm`` or ``cblas_dgemm``."""

    def code() -> str:
        from .product_code import product_code

        return product_code(dtype, tiles)

    return Native(f"product_{tiles.vector}_{dtype}", 0, code)
