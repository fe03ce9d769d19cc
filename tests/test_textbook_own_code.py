"""The course's helpers and its training loop against loops, and ``textbook.check`` on code as a reader writes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support import loops

from backprop_gpu import textbook as tb
from backprop_gpu.errors import ConfigError, ShapeError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(3, 12)), rng.integers(0, 2, (1, 12))


def test_sigmoid_and_relu_return_their_value_and_the_cache_and_their_backwards_take_it() -> None:
    Z, dA = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    A, cache = tb.sigmoid(Z)
    assert cache is Z
    want = [[1.0 / (1.0 + math.exp(-z)) for z in row] for row in Z]
    np.testing.assert_allclose(A, want, rtol=1e-15)
    np.testing.assert_allclose(tb.sigmoid_backward(dA, cache), dA * np.array(want) * (1.0 - np.array(want)), rtol=1e-14)
    A, cache = tb.relu(Z)
    assert cache is Z
    np.testing.assert_array_equal(A, [[max(z, 0.0) for z in row] for row in Z])
    np.testing.assert_array_equal(
        tb.relu_backward(dA, cache), [[d * (z > 0) for d, z in zip(*p, strict=True)] for p in zip(dA, Z, strict=True)]
    )
    for backward in (tb.sigmoid_backward, tb.relu_backward):
        with pytest.raises(ShapeError, match="the shape of Z"):
            backward(dA[:1], Z)


def test_the_training_loop_is_gradient_descent_from_the_application_s_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parameters, costs = tb.L_layer_model(X, Y, [3, 4, 1], learning_rate=0.3, num_iterations=103, print_cost=True)
    mine = {k: v.tolist() for k, v in tb.initialize_parameters_deep([3, 4, 1], seed=1, scale="1/sqrt_n").items()}
    want = []
    for _ in range(103):
        found = loops.tensors(mine, X.T.tolist(), Y.T.tolist(), "late")
        want.append(found["J"][0][0])
        mine = {
            k: [[v - 0.3 * d for v, d in zip(*rows, strict=True)] for rows in zip(mine[k], found[f"d{k}"], strict=True)]
            for k in mine
        }
    for name, value in mine.items():
        np.testing.assert_allclose(parameters[name], value, rtol=1e-10)
    np.testing.assert_allclose(costs, [want[0], want[100], want[102]], rtol=1e-12)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Cost after iteration {i}: {c}" for i, c in zip((0, 100, 102), costs, strict=True)]
    assert tb.L_layer_model(X, Y, [3, 1], num_iterations=0)[1] == []
    with pytest.raises(ConfigError, match="num_iterations"):
        tb.L_layer_model(X, Y, [3, 1], num_iterations=-1)


def my_backward(parameters: dict[str, Any], slip: str = "") -> dict[str, Any]:
    """As a reader may write it, without any function of the package."""
    m = X.shape[1]
    Z1 = parameters["W1"] @ X + parameters["b1"]
    A1 = np.maximum(Z1, 0)
    A2 = 1 / (1 + np.exp(-(parameters["W2"] @ A1 + parameters["b2"])))
    dA2 = -(Y / A2 - (1 - Y) / (1 - A2))
    dZ2 = dA2 * A2 * (1 - A2)
    if slip == "early and late":
        dZ2 = dZ2 / m
    dA1 = parameters["W2"].T @ dZ2
    dZ1 = dA1 if slip == "no slope" else dA1 * (Z1 > 0)
    over = 1 if slip == "none" else m
    return {
        "dW2": dZ2 @ A1.T / over,
        "db2": np.sum(dZ2, axis=1, keepdims=True) / over,
        "dA1": dA1,
        "dW1": dZ1 @ X.T / over,
        "db1": np.sum(dZ1, axis=1, keepdims=True) / (1 if slip == "db1" else over),
    }


@pytest.mark.parametrize(
    ("slip", "name", "tensors"),
    [
        ("", None, None),
        ("none", "1/m missing", ("dW2", "db2", "dW1", "db1")),
        ("early and late", "1/m twice", ("dW2", "db2", "dW1", "db1")),
        ("no slope", "g' missing", ("dW1", "db1")),
        ("db1", "1/m missing", ("db1",)),
    ],
)
def test_a_reader_s_own_code_is_checked(slip: str, name: str | None, tensors: tuple[str, ...] | None) -> None:
    parameters = tb.initialize_parameters_deep([3, 4, 1], scale="1/sqrt_n")
    found = tb.check(parameters, my_backward(parameters, slip), X, Y)
    assert found.ok == (name is None)
    assert (found.first and found.first.name, found.first and found.first.tensors) == (name, tensors)
    assert found.ok or "meant: d" in found.summary() or "meant: once" in found.summary()


@pytest.mark.parametrize("convention", ["late", "early"])
def test_the_textbook_s_own_gradient_is_right_in_both_conventions(convention: str) -> None:
    parameters = tb.initialize_parameters_deep([3, 5, 4, 1], scale="1/sqrt_n")
    AL, caches = tb.L_model_forward(X, parameters)
    found = tb.check(parameters, tb.L_model_backward(AL, Y, caches, convention=convention), X, Y)
    assert found.ok
    assert repr(found) == "<Diagnosis: The gradient is right.>"


def test_dropout_masks_have_the_course_s_shape() -> None:
    parameters = tb.initialize_parameters_deep([3, 4, 1], scale="1/sqrt_n")
    D1 = rng.random((4, 12)) < 0.7
    Z1 = parameters["W1"] @ X + parameters["b1"]
    A1 = np.maximum(Z1, 0) * D1 / 0.7
    dZ2 = 1 / (1 + np.exp(-(parameters["W2"] @ A1 + parameters["b2"]))) - Y
    for scale, name in ((0.7, None), (1.0, "dropout scale")):
        dZ1 = (parameters["W2"].T @ dZ2) * D1 / scale * (Z1 > 0)
        grads = {
            "dW2": dZ2 @ A1.T,
            "db2": dZ2.sum(1, keepdims=True),
            "dW1": dZ1 @ X.T,
            "db1": dZ1.sum(1, keepdims=True),
        }
        found = tb.check(parameters, {k: v / 12 for k, v in grads.items()}, X, Y, masks={1: D1}, keep_prob=0.7)
        assert (found.first.name if found.first else None) == name
