"""The float64 oracle is right: closed forms in 40 digits, derivatives taken numerically, and numbers of the textbook.

Nothing here uses ``maths``, a kernel or a formula of the oracle for the number that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from backprop_gpu.maths.schedules import SCHEDULES as PACKAGE_SCHEDULES
from backprop_gpu.parity.claims import bounds_of
from backprop_gpu.parity.oracle import layers, losses, updates
from backprop_gpu.parity.oracle.bounds import Bounded

B = bounds_of("numpy", "fp64")
Z = np.array([-40.0, -7.3, -1.0, -0.4, -1e-3, 1e-3, 0.25, 0.9, 2.0, 6.1, 33.0])
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def digits() -> Any:
    with mp.workdps(40), np.errstate(all="ignore"):
        yield


def within(reference: Bounded, want: Any) -> None:
    """The oracle's number is the wanted one to its own roundings, which its bound says; no bound is loose."""
    want = np.asarray([[float(x) for x in row] for row in np.atleast_2d(want)])
    v, bound = np.atleast_2d(reference.v), np.atleast_2d(reference.errors()) * reference.bounds.slack
    assert np.all(np.abs(v - want) <= bound + 1e-300), np.abs(v - want) / bound
    assert np.all(bound <= 1e-10 * np.maximum(1.0, np.abs(want)))


# -- activations ------------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[dict[str, float], Callable[[Any], Any]]] = {
    "identity": ({}, lambda z: z),
    "sigmoid": ({}, lambda z: 1 / (1 + mp.exp(-z))),
    "tanh": ({}, mp.tanh),
    "relu": ({}, lambda z: max(z, mp.mpf(0))),
    "leaky_relu": ({"slope": 0.125}, lambda z: z if z > 0 else z / 8),
    "elu": ({"alpha": 0.5}, lambda z: z if z > 0 else (mp.exp(z) - 1) / 2),
    "selu": ({}, lambda z: 1.0507009873554805 * (z if z > 0 else mp.mpf(1.6732632423543772) * (mp.exp(z) - 1))),
    "mish": ({}, lambda z: z * mp.tanh(mp.log(1 + mp.exp(z)))),
    "gelu": ({}, lambda z: z * mp.ncdf(z)),
    "gelu_tanh": ({}, lambda z: z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)))),
    "silu": ({}, lambda z: z / (1 + mp.exp(-z))),
    "softplus": ({}, lambda z: mp.log(1 + mp.exp(z))),
    "exponential": ({}, mp.exp),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_closed_forms(name: str) -> None:
    parameters, g = ACTIVATIONS[name]
    z = Z[Z < 10.0] if name == "exponential" else Z
    within(layers.activation(B, name, parameters, B.given(z)), [g(mp.mpf(float(x))) for x in z])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_those_of_the_closed_forms(name: str) -> None:
    parameters, g = ACTIVATIONS[name]
    z, dA = B.given(Z[Z < 10.0]), B.given(np.linspace(-1.5, 1.0, int((Z < 10.0).sum())))
    a = layers.activation(B, name, parameters, z)
    want = [mp.mpf(float(d)) * mp.diff(g, mp.mpf(float(x))) for d, x in zip(dA.v, z.v, strict=True)]
    within(layers.activation_vjp(B, name, parameters, dA, z, a), want)


def test_relu_is_flat_at_0() -> None:
    zero, one = B.given(np.zeros(1)), B.given(np.ones(1))
    for name, parameters, slope in (("relu", {}, 0.0), ("leaky_relu", {"slope": 0.25}, 0.25)):
        a = layers.activation(B, name, parameters, zero)
        assert layers.activation_vjp(B, name, parameters, one, zero, a).v[0] == slope


def columns(x: np.ndarray) -> list[list[Any]]:
    return [[mp.mpf(float(v)) for v in column] for column in x.T]


def softmax(z: list[Any]) -> list[Any]:
    e = [mp.exp(x) for x in z]
    return [x / mp.fsum(e) for x in e]


def test_softmax_and_the_product_with_its_jacobian() -> None:
    z, d = RNG.standard_normal((2, 4, 5))
    a = layers.activation(B, "softmax", {}, B.given(z))
    within(a, np.transpose([softmax(column) for column in columns(z)]))
    want = [
        gradient_of(lambda x, d=dc: mp.fsum(p * q for p, q in zip(softmax(x), d, strict=True)), zc)  # type: ignore[misc]
        for zc, dc in zip(columns(z), columns(d), strict=True)
    ]
    within(layers.activation_vjp(B, "softmax", {}, B.given(d), B.given(z), a), np.transpose(want))


def gradient_of(f: Callable[[list[Any]], Any], x: list[Any]) -> list[Any]:
    """The gradient at x, by central differences in 40 digits."""
    h = mp.mpf(10) ** -13
    return [(f([*x[:i], v + h, *x[i + 1 :]]) - f([*x[:i], v - h, *x[i + 1 :]])) / (2 * h) for i, v in enumerate(x)]


# -- losses -----------------------------------------------------------------------------------------------------------

Loss = Callable[[list[Any], list[Any]], Any]


def binary(z: list[Any], y: list[Any]) -> Any:
    a = [1 / (1 + mp.exp(-x)) for x in z]
    return mp.fsum(-t * mp.log(p) - (1 - t) * mp.log(1 - p) for t, p in zip(y, a, strict=True))


def categorical(z: list[Any], y: list[Any]) -> Any:
    return mp.fsum(-t * mp.log(p) for t, p in zip(y, softmax(z), strict=True))


def mean_of(term: Callable[[Any, Any, int], Any]) -> Loss:
    return lambda z, y: mp.fsum(term(x, t, i) for i, (x, t) in enumerate(zip(z, y, strict=True))) / len(z)


def smooth(loss: Loss, s: Any) -> Loss:
    """Targets moved by the share s towards the mean of the classes (two where each output is a label of its own)."""
    return lambda z, y: loss(z, [t * (1 - s) + s / (2 if loss is binary else len(y)) for t in y])


def pinball(x: Any, t: Any, i: int) -> Any:
    q = (mp.mpf("0.125"), mp.mpf("0.75"))[i % 2]
    return max(q * (t - x), (q - 1) * (t - x))


def huber(x: Any, t: Any, i: int) -> Any:
    d = abs(x - t)
    return d**2 / 2 if d <= mp.mpf("0.75") else mp.mpf("0.75") * (d - mp.mpf("0.375"))


def poisson(x: Any, t: Any, i: int) -> Any:
    return mp.exp(x) - t * x + (t * mp.log(t) - t if t else 0)


ONE_HOT = np.eye(4)[[2, 0, 3, 1, 1]].T
GROUPED = np.vstack([np.eye(3)[[2, 0, 1, 1, 0]].T, np.ones((1, 5))])
REAL = RNG.standard_normal((4, 5))
LOSSES: dict[str, tuple[str, dict[str, Any], np.ndarray, Loss]] = {
    "binary": ("binary_cross_entropy", {}, RNG.random((4, 5)), binary),
    "binary smoothed": (
        "binary_cross_entropy",
        {"label_smoothing": 0.25},
        (RNG.random((4, 5)) > 0.5) * 1.0,
        smooth(binary, mp.mpf("0.25")),
    ),
    "categorical": ("categorical_cross_entropy", {}, ONE_HOT, categorical),
    "categorical smoothed": (
        "categorical_cross_entropy",
        {"label_smoothing": 0.125},
        ONE_HOT,
        smooth(categorical, mp.mpf("0.125")),
    ),
    "soft targets": ("categorical_cross_entropy", {}, RNG.random((4, 5)), categorical),
    "grouped": (
        "grouped_cross_entropy",
        {"groups": (3, 1)},
        GROUPED,
        lambda z, y: categorical(z[:3], y[:3]) + categorical(z[3:], y[3:]),
    ),
    "squared": ("squared_error", {}, REAL, mean_of(lambda x, t, i: (x - t) ** 2 / 2)),
    "absolute": ("absolute_error", {}, REAL, mean_of(lambda x, t, i: abs(x - t))),
    "huber": ("huber", {"threshold": 0.75}, REAL * 2.0, mean_of(huber)),
    "quantile": ("quantile", {"quantiles": (0.125, 0.75)}, REAL, mean_of(pinball)),
    "poisson": ("poisson", {}, RNG.poisson(2.0, (4, 5)) * 1.0, mean_of(poisson)),
}
LOGITS = RNG.standard_normal((4, 5)) * 1.5


@pytest.mark.parametrize("case", LOSSES)
def test_losses_are_their_closed_forms(case: str) -> None:
    name, parameters, y, loss = LOSSES[case]
    want = [[loss(z, t) for z, t in zip(columns(LOGITS), columns(y), strict=True)]]
    within(losses.loss_value(B, name, parameters, B.given(LOGITS), B.given(y)), want)


@pytest.mark.parametrize("form", ["fused", "literal"])
@pytest.mark.parametrize("case", LOSSES)
def test_deltas_are_the_derivatives_of_the_losses(case: str, form: str) -> None:
    """Weighted, and times 1/D; an example of weight 0 has none."""
    name, parameters, y, loss = LOSSES[case]
    w, inverse = np.array([[1.0, 0.0, 2.5, 0.5, 3.0]]), 0.125
    pairs = zip(columns(LOGITS), columns(y), strict=True)
    slopes = np.transpose([gradient_of(lambda x, t=t: loss(x, t), z) for z, t in pairs])  # type: ignore[misc]
    given = name, parameters, form, B.given(LOGITS), B.given(y)
    for weights, early in ((None, None), (w, None), (w, B.given([inverse]))):
        factor = (1.0 if weights is None else weights) * (1.0 if early is None else inverse)
        within(losses.output_delta(B, *given, weights, early), slopes * factor)


def test_the_cost_is_the_weighted_sum_over_D_on_top_of_what_was_there() -> None:
    y, z = B.given(np.array([[1.0, 3.0, 5.0]])), B.given(np.array([[2.0, 1.0, 5.5]]))
    each = losses.weighted_loss(B, "squared_error", {}, z, y, np.array([[2.0, 1.0, 4.0]]))
    np.testing.assert_array_equal(each.v, [[1.0, 2.0, 0.5]])
    np.testing.assert_array_equal(losses.cost(each, B.given([0.25]), B.given([10.0])).v, [10.875])


def test_labels_are_one_hot_columns() -> None:
    np.testing.assert_array_equal(losses.one_hot(np.array([[2, 0]]), 3), [[0, 1], [0, 0], [1, 0]])


# -- dropout and batch normalization ----------------------------------------------------------------------------------


def test_dropout_scales_what_survives_and_back() -> None:
    x, mask = B.given(np.array([[3.0, 5.0]])), np.array([[True, False]])
    dropped = layers.dropped(B, x, mask, 0.25)
    np.testing.assert_array_equal(dropped.v, [[4.0, 0.0]])
    np.testing.assert_array_equal(layers.undropped(B, dropped, 0.25).v, [[3.0, 0.0]])
    assert dropped.errors()[0, 1] <= B.eta


@pytest.mark.parametrize("weights", [None, [[1.0, 0.0, 2.0, 0.5, 1.5]]], ids=["plain", "weighted"])
def test_batch_normalization_and_its_derivative(weights: Any) -> None:
    z, du = RNG.standard_normal((2, 3, 5))
    w = None if weights is None else np.array(weights)
    shares = [mp.mpf(1) / 5] * 5 if w is None else [mp.mpf(float(x)) / 5 for x in w[0]]
    gamma = np.array([[1.5], [-0.5], [2.0]])
    if w is not None:
        du[:, 1] = 0.0

    def normalized(row: list[Any]) -> tuple[Any, Any, list[Any]]:
        mean = mp.fsum(s * x for s, x in zip(shares, row, strict=True))
        variance = mp.fsum(s * (x - mean) ** 2 for s, x in zip(shares, row, strict=True))
        r = 1 / mp.sqrt(variance + mp.mpf(layers.EPSILON))
        return mean, variance, [(x - mean) * r if s else mp.mpf(0) for s, x in zip(shares, row, strict=True)]

    rows = columns(z.T)
    mean, variance, d = layers.moments(B, B.given(z), w)
    r = layers.inverse_std(B, variance)
    within(mean, [[normalized(row)[0]] for row in rows])
    within(variance, [[normalized(row)[1]] for row in rows])
    within(d * r, [normalized(row)[2] for row in rows])
    X = B.given(np.array([[float(x) for x in normalized(row)[2]] for row in rows]))
    dZ, terms = layers.batch_norm_vjp(B, B.given(du), X, B.given(r.v), B.given(gamma), w)
    slopes = [
        gradient_of(lambda x, g=g, q=q: g * mp.fsum(u * v for u, v in zip(q, normalized(x)[2], strict=True)), row)  # type: ignore[misc]
        for row, q, g in zip(rows, columns(du.T), gamma[:, 0], strict=True)
    ]
    within(dZ, slopes)
    np.testing.assert_allclose(terms.v, du * X.v, rtol=1e-15)


def test_running_statistics_move_by_a_tenth() -> None:
    old, new = B.given(np.array([[2.0]])), B.given(np.array([[12.0]]))
    within(layers.running(B, old, new, None), [[3.0]])
    assert layers.running(B, old, new, np.zeros((1, 4))).v == 2.0
    assert layers.EPSILON == 1e-5


# -- once per step ----------------------------------------------------------------------------------------------------


def given(*numbers: float) -> Bounded:
    return B.given(np.array(numbers))


def test_penalty_and_its_derivative() -> None:
    """theta = (3, -2, 0): J = 5 + 0.4/2 13 + 0.25 5, and its slope."""
    theta, l1, l2 = given(3.0, -2.0, 0.0), given(0.25), given(0.5)
    within(updates.penalty_cost(B, theta, given(5.0), l1, l2), [5.0 + 0.25 * 13.0 + 1.25])
    within(updates.penalty_cost(B, theta, given(5.0), None, l2), [8.25])
    within(updates.penalized(B, theta, given(1.0, 1.0, 1.0), l1, l2), [2.75, -0.25, 1.0])
    within(updates.penalized(B, theta, given(1.0, 1.0, 1.0), l1, None), [1.25, 0.75, 1.0])


def test_norm_and_clip_factor() -> None:
    norm = updates.global_norm(B, np.array([3.0, -4.0, 12.0]))
    within(norm, [13.0])
    within(updates.clip_factor(B, norm, 3.25), [0.25])
    within(updates.clip_factor(B, norm, 12.1875), [0.9375])
    assert updates.clip_factor(B, norm, 14.0).v == 1.0
    within(updates.global_norm(B, np.array([3e200, 4e200])) * 1e-200, [5.0])


SCHEDULES: list[tuple[str, dict[str, float], list[float]]] = [
    ("constant", {}, [1.0] * 9),
    ("step", {"gamma": 0.5, "every": 4}, [1.0] * 4 + [0.5] * 4 + [0.25]),
    ("exponential", {"gamma": 0.5}, [0.5**t for t in range(9)]),
    ("inverse_scaling", {"power": 2.0}, [1.0 / (t + 1) ** 2 for t in range(9)]),
    # cos(pi t/8): the half angles
    ("cosine", {"floor": 0.2}, [0.2 + 0.4 * (1.0 + c) for c in (1.0, 0.9238795325112867, 0.7071067811865476)]),
    ("linear_warmup", {"warmup": 4, "floor": 0.2}, [0.25, 0.5, 0.75, 1.0, 1.0, 0.2 + 0.4 * 1.7071067811865475, 0.6]),
    ("one_cycle", {"rise": 0.5, "initial_div": 10.0, "final_div": 100.0}, [0.1]),
    (
        "coslog",
        {"cycles": 2},
        [0.5 - 0.5 * math.cos(2.0 * math.pi * math.log2(1.0 + (t + 0.5) * 3 / 8)) for t in range(8)],
    ),
    ("flat_cosine", {"flat": 0.5}, [1.0] * 5 + [0.25 * (2.0 + c) for c in (math.sqrt(2), 0.0, -math.sqrt(2))]),
]


@pytest.mark.parametrize(("name", "p", "want"), SCHEDULES, ids=[s[0] for s in SCHEDULES])
def test_schedules_at_steps_that_are_known(name: str, p: dict[str, float], want: list[float]) -> None:
    np.testing.assert_allclose([updates.schedule_factor(name, p, t, 8) for t in range(len(want))], want, rtol=1e-13)


def test_every_schedule_is_known_to_the_oracle() -> None:
    assert {name for name, _, _ in SCHEDULES} == set(PACKAGE_SCHEDULES)


def test_schedules_end_where_they_should() -> None:
    assert updates.schedule_factor("cosine", {"floor": 0.2}, 8, 8) == pytest.approx(0.2, rel=1e-15)
    assert updates.schedule_factor("cosine", {"floor": 0.2}, 11, 8) == pytest.approx(0.2, rel=1e-15)
    warm = {"warmup": 4, "floor": 0.2}
    assert updates.schedule_factor("linear_warmup", warm, 8, 8) == pytest.approx(0.2, rel=1e-15)
    cycle = {"rise": 0.25, "initial_div": 10.0, "final_div": 100.0}
    found = [updates.schedule_factor("one_cycle", cycle, t, 9) for t in (0, 1, 2, 5, 8, 9)]
    np.testing.assert_allclose(found, [0.1, 0.55, 1.0, 0.505, 0.01, 0.01], rtol=1e-14)


# With a constant gradient g from a state of 0, every rule has a closed form at step t.
G, THETA, STEPS = np.array([0.75, -2e-8, 3.0]), np.array([0.5, 1.0, -2.0]), 5
ADAM = {"beta1": 0.75, "beta2": 0.875, "epsilon": 1e-8, "variant": "textbook"}


def ran(optimizer: str, p: dict[str, Any], rate: float, decay: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """theta and the state after STEPS steps of the oracle, each from what the step before left."""
    n = {"sgd": 0, "adam": 2, "adamw": 2, "amsgrad": 3}.get(optimizer, 1)
    theta, state = THETA, [np.zeros(3)] * n
    for t in range(1, STEPS + 1):
        numbers = [given(x) for x in updates.step_numbers(optimizer, p, t, rate)]
        old = [B.given(s) for s in state]
        state = [
            updates.new_state_vector(B, optimizer, p, k, B.given(G), lambda i, old=old: old[i], numbers[0]).v  # type: ignore[misc]
            for k in range(n)
        ]
        new = [B.given(s) for s in state]
        theta = updates.new_theta(
            B, optimizer, p, B.given(theta), B.given(G), old.__getitem__, new.__getitem__, numbers, decay
        ).v
    return theta, state


def geometric(q: float, n: int = STEPS) -> float:
    """1 + q + ... + q^(n - 1)."""
    return math.fsum(q**i for i in range(n))


def test_sgd_and_momentum() -> None:
    np.testing.assert_allclose(ran("sgd", {}, 0.1)[0], THETA - 0.5 * G, rtol=1e-14)
    # v_t = -lr g (1 + ... + mu^(t-1)); theta sums them, and Nesterov looks one step ahead.
    classic, nesterov = {"momentum": 0.75, "variant": "classic"}, {"momentum": 0.75}
    velocities = [geometric(0.75, t) for t in range(1, STEPS + 1)]
    theta, (v,) = ran("momentum", classic, 0.1)
    np.testing.assert_allclose(v, -0.1 * G * velocities[-1], rtol=1e-14)
    np.testing.assert_allclose(theta, THETA - 0.1 * G * sum(velocities), rtol=1e-14)
    theta, (v,) = ran("nesterov", nesterov, 0.1)
    np.testing.assert_allclose(v, -0.1 * G * velocities[-1], rtol=1e-14)
    np.testing.assert_allclose(theta, THETA - 0.1 * G * sum(0.75 * x + 1.0 for x in velocities), rtol=1e-14)
    # the average of the gradients: v_t = (1 - mu^t) g
    theta, (v,) = ran("momentum", classic | {"variant": "average"}, 0.1)
    np.testing.assert_allclose(v, (1.0 - 0.75**STEPS) * G, rtol=1e-14)
    np.testing.assert_allclose(theta, THETA - 0.1 * G * sum(1.0 - 0.75**t for t in range(1, STEPS + 1)), rtol=1e-14)


def test_rmsprop_and_adagrad() -> None:
    p = {"rho": 0.75, "epsilon": 1e-8}
    steps = range(1, STEPS + 1)
    for name, square in (("rmsprop", lambda t: 1.0 - 0.75**t), ("adagrad", float)):
        theta, (s,) = ran(name, p, 0.1)
        moves = [0.1 * G / (np.sqrt(square(t)) * np.abs(G) + 1e-8) for t in steps]
        np.testing.assert_allclose(s, square(STEPS) * G * G, rtol=1e-13)
        np.testing.assert_allclose(theta, THETA - np.sum(moves, axis=0), rtol=1e-13)


@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad"])
def test_adam_and_its_relatives(name: str) -> None:
    """With the bias corrected each step is lr g/(|g| + epsilon); decay takes its share of the weights first."""
    p = ADAM | ({"weight_decay": 0.5} if name == "adamw" else {})
    theta, (m, v, *_) = ran(name, p, 0.1)
    np.testing.assert_allclose(m, (1.0 - 0.75**STEPS) * G, rtol=1e-14)
    np.testing.assert_allclose(v, (1.0 - 0.875**STEPS) * G * G, rtol=1e-13)
    move = 0.1 * G / (np.abs(G) + 1e-8)
    np.testing.assert_allclose(theta, THETA - STEPS * move, rtol=1e-13)
    if name == "adamw":
        left = ran(name, p, 0.1, decay=True)[0]
        np.testing.assert_allclose(left, THETA * 0.95**STEPS - move * geometric(0.95), rtol=1e-13)
    hats = [
        0.1 * math.sqrt(1.0 - 0.875**t) * G / (math.sqrt(1.0 - 0.875**t) * np.abs(G) + 1e-8)
        for t in range(1, STEPS + 1)
    ]
    hatted = ran(name, p | {"variant": "epsilon_hat"}, 0.1)[0]
    np.testing.assert_allclose(hatted, THETA - np.sum(hats, axis=0), rtol=1e-13, atol=1e-15)


def test_amsgrad_keeps_the_largest() -> None:
    old = [given(1.0), given(4.0), given(9.0)]
    for largest, want in ((9.0, 9.0), (1.0, 0.875 * 4.0 + 0.125 * 4.0)):
        old[2] = given(largest)
        found = updates.new_state_vector(B, "amsgrad", ADAM, 2, given(2.0), old.__getitem__, given(0.1))
        within(found, [want])
    numbers = [given(0.5), given(2.0)]
    new = [given(3.0), given(4.0), given(16.0)]
    moved = updates.new_theta(
        B, "amsgrad", ADAM, given(1.0), given(2.0), old.__getitem__, new.__getitem__, numbers, False
    )
    np.testing.assert_allclose(moved.v, 1.0 - 0.5 * 3.0 / (2.0 * 4.0 + 1e-8), rtol=1e-14)


def test_lion_goes_by_the_sign_of_a_mixture() -> None:
    """0.75 m + 0.25 g decides where they disagree; the state mixes by beta2."""
    p, m, g = (
        {"beta1": 0.75, "beta2": 0.875, "weight_decay": 0.5},
        given(1.0, 1.0, -1.0, 0.0),
        given(-2.0, -4.0, 2.0, 0.0),
    )
    numbers = [given(x) for x in updates.step_numbers("lion", p, 3, 0.125)]
    within(updates.new_state_vector(B, "lion", p, 0, g, lambda i: m, numbers[0]), [0.625, 0.375, -0.625, 0.0])
    theta = given(1.0, 1.0, 1.0, 1.0)
    found = [updates.new_theta(B, "lion", p, theta, g, lambda i: m, lambda i: m, numbers, d) for d in (False, True)]
    np.testing.assert_allclose(found[0].v, [0.875, 1.125, 1.125, 1.0], rtol=1e-15)
    np.testing.assert_allclose(found[1].v, [0.8125, 1.0625, 1.0625, 0.9375], rtol=1e-15)


def test_the_average_is_the_mean_with_weights_that_decay() -> None:
    """(1 - d)/(1 - d^t) sum of d^(t - i) theta_i: of 1, 2, 4 with d = 1/2 it is (1/4 + 1 + 4)/(7/4) = 3."""
    average = given(0.0)
    for t, theta in enumerate((1.0, 2.0, 4.0), start=1):
        *_, share = updates.step_numbers("sgd", {"average": 0.5}, t, 0.1)
        average = updates.new_average(B, given(float(average.v[0])), given(theta), given(share))
    np.testing.assert_allclose(average.v, [3.0], rtol=1e-14)
