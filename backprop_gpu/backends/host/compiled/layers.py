"""A layer's three operations: product, then one pass over the result while it is in the cache."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import activations
from .calling import PLAIN, REALS, TRANSPOSED, Kernel, array, gemm, inline, integers

# A row may be for some of a layer's units or for some of the examples: for m columns of arrays that are ``pitch`` wide.


# Row: 0 gemm, 1 W, 2 A_prev transposed?, 3 A_prev, 4 b, 5 A, 6 n, 7 k, 8 m, 9 parameter, 10 derivative or 0, 11 pitch.
@functools.cache
def dense(dtype: str, activation: str, keeps: bool) -> Kernel:
    """A <- g(W A_prev + b); ``keeps``: g' goes to its buffer."""
    real, row = REALS[dtype], activations.forward_row(dtype, activation, keeps)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 12)
        n, k, m, p, pitch = a[6], a[7], a[8], scalar(a[9], f(0.0)), a[11]
        trans, ld = (TRANSPOSED, k) if a[2] else (PLAIN, pitch)
        gemm(a[0], PLAIN, trans, n, m, k, f(1.0), a[1], k, a[3], ld, f(0.0), a[5], pitch)
        bias, slopes = floats(a[4], n), a[10] if keeps else a[5]
        for r in range(n):
            row(p, floats(a[5] + size * r * pitch, m), bias[r], floats(slopes + size * r * pitch, m), m)

    return Kernel(f"dense_{activation}{'_keeping' if keeps else ''}", dtype, body)


# Row: 0 gemm, 1 W, 2 dZ, 3 A_prev, 4 dZ_prev, 5 db_prev or 0, 6 n, 7 k, 8 m, 9 parameter, 10 derivative or 0,
# 11 scale or 0, 12 accumulate?, 13 kept units or 0, 14 width of W, 15 pitch.
def dense_vjp_input(dtype: str, activation: str, keeps: bool, drops: bool) -> Kernel:
    """dZ_prev <- (W^T dZ) * drop * g';  db_prev <- (+) scale * row sums, while the row is in the cache.

    ``keeps``: g' (times drop) is in its buffer; it is always with ``drops``.
    """
    if not keeps:
        return _vjp_input(dtype, activation)
    return _vjp_input(dtype, "kept" if not drops else "dropped_relu" if activation == "relu" else "dropped")


@functools.cache
def _vjp_input(dtype: str, how: str) -> Kernel:
    real, slope, row_sum = REALS[dtype], _slope_row(dtype, how), sum_of(dtype)
    f, size, floats, scalar, from_a = real.f, real.size, real.floats, real.scalar, how in activations.FROM_A

    @inline
    def body(address):
        a = integers(address, 16)
        n, k, m, p, scale = a[6], a[7], a[8], scalar(a[9], f(0.0)), scalar(a[11], f(1.0))
        pitch, db, known = a[15], floats(a[5], k), a[3] if from_a else a[10]
        gemm(a[0], TRANSPOSED, PLAIN, k, m, n, f(1.0), a[1], a[14], a[2], pitch, f(0.0), a[4], pitch)
        for r in range(k):
            at, d = size * r * pitch, floats(a[4] + size * r * pitch, m)
            slope(p, floats(known + at, m), array(a[13] + r * pitch, m, np.uint8), d, m)
            if a[5]:
                db[r] = (db[r] if a[12] else f(0.0)) + scale * row_sum(d, m)

    return Kernel(f"dense_vjp_input_{how}", dtype, body)


def _slope_row(dtype: str, how: str) -> Any:
    """``row(p, known, kept, d, m)``: d <- d * g' (* drop), from a row of A or of the kept derivative."""
    f, zero_stops = REALS[dtype].f, how == "dropped_relu"

    @inline
    def kept_slope(p, known, kept, d, m):
        for c in range(m):
            d[c] *= known[c]

    @inline
    def dropped(p, known, kept, d, m):
        for c in range(m):  # a dropped unit, like a dead one of relu, gives 0 whatever comes in, infinity too
            alive = kept[c] != 0 and (known[c] != f(0.0) or not zero_stops)
            d[c] = d[c] * known[c] if alive else f(0.0)

    if how in activations.FROM_A:
        from_a = activations.derivative_row(dtype, how)

        @inline
        def of_a(p, known, kept, d, m):
            from_a(p, known, d, m)

        return of_a
    return kept_slope if how == "kept" else dropped


def sum_of(dtype: str) -> Any:
    """``total(x, m)``: the sum of m numbers."""
    f = REALS[dtype].f

    @inline
    def total(x, m):
        s = f(0.0)
        for c in range(m):
            s += x[c]
        return s

    return total


# Row: 0 dZ, 1 db, 2 k, 3 m, 4 scale or 0, 5 accumulate?
@functools.cache
def row_sums(dtype: str) -> Kernel:
    """db <- (+) scale * row sums: the bias gradient, where no one saw whole rows of dZ before."""
    real, row_sum = REALS[dtype], sum_of(dtype)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 6)
        k, m, db, scale = a[2], a[3], floats(a[1], a[2]), scalar(a[4], f(1.0))
        for r in range(k):
            db[r] = (db[r] if a[5] else f(0.0)) + scale * row_sum(floats(a[0] + size * r * m, m), m)

    return Kernel("row_sums", dtype, body)


# Row: 0 gemm, 1 dZ, 2 A_prev transposed?, 3 A_prev, 4 dW, 5 n, 6 k, 7 m, 8 scale or 0, 9 accumulate?, 10 width of W.
@functools.cache
def dense_vjp_params(dtype: str) -> Kernel:
    """dW <- (+) scale * dZ A_prev^T, in the product itself."""
    f, scalar = REALS[dtype].f, REALS[dtype].scalar

    @inline
    def body(address):
        a = integers(address, 11)
        n, k, m, width = a[5], a[6], a[7], a[10]
        trans, ld = (PLAIN, width) if a[2] else (TRANSPOSED, m)
        beta = f(1.0) if a[9] else f(0.0)
        gemm(a[0], PLAIN, trans, n, k, m, scalar(a[8], f(1.0)), a[1], m, a[3], ld, beta, a[4], width)

    return Kernel("dense_vjp_params", dtype, body)
