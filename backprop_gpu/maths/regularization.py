"""Penalties on the weights (never on biases), inverted dropout, and clipping by the global norm."""

from __future__ import annotations

import math

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


def norm_scale(xp: Namespace, top: Array) -> Array:
    """A power of two that numbers of at most ``top`` are multiplied with before they are squared and added up.

    It is 1 unless the squares might overflow, or vanish (Blue 1978, "A portable Fortran program to find the Euclidean
    norm of a vector"). With the exponent range e of the dtype (128 or 1024), 2^(e/4) squares may be added up.
    """
    e = math.frexp(float(xp.finfo(top.dtype).max))[1]
    large, down, small, up = 2.0 ** (3 * e // 8), 2.0 ** (-5 * e // 8), 2.0 ** (-3 * e // 8), 2.0 ** (3 * e // 4)
    # minimum and maximum give arrays of what they are compared with, wherever they are chosen.
    raised = xp.where(xp.less(top, small), xp.maximum(top, up), 1.0)
    return xp.where(xp.greater(top, large), xp.minimum(top, down), raised)


def scaled_norm(xp: Namespace, grad: Array) -> tuple[Array, Array]:
    """(root, scale): |grad|_2 = root / scale, of which root neither overflows nor underflows where grad is finite."""
    scale = norm_scale(xp, xp.max(xp.abs(grad)))
    scaled = grad * scale
    return xp.sqrt(xp.sum(scaled * scaled)), scale


def clip_factor(xp: Namespace, root: Array, max_norm: float, scale: Array | float = 1.0) -> Array:
    """min(1, max_norm / norm), norm = root / scale: what the whole gradient is multiplied with.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1. It is right where norm itself is too large a number.
    """
    over = xp.greater(root / scale, max_norm)
    return xp.where(over, max_norm / xp.where(over, root, 1.0) * scale, 1.0)
