"""A layer's three operations: product, then one pass over the result while it is in the cache.

Matrices are (n, m) parts of buffers whose rows are ``ld`` numbers apart, so that a block of columns is a matrix too.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from . import activations
from .calling import PLAIN, REALS, TRANSPOSED, Kernel, gemm, inline, integers, pointer
from .dropout import drop_layer


# Row: 0 gemm, 1 W, 2 A_prev transposed?, 3 A_prev, 4 b, 5 A, 6 n, 7 k, 8 m, 9 ld, 10 parameter, 11 derivative or 0,
# 12 kept units, 13 step, 14 key (k0, k1, layer, threshold), 15 scale, 16 words, 17 first example, 18 first column.
@functools.cache
def dense(dtype: str, activation: str, keeps: bool, drops: bool) -> Kernel:
    """A <- drop(g(W A_prev + b)); ``keeps``: g' goes to its buffer; ``drops``: units are dropped."""
    real, row = REALS[dtype], activations.forward_row(dtype, activation, keeps)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar
    drop = drop_layer(dtype) if drops else _nothing

    @inline
    def body(address):
        a = integers(address, 19)
        n, k, m, ld, p = a[6], a[7], a[8], a[9], scalar(a[10], f(0.0))
        trans, ld_prev = (TRANSPOSED, k) if a[2] else (PLAIN, ld)
        gemm(a[0], PLAIN, trans, n, m, k, f(1.0), a[1], k, a[3], ld_prev, f(0.0), a[5], ld)
        bias = floats(a[4], n)
        kept_from = a[11] if a[11] else a[5]
        for r in range(n):
            row(p, floats(a[5] + size * r * ld, m), bias[r], floats(kept_from + size * r * ld, m), m)
        drop(a)

    kind = f"{activation}{'_keeping' if keeps else ''}{'_dropping' if drops else ''}"
    return Kernel(f"dense_{kind}", dtype, body)


@inline
def _nothing(a):
    pass


# Row: 0 gemm, 1 W, 2 dZ, 3 A_prev, 4 dZ_prev, 5 db_prev, 6 n, 7 k, 8 m, 9 ld, 10 parameter, 11 derivative or 0,
# 12 scale or 0, 13 accumulate?, 14 kept units or 0.
@functools.cache
def dense_vjp_input(dtype: str, activation: str, keeps: bool, drops: bool) -> Kernel:
    """dZ_prev <- (W^T dZ) * drop * g';  db_prev <- (+) scale * row sums, while the row is in the cache."""
    real, slope = REALS[dtype], _slope_row(dtype, activation, keeps, drops)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 15)
        n, k, m, ld, p, scale = a[6], a[7], a[8], a[9], scalar(a[10], f(0.0)), scalar(a[12], f(1.0))
        gemm(a[0], TRANSPOSED, PLAIN, k, m, n, f(1.0), a[1], k, a[2], ld, f(0.0), a[4], ld)
        db = floats(a[5], k)
        known = a[11] if a[11] else a[3]
        for r in range(k):
            d = floats(a[4] + size * r * ld, m)
            slope(p, floats(known + size * r * ld, m), nb.carray(pointer(a[14] + r * ld), m, np.uint8), d, m)
            total = f(0.0)
            for c in range(m):
                total += d[c]
            db[r] = (db[r] if a[13] else f(0.0)) + scale * total

    # Where the derivative is kept, only relu's zeros matter beside the numbers themselves.
    kind = f"{activation}{'_keeping' if keeps else ''}{'_dropping' if drops else ''}"
    return Kernel(f"dense_vjp_input_{kind}", dtype, body)


def _slope_row(dtype: str, activation: str, keeps: bool, drops: bool) -> Any:
    """``row(p, known, kept, d, m)``: d <- d * g' (* drop), from a row of A or of the kept derivative."""
    f, from_a = REALS[dtype].f, None if keeps else activations.derivative_row(dtype, activation)
    zero_stops = activation == "relu"

    @inline
    def of_a(p, known, kept, d, m):
        from_a(p, known, d, m)

    @inline
    def kept_slope(p, known, kept, d, m):
        for c in range(m):
            d[c] *= known[c]

    @inline
    def dropped(p, known, kept, d, m):
        for c in range(m):  # a dropped unit, like a dead one of relu, gives 0 whatever comes in, infinity too
            alive = kept[c] != 0 and (known[c] != f(0.0) or not zero_stops)
            d[c] = d[c] * known[c] if alive else f(0.0)

    return dropped if drops else kept_slope if keeps else of_a


# Row: 0 gemm, 1 dZ, 2 A_prev transposed?, 3 A_prev, 4 dW, 5 n, 6 k, 7 m, 8 ld, 9 scale or 0, 10 accumulate?
@functools.cache
def dense_vjp_params(dtype: str) -> Kernel:
    """dW <- (+) scale * dZ A_prev^T, in the product itself."""
    f, scalar = REALS[dtype].f, REALS[dtype].scalar

    @inline
    def body(address):
        a = integers(address, 11)
        n, k, m, ld = a[5], a[6], a[7], a[8]
        trans, ld_prev = (PLAIN, k) if a[2] else (TRANSPOSED, ld)
        beta = f(1.0) if a[10] else f(0.0)
        gemm(a[0], PLAIN, trans, n, k, m, scalar(a[9], f(1.0)), a[1], ld, a[3], ld_prev, beta, a[4], k)

    return Kernel("dense_vjp_params", dtype, body)
