"""The textbook reproduces the course's printed numbers, in both conventions, on every library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.course import draw, named
from support.strict import to_host, to_strict

from backprop_gpu import textbook as tb

CONVENTIONS = ("late", "early")


@dataclass(frozen=True)
class Library:
    """How to bring arrays to a library and back; ``back`` also makes sure that they were there."""

    to: Callable[[Any], Any]
    back: Callable[[Any], np.ndarray]


@pytest.fixture(params=["numpy", "CPU_DEVICE", "device1", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request: pytest.FixtureRequest) -> Library:
    def taken_from(kind: Any, copy: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
        def back(x: Any) -> np.ndarray:
            assert isinstance(x, kind)
            return copy(x)

        return back

    if request.param == "numpy":
        return Library(np.asarray, taken_from((np.ndarray, np.generic), np.asarray))
    if request.param == "cupy":
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
        if not cupy.cuda.is_available():
            pytest.skip("CuPy finds no CUDA device")
        return Library(cupy.asarray, taken_from(cupy.ndarray, cupy.asnumpy))
    return Library(lambda x: to_strict(x, request.param), lambda x: to_host(x, request.param))


def assert_printed(actual: np.ndarray, printed: Any) -> None:
    """Every digit of ``printed``, which has eight decimals; a printed 0 is exactly 0."""
    expected = np.asarray(printed, dtype=float)
    assert actual.shape == expected.shape
    assert np.array_equal(actual == 0.0, expected == 0.0)
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=0.500001e-8)


# ----- the course's published outputs -----


def test_published_initialize_parameters() -> None:
    p = tb.initialize_parameters(3, 2, 1)
    assert list(p) == ["W1", "b1", "W2", "b2"]
    assert_printed(p["W1"], [[0.01624345, -0.00611756, -0.00528172], [-0.01072969, 0.00865408, -0.02301539]])
    assert_printed(p["W2"], [[0.01744812, -0.00761207]])
    assert_printed(p["b1"], [[0.0], [0.0]])
    assert_printed(p["b2"], [[0.0]])


def test_published_initialize_parameters_deep() -> None:
    p = tb.initialize_parameters_deep([5, 4, 3])
    assert list(p) == ["W1", "b1", "W2", "b2"]
    W1 = [
        [0.01788628, 0.0043651, 0.00096497, -0.01863493, -0.00277388],
        [-0.00354759, -0.00082741, -0.00627001, -0.00043818, -0.00477218],
        [-0.01313865, 0.00884622, 0.00881318, 0.01709573, 0.00050034],
        [-0.00404677, -0.0054536, -0.01546477, 0.00982367, -0.01101068],
    ]
    W2 = [
        [-0.01185047, -0.0020565, 0.01486148, 0.00236716],
        [-0.01023785, -0.00712993, 0.00625245, -0.00160513],
        [-0.00768836, -0.00230031, 0.00745056, 0.01976111],
    ]
    assert_printed(p["W1"], W1)
    assert_printed(p["W2"], W2)
    assert_printed(p["b1"], np.zeros((4, 1)))
    assert_printed(p["b2"], np.zeros((3, 1)))


def test_published_linear_forward(library: Library) -> None:
    A, W, b = map(library.to, draw(1, (3, 2), (1, 3), (1, 1)))
    Z, cache = tb.linear_forward(A, W, b)
    assert_printed(library.back(Z), [[3.26295337, -1.23429987]])
    assert cache[0] is A
    assert cache[1] is W
    assert cache[2] is b


def test_published_linear_activation_forward(library: Library) -> None:
    A_prev, W, b = map(library.to, draw(2, (3, 2), (1, 3), (1, 1)))
    for activation, printed in (("sigmoid", [[0.96890023, 0.11013289]]), ("relu", [[3.43896131, 0.0]])):
        A, (linear_cache, Z) = tb.linear_activation_forward(A_prev, W, b, activation=activation)
        assert_printed(library.back(A), printed)
        assert_printed(library.back(Z), [[3.43896131, -2.08938436]])
        assert linear_cache[1] is W


def test_published_L_model_forward_two_layers(library: Library) -> None:
    X, *rest = map(library.to, draw(1, (4, 2), (3, 4), (3, 1), (1, 3), (1, 1)))
    AL, caches = tb.L_model_forward(X, named(rest))
    assert_printed(library.back(AL), [[0.17007265, 0.2524272]])
    assert len(caches) == 2


def test_published_L_model_forward_three_layers(library: Library) -> None:
    X, *rest = map(library.to, draw(6, (5, 4), (4, 5), (4, 1), (3, 4), (3, 1), (1, 3), (1, 1)))
    AL, caches = tb.L_model_forward(X, named(rest))
    assert_printed(library.back(AL), [[0.03921668, 0.70498921, 0.19734387, 0.04728177]])
    assert len(caches) == 3


@pytest.mark.parametrize(("Y", "printed"), [([[1, 1, 1]], 0.41493159961539694), ([[1, 1, 0]], 0.2797765635793422)])
def test_published_compute_cost(library: Library, Y: list[list[int]], printed: float) -> None:
    cost = tb.compute_cost(library.to(np.array([[0.8, 0.9, 0.4]])), library.to(np.array(Y)))
    assert cost.shape == ()
    # All 16 printed digits: two units in the last place, since log is not the same to the last bit everywhere.
    assert abs(float(library.back(cost)) - printed) <= 2 * math.ulp(printed)


LINEAR_BACKWARD = {
    "one unit": (
        ((1, 2), (3, 2), (1, 3), (1, 1)),
        [[0.51822968, -0.19517421], [-0.40506361, 0.15255393], [2.37496825, -0.89445391]],
        [[-0.10076895, 1.40685096, 1.64992505]],
        [[0.50629448]],
    ),
    "three units": (
        ((3, 4), (5, 4), (3, 5), (3, 1)),
        [
            [-1.15171336, 0.06718465, -0.3204696, 2.09812712],
            [0.60345879, -3.72508701, 5.81700741, -3.84326836],
            [-0.4319552, -1.30987417, 1.72354705, 0.05070578],
            [-0.38981415, 0.60811244, -1.25938424, 1.47191593],
            [-2.52214926, 2.67882552, -0.67947465, 1.48119548],
        ],
        [
            [0.07313866, -0.0976715, -0.87585828, 0.73763362, 0.00785716],
            [0.85508818, 0.37530413, -0.59912655, 0.71278189, -0.58931808],
            [0.97913304, -0.24376494, -0.08839671, 0.55151192, -0.10290907],
        ],
        [[-0.14713786], [-0.11313155], [-0.13209101]],
    ),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("case", LINEAR_BACKWARD)
def test_published_linear_backward(library: Library, case: str, convention: str) -> None:
    shapes, *printed = LINEAR_BACKWARD[case]
    dZ, *cache = draw(1, *shapes)
    m = dZ.shape[1]
    given_dZ = dZ / m if convention == "early" else dZ
    got = tb.linear_backward(library.to(given_dZ), tuple(map(library.to, cache)), convention=convention)
    dA_prev, dW, db = map(library.back, got)
    assert_printed(m * dA_prev if convention == "early" else dA_prev, printed[0])
    assert_printed(dW, printed[1])
    assert_printed(db, printed[2])


ACTIVATION_BACKWARD = {
    "sigmoid": (
        [[0.11017994, 0.01105339], [0.09466817, 0.00949723], [-0.05743092, -0.00576154]],
        [[0.10266786, 0.09778551, -0.01968084]],
        [[-0.05729622]],
    ),
    "relu": (
        [[0.44090989, 0.0], [0.37883606, 0.0], [-0.2298228, 0.0]],
        [[0.44513824, 0.37371418, -0.10478989]],
        [[-0.20837892]],
    ),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("activation", ACTIVATION_BACKWARD)
def test_published_linear_activation_backward(library: Library, activation: str, convention: str) -> None:
    dA, A, W, b, Z = draw(2, (1, 2), (3, 2), (1, 3), (1, 1), (1, 2))
    scale = 2.0 if convention == "early" else 1.0
    A, W, b, Z = map(library.to, (A, W, b, Z))
    cache = ((A, W, b), Z)
    got = tb.linear_activation_backward(library.to(dA / scale), cache, activation=activation, convention=convention)
    dA_prev, dW, db = map(library.back, got)
    printed = ACTIVATION_BACKWARD[activation]
    assert_printed(scale * dA_prev, printed[0])
    assert_printed(dW, printed[1])
    assert_printed(db, printed[2])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_published_L_model_backward(library: Library, convention: str) -> None:
    shapes = [(1, 2), (4, 2), (3, 4), (3, 1), (3, 2), (3, 2), (1, 3), (1, 1), (1, 2)]
    AL, A0, W1, b1, Z1, A1, W2, b2, Z2 = map(library.to, draw(3, *shapes))
    caches = (((A0, W1, b1), Z1), ((A1, W2, b2), Z2))
    grads = tb.L_model_backward(AL, library.to(np.array([[1, 0]])), caches, convention=convention)
    assert set(grads) == {"dA0", "dW1", "db1", "dA1", "dW2", "db2"}
    host = {name: library.back(g) for name, g in grads.items()}
    scale = 2.0 if convention == "early" else 1.0
    dW1 = [[0.41010002, 0.07807203, 0.13798444, 0.10502167], [0] * 4, [0.05283652, 0.01005865, 0.01777766, 0.0135308]]
    assert_printed(host["dW1"], dW1)
    assert_printed(host["db1"], [[-0.22007063], [0.0], [-0.02835349]])
    assert_printed(host["dW2"], [[-0.39202432, -0.13325855, -0.04601089]])
    assert_printed(host["db2"], [[0.15187861]])
    dA1 = [[0.12913162, -0.44014127], [-0.14175655, 0.48317296], [0.01663708, -0.05670698]]
    assert_printed(scale * host["dA1"], dA1)
    assert_printed(scale * host["dA0"], [[0.0, 0.52257901], [0.0, -0.3269206], [0.0, -0.32070404], [0.0, -0.74079187]])


def test_published_update_parameters(library: Library) -> None:
    shapes = [(3, 4), (3, 1), (1, 3), (1, 1)]
    parameters = named([library.to(a) for a in draw(2, *shapes)])
    grads = named([library.to(a) for a in draw(3, *shapes)], "d")
    updated = {name: library.back(a) for name, a in tb.update_parameters(parameters, grads, 0.1).items()}
    W1 = [
        [-0.59562069, -0.09991781, -2.14584584, 1.82662008],
        [-1.76569676, -0.80627147, 0.51115557, -1.18258802],
        [-1.0535704, -0.86128581, 0.68284052, 2.20374577],
    ]
    assert_printed(updated["W1"], W1)
    assert_printed(updated["b1"], [[-0.04659241], [-1.28888275], [0.53405496]])
    assert_printed(updated["W2"], [[-0.55569196, 0.0354055, 1.32964895]])
    assert_printed(updated["b2"], [[-0.84610769]])
    for name, before in named(draw(2, *shapes)).items():
        assert np.array_equal(library.back(parameters[name]), before)


def test_published_accuracy_of_the_application(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """206 of the 209 training images right: the line that the application prints, to its twelve digits."""
    X = np.where(np.arange(209) % 2 == 0, 1.0, -1.0).reshape(1, 209)
    y = (X > 0).astype(int)
    y[0, :3] = 1 - y[0, :3]
    parameters = {"W1": library.to(np.array([[1.0]])), "b1": library.to(np.array([[0.0]]))}
    p = tb.predict(library.to(X), library.to(y), parameters)
    assert re.fullmatch(r"Accuracy: 0\.985645933014\d*\n", capsys.readouterr().out)
    assert np.array_equal(library.back(p), X > 0)


# ----- initialization -----


@pytest.mark.parametrize(("seed", "scale"), [(3, "0.01"), (1, "1/sqrt_n"), (7, "0.01")])
def test_initialization_is_the_global_generators_and_leaves_it_alone(seed: int, scale: str) -> None:
    before = np.random.get_state()
    p = tb.initialize_parameters_deep([12, 5, 3, 1], seed=seed, scale=scale)
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    try:
        np.random.seed(seed)
        for l, (k, n) in enumerate([(12, 5), (5, 3), (3, 1)], start=1):
            W = np.random.randn(n, k)
            assert np.array_equal(p[f"W{l}"], W * 0.01 if scale == "0.01" else W / np.sqrt(k))
            assert np.array_equal(p[f"b{l}"], np.zeros((n, 1)))
    finally:
        np.random.set_state(before)


def test_without_a_seed_every_draw_is_new() -> None:
    a, b = (tb.initialize_parameters_deep([5, 4], seed=None)["W1"] for _ in range(2))
    assert not np.any(a == b)
