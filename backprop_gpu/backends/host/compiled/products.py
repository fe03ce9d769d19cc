"""Which code makes a product: our own (``product_code``), or OpenBLAS.

Measured on one core (``bench products``): ours is up to twice as fast where OpenBLAS packs matrices that are small, or
transposed. It is not where there are few columns for its vectors or few rows for which to turn a factor over, nor where
products are so large that packing pays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ..openblas import OpenBlas
from .native import address_of
from .tiles import Tiles

# The feature by which a processor is known, its tiles, and the most operations of a product.
_WIDE = "avx512f", Tiles(vector=64, rows=8, vectors=3), 1_000_000_000
_NARROW = "avx2", Tiles(vector=32, rows=4, vectors=3), 25_000_000
FEWEST_COLUMNS, FEWEST_ROWS = 12, 16  # FEWEST_ROWS where a factor has to be turned over


@dataclass(frozen=True)
class Products:
    """Addresses of functions with the signature of ``cblas_sgemm`` and ``cblas_dgemm``.

    Attributes
    ----------
    blas, own : dict
        By dtype name; ``own`` is empty where there is none for this processor.
    most : int
        Operations of the largest product that is left to ``own``.
    """

    blas: dict[str, int]
    own: dict[str, int]
    most: int = 0

    def gemm(self, dtype: str, n: int, m: int, k: int, turned: bool) -> int:
        """For C (n, m) <- op(A) (n, k) op(B) (k, m), all of it: parts of it are made the same way.

        ``turned``: B lies transposed, (m, k).
        """
        large = 2 * n * m * k > self.most
        if large or m < FEWEST_COLUMNS or (turned and n < FEWEST_ROWS) or dtype not in self.own:
            return self.blas[dtype]
        return self.own[dtype]


Gemm = Callable[[str, int, int, int, bool], int]


def products(blas: OpenBlas) -> Products:
    """What this processor has; compiled at first use, in some tenths of a second, and kept on disk."""
    found = _processor()
    if found is None:
        return Products(blas.gemm, {})
    tiles, most = found
    own = {
        dtype: address_of(f"product_{dtype}", functools.partial(_object_code, dtype=dtype, tiles=tiles))
        for dtype in blas.gemm
    }
    return Products(blas.gemm, own, most)


@functools.cache
def _processor() -> tuple[Tiles, int] | None:
    from llvmlite import binding as llvm

    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know for this processor
        return None
    fits = ((tiles, most) for name, tiles, most in (_WIDE, _NARROW) if features.get(name) and features.get("fma"))
    return next(fits, None)


def _object_code(symbol: str, dtype: str, tiles: Tiles) -> tuple[bytes, bool]:
    """Object code for this processor; it needs nothing beyond itself."""
    from llvmlite import binding as llvm

    from .product_code import product_code

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(product_code(symbol, dtype, tiles))
    module.verify()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_unrolling = tuning.loop_vectorization = tuning.slp_vectorization = False  # it is written out
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module), True
