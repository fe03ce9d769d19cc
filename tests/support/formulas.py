"""The operations of a training step in float64 with bounds, written apart from ``backprop_gpu.maths``.

Names and parameters choose a formula (``"elu", {"alpha": 1.0}``), so that nothing of the package is needed. Arguments
are :class:`~support.bounds.Bounded`; what a device recorded enters through ``Bounds.given``. The order of operations is
that of the published formula; a bound holds for any device that evaluates it so, in any order of summation.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from support.bounds import Bounded, Bounds

Parameters = Mapping[str, Any]

# -- activations --------------------------------------------------------------------------------------------------


def _sigmoid(B: Bounds, z: Bounded) -> Bounded:
    e = B.exp(-B.abs(z))
    return B.where(z > 0.0, 1.0, e) / (1.0 + e)


def _gelu_tanh_parts(B: Bounds, z: Bounded) -> tuple[Bounded, Bounded]:
    """tanh u and u'."""
    c, cubic = B.constant(math.sqrt(2.0 / math.pi)), B.constant(0.044715)
    u = c * (z + cubic * (z * z * z))
    # The slope is taken at most 100 out, where 1 - tanh^2 has long been 0 and z^2 does not overflow.
    near = B.minimum(B.maximum(z, -100.0), 100.0)
    return B.tanh(u), c * (1.0 + B.constant(3.0 * 0.044715) * (near * near))


def _phi(B: Bounds, z: Bounded) -> Bounded:
    return 0.5 * (1.0 + B.erf(z * B.constant(math.sqrt(0.5))))


def activation(B: Bounds, name: str, parameters: Parameters, z: Bounded) -> Bounded:
    """g(z)."""
    if name == "identity":
        return z
    if name == "sigmoid":
        return _sigmoid(B, z)
    if name == "tanh":
        return B.tanh(z)
    if name == "relu":
        return B.maximum(z, 0.0)
    if name == "leaky_relu":
        return B.where(z > 0.0, z, parameters["slope"] * z)
    if name == "elu":
        return B.where(z > 0.0, z, parameters["alpha"] * B.expm1(B.minimum(z, 0.0)))
    if name == "gelu":
        return z * _phi(B, z)
    if name == "gelu_tanh":
        return 0.5 * z * (1.0 + _gelu_tanh_parts(B, z)[0])
    if name == "silu":
        return z * _sigmoid(B, z)
    if name == "softplus":
        return B.maximum(z, 0.0) + B.log1p(B.exp(-B.abs(z)))
    if name == "softmax":
        e = B.exp(z - B.max(z, axis=0))
        return e / B.sum(e, axis=0)
    if name == "exponential":
        return B.exp(z)
    raise LookupError(name)


def activation_vjp(B: Bounds, name: str, parameters: Parameters, dA: Bounded, z: Bounded | None, a: Bounded) -> Bounded:
    """dA g'(z), from a = g(z) where the formula is in a. A relu layer that keeps no z is known by a > 0 as well."""
    if name == "identity":
        return dA
    if name == "sigmoid":
        return dA * (a * (1.0 - a))
    if name == "tanh":
        return dA * (1.0 - a * a)
    if name == "relu":
        return B.where((a if z is None else z) > 0.0, dA, 0.0)
    if name == "softmax":
        return a * (dA - B.sum(dA * a, axis=0))
    if name == "exponential":
        return dA * a
    assert z is not None, f"a kernel set must keep Z for {name}"
    if name == "leaky_relu":
        return B.where(z > 0.0, dA, parameters["slope"] * dA)
    if name == "elu":
        return B.where(z > 0.0, dA, dA * (a + parameters["alpha"]))
    if name == "gelu":
        density = B.exp(-0.5 * (z * z)) * B.constant(1.0 / math.sqrt(2.0 * math.pi))
        return dA * (_phi(B, z) + z * density)
    if name == "gelu_tanh":
        t, slope = _gelu_tanh_parts(B, z)
        return dA * (0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * slope)
    if name == "silu":
        s = _sigmoid(B, z)
        return dA * (s * (1.0 + z * (1.0 - s)))
    if name == "softplus":
        return dA * _sigmoid(B, z)
    raise LookupError(name)


# -- one layer ----------------------------------------------------------------------------------------------------


def affine(W: Bounded, A_prev: Bounded, b: Bounded) -> Bounded:
    """Z = W A_prev + b."""
    return W @ A_prev + b


def dropped(B: Bounds, x: Bounded, mask: np.ndarray | None, rate: float) -> Bounded:
    """x / (1 - rate) where the unit survives, else exactly 0; forward and backward are the same."""
    return x if mask is None else B.where(mask, x * B.constant(1.0 / (1.0 - rate)), 0.0)


def summed(B: Bounds, dZ: Bounded, scale: Bounded | None, old: Bounded | None) -> Bounded:
    """db = (old +) scale * row sums."""
    return _added(old, _scaled(scale, B.sum(dZ, axis=1)))


def weights_gradient(dZ: Bounded, A_prev: Bounded, scale: Bounded | None, old: Bounded | None) -> Bounded:
    """dW = (old +) scale * dZ A_prev^T."""
    return _added(old, _scaled(scale, dZ @ A_prev.T))


def _scaled(scale: Bounded | None, x: Bounded) -> Bounded:
    return x if scale is None else scale * x


def _added(old: Bounded | None, x: Bounded) -> Bounded:
    return x if old is None else old + x


def philox_mask(n: int, rate: float, seed: int, layer: int, step: int, examples: np.ndarray) -> np.ndarray:
    """Who survives, (n, m): Philox-4x32-10 (Salmon et al. 2011) in unsigned 64-bit words.

    Word u % 4 of counter (u // 4, example, layer, step) under the 64-bit key ``seed``, kept below (1 - rate) 2^32.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    blocks, columns = np.arange((n + 3) // 4)[:, None], np.asarray(examples, np.int64)[None, :]
    c = [x.astype(np.uint64) & low for x in np.broadcast_arrays(blocks, columns, np.int64(layer), np.int64(step))]
    key = [seed % 2**32, seed >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> half) ^ c[1] ^ np.uint64(key[0]), p1 & low, (p0 >> half) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    words = np.stack(c, axis=1).reshape(-1, columns.size)[:n]
    return words < np.uint64(round((1.0 - rate) * 2.0**32))


def revealed_state(
    B: Bounds,
    name: str,
    parameters: Parameters,
    revealed: Mapping[str, np.ndarray],
    A: np.ndarray,
    rate: float,
    W: Bounded,
    A_prev: Bounded,
    b: Bounded,
) -> tuple[Bounded | None, Bounded]:
    """z and a = g(z) of a layer for its vjp: as the kernel set keeps them, else worked out with their own bound.

    A set that keeps neither finds g' from A (before dropout), or with g: z is then known to its own bound alone.
    """
    if "Z" in revealed:
        return B.given(revealed["Z"]), B.given(revealed.get("G", A))
    if not rate and name in ("identity", "relu", "tanh", "sigmoid"):
        return None, B.given(A)
    z = affine(W, A_prev, b)
    if "G" in revealed:
        return z, B.given(revealed["G"])
    return z, activation(B, name, parameters, z) if rate else B.given(A)


# -- batch normalization -------------------------------------------------------------------------------------------


def shares(B: Bounds, m: int, w: np.ndarray | None) -> Bounded:
    """1/m, or w / sum w; 0 where all weights are 0."""
    if w is None:
        return B.constant(1.0 / m)
    return B.given(w) / B.sum(B.given(w), axis=1) if w.any() else B.given(0.0 * w)


def moments(B: Bounds, z: Bounded, w: np.ndarray | None) -> tuple[Bounded, Bounded, Bounded]:
    """mu, var (n, 1) and z - mu, which is 0 for an example of weight 0."""

    def counted(x: Bounded) -> Bounded:
        return x if w is None else B.where(np.broadcast_to(w == 0.0, x.shape), 0.0, x)

    share = shares(B, z.shape[1], w)
    mean = B.sum(counted(z) * share, axis=1)
    d = counted(z - mean)
    return mean, B.sum(d * d * share, axis=1), d


def inverse_std(B: Bounds, variance: Bounded) -> Bounded:
    """1/sqrt(var + 1e-5)."""
    return B.over(1.0, B.sqrt(variance + 1e-5))


def batch_norm_vjp(
    B: Bounds, du: Bounded, x: Bounded, r: Bounded, gamma: Bounded, w: np.ndarray | None
) -> tuple[Bounded, Bounded]:
    """dZ and sum dU X."""
    total, along = B.sum(du, axis=1), B.sum(du * x, axis=1)
    return gamma * r * (du - (total + x * along) * shares(B, x.shape[1], w)), along


# -- losses -------------------------------------------------------------------------------------------------------

LINKS = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax", "poisson": "exponential"}


def one_hot(labels: np.ndarray, n: int) -> np.ndarray:
    """(1, m) labels as (n, m) columns."""
    return np.where(np.arange(n)[:, None] == labels, 1.0, 0.0)


def spans(parameters: Parameters) -> list[slice]:
    """The rows of each label of a grouped loss."""
    ends = np.cumsum(parameters["groups"])
    return [slice(end - n, end) for end, n in zip(ends, parameters["groups"], strict=True)]


def _smoothed(B: Bounds, parameters: Parameters, y: Bounded, classes: int) -> Bounded:
    s = parameters.get("label_smoothing", 0.0)
    return y if s == 0.0 else B.constant(1.0 - s) * y + B.constant(s / classes)


def _tilted(B: Bounds, parameters: Parameters, d: Bounded, x: Bounded) -> Bounded:
    """(1 - q) x where d > 0, else q x; row i has quantile i mod K."""
    q = np.resize(parameters["quantiles"], d.shape[0])[:, None]
    return B.where(d > 0.0, B.rounded(1.0 - q, 0.0) * x, B.rounded(q, 0.0) * x)


def loss_value(B: Bounds, name: str, parameters: Parameters, z: Bounded, y: Bounded) -> Bounded:
    """L (1, m): one number per example."""
    if name == "binary_cross_entropy":
        return B.sum((B.maximum(z, 0.0) - z * _smoothed(B, parameters, y, 2)) + B.log1p(B.exp(-B.abs(z))), axis=0)
    if name == "categorical_cross_entropy":
        s = z - B.max(z, axis=0)
        return B.sum(_smoothed(B, parameters, y, y.shape[0]) * (B.log(B.sum(B.exp(s), axis=0)) - s), axis=0)
    if name == "grouped_cross_entropy":
        parts = [loss_value(B, "categorical_cross_entropy", parameters, z[g], y[g]) for g in spans(parameters)]
        return functools.reduce(operator.add, parts)
    if name == "squared_error":
        d = z - y
        return B.sum(d * d, axis=0) * B.constant(0.5 / z.shape[0])
    each = B.constant(1.0 / z.shape[0])
    if name == "absolute_error":
        return B.sum(B.abs(z - y), axis=0) * each
    if name == "huber":
        size = B.abs(z - y)
        c = B.minimum(size, parameters["threshold"])
        return B.sum(c * (size - 0.5 * c), axis=0) * each
    if name == "quantile":
        return B.sum(_tilted(B, parameters, z - y, B.abs(z - y)), axis=0) * each
    if name == "poisson":
        entropy = y * B.log(B.maximum(y, B.eta)) - y
        return B.sum(B.exp(z) - y * z + entropy, axis=0) * each
    raise LookupError(name)


def loss_delta(B: Bounds, name: str, parameters: Parameters, z: Bounded, y: Bounded) -> Bounded:
    """dL/dZ (n_L, m)."""
    if name == "binary_cross_entropy":
        return _sigmoid(B, z) - _smoothed(B, parameters, y, 2)
    if name == "categorical_cross_entropy":
        t = _smoothed(B, parameters, y, y.shape[0])
        return activation(B, "softmax", {}, z) * B.sum(t, axis=0) - t
    each = B.constant(1.0 / z.shape[0])
    if name == "squared_error":
        return (z - y) * each
    if name == "absolute_error":
        return B.sign(z - y) * each
    if name == "huber":
        return B.minimum(B.maximum(z - y, -parameters["threshold"]), parameters["threshold"]) * each
    if name == "quantile":
        return _tilted(B, parameters, z - y, B.sign(z - y)) * each
    if name == "poisson":
        return (B.exp(z) - y) * each
    raise LookupError(name)


def loss_literal(B: Bounds, name: str, parameters: Parameters, a: Bounded, y: Bounded) -> Bounded:
    """dL/dAL (n_L, m) as it is written on paper, guarded against a division by 0."""
    if name == "binary_cross_entropy":
        y = _smoothed(B, parameters, y, 2)
        return -(y / B.maximum(a, B.eta) - (1.0 - y) / B.maximum(1.0 - a, B.eta))
    if name == "categorical_cross_entropy":
        return -(_smoothed(B, parameters, y, y.shape[0]) / B.maximum(a, B.eta))
    if name == "poisson":
        guard = B.maximum(y, 1.0) * (4.0 * B.eta)
        return (1.0 - y / B.maximum(a, guard)) * B.constant(1.0 / a.shape[0])
    return loss_delta(B, name, parameters, a, y)


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

    def weighted(x: Bounded) -> Bounded:
        x = x if w is None else B.where(w == 0.0, 0.0, B.given(w) * x)
        return x if early is None else x * early

    if loss == "grouped_cross_entropy":
        one = "categorical_cross_entropy", parameters, form
        parts = [output_delta(B, *one, z[g], y[g], w, early) for g in spans(parameters)]
        return Bounded(*(np.concatenate([getattr(part, x) for part in parts]) for x in ("v", "e")), B)
    if form == "fused":
        return weighted(loss_delta(B, loss, parameters, z, y))
    link = LINKS.get(loss, "identity")
    a = activation(B, link, {}, z)
    dZ = activation_vjp(B, link, {}, weighted(loss_literal(B, loss, parameters, a, y)), z, a)
    return dZ if w is None else B.where(w == 0.0, 0.0, dZ)


def cost(
    B: Bounds,
    loss: str,
    parameters: Parameters,
    z: Bounded,
    y: Bounded,
    w: np.ndarray | None,
    inverse: Bounded,
    old: Bounded,
) -> Bounded:
    """value = old + (1/D) sum of w L."""
    each = loss_value(B, loss, parameters, z, y)
    each = each if w is None else B.where(w == 0.0, 0.0, B.given(w) * each)
    return old + inverse * B.sum(each)
