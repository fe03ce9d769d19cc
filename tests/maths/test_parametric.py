"""Parametric activations: their ends by hand, and their derivatives by the complex step."""

from __future__ import annotations

import numpy as np
import pytest

from backprop_gpu.gradcheck.complex_step import ComplexStepNamespace
from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation
from backprop_gpu.maths.parametric import parametric, parametric_vjp

RNG = np.random.default_rng(0)
Z, alpha, dA = RNG.standard_normal((4, 9)), RNG.uniform(-0.5, 1.5, (4, 1)), RNG.standard_normal((4, 9))
HIDDEN = [a for a in ACTIVATIONS.values() if not a.output_only]


def test_from_the_identity_to_the_activation() -> None:
    g, of = get_activation("tanh"), np.array([[0.0], [1.0], [0.5], [2.0]])
    A, _, _ = parametric(np, Z, of, g)
    np.testing.assert_array_equal(A[0], Z[0])
    np.testing.assert_allclose(A[1], np.tanh(Z[1]), rtol=1e-14)
    np.testing.assert_allclose(A[2], (Z[2] + np.tanh(Z[2])) / 2.0, rtol=1e-14)
    np.testing.assert_allclose(A[3], 2.0 * np.tanh(Z[3]) - Z[3], rtol=1e-14)


@pytest.mark.parametrize("g", HIDDEN, ids=lambda g: g.name)
def test_the_vjp_is_the_derivative(g: Activation) -> None:
    xp = ComplexStepNamespace()
    _, D, S = parametric(np, Z, alpha, g)
    dZ, dalpha = parametric_vjp(np, dA, D, S, alpha)
    for x, d, other in (
        (Z, dZ, lambda moved: parametric(xp, moved, alpha, g)),
        (alpha, dalpha, lambda moved: parametric(xp, Z, moved, g)),
    ):
        for at in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[at] += 1e-30j
            assert abs(np.imag(np.sum(dA * other(moved)[0])) / 1e-30 - d[at]) <= 1e-14 * np.sum(np.abs(dA))
