"""Losses: the derivative is that of the reported number; literal and logits forms agree; values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import mpmath as mp
import numpy as np
import pytest
from support.real_part import gradient
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.losses import LOSSES, Loss, get_loss, one_hot

U = 2.0**-53
SHAPES = [(1, 1), (1, 5), (3, 4), (10, 2)]
SPECS: list[dict[str, Any]] = [
    {"name": "binary_cross_entropy"},
    {"name": "categorical_cross_entropy"},
    {"name": "categorical_cross_entropy", "label_smoothing": 0.1},
    {"name": "squared_error"},
    {"name": "absolute_error"},
    {"name": "huber"},
    {"name": "huber", "threshold": 0.3},
    {"name": "poisson"},
    {"name": "binary_cross_entropy", "label_smoothing": 0.2},
    {"name": "quantile"},
    {"name": "quantile", "quantiles": [0.9]},
]
SEVERAL = {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}
REGRESSION = ("squared_error", "absolute_error", "huber", "poisson", "quantile")


def targets(loss: Loss, kind: str, n: int, m: int) -> np.ndarray:
    """``hard``: 0/1 or one-hot or integers; ``soft``: anything in the loss's range (columns need not sum to 1)."""
    rng = np.random.default_rng(n * 100 + m)
    if loss.labels == "values":
        return rng.poisson(2.0, (n, m)).astype(float) if kind == "hard" else rng.gamma(2.0, 1.0, (n, m))
    if kind == "soft":
        return rng.random((n, m))
    if loss.labels == "binary":
        return rng.integers(0, 2, (n, m)).astype(float)
    return one_hot(np, rng.integers(0, n, (1, m)), np.arange(n)[:, None], np.float64)


def logits(n: int, m: int, size: float = 3.0) -> np.ndarray:
    return np.random.default_rng(n + m).normal(size=(n, m)) * size


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_delta_is_the_derivative_of_value(spec: dict[str, Any], shape: tuple[int, int], kind: str) -> None:
    loss, Z = get_loss(spec), logits(*shape)
    Y = targets(loss, kind, *shape)
    value, delta = loss.value(np, Z, Y), loss.delta(np, Z, Y)
    assert value.shape == (1, shape[1])
    assert delta.shape == shape
    want = gradient(lambda xp, z: loss.value(xp, z, Y), Z)
    assert np.max(np.abs(delta - want)) <= 1e-14 * max(1.0, np.max(np.abs(want)))


def roundings(loss: Loss, A: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """A bound of |literal dAL, then g' - delta| from one rounding per operation, both paths starting from the same A.

    Binary: dAL g' = -(Y (1 - A) - (1 - Y) A), each term with 6 roundings (1 - A is rounded once and used twice, which
    cancels). Categorical: -T + A sum T, T with 3 + 3 roundings and the sum with 3 + n on either side. Poisson: A - Y
    over n, with 5 roundings either side.
    """
    if loss.name == "binary_cross_entropy":
        T = (1.0 - loss.label_smoothing) * Y + loss.label_smoothing / 2
        return 8 * U * (T * (1.0 - A) + (1.0 - T) * A) + 4 * U * T
    if loss.name == "categorical_cross_entropy":
        T = (1.0 - loss.label_smoothing) * Y + loss.label_smoothing / len(Y)
        return U * (8 * T + (2 * len(Y) + 8) * A * np.sum(T, axis=0))
    return 10 * U * (A + Y) / len(Y)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_literal_path_is_delta_away_from_saturation(
    spec: dict[str, Any], shape: tuple[int, int], kind: str
) -> None:
    loss = get_loss(spec)
    Z, Y = logits(*shape), targets(loss, kind, *shape)
    A = loss.link.forward(np, Z)
    literal = loss.link.vjp(np, loss.literal_dAL(np, A, Y), Z, A)
    delta = loss.delta(np, Z, Y)
    if loss.link_name == "identity":
        assert np.array_equal(literal, delta)
    else:
        assert np.all(np.abs(literal - delta) <= roundings(loss, A, Y))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_literal_form_is_the_derivative_by_the_predictions(spec: dict[str, Any], shape: tuple[int, int]) -> None:
    """The formulas of the course, written here as they stand there, differentiated by AL."""
    loss = get_loss(spec)
    Y = targets(loss, "soft", *shape)
    A = loss.link.forward(np, logits(*shape, size=1.0))

    def written(xp: Any, A: Any) -> Any:
        if loss.name == "binary_cross_entropy":
            T = (1.0 - loss.label_smoothing) * Y + loss.label_smoothing / 2
            return -(T * xp.log(A) + (1.0 - T) * xp.log(1.0 - A))
        if loss.name == "categorical_cross_entropy":
            return -((1.0 - loss.label_smoothing) * Y + loss.label_smoothing / len(Y)) * xp.log(A)
        if loss.name == "poisson":
            return (A - Y * xp.log(A)) / len(Y)
        return loss.value(xp, A, Y)

    want = gradient(written, A)
    assert np.max(np.abs(loss.literal_dAL(np, A, Y) - want)) <= 1e-14 * np.max(np.abs(want))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_the_literal_form_is_finite_at_saturation(name: str, dtype: str) -> None:
    loss = get_loss(name)
    AL = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]], dtype)
    Y = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]], dtype)
    dAL = loss.literal_dAL(np, AL, Y)
    assert dAL.dtype == dtype
    assert np.all(np.isfinite(dAL))
    wrong = AL != Y if name == "binary_cross_entropy" else (AL == 0) & (Y == 1)
    assert np.all(np.abs(dAL[wrong]) > 1e4)
    assert np.array_equal(np.sign(dAL[wrong]), np.sign(AL - Y)[wrong])
    # AL (1 - AL) = 0: finite, though not the derivative.
    dZ = loss.link.vjp(np, dAL, np.zeros_like(AL), AL)
    assert np.all(np.isfinite(dZ))
    assert np.all(dZ[wrong] == 0.0)


def test_binary_literal_form_by_hand() -> None:
    AL, Y = np.array([[0.25, 0.25, 0.5]]), np.array([[1.0, 0.0, 0.25]])
    dAL = get_loss("binary_cross_entropy").literal_dAL(np, AL, Y)
    assert np.array_equal(dAL, [[-4.0, 1.0 / 0.75, 1.0]])  # -1/A, 1/(1 - A), -(1/2 - 3/2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_poisson_literal_form_is_finite_where_AL_underflows(dtype: str) -> None:
    loss, AL = get_loss("poisson"), np.array([[0.0, 0.0]], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        dAL = loss.literal_dAL(np, AL, np.array([[4.0, 1000.0]], dtype))
        assert np.all(np.isfinite(dAL))
        assert np.all(np.isfinite(loss.link.vjp(np, dAL, AL, AL)))


# Values by hand. (loss, Z, Y, L, dL/dZ), one column each.
THIRD = 1.0 / 3.0
HAND = [
    # Two outputs: the half and the mean over outputs: (1 + 9) / (2 * 2), and (Z - Y) / 2.
    ("squared_error", [3.0, -1.0], [2.0, 2.0], 2.5, [0.5, -1.5]),
    ("squared_error", [3.0], [1.0], 2.0, [2.0]),
    ("absolute_error", [3.0, -1.0, 5.0, 0.0], [2.0, 2.0, 5.0, 0.0], 1.0, [0.25, -0.25, 0.0, 0.0]),
    # threshold 1: 0.5^2/2 = 0.125 inside, 3 - 1/2 = 2.5 outside, the joint 1 - 1/2 = 0.5 on it.
    ("huber", [0.5, -3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], (0.125 + 2.5 + 0.5) / 4, [0.125, -0.25, 0.25, 0.0]),
    ({"name": "huber", "threshold": 2.0}, [5.0, 1.0], [0.0, 0.0], (2 * (5 - 1) + 0.5) / 2, [1.0, 0.5]),
    # e^Z = 2, Y = 1: 2 - log 2 + 0 - 1; Y = 0: e^Z.
    ("poisson", [math.log(2.0)], [1.0], 1.0 - math.log(2.0), [1.0]),
    ("poisson", [math.log(2.0), 0.0], [0.0, 3.0], (2.0 + 1.0 + 3.0 * math.log(3.0) - 3.0) / 2, [1.0, -1.0]),
    # sigmoid(log 3) = 3/4; two outputs are summed.
    ("binary_cross_entropy", [math.log(3.0)], [1.0], math.log(4.0 / 3.0), [-0.25]),
    ("binary_cross_entropy", [math.log(3.0), 0.0], [0.0, 1.0], math.log(4.0) + math.log(2.0), [0.75, -0.5]),
    ("binary_cross_entropy", [math.log(3.0)], [0.5], 0.5 * math.log(16.0 / 3.0), [0.25]),
    # softmax = (1, 1, 2)/4.
    ("categorical_cross_entropy", [0.0, 0.0, math.log(2.0)], [1.0, 0.0, 0.0], math.log(4.0), [-0.75, 0.25, 0.5]),
    # Smoothing 0.3 over three classes: T = (0.8, 0.1, 0.1).
    (
        {"name": "categorical_cross_entropy", "label_smoothing": 0.3},
        [0.0, 0.0, math.log(2.0)],
        [1.0, 0.0, 0.0],
        0.9 * math.log(4.0) + 0.1 * math.log(2.0),
        [-0.55, 0.15, 0.4],
    ),
    # Smoothing 0.2: the target 1 becomes 0.9, 0 becomes 0.1; sigmoid(log 3) = 3/4.
    (
        {"name": "binary_cross_entropy", "label_smoothing": 0.2},
        [math.log(3.0), 0.0],
        [1.0, 0.0],
        0.9 * math.log(4.0 / 3.0) + 0.1 * math.log(4.0) + math.log(2.0),
        [-0.15, 0.4],
    ),
    # Too low by 2 costs q 2, too high by 3 costs (1 - q) 3, averaged over outputs.
    ({"name": "quantile", "quantiles": [0.9]}, [1.0, 5.0], [3.0, 2.0], (1.8 + 0.3) / 2, [-0.45, 0.05]),
    # Two columns of targets, two quantiles each, side by side.
    (
        {"name": "quantile", "quantiles": [0.25, 0.75]},
        [1.0, 1.0, 5.0, 2.0],
        [0.0, 0.0, 2.0, 2.0],
        (0.75 + 0.25 + 0.75 * 3.0) / 4,
        [0.75 / 4, 0.25 / 4, 0.75 / 4, 0.0],
    ),
    # Targets that sum to 2 count twice: -2 log softmax.
    ("categorical_cross_entropy", [0.0, 0.0], [1.0, 1.0], 2.0 * math.log(2.0), [0.0, 0.0]),
]


@pytest.mark.parametrize(("spec", "Z", "Y", "value", "delta"), HAND, ids=str)
def test_values_worked_out_by_hand(spec: Any, Z: list[float], Y: list[float], value: float, delta: list[float]) -> None:
    loss, Z_, Y_ = get_loss(spec), np.array([Z]).T, np.array([Y]).T
    assert loss.value(np, Z_, Y_)[0, 0] == pytest.approx(value, rel=1e-15)
    assert loss.delta(np, Z_, Y_)[:, 0] == pytest.approx(delta, rel=1e-15, abs=1e-16)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_examples_do_not_touch_each_other(spec: dict[str, Any]) -> None:
    loss, Z = get_loss(spec), logits(3, 4)
    Y = targets(loss, "soft", 3, 4)
    for j in range(4):
        assert np.allclose(
            loss.value(np, Z, Y)[:, j : j + 1], loss.value(np, Z[:, j : j + 1], Y[:, j : j + 1]), rtol=4 * U
        )
        assert np.allclose(
            loss.delta(np, Z, Y)[:, j : j + 1], loss.delta(np, Z[:, j : j + 1], Y[:, j : j + 1]), rtol=4 * U
        )


@pytest.mark.parametrize("repeat", [2, 5])
@pytest.mark.parametrize("name", ["binary_cross_entropy", *REGRESSION])
def test_binary_outputs_are_summed_and_regression_outputs_averaged(name: str, repeat: int) -> None:
    loss, Z = get_loss(name), logits(3, 4)
    Y = targets(loss, "soft", 3, 4)
    one, many = loss.value(np, Z, Y), loss.value(np, np.tile(Z, (repeat, 1)), np.tile(Y, (repeat, 1)))
    assert np.allclose(many, one if name in REGRESSION else repeat * one, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_are_never_negative(spec: dict[str, Any], dtype: str) -> None:
    loss = get_loss(spec)
    for size in (0.1, 3.0, 30.0):
        Z = np.random.default_rng(7).normal(size=(4, 500)) * size
        if loss.name == "poisson":
            Z = np.minimum(Z, 20.0)
        for kind in ("hard", "soft"):
            Y = targets(loss, kind, 4, 500).astype(dtype)
            value = loss.value(np, Z.astype(dtype), Y)
            assert value.dtype == dtype
            # Poisson's terms cancel where e^Z = Y; all others are sums of nonnegative numbers.
            slack = 32 * float(np.finfo(dtype).eps) if loss.name == "poisson" else 0.0
            assert np.all(value >= -slack)


@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber", "quantile"])
def test_perfect_predictions_cost_exactly_nothing(name: str) -> None:
    loss, Z = get_loss(name), logits(3, 4)
    assert np.array_equal(loss.value(np, Z, Z), np.zeros((1, 4)))
    assert np.array_equal(loss.delta(np, Z, Z), np.zeros((3, 4)))


def test_perfect_poisson_predictions_cost_nothing_but_rounding() -> None:
    loss = get_loss("poisson")
    Y = np.array([[0.5, 1.0, 7.0, 1000.0]])
    bound = 4 * U * (Y * np.abs(np.log(Y)) + Y)
    assert np.all(np.abs(loss.value(np, np.log(Y), Y)) <= bound)
    assert np.all(np.abs(loss.delta(np, np.log(Y), Y)) <= bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3])
def test_cross_entropies_of_logits_of_a_thousand(dtype: str, rows: int) -> None:
    Z = np.array([[1000.0, 1000.0, -1000.0, -1000.0]], dtype).repeat(rows, axis=0)
    Y = np.array([[1.0, 0.0, 1.0, 0.0]], dtype).repeat(rows, axis=0)
    binary = get_loss("binary_cross_entropy")
    assert np.array_equal(binary.value(np, Z, Y), rows * np.array([[0.0, 1000.0, 1000.0, 0.0]]))
    assert np.array_equal(binary.delta(np, Z, Y), np.array([[0.0, 1.0, -1.0, 0.0]]).repeat(rows, axis=0))
    both = np.concatenate([Z[:1], np.zeros_like(Z[:1])])
    hot = np.concatenate([Y[:1], 1.0 - Y[:1]])
    categorical = get_loss("categorical_cross_entropy")
    assert np.array_equal(categorical.value(np, both, hot), [[0.0, 1000.0, 1000.0, 0.0]])
    assert np.array_equal(categorical.delta(np, both, hot)[0], [0.0, 1.0, -1.0, 0.0])


def test_softmax_of_two_classes_is_the_sigmoid_of_the_difference() -> None:
    Z, Y = logits(2, 50), np.random.default_rng(0).random((1, 50))
    both = np.concatenate([Y, 1.0 - Y])
    two, one = get_loss("categorical_cross_entropy"), get_loss("binary_cross_entropy")
    difference = Z[:1] - Z[1:]
    assert np.allclose(two.value(np, Z, both), one.value(np, difference, Y), rtol=1e-14)
    delta = one.delta(np, difference, Y)
    assert np.max(np.abs(two.delta(np, Z, both) - np.concatenate([delta, -delta]))) <= 8 * U


def test_categorical_ignores_a_shift_of_the_logits() -> None:
    loss = get_loss({"name": "categorical_cross_entropy", "label_smoothing": 0.25})
    Z = np.arange(12.0).reshape(4, 3)
    Y = targets(loss, "hard", 4, 3)
    assert np.array_equal(loss.value(np, Z + 512.0, Y), loss.value(np, Z, Y))
    assert np.array_equal(loss.delta(np, Z - 512.0, Y), loss.delta(np, Z, Y))


def test_one_minus_Y_with_the_logits_negated_is_the_same_binary_cost() -> None:
    loss, Z = get_loss("binary_cross_entropy"), logits(3, 8)
    Y = targets(loss, "hard", 3, 8)
    assert np.allclose(loss.value(np, Z, Y), loss.value(np, -Z, 1.0 - Y), rtol=1e-14, atol=1e-15)
    assert np.max(np.abs(loss.delta(np, Z, Y) + loss.delta(np, -Z, 1.0 - Y))) <= 2 * U


def test_one_hot_columns() -> None:
    Y = one_hot(np, np.array([[2, 0, 1]]), np.arange(3)[:, None], np.float32)
    assert Y.dtype == np.float32
    assert np.array_equal(Y, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    strict = one_hot(
        array_api_strict, to_strict(np.array([[2, 0, 1]])), to_strict(np.arange(3)[:, None]), array_api_strict.float32
    )
    assert np.array_equal(to_host(strict), Y)
    # The log-likelihood of integer labels, through one_hot: -log softmax at the label.
    Z = np.log(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 5.0], [2.0, 4.0, 8.0]]))
    value = get_loss("categorical_cross_entropy").value(np, Z, Y.astype(float))
    assert np.allclose(value, -np.log([[0.5, 0.25, 5.0 / 16.0]]), rtol=1e-15)


# value and delta at 40 digits. The scale is that of the largest terms that are added: u times it is their rounding.
EXACT = {
    "binary_cross_entropy": (
        lambda z, y: mp.log1p(mp.exp(z)) - z * y,
        lambda z, y: 1 / (1 + mp.exp(-z)) - y,
        lambda z, y: abs(z) + 1.0,
    ),
    "squared_error": (lambda z, y: (z - y) ** 2 / 2, lambda z, y: z - y, lambda z, y: (z - y) ** 2 + abs(z - y)),
    "poisson": (
        lambda z, y: mp.exp(z) - y * z + (y * mp.log(y) - y if y else 0),
        lambda z, y: mp.exp(z) - y,
        lambda z, y: math.exp(z) + y * (abs(z) + 1.0 + abs(math.log(y)) if y else 1.0),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXACT)
def test_against_forty_digits(name: str, dtype: str) -> None:
    value, delta, scale = EXACT[name]
    loss, u = get_loss(name), 2.0**-24 if dtype == "float32" else U
    Z = np.linspace(-12.0, 12.0, 49).astype(dtype)[None, :]
    for target in (0.0, 0.3, 1.0) if name == "binary_cross_entropy" else (0.0, 0.3, 1.0, 40.0):
        Y = np.full_like(Z, target)
        y = float(Y[0, 0])
        with mp.workdps(40):
            for z, L, d in zip(Z[0].tolist(), loss.value(np, Z, Y)[0], loss.delta(np, Z, Y)[0], strict=True):
                bound = 12 * u * scale(z, y)
                assert abs(float(value(mp.mpf(z), mp.mpf(y)) - mp.mpf(float(L)))) <= bound
                assert abs(float(delta(mp.mpf(z), mp.mpf(y)) - mp.mpf(float(d)))) <= bound


@pytest.mark.parametrize(("dtype", "u"), [("float32", 2.0**-24), ("float64", U)])
def test_the_tail_of_binary_cross_entropy_keeps_its_digits(dtype: str, u: float) -> None:
    """A confident right answer costs e^-|Z|, however small: in float32 it is 0 from Z = 15 on otherwise."""
    Z = np.array([[5.0, 10.0, 15.0, 30.0, -5.0, -10.0, -15.0, -30.0]], dtype)
    value = get_loss("binary_cross_entropy").value(np, Z, (Z > 0).astype(dtype))
    want = np.log1p(np.exp(-np.abs(Z.astype(float))))
    assert np.all(np.abs(value - want) <= 20 * u * want)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_array_api_strict_gives_numpys_bits_on_its_device(spec: dict[str, Any], dtype: str, device: str) -> None:
    loss, Z = get_loss(spec), logits(3, 4).astype(dtype)
    Y = targets(loss, "hard", 3, 4).astype(dtype)
    A = loss.link.forward(np, Z)
    Zs, Ys, As = to_strict(Z, device), to_strict(Y, device), to_strict(A, device)
    for strict, plain in (
        (loss.value(array_api_strict, Zs, Ys), loss.value(np, Z, Y)),
        (loss.delta(array_api_strict, Zs, Ys), loss.delta(np, Z, Y)),
        (loss.literal_dAL(array_api_strict, As, Ys), loss.literal_dAL(np, A, Y)),
    ):
        here = to_host(strict, device)
        assert here.dtype == plain.dtype == dtype
        assert np.array_equal(here, plain)


def test_links_and_label_kinds() -> None:
    assert {name: (c.link_name, c.labels) for name, c in LOSSES.items()} == {
        "binary_cross_entropy": ("sigmoid", "binary"),
        "categorical_cross_entropy": ("softmax", "classes"),
        "squared_error": ("identity", "values"),
        "absolute_error": ("identity", "values"),
        "huber": ("identity", "values"),
        "poisson": ("exponential", "values"),
        "quantile": ("identity", "values"),
    }
    assert all(get_loss(name).link.name == c.link_name for name, c in LOSSES.items())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_specs_go_round(spec: dict[str, Any]) -> None:
    loss = get_loss(spec)
    assert get_loss(loss.spec()) == loss
    assert get_loss(loss) is loss


def test_specs_name_their_parameters() -> None:
    assert get_loss("squared_error").spec() == "squared_error"
    assert get_loss({"name": "huber", "threshold": 0.5}).spec() == {"name": "huber", "threshold": 0.5}
    smoothed = {"name": "categorical_cross_entropy", "label_smoothing": 0.1}
    assert get_loss(smoothed).spec() == smoothed
    assert get_loss(SEVERAL).spec() == SEVERAL


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan, math.inf, -math.inf])
def test_label_smoothing_is_a_fraction(smoothing: float, name: str) -> None:
    with pytest.raises(ConfigError, match="label_smoothing must be at least 0 and below 1"):
        get_loss({"name": name, "label_smoothing": smoothing})


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_smoothed_labels_are_soft_labels(name: str) -> None:
    """A smoothed loss is the plain loss of (1 - s) Y + s/K, to the bit."""
    smoothed, plain = get_loss({"name": name, "label_smoothing": 0.25}), get_loss(name)
    Z, Y = logits(4, 7), targets(plain, "hard", 4, 7)
    soft = 0.75 * Y + (0.125 if name == "binary_cross_entropy" else 0.0625)
    assert np.array_equal(smoothed.value(np, Z, Y), plain.value(np, Z, soft))
    assert np.array_equal(smoothed.delta(np, Z, Y), plain.delta(np, Z, soft))


@pytest.mark.parametrize(
    "quantiles", [[], [0.0], [1.0], [0.5, 0.5], [0.9, 0.1], [math.nan], ["0.5"], 0.5, "0.5", None, [True]], ids=str
)
def test_quantiles_increase_within_0_and_1(quantiles: Any) -> None:
    with pytest.raises(ConfigError, match="quantiles must be an increasing list of numbers between 0 and 1"):
        get_loss({"name": "quantile", "quantiles": quantiles})


def test_the_median_is_half_the_absolute_error() -> None:
    Z, Y = logits(3, 8), logits(3, 8, 2.0)
    half, whole = get_loss("quantile"), get_loss("absolute_error")
    assert np.array_equal(2.0 * half.value(np, Z, Y), whole.value(np, Z, Y))
    assert np.array_equal(2.0 * half.delta(np, Z, Y), whole.delta(np, Z, Y))


def test_several_quantiles_are_the_mean_of_each_alone() -> None:
    """Two target columns with three outputs each: outputs of a column stand together."""
    several, Z = get_loss(SEVERAL), logits(6, 5)
    Y = np.repeat(logits(2, 5, 2.0), 3, axis=0)
    alone = [get_loss({"name": "quantile", "quantiles": [q]}) for q in (0.1, 0.5, 0.9)]
    values = [loss.value(np, Z[i::3], Y[i::3]) for i, loss in enumerate(alone)]
    assert np.allclose(several.value(np, Z, Y), sum(values) / 3, rtol=1e-14)
    for i, loss in enumerate(alone):
        assert np.allclose(several.delta(np, Z, Y)[i::3], loss.delta(np, Z[i::3], Y[i::3]) / 3, rtol=1e-14)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_the_minimizer_is_the_quantile(q: float) -> None:
    """Of 101 targets the cost of a constant prediction is least at the one that 100 q of the others are below."""
    Y = np.random.default_rng(3).permutation(np.arange(101.0))[None, :] ** 1.5
    loss, ordered = get_loss({"name": "quantile", "quantiles": [q]}), np.sort(Y[0])
    costs = [float(loss.value(np, np.full_like(Y, z), Y).sum()) for z in ordered]
    assert int(np.argmin(costs)) == round(100 * q)


def test_the_quantile_in_the_middle_stands_for_its_column() -> None:
    AL = np.arange(12.0).reshape(2, 6)
    assert np.array_equal(get_loss(SEVERAL).point(AL), AL[:, [1, 4]])
    assert np.array_equal(get_loss({"name": "quantile", "quantiles": [0.1, 0.9]}).point(AL), AL[:, [0, 2, 4]])
    assert get_loss("huber").point(AL) is AL


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_the_huber_threshold_is_positive(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold must be positive and finite"):
        get_loss({"name": "huber", "threshold": threshold})


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert get_loss({"name": "huber", "threshold": 1e-300}).spec() == {"name": "huber", "threshold": 1e-300}
    for smoothing in (0.0, math.nextafter(1.0, 0.0)):
        spec = {"name": "categorical_cross_entropy", "label_smoothing": smoothing}
        assert get_loss(spec).spec() == spec


def test_published_defaults() -> None:
    assert get_loss("huber").spec() == {"name": "huber", "threshold": 1.0}
    assert get_loss("categorical_cross_entropy").spec()["label_smoothing"] == 0.0
