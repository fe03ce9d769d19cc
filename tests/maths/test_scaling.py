"""The scaling layer: by hand, and its derivative by the complex step."""

from __future__ import annotations

import numpy as np

from backprop_gpu.maths.scaling import scaling, scaling_vjp

RNG = np.random.default_rng(0)


def test_by_hand() -> None:
    X, s = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0], [-1.0]])
    np.testing.assert_array_equal(scaling(X, s), [[10.0, 20.0], [-3.0, -4.0]])
    dX, ds = scaling_vjp(np, np.array([[1.0, 1.0], [0.5, -0.5]]), X, s)
    np.testing.assert_array_equal(dX, [[10.0, 10.0], [-0.5, 0.5]])
    np.testing.assert_array_equal(ds, [[3.0], [-0.5]])


def test_the_vjp_is_the_derivative() -> None:
    X, s, dH = RNG.standard_normal((4, 9)), RNG.standard_normal((4, 1)), RNG.standard_normal((4, 9))
    dX, ds = scaling_vjp(np, dH, X, s)
    for x, d, other in ((X, dX, lambda moved: scaling(moved, s)), (s, ds, lambda moved: scaling(X, moved))):
        for at in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[at] += 1e-30j
            assert abs(np.imag(np.sum(dH * other(moved))) / 1e-30 - d[at]) <= 1e-15 * np.sum(np.abs(dH))
