"""Batch normalization, unit by unit while its row is in the cache (the formulas of ``maths.normalization``)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....maths.normalization import EPSILON, MOMENTUM
from . import activations
from .calling import REALS, Kernel, inline, integers


# Row: 0 Z, 1 gamma, 2 beta, 3 weights, 4 mean, 5 variance, 6 A, 7 X, 8 inverse_std, 9 n, 10 m, 11 shares (m), 12
# parameter, 13 derivative or 0.
@functools.cache
def batch_norm(dtype: str, activation: str, keeps: bool) -> Kernel:
    """X, inverse_std, A <- g(gamma X + beta) and the running statistics; ``keeps``: g' goes to its buffer."""
    real, row = REALS[dtype], activations.forward_row(dtype, activation, keeps)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar
    shares, normalize, momentum = _shares(dtype), _normalize(dtype), f(MOMENTUM)

    @inline
    def body(address):
        a = integers(address, 14)
        n, m, p, slopes = a[9], a[10], scalar(a[12], f(0.0)), a[13] if keeps else a[6]
        weights, share = floats(a[3], m), floats(a[11], m)
        gamma, beta, mean, variance = floats(a[1], n), floats(a[2], n), floats(a[4], n), floats(a[5], n)
        share_of_new = momentum if shares(weights, share, m) > f(0.0) else f(0.0)
        for r in range(n):
            at = size * r * m
            x, u = floats(a[7] + at, m), floats(a[6] + at, m)
            mu, var, inverse = normalize(floats(a[0] + at, m), weights, share, x, m)
            floats(a[8], n)[r] = inverse
            mean[r] += share_of_new * (mu - mean[r])
            variance[r] += share_of_new * (var - variance[r])
            for c in range(m):
                u[c] = gamma[r] * x[c]
            row(p, u, beta[r], floats(slopes + at, m), m)

    return Kernel(f"batch_norm_{activation}{'_keeping' if keeps else ''}", dtype, body)


# Row: 0 Z, 1 gamma, 2 beta, 3 mean, 4 variance, 5 A, 6 n, 7 m, 8 parameter, 9 derivative or 0.
@functools.cache
def inference(dtype: str, activation: str, keeps: bool) -> Kernel:
    """A <- g(gamma (Z - mean)/sqrt(variance + eps) + beta)."""
    real, row = REALS[dtype], activations.forward_row(dtype, activation, keeps)
    f, size, floats, scalar, epsilon = real.f, real.size, real.floats, real.scalar, real.f(EPSILON)

    @inline
    def body(address):
        a = integers(address, 10)
        n, m, p, slopes = a[6], a[7], scalar(a[8], f(0.0)), a[9] if keeps else a[5]
        gamma, beta, mean, variance = floats(a[1], n), floats(a[2], n), floats(a[3], n), floats(a[4], n)
        for r in range(n):
            at = size * r * m
            z, u, inverse = floats(a[0] + at, m), floats(a[5] + at, m), f(1.0) / np.sqrt(variance[r] + epsilon)
            for c in range(m):
                u[c] = gamma[r] * ((z[c] - mean[r]) * inverse)
            row(p, u, beta[r], floats(slopes + at, m), m)

    return Kernel(f"batch_norm_inference_{activation}{'_keeping' if keeps else ''}", dtype, body)


# Row: 0 dU, 1 X, 2 inverse_std, 3 gamma, 4 weights, 5 scale or 0, 6 dZ, 7 dgamma, 8 accumulate?, 9 n, 10 m,
# 11 shares (m).
@functools.cache
def batch_norm_vjp(dtype: str) -> Kernel:
    """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X."""
    real, shares = REALS[dtype], _shares(dtype)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 12)
        n, m, share, scale = a[9], a[10], floats(a[11], a[10]), scalar(a[5], f(1.0))
        inverse_std, gamma, dgamma = floats(a[2], n), floats(a[3], n), floats(a[7], n)
        shares(floats(a[4], m), share, m)
        for r in range(n):
            at = size * r * m
            du, x, dz = floats(a[0] + at, m), floats(a[1] + at, m), floats(a[6] + at, m)
            total, along = f(0.0), f(0.0)
            for c in range(m):
                total += du[c]
                along += du[c] * x[c]
            factor = gamma[r] * inverse_std[r]
            for c in range(m):
                dz[c] = factor * (du[c] - share[c] * (total + x[c] * along))
            dgamma[r] = (dgamma[r] if a[8] else f(0.0)) + scale * along

    return Kernel("batch_norm_vjp", dtype, body)


def _shares(dtype: str) -> Any:
    """``shares(weights, share, m)``: share <- w / sum w; returns the sum."""
    f, tiny = REALS[dtype].f, np.finfo(dtype).smallest_normal

    @inline
    def shares(weights, share, m):
        total = f(0.0)
        for c in range(m):
            total += weights[c]
        least = total if total > tiny else tiny
        for c in range(m):
            share[c] = weights[c] / least
        return total

    return shares


def _normalize(dtype: str) -> Any:
    """``normalize(z, weights, share, x, m)``: x <- (z - mu) r, 0 for weight 0; returns mu, var and r."""
    f = REALS[dtype].f
    epsilon = f(EPSILON)

    @inline
    def normalize(z, weights, share, x, m):
        mu, var = f(0.0), f(0.0)
        for c in range(m):
            mu += z[c] * share[c] if weights[c] != f(0.0) else f(0.0)
        for c in range(m):
            x[c] = z[c] - mu if weights[c] != f(0.0) else f(0.0)
        for c in range(m):  # by itself: a loop that stores is made for arrays near each other too, with other sums
            var += x[c] * x[c] * share[c]
        r = f(1.0) / np.sqrt(var + epsilon)
        for c in range(m):
            x[c] *= r
        return mu, var, r

    return normalize
