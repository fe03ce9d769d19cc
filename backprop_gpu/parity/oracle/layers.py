"""The operations of a layer in float64 with bounds, written apart from ``maths``: activation, dropout, batch norm.

Names and parameters choose a formula (``"elu", {"alpha": 1.0}``), so that nothing of the package is needed. Arguments
are :class:`~.bounds.Bounded`; what a device recorded enters through ``Bounds.given``. The order of operations is that
of the published formula; a bound holds for any device that evaluates it so, in any order of summation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .bounds import U64, Bounded, Bounds
from .elementary import erf, exp, expm1, log1p, sigmoid, sqrt, tanh
from .operations import largest, maximum, minimum, sum_over, where

Parameters = Mapping[str, Any]


class Own(Protocol):
    """A formula that this file does not have: it says itself what it gives, with bounds, and needs Z for its vjp."""

    def value(self, B: Bounds, parameters: Parameters, z: Bounded) -> Bounded: ...

    def vjp(self, B: Bounds, parameters: Parameters, dA: Bounded, z: Bounded, a: Bounded) -> Bounded: ...

    def plain(self, z: np.ndarray) -> np.ndarray: ...


Name = str | Own

# -- activations ------------------------------------------------------------------------------------------------------

NEEDS_Z = ("gelu", "gelu_tanh", "silu", "softplus", "mish")
"""Activations whose derivative a = g(z) alone does not give."""


def _gelu_tanh_parts(B: Bounds, z: Bounded) -> tuple[Bounded, Bounded]:
    """tanh u and u'."""
    c, cubic = B.constant(math.sqrt(2.0 / math.pi)), B.constant(0.044715)
    u = c * (z + cubic * (z * z * z))
    near = minimum(maximum(z, -100.0), 100.0)  # beyond 100, 1 - tanh^2 is 0 in every precision
    return tanh(u), c * (1.0 + B.constant(3.0 * 0.044715) * (near * near))


SELU, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # lambda and alpha


def _softplus(z: Bounded) -> Bounded:
    return maximum(z, 0.0) + log1p(exp(-abs(z)))


def _phi(B: Bounds, z: Bounded) -> Bounded:
    return 0.5 * (1.0 + erf(z * B.constant(math.sqrt(0.5))))


def needs_z(name: Name, parameters: Parameters) -> bool:
    """Whether the vjp takes z: a = g(z) alone does not tell it."""
    return not isinstance(name, str) or name in NEEDS_Z or min(parameters.values(), default=0.0) < 0.0


def activation(B: Bounds, name: Name, parameters: Parameters, z: Bounded) -> Bounded:
    """g(z)."""
    if not isinstance(name, str):
        return name.value(B, parameters, z)
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
    if name == "selu":
        below = B.constant(SELU * SELU_ALPHA) * expm1(minimum(z, 0.0))
        return where(z > 0.0, B.constant(SELU) * z, below, B)
    if name == "mish":
        return z * tanh(_softplus(z))
    if name == "gelu":
        return z * _phi(B, z)
    if name == "gelu_tanh":
        return 0.5 * z * (1.0 + _gelu_tanh_parts(B, z)[0])
    if name == "silu":
        return z * sigmoid(z)
    if name == "softplus":
        return _softplus(z)
    if name == "softmax":
        e = exp(z - largest(z, axis=0))
        return e / sum_over(e, axis=0)
    if name == "exponential":
        return exp(z)
    raise LookupError(name)


def activating(name: Name, parameters: Parameters) -> Callable[[np.ndarray], np.ndarray]:
    """g as a function of float64 arrays, for hypotheses."""
    if not isinstance(name, str):
        return name.plain
    B = Bounds(
        "float64", u=U64, u_sum=U64, ulps=dict.fromkeys(("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt"), 4.0)
    )
    return lambda z: np.asarray(activation(B, name, parameters, B.given(z)).v)


def activation_vjp(
    B: Bounds, name: Name, parameters: Parameters, dA: Bounded, z: Bounded | None, a: Bounded
) -> Bounded:
    """dA g'(z), from a = g(z) where the formula is in a. A layer that keeps no z is known by the sign of a as well."""
    if not isinstance(name, str):
        assert z is not None, "needs_z"
        return name.vjp(B, parameters, dA, z, a)
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
    if name == "selu":
        return where(side > 0.0, B.constant(SELU) * dA, dA * (a + B.constant(SELU * SELU_ALPHA)), B)
    assert z is not None, name
    if name == "mish":
        t = tanh(_softplus(z))
        return dA * (t + z * (sigmoid(z) * (1.0 - t * t)))
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
    """dZ of a dropped unit is 0 times g': where g' is no number, a device may have 0 as well; neither is checked."""
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


# -- batch normalization ----------------------------------------------------------------------------------------------

# Statistics are of the examples of one pass, weighted as the cost is; z, x, du (n, m), w (1, m) in float64 or None.
EPSILON, MOMENTUM = 1e-5, 0.1


def shares(B: Bounds, m: int, w: np.ndarray | None) -> Bounded:
    """What each of m examples counts in a mean: 1/m, or w / sum w; 0 where all weights are 0."""
    if w is None:
        return B.constant(1.0 / m)
    if not w.any():
        return B.given(np.zeros_like(w))
    return B.given(w) / sum_over(B.given(w), axis=1)


def _counted(B: Bounds, x: Bounded, w: np.ndarray | None) -> Bounded:
    return x if w is None else where(np.broadcast_to(w != 0.0, x.shape), x, 0.0, B)


def moments(B: Bounds, z: Bounded, w: np.ndarray | None) -> tuple[Bounded, Bounded, Bounded]:
    """mu, var (n, 1) and z - mu (n, m), 0 for an example of weight 0."""
    share = shares(B, z.shape[1], w)
    mean = sum_over(_counted(B, z, w) * share, axis=1)
    d = _counted(B, z - mean, w)
    return mean, sum_over(d * d * share, axis=1), d


def inverse_std(B: Bounds, variance: Bounded) -> Bounded:
    """1/sqrt(var + eps)."""
    return 1.0 / sqrt(B.total(variance, EPSILON, same_sign=True))


def running(B: Bounds, old: Bounded, new: Bounded, w: np.ndarray | None) -> Bounded:
    """old + MOMENTUM (new - old), in either arrangement; old itself where all weights are 0."""
    if w is not None and not w.any():
        return old
    return B.total(old, MOMENTUM * new, -(MOMENTUM * old))


def batch_norm_vjp(
    B: Bounds, du: Bounded, x: Bounded, r: Bounded, gamma: Bounded, w: np.ndarray | None
) -> tuple[Bounded, Bounded]:
    """gamma r (dU - share (sum dU + X sum dU X)), and the terms dU X of dgamma."""
    terms = du * x
    mean = (sum_over(du, axis=1) + x * sum_over(terms, axis=1)) * shares(B, x.shape[1], w)
    return gamma * r * (du - mean), terms
