"""What kernels need beyond Python's words, as LLVM instructions: arrays and calls by address, the bits of a number.

This module imports numba; kernels reach it through ``calling``, which waits until one of them has to be compiled.
"""

from __future__ import annotations

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .parts import inline

ROW_MAJOR = 101  # of cblas.h


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@inline
def array(address: Any, n: Any, scalar: Any) -> Any:
    """n numbers of a NumPy type at an address."""
    return nb.carray(pointer(address), n, scalar)


@intrinsic
def call(typingctx: Any, address: Any, row: Any) -> Any:
    """Call the kernel at ``address`` with ``row``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def gemm(
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
    """C = alpha op(A) op(B) + beta C, row-major, through ``cblas_sgemm`` or ``cblas_dgemm`` at ``address``.

    The type of ``alpha`` says which; integers are 64 bits wide.
    """
    i, r = types.int64, alpha

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, enum, data = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
        real = ir.FloatType() if r == types.float32 else ir.DoubleType()
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


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32, or the float64 with those of an int64."""
    narrow = bits == types.int32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType() if narrow else ir.DoubleType())

    return (types.float32 if narrow else types.float64)(bits), generate


@intrinsic
def bits_of_float(typingctx: Any, x: Any) -> Any:
    """The bits of a float32 as an int32, or of a float64 as an int64."""
    narrow = x == types.float32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32 if narrow else 64))

    return (types.int32 if narrow else types.int64)(x), generate
