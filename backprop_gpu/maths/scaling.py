"""The scaling layer before the first dense layer: one learnable number per input.

H = s * X with s (k, 1) and X (k, m): a diagonal weight matrix, which learns which inputs matter (Holzmüller, Grinsztajn
& Steinwart 2024, "Better by default", section 3). It starts at 1.
"""

from __future__ import annotations

from .._typing import Array, Namespace


def scaling(X: Array, s: Array) -> Array:
    """H = s * X: (k, m), (k, 1) -> (k, m)."""
    return s * X


def scaling_vjp(xp: Namespace, dH: Array, X: Array, s: Array) -> tuple[Array, Array]:
    """dX = s * dH and ds = sum over examples of dH * X, (k, 1)."""
    return s * dH, xp.sum(dH * X, axis=1, keepdims=True)
