"""Batch normalization, unit by unit while its row is in the cache (the formulas of ``maths.normalization``)."""

from __future__ import annotations

import numpy as np

from ....maths.normalization import EPSILON, MOMENTUM
from . import layers
from .calling import floats, inline, integers, kernel, scalar

f = np.float32
_EPSILON, _MOMENTUM, _TINY = f(EPSILON), f(MOMENTUM), np.finfo(f).smallest_normal


@inline
def _shares(weights, share, m):
    """share <- 1/m or w / sum w; returns the sum of weights."""
    if weights == 0:
        for c in range(m):
            share[c] = f(1.0 / m)
        return f(m)
    w, total = floats(weights, m), f(0.0)
    for c in range(m):
        total += w[c]
    least = total if total > _TINY else _TINY
    for c in range(m):
        share[c] = w[c] / least
    return total


@inline
def _normalize(z, share, x, m):
    """x <- (z - mu) r, 0 where share is 0; returns mu, var and r."""
    mu, var = f(0.0), f(0.0)
    for c in range(m):
        mu += z[c] * share[c] if share[c] != f(0.0) else f(0.0)
    for c in range(m):
        d = z[c] - mu if share[c] != f(0.0) else f(0.0)
        x[c] = d
        var += d * d * share[c]
    r = f(1.0) / np.sqrt(var + _EPSILON)
    for c in range(m):
        x[c] *= r
    return mu, var, r


# Row: 0 Z, 1 gamma, 2 beta, 3 weights or 0, 4 mean, 5 variance, 6 U, 7 X or 0, 8 inverse_std or 0, 9 n, 10 m, 11 share.
@kernel
def batch_norm(address):
    """X, inverse_std, U <- gamma X + beta and the running statistics; without X, U by the running statistics alone."""
    a = integers(address, 12)
    n, m, share = a[9], a[10], floats(a[11], a[10])
    gamma, beta, mean, variance = floats(a[1], n), floats(a[2], n), floats(a[4], n), floats(a[5], n)
    total = _shares(a[3], share, m) if a[7] else f(0.0)
    for r in range(n):
        z, u = floats(a[0] + 4 * r * m, m), floats(a[6] + 4 * r * m, m)
        if a[7]:
            x = floats(a[7] + 4 * r * m, m)
            mu, var, inverse = _normalize(z, share, x, m)
            floats(a[8], n)[r] = inverse
            if total > f(0.0):
                mean[r] += _MOMENTUM * (mu - mean[r])
                variance[r] += _MOMENTUM * (var - variance[r])
            for c in range(m):
                u[c] = gamma[r] * x[c] + beta[r]
        else:
            inverse = f(1.0) / np.sqrt(variance[r] + _EPSILON)
            for c in range(m):
                u[c] = gamma[r] * ((z[c] - mean[r]) * inverse) + beta[r]


# Row: 0 dU, 1 X, 2 inverse_std, 3 gamma, 4 weights or 0, 5 scale or 0, 6 dZ, 7 dgamma, 8 accumulate?, 9 n, 10 m,
# 11 share.
@kernel
def batch_norm_vjp(address):
    """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X."""
    a = integers(address, 12)
    n, m, share, scale = a[9], a[10], floats(a[11], a[10]), scalar(a[5], f(1.0))
    inverse_std, gamma, dgamma = floats(a[2], n), floats(a[3], n), floats(a[7], n)
    _shares(a[4], share, m)
    for r in range(n):
        du, x, dz = floats(a[0] + 4 * r * m, m), floats(a[1] + 4 * r * m, m), floats(a[6] + 4 * r * m, m)
        total, along = f(0.0), f(0.0)
        for c in range(m):
            total += du[c]
            along += du[c] * x[c]
        factor = gamma[r] * inverse_std[r]
        for c in range(m):
            dz[c] = factor * (du[c] - share[c] * (total + x[c] * along))
        dgamma[r] = (dgamma[r] if a[8] else f(0.0)) + scale * along


# Row: as for layers.dense, of which 5-9 and 10-17 are read.
@kernel
def activate(address):
    """A <- drop(g(A)), leaving what ``layers.dense`` leaves."""
    a = integers(address, 18)
    n, m, code, p = a[6], a[8], a[9], scalar(a[10], f(0.0))
    for r in range(n):
        u = floats(a[5] + 4 * r * m, m)
        if a[11]:
            layers._activate_keeping(code, p, u, f(0.0), floats(a[11] + 4 * r * m, m), m)
        else:
            layers._activate(code, p, u, f(0.0), m)
    if a[12]:
        layers._dropout(a)
