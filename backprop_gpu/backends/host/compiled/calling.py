"""How compiled kernels are called: one signature, void(row), by address, with every argument in a row of int64.

That form caches on disk, and lets a recorded step be two vectors: addresses of kernels and of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # of cblas.h

# "contract" and "reassoc" let sums become vector code with FMA; NaN and infinities keep their meaning.
FLAGS: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy", "cache": True}


def kernel(function: Callable[[int], None]) -> Any:
    """Compile ``function(row address)`` to machine code with a C address."""
    return nb.cfunc(types.void(types.int64), **FLAGS)(function)


inline = nb.njit(forceinline=True, **FLAGS)


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def call(typingctx: Any, address: Any, row: Any) -> Any:
    """Call the kernel at ``address`` with ``row``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def sgemm(
    typingctx: Any,
    address: Any,
    trans_a: Any,
    trans_b: Any,
    m: Any,
    n: Any,
    k: Any,
    alpha: Any,
    A: Any,
    lda: Any,
    B: Any,
    ldb: Any,
    beta: Any,
    C: Any,
    ldc: Any,
) -> Any:
    """C = alpha op(A) op(B) + beta C, row-major, through ``cblas_sgemm`` with 64-bit integers at ``address``."""
    i, r = types.int64, types.float32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, enum, real, data = ir.IntType(64), ir.IntType(32), ir.FloatType(), ir.IntType(8).as_pointer()
        parameters = [enum] * 3 + [wide] * 3 + [real, data, wide, data, wide, real, data, wide]
        target = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), parameters).as_pointer())
        given = [ir.Constant(enum, ROW_MAJOR), *arguments[1:]]
        for at, parameter in enumerate(parameters):
            if parameter is enum and at:
                given[at] = builder.trunc(given[at], enum)
            elif parameter is data:
                given[at] = builder.inttoptr(given[at], data)
        builder.call(target, given)
        return context.get_dummy_value()

    return types.void(i, i, i, i, i, i, r, i, i, i, i, r, i, i), generate


@inline
def integers(address: Any, n: Any) -> Any:
    """n int64 at an address."""
    return nb.carray(pointer(address), n, np.int64)


@inline
def floats(address: Any, n: Any) -> Any:
    """n float32 at an address."""
    return nb.carray(pointer(address), n, np.float32)


@inline
def scalar(address: Any, otherwise: Any) -> Any:
    """The float32 at an address; ``otherwise`` for address 0."""
    return nb.carray(pointer(address), 1, np.float32)[0] if address != 0 else otherwise


@nb.njit(**FLAGS)
def play(kernels: Any, rows: Any, times: Any) -> None:
    """Call each kernel with its row, in order, ``times`` times over."""
    for _ in range(times):
        for i in range(kernels.size):
            call(kernels[i], rows[i])
