"""Periodic embeddings: by hand, as the papers' formula column by column, and their derivatives by the complex step."""

from __future__ import annotations

import math

import numpy as np

from backprop_gpu.maths.periodic import periodic, periodic_vjp

RNG = np.random.default_rng(0)
J, H, O, M = 3, 4, 2, 7
X, w, b = RNG.standard_normal((J, M)), RNG.standard_normal((J, H)), RNG.standard_normal((J, H))
V, c, dE = RNG.standard_normal((J * O, H)), RNG.standard_normal((J * O, 1)), RNG.standard_normal((J * O, M))


def test_by_hand() -> None:
    """One column and one wave: at w x = 1/4 the cosine is 0 and falls, at 1/2 it is -1."""
    E, P, Q = periodic(
        np, np.array([[1.0, 2.0]]), np.array([[0.25]]), np.zeros((1, 1)), np.array([[3.0]]), np.ones((1, 1))
    )
    np.testing.assert_allclose(P, [[0.0, -1.0]], atol=1e-15)
    np.testing.assert_allclose(Q, [[-1.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(E, [[1.0, -2.0]], atol=1e-15)


def test_it_is_the_formula_of_each_column() -> None:
    E, _, _ = periodic(np, X, w, b, V, c)
    for j in range(J):
        for e in range(M):
            waves = np.cos(2.0 * math.pi * w[j] * X[j, e] + b[j])
            np.testing.assert_allclose(
                E[j * O : (j + 1) * O, e], V[j * O : (j + 1) * O] @ waves + c[j * O : (j + 1) * O, 0]
            )


def test_the_vjp_is_the_derivative() -> None:
    given = {"w": w, "b": b, "V": V, "c": c}
    _, P, Q = periodic(np, X, **given)
    for (name, x), d in zip(given.items(), periodic_vjp(np, dE, X, P, Q, V), strict=True):
        assert d.shape == x.shape
        for at in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[at] += 1e-30j
            found = np.imag(np.sum(dE * periodic(np, X, **given | {name: moved})[0])) / 1e-30
            assert abs(found - d[at]) <= 1e-14 * np.sum(np.abs(dE)) * max(1.0, float(np.abs(V).max())), (name, at)
