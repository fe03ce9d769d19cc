"""What numba is told of ``instructions``, and how it reads arrays at an address.

This module imports numba; kernels reach it through ``calling``, which waits until numba has to compile one of them.
"""

from __future__ import annotations

from typing import Any

import numba as nb
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import instructions
from .parts import inline


def written(instruction: Any) -> Any:
    """An instruction as numba asks for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = instruction(builder, *arguments)
        return context.get_dummy_value() if made is None else made

    return generate


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
    """See ``instructions``."""
    return types.void(types.int64, types.int64), written(instructions.call)


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
    """See ``instructions``; the type of ``alpha`` says which function it is."""
    i, r = types.int64, alpha
    return types.void(i, i, i, i, i, i, r, i, i, i, i, r, i, i), written(instructions.gemm)


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """See ``instructions``."""
    return (types.float32 if bits == types.int32 else types.float64)(bits), written(instructions.float_of_bits)


@intrinsic
def bits_of_float(typingctx: Any, x: Any) -> Any:
    """See ``instructions``."""
    return (types.int32 if x == types.float32 else types.int64)(x), written(instructions.bits_of_float)
