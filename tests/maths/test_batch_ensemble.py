"""The weights of an ensemble's member: the paper's form, and the derivative by the complex step."""

from __future__ import annotations

import numpy as np
import pytest
from support.real_part import gradient

from backprop_gpu.maths.batch_ensemble import member_weights, member_weights_vjp

U = 2.0**-53


@pytest.mark.parametrize("scales_outputs", [False, True])
def test_a_layer_with_the_members_weights_is_the_papers(scales_outputs: bool) -> None:
    """W_j X = ((W (r * X)) * s, examples in columns (Wen, Tran & Ba 2020, equation 4)."""
    rng = np.random.default_rng(3)
    W, X, r = rng.normal(size=(5, 7)), rng.normal(size=(7, 11)), rng.normal(size=7)
    s = rng.normal(size=5) if scales_outputs else None
    scale = 1.0 if s is None else s[:, None]
    found, wanted = member_weights(np, W, r, s) @ X, (W @ (r[:, None] * X)) * scale
    bound = 12 * U * (np.abs(W * r) @ np.abs(X)) * np.abs(scale)
    assert np.all(np.abs(found - wanted) <= bound)


@pytest.mark.parametrize("scales_outputs", [False, True])
def test_the_derivative_is_that_of_the_forward(scales_outputs: bool) -> None:
    """f = sum of C W_j, for any C."""
    rng = np.random.default_rng(4)
    given = {"W": rng.normal(size=(3, 4)), "r": rng.normal(size=4)} | (
        {"s": rng.normal(size=3)} if scales_outputs else {}
    )
    C = rng.normal(size=(3, 4))
    found = dict(zip("Wrs", member_weights_vjp(np, C, given["W"], given["r"], given.get("s")), strict=True))
    for name, x in given.items():
        others = {"s": None} | given

        def f(xp: object, moved: np.ndarray, name: str = name, others: dict[str, np.ndarray] = others) -> np.ndarray:
            return np.sum(C * member_weights(np, **(others | {name: moved})))

        wanted = gradient(f, x)
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=12 * U * np.max(np.abs(wanted)) + 12 * U)
    assert scales_outputs == (found["s"] is not None)
