"""What is computed of the inputs before the first dense layer, in float64 with bounds, written apart from ``maths``."""

from __future__ import annotations

import math

from .bounds import Bounded, Bounds
from .elementary import cos, sin


def scaling(x: Bounded, s: Bounded) -> Bounded:
    """Input by input, s x."""
    return x * s


def scaling_vjp(dh: Bounded, x: Bounded, s: Bounded) -> tuple[Bounded, Bounded]:
    """dX, and the terms of ds whose sum over examples it is."""
    return dh * s, x * dh


# Periodic embeddings, of one column: x (1, m); w, b (h, 1), V (o, h), c (o, 1); dE (o, m), P, Q (h, m).


def waves(B: Bounds, x: Bounded, w: Bounded, b: Bounded) -> tuple[Bounded, Bounded]:
    """cos z and -sin z, z = 2 pi w x + b."""
    z = B.constant(2.0 * math.pi) * w * x + b
    return cos(z), -sin(z)


def wave_terms(B: Bounds, dz: Bounded, x: Bounded) -> tuple[Bounded, Bounded]:
    """The terms of dw and of db, whose sums over examples they are."""
    return B.constant(2.0 * math.pi) * (dz * x), dz
