"""The losses in float64 with bounds: value, derivative (fused and literal) and cost, written apart from ``maths``.

Names and parameters choose a formula, as in ``layers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .bounds import Bounded, Bounds
from .elementary import exp, log, log1p, sigmoid
from .layers import Parameters, activation, activation_vjp
from .operations import joined, largest, maximum, minimum, sign, sum_over, where

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
        one = "categorical_cross_entropy", parameters
        return joined(np.concatenate, [literal_delta(B, *one, *part, factors) for part in _groups(parameters, z, y)])
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
