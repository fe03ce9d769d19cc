"""A member's weights W_j = diag(s) W diag(r) in float64 with bounds, and what their derivative G gives.

Written apart from ``maths``, from BatchEnsemble's definition. Any order of the products, and of the sums.
"""

from __future__ import annotations

from .bounds import Bounded
from .operations import sum_over


def weights(W: Bounded, r: Bounded, s: Bounded | None) -> Bounded:
    """(n, k) from W (n, k), r (1, k), s (n, 1)."""
    return W * r if s is None else s * W * r


def vjp(G: Bounded, W: Bounded, r: Bounded, s: Bounded | None) -> tuple[Bounded, Bounded, Bounded | None]:
    """dW (n, k), dr (1, k), ds (n, 1) or None."""
    terms = W * G
    dr = sum_over(terms if s is None else s * terms, axis=0)
    return weights(G, r, s), dr, None if s is None else sum_over(terms * r, axis=1)
