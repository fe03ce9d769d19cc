"""Penalties on the weights (never on biases), inverted dropout, and clipping by the global norm."""

from __future__ import annotations

from .._typing import Array, Namespace
from .random import philox_words


def l2(xp: Namespace, theta: Array, strength: Array | float) -> Array:
    """strength/2 * sum theta^2 (course 2, week 1; strength = lambda / D)."""
    return xp.sum(theta * theta) * (0.5 * strength)


def l2_grad(xp: Namespace, theta: Array, strength: Array | float) -> Array:
    """strength * theta."""
    return strength * theta


def l1(xp: Namespace, theta: Array, strength: Array | float) -> Array:
    """strength * sum |theta| (Tibshirani 1996)."""
    return xp.sum(xp.abs(theta)) * strength


def l1_grad(xp: Namespace, theta: Array, strength: Array | float) -> Array:
    """strength * sign(theta), 0 at 0."""
    return strength * xp.sign(theta)


def dropout_mask(
    xp: Namespace, n: int, rate: float, seed: int, layer: int, quads: Array, examples: Array, step: Array, first: Array
) -> Array:
    """The units that survive: booleans (n, m), each kept with probability 1 - rate.

    A counter-based draw: unit u of example e is kept where word u mod 4 of Philox(key = seed; counter = (u // 4,
    position of e in the global batch, layer, step)) is below (1 - rate) 2^32. The same bits therefore come out on every
    device and for every split of the batch.

    Parameters
    ----------
    quads : (ceil(n/4), 1) int64
        0, 1, 2, ...
    examples : (1, m) int64
        0, 1, ..., m - 1: positions within this micro-batch.
    step, first : (1,) int64
        Optimizer step, and the position of this micro-batch's first example in the global batch.
    """
    keep = round((1.0 - rate) * 2**32)
    words = philox_words(xp, seed, (quads, examples + first, layer, step))
    kept = xp.stack([xp.less(w, keep) for w in words], axis=1)  # (quads, 4, m)
    return xp.reshape(kept, (-1, kept.shape[2]))[:n, :]


def dropout(xp: Namespace, A: Array, mask: Array, rate: float) -> Array:
    """A * mask / (1 - rate): inverted dropout, so that nothing changes at prediction (Srivastava et al. 2014)."""
    return xp.where(mask, A * (1.0 / (1.0 - rate)), 0.0)


def dropout_vjp(xp: Namespace, dA: Array, mask: Array, rate: float) -> Array:
    """dA * mask / (1 - rate)."""
    return xp.where(mask, dA * (1.0 / (1.0 - rate)), 0.0)


def clip_factor(xp: Namespace, norm: Array, max_norm: float) -> Array:
    """min(1, max_norm / norm): what the whole gradient is multiplied with (Pascanu, Mikolov & Bengio 2013)."""
    return xp.where(xp.greater(norm, max_norm), max_norm / xp.maximum(norm, max_norm), 1.0)
