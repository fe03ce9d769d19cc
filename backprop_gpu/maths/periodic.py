"""Periodic embeddings of numbers: each column as a few mixed waves beside itself (PBLD).

A column x becomes [x, V cos(2 pi w x + b) + c]: periodic, with a bias, linear, densely connected. Every column has its
own frequencies w and phases b (h), mixing V (o, h) and offset c (o). Sources: Gorishniy, Rubachev & Babenko 2022, "On
embeddings for numerical features in tabular deep learning", equation 5; Holzmüller, Grinsztajn & Steinwart 2024,
section 3, whose code has b in radians, as here.

For J columns of X (J, m): w, b (J, h); V (J o, h), c (J o, 1), the outputs of one column after those of the other; P, Q
(J h, m), E (J o, m).
"""

from __future__ import annotations

import math

from .._typing import Array, Namespace

TWO_PI = 2.0 * math.pi


def waves(xp: Namespace, X: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """P = cos z and Q = dP/dz = -sin z, with z = 2 pi w x + b."""
    J, h = w.shape
    z = (TWO_PI * w)[:, :, None] * X[:, None, :] + b[:, :, None]
    z = xp.reshape(z, (J * h, X.shape[1]))
    return xp.cos(z), -xp.sin(z)


def periodic(xp: Namespace, X: Array, w: Array, b: Array, V: Array, c: Array) -> tuple[Array, Array, Array]:
    """E = V P + c for each column, with P and Q of :func:`waves`."""
    (J, h), m = w.shape, X.shape[1]
    P, Q = waves(xp, X, w, b)
    E = xp.matmul(xp.reshape(V, (J, -1, h)), xp.reshape(P, (J, h, m)))
    return xp.reshape(E, (V.shape[0], m)) + c, P, Q


def periodic_vjp(xp: Namespace, dE: Array, X: Array, P: Array, Q: Array, V: Array) -> tuple[Array, Array, Array, Array]:
    """dw, db, dV, dc; sums are over examples.

    dc = sum dE, dV = dE P^T; with dz = (V^T dE) Q, db = sum dz and dw = 2 pi sum dz x.
    """
    J, m = X.shape
    h, o = P.shape[0] // J, V.shape[0] // J
    of_columns = xp.reshape(dE, (J, o, m))
    dV = xp.matmul(of_columns, xp.matrix_transpose(xp.reshape(P, (J, h, m))))
    dz = xp.matmul(xp.matrix_transpose(xp.reshape(V, (J, o, h))), of_columns) * xp.reshape(Q, (J, h, m))
    dw = TWO_PI * xp.sum(dz * X[:, None, :], axis=2)
    return dw, xp.sum(dz, axis=2), xp.reshape(dV, (J * o, h)), xp.sum(dE, axis=1, keepdims=True)
