"""A layer's three operations: product, then one pass over the result while it is in the cache."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from . import functions as fn
from .calling import PLAIN, TRANSPOSED, floats, inline, integers, kernel, pointer, scalar, sgemm

f = np.float32

# Codes of activations; those up to LAST_FROM_A have a derivative that A alone gives, the others keep it in a buffer.
IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, ELU, GELU, GELU_TANH, SILU, SOFTPLUS = range(10)
LAST_FROM_A = ELU
CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "elu": ELU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "silu": SILU,
    "softplus": SOFTPLUS,
}

_SQRT_HALF, _INV_SQRT_2PI = f(math.sqrt(0.5)), f(1.0 / math.sqrt(2.0 * math.pi))
_TANH_GELU, _CUBIC = f(math.sqrt(2.0 / math.pi)), f(0.044715)


@inline
def _activate(code, p, z, b, m):
    """z <- g(z + b) for a row, for activations whose derivative comes from A."""
    if code == IDENTITY:
        for c in range(m):
            z[c] += b
    elif code == RELU:
        for c in range(m):
            x = z[c] + b
            z[c] = f(0.0) if x <= f(0.0) else x  # so that NaN stays NaN
    elif code == LEAKY_RELU:
        for c in range(m):
            x = z[c] + b
            z[c] = x if x > f(0.0) else p * x
    elif code == TANH:
        for c in range(m):
            z[c] = fn.tanh(z[c] + b)
    elif code == SIGMOID:
        for c in range(m):
            z[c] = fn.sigmoid(z[c] + b)
    elif code == ELU:
        for c in range(m):
            x = z[c] + b
            z[c] = x if x > f(0.0) else p * fn.expm1_negative(x)


@inline
def _activate_keeping(code, p, z, b, d, m):
    """z <- g(z + b) and d <- g'(z + b) for a row."""
    if code == GELU:
        for c in range(m):
            x = z[c] + b
            cdf = f(0.5) * (f(1.0) + fn.erf(x * _SQRT_HALF))
            z[c] = x * cdf
            d[c] = cdf + x * (fn.exp(f(-0.5) * (x * x)) * _INV_SQRT_2PI)
    elif code == GELU_TANH:
        for c in range(m):
            x = z[c] + b
            t = fn.tanh(_TANH_GELU * (x + _CUBIC * (x * x * x)))
            z[c] = f(0.5) * x * (f(1.0) + t)
            bounded = f(100.0) if x > f(100.0) else (f(-100.0) if x < f(-100.0) else x)
            slope = _TANH_GELU * (f(1.0) + f(3.0) * _CUBIC * (bounded * bounded))
            d[c] = f(0.5) * (f(1.0) + t) + f(0.5) * x * (f(1.0) - t * t) * slope
    elif code == SILU:
        for c in range(m):
            x = z[c] + b
            s = fn.sigmoid(x)
            z[c] = x * s
            d[c] = s * (f(1.0) + x * (f(1.0) - s))
    elif code == SOFTPLUS:
        for c in range(m):
            x = z[c] + b
            e = fn.exp(-x if x > f(0.0) else x)
            z[c] = (x if x > f(0.0) else f(0.0)) + fn.log1p_unit(e)
            d[c] = (f(1.0) if x > f(0.0) else e) / (f(1.0) + e)
    else:
        _activate(code, p, z, b, m)
        _derivative_from(code, p, z, d, m)


@inline
def _derivative_from(code, p, a, d, m):
    """d <- g' from a row of A."""
    for c in range(m):
        d[c] = f(1.0)
    _times_derivative(code, p, a, d, m)


@inline
def _times_derivative(code, p, a, d, m):
    """d <- d * g' from a row of A."""
    if code == RELU:
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else f(0.0)
    elif code == LEAKY_RELU:
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else p * d[c]
    elif code == TANH:
        for c in range(m):
            d[c] *= f(1.0) - a[c] * a[c]
    elif code == SIGMOID:
        for c in range(m):
            d[c] *= a[c] * (f(1.0) - a[c])
    elif code == ELU:
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else d[c] * (a[c] + p)


@inline
def _philox_words(quad, first, layer, step, k0, k1, words, m):
    """Four rows of words (4, m): Philox-4x32-10 with counter (quad, first + c, layer, step); see ``maths.random``."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for c in range(m):
        c0, c1, c2, c3 = quad, np.uint64(first + c) & low, layer, step
        a0, a1 = k0, k1
        for _ in range(10):
            p0 = np.uint64(0xD2511F53) * c0
            p1 = np.uint64(0xCD9E8D57) * c2
            c0 = (p1 >> shift) ^ c1 ^ a0
            c2 = (p0 >> shift) ^ c3 ^ a1
            c1, c3 = p1 & low, p0 & low
            a0 = (a0 + np.uint64(0x9E3779B9)) & low
            a1 = (a1 + np.uint64(0xBB67AE85)) & low
        words[c] = np.uint32(c0)
        words[m + c] = np.uint32(c1)
        words[2 * m + c] = np.uint32(c2)
        words[3 * m + c] = np.uint32(c3)


@inline
def _drop(a, d, kept, words, keep, scale, m):
    """a, d <- a, d * scale where the unit survives, else 0."""
    for c in range(m):
        alive = np.uint64(words[c]) < keep
        kept[c] = np.uint8(1) if alive else np.uint8(0)
        a[c] = a[c] * scale if alive else f(0.0)
        d[c] = d[c] * scale if alive else f(0.0)


@inline
def _dropout(a):
    """Drop the units of a whole layer: A and its kept derivative."""
    n, m = a[6], a[8]
    step, first, key, scale = integers(a[13], 1)[0], integers(a[17], 1)[0], integers(a[14], 4), scalar(a[15], f(1.0))
    words = nb.carray(pointer(a[16]), 4 * m, np.uint32)
    for r in range(n):
        if r & 3 == 0:
            _philox_words(
                np.uint64(r >> 2),
                first,
                np.uint64(key[2]),
                np.uint64(step) & np.uint64(0xFFFFFFFF),
                np.uint64(key[0]),
                np.uint64(key[1]),
                words,
                m,
            )
        kept = nb.carray(pointer(a[12] + r * m), m, np.uint8)
        lane = nb.carray(pointer(a[16] + 4 * (r & 3) * m), m, np.uint32)
        _drop(floats(a[5] + 4 * r * m, m), floats(a[11] + 4 * r * m, m), kept, lane, np.uint64(key[3]), scale, m)


# Row: 0 sgemm, 1 W, 2 A_prev transposed?, 3 A_prev, 4 b, 5 A, 6 n, 7 k, 8 m, 9 code, 10 parameter, 11 derivative or 0,
# 12 kept units or 0, 13 step, 14 key (k0, k1, layer, threshold), 15 scale, 16 words, 17 first example.
@kernel
def dense(address):
    """A <- drop(g(W A_prev + b))."""
    a = integers(address, 18)
    n, k, m, code, p = a[6], a[7], a[8], a[9], scalar(a[10], f(0.0))
    trans, ld = (TRANSPOSED, k) if a[2] else (PLAIN, m)
    sgemm(a[0], PLAIN, trans, n, m, k, f(1.0), a[1], k, a[3], ld, f(0.0), a[5], m)
    bias = floats(a[4], n)
    for r in range(n):
        z = floats(a[5] + 4 * r * m, m)
        if a[11]:
            _activate_keeping(code, p, z, bias[r], floats(a[11] + 4 * r * m, m), m)
        else:
            _activate(code, p, z, bias[r], m)
    if a[12]:
        _dropout(a)


# Row: 0 sgemm, 1 W, 2 dZ, 3 A_prev, 4 dZ_prev, 5 db_prev, 6 n, 7 k, 8 m, 9 code, 10 parameter, 11 derivative or 0,
# 12 scale or 0, 13 accumulate?, 14 kept units or 0.
@kernel
def dense_vjp_input(address):
    """dZ_prev <- (W^T dZ) * drop * g';  db_prev <- (+) scale * row sums, while the row is in the cache."""
    a = integers(address, 15)
    n, k, m, code, p, scale = a[6], a[7], a[8], a[9], scalar(a[10], f(0.0)), scalar(a[12], f(1.0))
    sgemm(a[0], TRANSPOSED, PLAIN, k, m, n, f(1.0), a[1], k, a[2], m, f(0.0), a[4], m)
    db = floats(a[5], k)
    for r in range(k):
        d = floats(a[4] + 4 * r * m, m)
        if a[11]:
            slope = floats(a[11] + 4 * r * m, m)
            if a[14]:  # a dropped unit, like a dead one of relu, gives 0 whatever comes in, infinity too
                kept = nb.carray(pointer(a[14] + r * m), m, np.uint8)
                for c in range(m):
                    alive = kept[c] != 0 and (slope[c] != f(0.0) or code != RELU)
                    d[c] = d[c] * slope[c] if alive else f(0.0)
            else:
                for c in range(m):
                    d[c] *= slope[c]
        else:
            _times_derivative(code, p, floats(a[3] + 4 * r * m, m), d, m)
        total = f(0.0)
        for c in range(m):
            total += d[c]
        db[r] = (db[r] if a[13] else f(0.0)) + scale * total


# Row: 0 sgemm, 1 dZ, 2 A_prev transposed?, 3 A_prev, 4 dW, 5 n, 6 k, 7 m, 8 scale or 0, 9 accumulate?
@kernel
def dense_vjp_params(address):
    """dW <- (+) scale * dZ A_prev^T, in the product itself."""
    a = integers(address, 10)
    n, k, m = a[5], a[6], a[7]
    trans, ld = (PLAIN, k) if a[2] else (TRANSPOSED, m)
    beta = f(1.0) if a[9] else f(0.0)
    sgemm(a[0], PLAIN, trans, n, k, m, scalar(a[8], f(1.0)), a[1], m, a[3], ld, beta, a[4], k)
