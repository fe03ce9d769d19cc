"""Parametric activations in float64 with bounds, written apart from ``maths``: z (n, m), alpha (n, 1)."""

from __future__ import annotations

import numpy as np

from .bounds import Bounded, Bounds
from .layers import Name, Parameters, activation, activation_vjp


def difference(B: Bounds, name: Name, parameters: Parameters, z: Bounded) -> Bounded:
    """D = g(z) - z."""
    return activation(B, name, parameters, z) - z


def slope(B: Bounds, name: Name, parameters: Parameters, z: Bounded) -> Bounded:
    """S = g'(z)."""
    return activation_vjp(B, name, parameters, B.given(np.ones(z.shape)), z, activation(B, name, parameters, z))


def mixed(z: Bounded, alpha: Bounded, d: Bounded) -> Bounded:
    """z + alpha D."""
    return z + alpha * d


def vjp(da: Bounded, d: Bounded, s: Bounded, alpha: Bounded) -> tuple[Bounded, Bounded]:
    """dZ = dA (1 + alpha (S - 1)), and the terms of dalpha."""
    return da * (1.0 + alpha * (s - 1.0)), d * da
