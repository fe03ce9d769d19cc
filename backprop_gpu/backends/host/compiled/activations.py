"""Activations over one row of a layer: g, and the product with g', from A where A alone gives it."""

from __future__ import annotations

import math
from typing import Any

from .calling import REALS, inline
from .functions import functions

# Activations whose derivative A alone gives, and those that keep it in a buffer.
FROM_A = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "elu")
KEEPING = ("gelu", "gelu_tanh", "silu", "softplus")


def forward_row(dtype: str, name: str, keeps: bool) -> Any:
    """``row(p, z, b, d, m)``: z <- g(z + b), and d <- g'(z + b) if the derivative is kept."""
    if name in KEEPING:
        return {**_gelus(dtype), **_smooth(dtype)}[name]
    activate, slope = _from_a(dtype)[name]
    f = REALS[dtype].f

    @inline
    def row(p, z, b, d, m):
        activate(p, z, b, m)

    @inline
    def keeping(p, z, b, d, m):
        activate(p, z, b, m)
        for c in range(m):
            d[c] = f(1.0)
        slope(p, z, d, m)

    return keeping if keeps else row


def derivative_row(dtype: str, name: str) -> Any:
    """``row(p, a, d, m)``: d <- d * g', from a row of A; for the activations of ``FROM_A``."""
    return _from_a(dtype)[name][1]


def _from_a(dtype: str) -> dict[str, tuple[Any, Any]]:
    return {**_pieces(dtype), **_saturating(dtype)}


def _pieces(dtype: str) -> dict[str, tuple[Any, Any]]:
    """Piecewise linear activations."""
    f = REALS[dtype].f

    @inline
    def identity(p, z, b, m):
        for c in range(m):
            z[c] += b

    @inline
    def identity_slope(p, a, d, m):
        pass

    @inline
    def relu(p, z, b, m):
        for c in range(m):
            x = z[c] + b
            z[c] = f(0.0) if x <= f(0.0) else x  # so that NaN stays NaN

    @inline
    def relu_slope(p, a, d, m):
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else f(0.0)

    @inline
    def leaky_relu(p, z, b, m):
        for c in range(m):
            x = z[c] + b
            z[c] = x if x > f(0.0) else p * x

    @inline
    def leaky_relu_slope(p, a, d, m):
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else p * d[c]

    return {
        "identity": (identity, identity_slope),
        "relu": (relu, relu_slope),
        "leaky_relu": (leaky_relu, leaky_relu_slope),
    }


def _saturating(dtype: str) -> dict[str, tuple[Any, Any]]:
    """Activations with an exponential whose derivative A gives."""
    f, fn = REALS[dtype].f, functions(dtype)
    tanh_of, sigmoid_of, expm1_negative = fn.tanh, fn.sigmoid, fn.expm1_negative

    @inline
    def tanh(p, z, b, m):
        for c in range(m):
            z[c] = tanh_of(z[c] + b)

    @inline
    def tanh_slope(p, a, d, m):
        for c in range(m):
            d[c] *= f(1.0) - a[c] * a[c]

    @inline
    def sigmoid(p, z, b, m):
        for c in range(m):
            z[c] = sigmoid_of(z[c] + b)

    @inline
    def sigmoid_slope(p, a, d, m):
        for c in range(m):
            d[c] *= a[c] * (f(1.0) - a[c])

    @inline
    def elu(p, z, b, m):
        for c in range(m):
            x = z[c] + b
            z[c] = x if x > f(0.0) else p * expm1_negative(x)

    @inline
    def elu_slope(p, a, d, m):
        for c in range(m):
            d[c] = d[c] if a[c] > f(0.0) else d[c] * (a[c] + p)

    return {"tanh": (tanh, tanh_slope), "sigmoid": (sigmoid, sigmoid_slope), "elu": (elu, elu_slope)}


def _gelus(dtype: str) -> dict[str, Any]:
    """Both forms of gelu, each with its derivative."""
    f, fn = REALS[dtype].f, functions(dtype)
    erf, exp, tanh = fn.erf, fn.exp, fn.tanh
    sqrt_half, inv_sqrt_2pi = f(math.sqrt(0.5)), f(1.0 / math.sqrt(2.0 * math.pi))
    inner, cubic = f(math.sqrt(2.0 / math.pi)), f(0.044715)

    @inline
    def gelu(p, z, b, d, m):
        for c in range(m):
            x = z[c] + b
            cdf = f(0.5) * (f(1.0) + erf(x * sqrt_half))
            z[c] = x * cdf
            d[c] = cdf + x * (exp(f(-0.5) * (x * x)) * inv_sqrt_2pi)

    @inline
    def gelu_tanh(p, z, b, d, m):
        for c in range(m):
            x = z[c] + b
            t = tanh(inner * (x + cubic * (x * x * x)))
            z[c] = f(0.5) * x * (f(1.0) + t)
            bounded = f(100.0) if x > f(100.0) else (f(-100.0) if x < f(-100.0) else x)
            slope = inner * (f(1.0) + f(3.0) * cubic * (bounded * bounded))
            d[c] = f(0.5) * (f(1.0) + t) + f(0.5) * x * (f(1.0) - t * t) * slope

    return {"gelu": gelu, "gelu_tanh": gelu_tanh}


def _smooth(dtype: str) -> dict[str, Any]:
    """silu and softplus, each with its derivative."""
    f, fn = REALS[dtype].f, functions(dtype)
    exp, sigmoid, log1p_unit = fn.exp, fn.sigmoid, fn.log1p_unit

    @inline
    def silu(p, z, b, d, m):
        for c in range(m):
            x = z[c] + b
            s = sigmoid(x)
            z[c] = x * s
            d[c] = s * (f(1.0) + x * (f(1.0) - s))

    @inline
    def softplus(p, z, b, d, m):
        for c in range(m):
            x = z[c] + b
            e = exp(-x if x > f(0.0) else x)
            z[c] = (x if x > f(0.0) else f(0.0)) + log1p_unit(e)
            d[c] = (f(1.0) if x > f(0.0) else e) / (f(1.0) + e)

    return {"silu": silu, "softplus": softplus}
