"""The operations of a layer and of the losses in float64 with bounds, written apart from ``maths``.

Names and parameters choose a formula (``"elu", {"alpha": 1.0}``), so that nothing of the package is needed. Arguments
are :class:`~.bounds.Bounded`; what a device recorded enters through ``Bounds.given``. The order of operations is that
of the published formula; a bound holds for any device that evaluates it so, in any order of summation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .bounds import U64, Bounded, Bounds, joined, largest, maximum, minimum, sign, sum_over, where
from .elementary import erf, exp, expm1, log, log1p, sigmoid, tanh

Parameters = Mapping[str, Any]

# -- activations ------------------------------------------------------------------------------------------------------

NEEDS_Z = ("gelu", "gelu_tanh", "silu", "softplus")
"""Activations whose derivative a = g(z) alone does not give."""


def _gelu_tanh_parts(B: Bounds, z: Bounded) -> tuple[Bounded, Bounded]:
    """tanh u and u'."""
    c, cubic = B.constant(math.sqrt(2.0 / math.pi)), B.constant(0.044715)
    u = c * (z + cubic * (z * z * z))
    near = minimum(maximum(z, -100.0), 100.0)  # beyond 100, 1 - tanh^2 is 0 in every precision
    return tanh(u), c * (1.0 + B.constant(3.0 * 0.044715) * (near * near))


def _phi(B: Bounds, z: Bounded) -> Bounded:
    return 0.5 * (1.0 + erf(z * B.constant(math.sqrt(0.5))))


def activation(B: Bounds, name: str, parameters: Parameters, z: Bounded) -> Bounded:
    """g(z)."""
    if name == "identity":
        return z
    if name == "sigmoid":
        return sigmoid(z)
    if name == "tanh":
        return tanh(z)
    if name == "relu":
        return maximum(z, 0.0)
    if name == "leaky_relu":
        return where(z > 0.0, z, parameters["slope"] * z, B)
    if name == "elu":
        return where(z > 0.0, z, parameters["alpha"] * expm1(minimum(z, 0.0)), B)
    if name == "gelu":
        return z * _phi(B, z)
    if name == "gelu_tanh":
        return 0.5 * z * (1.0 + _gelu_tanh_parts(B, z)[0])
    if name == "silu":
        return z * sigmoid(z)
    if name == "softplus":
        return maximum(z, 0.0) + log1p(exp(-abs(z)))
    if name == "softmax":
        e = exp(z - largest(z, axis=0))
        return e / sum_over(e, axis=0)
    if name == "exponential":
        return exp(z)
    raise LookupError(name)


def activating(name: str, parameters: Parameters) -> Callable[[np.ndarray], np.ndarray]:
    """g as a function of float64 arrays, for hypotheses."""
    B = Bounds(
        "float64", u=U64, u_sum=U64, ulps=dict.fromkeys(("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt"), 4.0)
    )
    return lambda z: np.asarray(activation(B, name, parameters, B.given(z)).v)


def activation_vjp(B: Bounds, name: str, parameters: Parameters, dA: Bounded, z: Bounded | None, a: Bounded) -> Bounded:
    """dA g'(z), from a = g(z) where the formula is in a. A layer that keeps no z is known by the sign of a as well."""
    side = a if z is None else z
    if name == "identity":
        return dA
    if name == "sigmoid":
        return dA * (a * (1.0 - a))
    if name == "tanh":
        return dA * (1.0 - a * a)
    if name == "relu":
        return where(side > 0.0, dA, 0.0, B)
    if name == "softmax":
        return a * (dA - sum_over(dA * a, axis=0))
    if name == "exponential":
        return dA * a
    if name == "leaky_relu":
        return where(side > 0.0, dA, parameters["slope"] * dA, B)
    if name == "elu":
        return where(side > 0.0, dA, dA * (a + parameters["alpha"]), B)
    assert z is not None, name
    if name == "gelu":
        density = exp(-0.5 * (z * z)) * B.constant(1.0 / math.sqrt(2.0 * math.pi))
        return dA * (_phi(B, z) + z * density)
    if name == "gelu_tanh":
        t, slope = _gelu_tanh_parts(B, z)
        return dA * (0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * slope)
    if name == "silu":
        s = sigmoid(z)
        return dA * (s * (1.0 + z * (1.0 - s)))
    if name == "softplus":
        return dA * sigmoid(z)
    raise LookupError(name)


# -- one layer --------------------------------------------------------------------------------------------------------


def dropped(B: Bounds, x: Bounded, mask: np.ndarray | None, rate: float) -> Bounded:
    """x / (1 - rate) where the unit survives, else exactly 0; forward and backward are the same."""
    return x if mask is None else where(mask, x * B.constant(1.0 / (1.0 - rate)), 0.0, B)


def undropped(B: Bounds, a: Bounded, rate: float) -> Bounded:
    """What x was before it became a = x / (1 - rate), from the rounded a of a unit that survives."""
    return a / B.constant(1.0 / (1.0 - rate))


def stopped(B: Bounds, dZ: Bounded, mask: np.ndarray | None) -> Bounded:
    """dZ of a dropped unit is 0 times g': where g' is no number, a device may have 0 as well; neither is judged."""
    lost = None if mask is None else ~mask & ~np.isfinite(dZ.v)
    if lost is None or not lost.any():
        return dZ
    return Bounded(B, np.where(lost, 0.0, dZ.v), math.inf, e=np.where(lost, math.inf, dZ.error()))


def philox_mask(n: int, rate: float, seed: int, layer: int, step: int, examples: np.ndarray) -> np.ndarray:
    """Who survives, (n, m): Philox-4x32-10 (Salmon et al. 2011) in unsigned 64-bit words.

    Word u % 4 of counter (u // 4, example, layer, step) under the 64-bit key ``seed``, kept below (1 - rate) 2^32.
    """
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    shape = ((n + 3) // 4, len(examples))
    blocks = np.broadcast_to(np.arange(shape[0], dtype=np.uint64)[:, None], shape)
    c = [blocks, *(np.broadcast_to(np.asarray(x, np.uint64) & low, shape) for x in (examples, layer, step))]
    key = [seed % 2**32, seed >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(key[0]), p1 & low, (p0 >> shift) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    words = np.stack(c, axis=1).reshape(-1, len(examples))[:n]
    return words < np.uint64(round((1.0 - rate) * 2.0**32))


# -- losses -----------------------------------------------------------------------------------------------------------

LINKS = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax", "poisson": "exponential"}


def one_hot(labels: np.ndarray, n: int) -> np.ndarray:
    """(1, m) labels as (n, m) columns."""
    return np.where(np.arange(n)[:, None] == labels, 1.0, 0.0)


def _smoothed(B: Bounds, parameters: Parameters, y: Bounded, classes: int) -> Bounded:
    s = parameters.get("label_smoothing", 0.0)
    if s == 0.0:
        return y
    return B.total(B.constant(1.0 - s) * y, B.constant(s / classes), same_sign=True)


def _tilted(B: Bounds, parameters: Parameters, d: Bounded, of: Callable[[Bounded], Bounded]) -> Bounded:
    """(1 - q) of(d) where d > 0, else q of(d); row i has quantile i mod K."""
    q = np.resize(np.array(parameters["quantiles"], np.float64), d.shape[0])[:, None]
    above, below = (Bounded(B, v, 1.0, r=B.rounding) for v in (1.0 - q, q))
    return where(d > 0.0, above * of(d), below * of(d), B)


def _groups(parameters: Parameters, z: Bounded, y: Bounded) -> Iterator[tuple[Bounded, Bounded]]:
    """The rows of z and y that belong to one label, label by label."""
    ends = np.cumsum(parameters["groups"])
    for end, size in zip(ends, parameters["groups"], strict=True):
        yield z[end - size : end], y[end - size : end]


def loss_value(B: Bounds, name: str, parameters: Parameters, z: Bounded, y: Bounded) -> Bounded:
    """L (1, m): one number per example."""
    if name == "binary_cross_entropy":
        zt = z * _smoothed(B, parameters, y, 2)
        return sum_over(B.total(maximum(z, 0.0), -zt, log1p(exp(-abs(z)))), axis=0)
    if name == "categorical_cross_entropy":
        s = z - largest(z, axis=0)
        return sum_over(_smoothed(B, parameters, y, y.shape[0]) * (log(sum_over(exp(s), axis=0)) - s), axis=0)
    if name == "grouped_cross_entropy":
        parts = _groups(parameters, z, y)
        return B.total(*(loss_value(B, "categorical_cross_entropy", parameters, *part) for part in parts))
    each = B.constant(1.0 / z.shape[0])
    if name == "squared_error":
        d = z - y
        return sum_over(d * d, axis=0) * B.constant(0.5 / z.shape[0])
    if name == "absolute_error":
        return sum_over(abs(z - y), axis=0) * each
    if name == "huber":
        size = abs(z - y)
        c = minimum(size, parameters["threshold"])
        return sum_over(c * (size - 0.5 * c), axis=0) * each
    if name == "quantile":
        return sum_over(_tilted(B, parameters, z - y, abs), axis=0) * each
    if name == "poisson":
        return sum_over(B.total(exp(z), -(y * z), y * log(maximum(y, B.eta)), -y), axis=0) * each
    raise LookupError(name)


def loss_delta(B: Bounds, name: str, parameters: Parameters, z: Bounded, y: Bounded) -> Bounded:
    """dL/dZ (n_L, m)."""
    if name == "binary_cross_entropy":
        return sigmoid(z) - _smoothed(B, parameters, y, 2)
    if name == "categorical_cross_entropy":
        t = _smoothed(B, parameters, y, y.shape[0])
        return activation(B, "softmax", {}, z) * sum_over(t, axis=0) - t
    if name == "grouped_cross_entropy":
        one = "categorical_cross_entropy", parameters
        return joined(np.concatenate, [loss_delta(B, *one, *part) for part in _groups(parameters, z, y)])
    each = B.constant(1.0 / z.shape[0])
    if name == "squared_error":
        return (z - y) * each
    if name == "absolute_error":
        return sign(z - y) * each
    if name == "huber":
        return minimum(maximum(z - y, -parameters["threshold"]), parameters["threshold"]) * each
    if name == "quantile":
        return _tilted(B, parameters, z - y, sign) * each
    if name == "poisson":
        return (exp(z) - y) * each
    raise LookupError(name)


def _guarded(y: Bounded, a: Bounded, guard: np.ndarray | float) -> Bounded:
    """y / max(a, guard): off by no more than from the smallest to the largest divisor there may be."""
    B, error = y.bounds, a.error()
    least, divisor = np.maximum(a.v - error, guard), np.maximum(a.v, guard)
    v = y.v / divisor
    e = np.abs(y.v) / least - np.abs(v) + y.error() / least
    return Bounded(B, v, float(np.max(np.abs(v))), r=2.0 * B.rounding, a=B.eta, e=e)


def literal_delta(
    B: Bounds, name: str, parameters: Parameters, z: Bounded, y: Bounded, factors: list[Bounded]
) -> Bounded:
    """dZ = (dL/dAL, weighted) g'(Z) as it is written on paper; 1/AL is guarded where AL may be 0.

    For two classes -(Y/A - (1 - Y)/(1 - A)) A (1 - A) = (1 - Y) A - Y (1 - A), in which the device's own A cancels:
    what is left are ten roundings and the error of A. Where A or 1 - A may be 0, the guard makes dZ there 0 instead.
    """
    if name == "binary_cross_entropy":
        a = sigmoid(z)
        rest, y = sigmoid(-z), _smoothed(B, parameters, y, 2)
        away = 1.0 - y
        v, size = away.v * a.v - y.v * rest.v, np.abs(away.v) * a.v + np.abs(y.v) * rest.v
        e = B.gamma(10) * size + (np.abs(away.v) + np.abs(y.v)) * a.error() + (a.v + rest.v) * y.error()
        silent = (rest.v <= a.error() + 2.0 * B.u) | (a.v <= a.error() + B.eta)
        dZ = Bounded(B, v, float(np.max(np.abs(v))), a=B.eta, e=np.where(silent, np.maximum(e, np.abs(v)), e))
        for factor in factors:
            dZ = dZ * factor
        return dZ
    if name == "grouped_cross_entropy":
        parts = _groups(parameters, z, y)
        return joined(
            np.concatenate,
            [literal_delta(B, "categorical_cross_entropy", parameters, *part, factors) for part in parts],
        )
    a = activation(B, LINKS.get(name, "identity"), {}, z)
    if name == "categorical_cross_entropy":
        dA = -_guarded(_smoothed(B, parameters, y, y.shape[0]), a, B.eta)
    elif name == "poisson":
        dA = (1.0 - _guarded(y, a, np.maximum(y.v, 1.0) * 4.0 * B.eta)) * B.constant(1.0 / z.shape[0])
    else:
        dA = loss_delta(B, name, parameters, a, y)
    for factor in factors:
        dA = dA * factor
    return activation_vjp(B, LINKS.get(name, "identity"), {}, dA, z, a)


def output_delta(
    B: Bounds,
    loss: str,
    parameters: Parameters,
    form: str,
    z: Bounded,
    y: Bounded,
    w: np.ndarray | None,
    early: Bounded | None,
) -> Bounded:
    """dZ[L]: w dL/dZ, times ``early``; an example of weight 0 gives exactly 0."""
    factors = [f for f in (None if w is None else B.given(w), early) if f is not None]
    if form == "literal":
        dZ = literal_delta(B, loss, parameters, z, y, factors)
    else:
        dZ = loss_delta(B, loss, parameters, z, y)
        for factor in factors:
            dZ = factor * dZ
    return dZ if w is None else where(w == 0.0, 0.0, dZ, B)


def weighted_loss(
    B: Bounds, loss: str, parameters: Parameters, z: Bounded, y: Bounded, w: np.ndarray | None
) -> Bounded:
    """w L, (1, m); an example of weight 0 gives exactly 0."""
    each = loss_value(B, loss, parameters, z, y)
    return each if w is None else where(w == 0.0, 0.0, B.given(w) * each, B)


def cost(each: Bounded, inverse: Bounded, old: Bounded) -> Bounded:
    """value = old + (1/D) sum of w L."""
    return old + inverse * sum_over(each)
