"""What is computed of the inputs before the first dense layer, in float64 with bounds, written apart from ``maths``."""

from __future__ import annotations

from .bounds import Bounded


def scaling(x: Bounded, s: Bounded) -> Bounded:
    """Input by input, s x."""
    return x * s


def scaling_vjp(dh: Bounded, x: Bounded, s: Bounded) -> tuple[Bounded, Bounded]:
    """dX, and the terms of ds whose sum over examples it is."""
    return dh * s, x * dh
