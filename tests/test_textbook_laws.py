"""The textbook's laws: late equals early, closed forms, every library alike, and bad input named in one line."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import array_api_strict as xs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.course import draw, named
from support.real_part import REAL_PART, gradient
from support.strict import to_host, to_strict

from backprop_gpu import textbook as tb
from backprop_gpu.errors import BackpropError, ConfigError, DataError, DeviceError, ShapeError
from backprop_gpu.maths.activations import relu
from backprop_gpu.maths.dense import dense
from backprop_gpu.maths.losses import BinaryCrossEntropy

UNIT = 2.0**-53
CONVENTIONS = ("late", "early")


def network(sizes: list[int], m: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """X, Y and parameters."""
    rng = np.random.RandomState(seed)
    arrays = [a for k, n in pairwise(sizes) for a in (rng.randn(n, k) / k**0.5, rng.randn(n, 1))]
    return rng.randn(sizes[0], m), rng.randint(0, 2, (sizes[-1], m)), named(arrays)


def size_of_gradients(AL: np.ndarray, Y: np.ndarray, caches: list[Any]) -> dict[str, np.ndarray]:
    """The late gradients with every factor replaced by its absolute value: what rounding errors are relative to."""
    m = AL.shape[1]
    D = np.abs(BinaryCrossEntropy().literal_dAL(np, AL, Y * 1.0)) * (AL * (1.0 - AL))
    sizes = {}
    for l in range(len(caches), 0, -1):
        (A_prev, W, _), _ = caches[l - 1]
        sizes[f"dW{l}"] = D @ np.abs(A_prev).T / m
        sizes[f"db{l}"] = np.sum(D, axis=1, keepdims=True) / m
        D = np.abs(W).T @ D
        sizes[f"dA{l - 1}"] = D
        D = D * (A_prev > 0.0)
    return sizes


networks = st.builds(
    network, st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(1, 33), st.integers(0, 99)
)


@settings(deadline=None)
@given(networks)
def test_late_equals_early_within_the_derived_bound(net: tuple[Any, Any, Any]) -> None:
    """Both round at most K times on any path from dAL to a result: gamma_K times the sum of absolute values each."""
    X, Y, parameters = net
    m = X.shape[1]
    AL, caches = tb.L_model_forward(X, parameters)
    late = tb.L_model_backward(AL, Y, caches)
    early = tb.L_model_backward(AL, Y, caches, convention="early")
    # One rounding where 1/m enters, one to undo it in dA; g' and W^T dZ in every layer; the sum over examples.
    K = 2 + sum(1 + W.shape[0] for (_, W, _), _ in caches) + m
    gamma = K * UNIT / (1 - K * UNIT)
    for name, size in size_of_gradients(AL, Y, caches).items():
        undone = m * early[name] if name.startswith("dA") else early[name]
        assert np.all(np.abs(late[name] - undone) <= 2.0 * gamma * (1.0 + gamma) * size), name


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.sampled_from([1, 2, 4, 8, 32]),
    st.integers(0, 99),
    st.sampled_from([np.float32, np.float64]),
)
def test_late_equals_early_bit_for_bit_at_powers_of_two(sizes: list[int], m: int, seed: int, dtype: Any) -> None:
    X, Y, parameters = network(sizes, m, seed)
    AL, caches = tb.L_model_forward(X.astype(dtype), {name: a.astype(dtype) for name, a in parameters.items()})
    late = tb.L_model_backward(AL, Y, caches)
    early = tb.L_model_backward(AL, Y, caches, convention="early")
    assert AL.dtype == dtype
    assert tb.compute_cost(AL, Y).dtype == dtype
    for name, value in late.items():
        undone = m * early[name] if name.startswith("dA") else early[name]
        assert value.dtype == early[name].dtype == dtype
        assert value.tobytes() == undone.tobytes() or np.array_equal(value, undone), name


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(deadline=None)
@given(n=st.integers(1, 5), k=st.integers(1, 6), m=st.integers(1, 33), seed=st.integers(0, 99))
def test_one_layer_is_the_closed_form(convention: str, n: int, k: int, m: int, seed: int) -> None:
    """Logistic regression: dW = (A - Y) X^T / m, db = sum (A - Y) / m.

    dAL * A (1 - A) against A - Y: for Y = 0 or 1 one term is exactly 0, the other has at most 5 roundings.
    """
    X, Y, parameters = network([k, n], m, seed)
    AL, caches = tb.L_model_forward(X, parameters)
    grads = tb.L_model_backward(AL, Y, caches, convention=convention)
    K = 5 + m + 2
    bound = 2.0 * K * UNIT / (1 - K * UNIT) * (1 + K * UNIT) / m
    residual = AL - Y
    assert np.all(np.abs(grads["dW1"] - residual @ X.T / m) <= bound * (np.abs(residual) @ np.abs(X).T))
    assert np.all(
        np.abs(grads["db1"] - residual.sum(1, keepdims=True) / m) <= bound * np.abs(residual).sum(1, keepdims=True)
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradients_are_the_derivative_of_the_cost(convention: str) -> None:
    """Against the complex step of J computed from logits."""
    X, Y, parameters = network([4, 5, 3, 1], 7, 5)
    AL, caches = tb.L_model_forward(X, parameters)
    grads = tb.L_model_backward(AL, Y, caches, convention=convention)

    def cost(xp: Any, p: dict[str, Any]) -> Any:
        A = relu(xp, dense(xp, p["W1"], X, p["b1"]))
        A = relu(xp, dense(xp, p["W2"], A, p["b2"]))
        return xp.sum(BinaryCrossEntropy().value(xp, dense(xp, p["W3"], A, p["b3"]), Y)) / X.shape[1]

    assert cost(REAL_PART, parameters) == pytest.approx(float(tb.compute_cost(AL, Y)), rel=1e-14)
    for name, theta in parameters.items():
        expected = gradient(lambda xp, x, name=name: cost(xp, parameters | {name: x}), theta)
        np.testing.assert_allclose(grads[f"d{name}"], expected, rtol=1e-12, atol=1e-15)


def test_tanh_layers_go_through_the_same_functions() -> None:
    A_prev, W, b, dA = draw(4, (3, 5), (2, 3), (2, 1), (2, 5))
    A, cache = tb.linear_activation_forward(A_prev, W, b, "tanh")
    assert np.array_equal(A, np.tanh(W @ A_prev + b))
    dA_prev, _, _ = tb.linear_activation_backward(dA, cache, "tanh")
    np.testing.assert_allclose(dA_prev, W.T @ (dA * (1 - A**2)), rtol=1e-13)


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_whole_step_is_the_same_on_another_library_and_stays_there(device: str, convention: str) -> None:
    X, Y, parameters = network([4, 5, 3, 1], 6, 8)
    there = {name: to_strict(a, device) for name, a in parameters.items()}
    AL, caches = tb.L_model_forward(X, parameters)
    AL_there, caches_there = tb.L_model_forward(to_strict(X, device), there)
    assert np.array_equal(to_host(AL_there, device), AL)
    assert to_host(tb.compute_cost(AL_there, to_strict(Y, device)), device) == tb.compute_cost(AL, Y)
    grads = tb.L_model_backward(AL, Y, caches, convention=convention)
    grads_there = tb.L_model_backward(AL_there, to_strict(Y, device), caches_there, convention=convention)
    for name, value in grads.items():
        assert np.array_equal(to_host(grads_there[name], device), value), name
    updated = tb.update_parameters(parameters, grads, 0.5)
    for name, value in tb.update_parameters(there, grads_there, 0.5).items():
        assert np.array_equal(to_host(value, device), updated[name]), name


# ----- predictions of exactly 0 and 1 -----


@pytest.mark.parametrize(("dtype", "worst"), [(np.float64, 708.3964), (np.float32, 87.3365)])
def test_saturated_predictions_have_a_finite_cost_and_gradient(dtype: Any, worst: float) -> None:
    right = tb.compute_cost(np.array([[1.0, 0.0]], dtype), np.array([[1, 0]]))
    wrong = tb.compute_cost(np.array([[1.0, 0.0]], dtype), np.array([[0, 1]]))
    assert right == 0.0
    assert wrong == pytest.approx(worst, abs=1e-4)
    A, cache = tb.linear_activation_forward(
        np.array([[1.0, -1.0]], dtype), np.array([[1e4]], dtype), np.zeros((1, 1), dtype), "sigmoid"
    )
    assert A.tolist() == [[1.0, 0.0]]
    for Y in ([[0, 1]], [[1, 0]]):
        for convention in CONVENTIONS:
            grads = tb.L_model_backward(A, np.array(Y), [cache], convention=convention)
            assert all(np.all(np.isfinite(g)) for g in grads.values())


def test_whole_number_predictions_are_accepted() -> None:
    assert tb.compute_cost(np.array([[1, 0]]), np.array([[1, 0]])) == 0.0


# ----- bad input: one clear line -----

X4, Y4, P4 = network([3, 2, 1], 4, 0)
AL4, CACHES4 = tb.L_model_forward(X4, P4)
GRADS4 = tb.L_model_backward(AL4, Y4, CACHES4)


def without(mapping: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


BAD: dict[str, tuple[Callable[[], Any], type[BackpropError], str]] = {
    "a missing W2": (lambda: tb.L_model_forward(X4, without(P4, "W2")), ConfigError, "no W2.*got W1, b1, b2"),
    "a missing layer": (
        lambda: tb.L_model_forward(X4, without(P4, "W1", "b1") | {"W3": X4, "b3": X4}),
        ConfigError,
        "no W1, b1",
    ),
    "no parameters": (lambda: tb.L_model_forward(X4, {}), ConfigError, "no W1, b1.*got nothing"),
    "one too many": (lambda: tb.L_model_forward(X4, P4 | {"lr": 0.1}), ConfigError, "nothing else.*lr"),
    "X by rows": (
        lambda: tb.L_model_forward(X4.T, P4),
        ShapeError,
        r"W1 has shape \(2, 3\).*4 columns.*did you mean X.T",
    ),
    "X flat": (lambda: tb.L_model_forward(X4[0], P4), ShapeError, r"X has shape \(4,\).*two axes"),
    "W2 too wide": (
        lambda: tb.L_model_forward(X4, P4 | {"W2": np.ones((1, 5))}),
        ShapeError,
        r"W2 has shape \(1, 5\).*2 columns.*A1 \(2, 4\)",
    ),
    "b1 flat": (
        lambda: tb.L_model_forward(X4, P4 | {"b1": np.zeros(2)}),
        ShapeError,
        r"b1 has shape \(2,\).*\(2, 1\).*b1.reshape\(2, 1\)",
    ),
    "an activation": (
        lambda: tb.linear_activation_forward(X4, P4["W1"], P4["b1"], "sigmod"),
        ConfigError,
        "did you mean 'sigmoid'",
    ),
    "Y flat": (lambda: tb.compute_cost(AL4, Y4[0]), ShapeError, r"Y has shape \(4,\).*\(1, 4\).*Y.reshape\(1, 4\)"),
    "Y by rows": (lambda: tb.L_model_backward(AL4, Y4.T, CACHES4), ShapeError, r"Y has shape \(4, 1\).*\(1, 4\)"),
    "y of another length": (lambda: tb.predict(X4, Y4[:, :3], P4), ShapeError, r"y has shape \(1, 3\)"),
    "a convention": (
        lambda: tb.L_model_backward(AL4, Y4, CACHES4, convention="erly"),
        ConfigError,
        "convention must be.*did you mean 'early'",
    ),
    "no caches": (lambda: tb.L_model_backward(AL4, Y4, []), ConfigError, "caches is empty.*L_model_forward"),
    "the whole cache": (lambda: tb.linear_backward(AL4, CACHES4[1]), ConfigError, r"cache\[0\]"),
    "half the cache": (
        lambda: tb.linear_activation_backward(AL4, CACHES4[1][0], "sigmoid"),
        ConfigError,
        "whole cache",
    ),
    "dZ of another layer": (
        lambda: tb.linear_backward(AL4, CACHES4[0][0]),
        ShapeError,
        r"dZ has shape \(1, 4\).*\(2, 4\)",
    ),
    "dA of another layer": (
        lambda: tb.linear_activation_backward(AL4, CACHES4[0], "relu"),
        ShapeError,
        r"dA has shape \(1, 4\).*\(2, 4\)",
    ),
    "a missing gradient": (
        lambda: tb.update_parameters(P4, without(GRADS4, "db2"), 0.1),
        ConfigError,
        "no db2.*L_model_backward",
    ),
    "a gradient's shape": (
        lambda: tb.update_parameters(P4, GRADS4 | {"dW1": GRADS4["dW1"].T}, 0.1),
        ShapeError,
        r"dW1 has shape \(3, 2\).*\(2, 3\)",
    ),
    "a learning rate": (lambda: tb.update_parameters(P4, GRADS4, -0.1), ConfigError, "learning_rate must be positive"),
    "one size": (lambda: tb.initialize_parameters_deep([5]), ConfigError, "at least two whole numbers"),
    "width 0": (lambda: tb.initialize_parameters_deep([5, 0, 1]), ConfigError, "at least two whole numbers"),
    "a scale": (lambda: tb.initialize_parameters_deep([5, 1], scale="1/sqrt"), ConfigError, "did you mean '1/sqrt_n'"),
    "a seed": (lambda: tb.initialize_parameters_deep([5, 1], seed=-1), ConfigError, "seed must be"),
    "a list": (lambda: tb.compute_cost([[0.5]], Y4), DataError, r"AL is a list.*numpy.asarray\(AL\)"),  # type: ignore[arg-type]
    "no examples": (lambda: tb.compute_cost(AL4[:, :0], Y4[:, :0]), DataError, "at least one example"),
    "X on another library": (
        lambda: tb.L_model_forward(X4, {name: xs.asarray(a) for name, a in P4.items()}),
        DeviceError,
        r"X belongs to numpy .* and W1 to array_api_strict .*X = array_api_strict.asarray\(X\)",
    ),
    "one parameter on another library": (
        lambda: tb.L_model_forward(to_strict(X4), {name: to_strict(a) for name, a in P4.items()} | {"b2": P4["b2"]}),
        DeviceError,
        r"X belongs to array_api_strict .* and b2 to numpy .*b2 = array_api_strict.asarray\(b2\)",
    ),
    "labels on another device": (
        lambda: tb.compute_cost(to_strict(AL4), to_strict(Y4, "CPU_DEVICE")),
        DeviceError,
        "AL belongs to .*device1.* and Y to .*CPU_DEVICE.*other's device",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str) -> None:
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_library_that_mirrors_numpy_is_found_without_announcing_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's arrays have no ``__array_namespace__``; the module whose ``ndarray`` they are is their namespace."""
    mirror = types.ModuleType("mirror")
    mirror.ndarray = type("ndarray", (np.ndarray,), {"__module__": "mirror.core", "__array_namespace__": None})
    monkeypatch.setitem(sys.modules, "mirror", mirror)
    x = np.ones((2, 2)).view(mirror.ndarray)
    assert tb.array_namespace(x=x, y=x) is mirror
    with pytest.raises(DeviceError, match=r"a belongs to numpy .* and x to mirror .*a = mirror.asarray\(a\)"):
        tb.array_namespace(a=np.ones(2), x=x)


def test_import_loads_no_optional_package() -> None:
    optional = ["cupy", "torch", "sklearn", "matplotlib", "yaml", "pydantic", "rich", "safetensors", "array_api_compat"]
    code = f"import sys, backprop_gpu.textbook; print([m for m in {optional} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
