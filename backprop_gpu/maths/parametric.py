"""Parametric activations: each unit mixes an activation with the identity, A = Z + alpha (g(Z) - Z).

alpha (n, 1) is learnt, one number for each unit, and starts at 1, where A = g(Z); at 0 the unit is linear (Holzmüller,
Grinsztajn & Steinwart 2024, section 3: (1 - alpha) x + alpha sigma(x)). Z is (n, m), examples are columns.
"""

from __future__ import annotations

from .._typing import Array, Namespace
from .activations import Activation


def parametric(xp: Namespace, Z: Array, alpha: Array, g: Activation) -> tuple[Array, Array, Array]:
    """A = Z + alpha D, with what the backward pass needs: D = g(Z) - Z and S = g'(Z)."""
    G = g.forward(xp, Z)
    D, S = G - Z, g.vjp(xp, 0.0 * Z + 1.0, Z, G)
    return Z + alpha * D, D, S


def parametric_vjp(xp: Namespace, dA: Array, D: Array, S: Array, alpha: Array) -> tuple[Array, Array]:
    """dZ = dA (1 + alpha (S - 1)) and dalpha = sum over examples of dA D, (n, 1)."""
    return dA * (1.0 + alpha * (S - 1.0)), xp.sum(dA * D, axis=1, keepdims=True)
