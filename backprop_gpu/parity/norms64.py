"""Batch normalization in float64 with bounds, written apart from ``maths``; see ``formulas64`` for the arguments.

Statistics are of the examples of one pass, weighted as the cost is; z, x, du (n, m), w (1, m) in float64 or None.
"""

from __future__ import annotations

import numpy as np

from .bounds import Bounded, Bounds, sum_over, where
from .elementary import sqrt

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
