"""Elementary functions of :class:`~.bounds.Bounded`: what comes in, by the derivative, and the function's own ulps.

k ulp are at most 2 k u |v|; NumPy's own float64 functions, which give v, miss by up to 4.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from .bounds import U64, Bounded

OWN_ULPS = 4.0


def _result(x: Bounded, name: str, v: Any, top: float, spread: Any) -> Bounded:
    """v with the spread of what came in and the function's own error; ``spread`` None: x is exact."""
    B = x.bounds
    r = 2.0 * B.ulps[name] * B.u + 2.0 * OWN_ULPS * U64
    e = None if spread is None else np.where(x.error() == 0.0, 0.0, spread)
    return x.rounded(v, top, r=r, a=B.eta, e=e)


def _top(v: Any) -> float:
    return float(np.max(np.abs(v), initial=0.0))


def _exp_spread(x: Bounded) -> Any:
    """e^v (e^e - 1); an e so large that this is 0 times infinity leaves e^(v + e)."""
    if x.exact:
        return None
    e = x.error()
    near = np.exp(x.v) * np.expm1(e)
    return near if np.max(e, initial=0.0) < 700.0 else np.where(e < 700.0, near, np.exp(x.v + e))


def exp(x: Bounded) -> Bounded:
    """e^x."""
    v = np.exp(x.v)
    return _result(x, "exp", v, _top(v), _exp_spread(x))


def expm1(x: Bounded) -> Bounded:
    """e^x - 1."""
    v = np.expm1(x.v)
    return _result(x, "expm1", v, _top(v), _exp_spread(x))


def log(x: Bounded) -> Bounded:
    """The natural logarithm; its derivative is largest at the smallest number x may be."""
    v = np.log(x.v)
    return _result(x, "log", v, _top(v), None if x.exact else x.error() / np.maximum(x.v - x.error(), 0.0))


def log1p(x: Bounded) -> Bounded:
    """log(1 + x)."""
    v = np.log1p(x.v)
    return _result(x, "log1p", v, _top(v), None if x.exact else x.error() / np.maximum(1.0 + x.v - x.error(), 0.0))


def tanh(x: Bounded) -> Bounded:
    """tanh x; the second derivative is at most 4/(3 sqrt 3) = 0.7698 in size."""
    v, spread = np.tanh(x.v), None
    if not x.exact:
        e = x.error()
        spread = np.minimum((1.0 - v * v) * e + 0.385 * e * e, 2.0)
    return _result(x, "tanh", v, 1.0, spread)


def sigmoid(x: Bounded) -> Bounded:
    """s = 1/(1 + e^-x), through e^-|x|.

    An error of the exponential moves s as an error of x does, relatively by (1 - s) times it, in either formula
    (1/(1 + e) and e/(1 + e)); a sum, a quotient and at most one product follow. The second derivative is below 0.0963.
    """
    B, e = x.bounds, np.exp(-np.abs(x.v))
    v = np.where(x.v > 0.0, 1.0, e) / (1.0 + e)
    rest = np.where(x.v > 0.0, e, 1.0) / (1.0 + e)
    own = v * rest * (2.0 * B.ulps["exp"] * B.u + 2.0 * OWN_ULPS * U64)
    if not x.exact:
        incoming = x.error()
        own = own + np.minimum(v * rest * incoming + 0.0482 * incoming * incoming, 1.0)
    return x.rounded(v, 1.0, r=3.0 * B.rounding, a=2.0 * B.eta, e=own)


def erf(x: Bounded) -> Bounded:
    """The error function; its derivative is at most 2/sqrt(pi) e^(-t^2) at the t nearest to 0 that x may be."""
    spread = None
    if not x.exact:
        nearest = np.maximum(np.abs(x.v) - x.error(), 0.0)
        spread = 2.0 / math.sqrt(math.pi) * np.exp(-nearest * nearest) * x.error()
    return _result(x, "erf", erf64(x.v), 1.0, spread)


def sin(x: Bounded) -> Bounded:
    """sin x."""
    return _result(x, "sin", np.sin(x.v), 1.0, None if x.exact else np.minimum(x.error(), 2.0))


def cos(x: Bounded) -> Bounded:
    """cos x."""
    return _result(x, "cos", np.cos(x.v), 1.0, None if x.exact else np.minimum(x.error(), 2.0))


def sqrt(x: Bounded) -> Bounded:
    """The square root: correctly rounded like an arithmetic operation, but for torch's."""
    B, v = x.bounds, np.sqrt(x.v)
    r, top = (2.0 * B.ulps["sqrt"] * B.u + U64 if B.u else 0.0), math.sqrt(x.top)
    if x.exact:
        return x.rounded(v, top, r=r, a=0.0)
    error = x.error()
    total = v + np.sqrt(np.maximum(x.v - error, 0.0))
    spread = np.where(v > 0.0, error / np.where(total > 0.0, total, 1.0), np.sqrt(error))
    return x.rounded(v, top, r=r, a=0.0, e=spread)


def power(x: Bounded, p: float) -> Bounded:
    """x^p for a number p: the slope is largest at one end of what x may be."""
    if p == 0:
        return x.like(np.ones_like(x.v), 1.0, k=1)  # whatever x is
    if p == 1:
        return x
    error = x.error()
    low, high = np.maximum(np.abs(x.v) - error, 0.0), np.abs(x.v) + error
    slope = abs(p) * np.maximum(low ** (p - 1.0), high ** (p - 1.0))
    v = x.v ** float(p)
    return _result(x, "square" if p == 2 else "pow", v, _top(v), slope * error)


_STEP, _LAST, _ORDER = 1.0 / 32.0, 6.0, 8  # erf(6) rounds to 1


@cache
def _taylor() -> np.ndarray:
    """Coefficients of erf about 0, 1/32, ..., 6: (points, order + 1), from math.erf and the recurrence of Hermite."""
    points = np.arange(round(_LAST / _STEP) + 1) * _STEP
    derivatives = [np.array([math.erf(p) for p in points]), 2.0 / math.sqrt(math.pi) * np.exp(-points * points)]
    derivatives.append(-2.0 * points * derivatives[1])
    for n in range(1, _ORDER - 1):
        derivatives.append(-2.0 * points * derivatives[-1] - 2.0 * n * derivatives[-2])
    return np.stack([d / math.factorial(n) for n, d in enumerate(derivatives)], axis=1)


def erf64(x: Any) -> np.ndarray:
    """erf in float64 to 4 ulp: the Taylor series about the nearest multiple of 1/32."""
    x = np.asarray(x, np.float64)
    size = np.minimum(np.nan_to_num(np.abs(x), nan=0.0), _LAST)
    at = np.rint(size / _STEP).astype(np.intp)
    c, d = np.take(_taylor(), at, axis=0), size - at * _STEP
    total = c[..., _ORDER]
    for n in range(_ORDER - 1, -1, -1):
        total = total * d + c[..., n]
    return np.where(np.isnan(x), np.nan, np.copysign(total, x))
