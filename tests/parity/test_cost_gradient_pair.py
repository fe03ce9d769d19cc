"""Is a gradient the derivative of the reported cost? Known factors are found and named; right pairs are not accused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.small_nets import LOSS_CASES, ROWS, rows, small_net

from backprop_gpu.errors import ConfigError
from backprop_gpu.gradcheck.derivative import slope
from backprop_gpu.parity.cost_gradient import CostGradientReport, check_cost_gradient_pair

rng = np.random.default_rng(4)
A, B = rng.normal(size=(30, 6)), rng.normal(size=30)
THETA = rng.normal(size=6)
X = rng.normal(size=(40, 4))

Gradient = Callable[[Any], Any]


def cost(t: Any) -> Any:
    """Half the mean squared error."""
    return np.mean((A @ t - B) ** 2) / 2.0


def gradient(t: np.ndarray) -> np.ndarray:
    return A.T @ (A @ t - B) / 30.0


# -- the derivative itself --------------------------------------------------------------------------------------------

SMOOTH: dict[str, tuple[Callable[[Any], Any], float]] = {
    "exp": (np.exp, 1.0),
    "sin": (lambda t: np.sin(3.0 * t + 1.0), 3.0 * math.cos(1.0)),
    "quotient": (lambda t: (1.0 + t) / (2.0 - t), 0.75),
    "large offset": (lambda t: 1e6 + np.tanh(t), 1.0),
    "flat": (lambda t: 1.0 + t**2, 0.0),
    "steep": (lambda t: np.exp(300.0 * t), 300.0),
}


@pytest.mark.parametrize("takes_complex", [True, False])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_derivative_is_as_good_as_it_says(name: str, takes_complex: bool) -> None:
    f, want = SMOOTH[name]
    found = slope(f if takes_complex else lambda t: f(float(t)), 1e-2, abs(float(f(0.0))))
    assert abs(found.value - want) <= found.error + 1e-15
    assert found.error <= 1e-6 * max(1.0, abs(want))
    if takes_complex and want:
        assert abs(found.value - want) <= 1e-13 * abs(want)


@pytest.mark.parametrize("at", [0.0, 1e-3, -2e-3, 7e-3, 0.5])
def test_a_kink_widens_the_error_only_where_it_stands(at: float) -> None:
    found = slope(lambda t: abs(float(t) - at) + 2.0 * float(t), 1e-2, abs(at))
    if at == 0.0:
        assert found.error >= 1.0
    else:
        assert abs(found.value - (2.0 - math.copysign(1.0, at))) <= found.error <= 1e-6


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_steps_that_a_coarse_cost_does_not_notice_say_nothing(kind: Any) -> None:
    costs = {3.0: lambda t: 3.0 * float(kind(1.0 + t)), math.e: lambda t: float(kind(np.exp(kind(1.0 + t))))}
    for want, f in costs.items():
        found = slope(f, 1e-2, 3.0)
        assert abs(found.value - want) <= found.error <= (3.0 if kind is np.float16 else 1e-3)
    assert slope(lambda t: 5.0, 1e-2, 5.0).value == 0.0


def test_a_cost_that_drops_the_imaginary_part_is_not_believed() -> None:
    found = slope(lambda t: np.real(t) * 2.0 + 0.5 * t, 1e-2, 1.0)  # its complex step is 0.5
    assert abs(found.value - 2.5) <= found.error <= 1e-6


# -- two callables ----------------------------------------------------------------------------------------------------

FACTORS: dict[str, tuple[Gradient, float, str]] = {
    "forgotten mean": (lambda t: 30.0 * gradient(t), 30.0, ": n_samples"),
    "mean twice": (lambda t: gradient(t) / 30.0, 1.0 / 30.0, ": 1/n_samples"),
    "m - 1": (lambda t: gradient(t) * 30.0 / 29.0, 30.0 / 29.0, ": n_samples/(n_samples - 1)"),
    "square": (lambda t: 2.0 * gradient(t), 2.0, ": the 1/2 of a square"),
    "half": (lambda t: 0.5 * gradient(t), 0.5, ": 1/(the 1/2 of a square)"),
    "sign": (lambda t: -gradient(t), -1.0, ": the sign"),
    "sign and mean": (lambda t: -30.0 * gradient(t), -30.0, ": minus n_samples"),
    "outputs": (lambda t: 7.0 * gradient(t), 7.0, ": n_outputs"),
    "nothing known": (lambda t: 1.2345 * gradient(t), 1.2345, "reported cost"),
}


@pytest.mark.parametrize("fault", FACTORS)
def test_a_factor_is_found_and_named(fault: str) -> None:
    wrong, factor, named = FACTORS[fault]
    report = check_cost_gradient_pair((cost, wrong), A, B, theta=THETA, known={"n_outputs": 7})
    assert not report.ok
    assert report.status == "proportional"
    assert report.ratio == pytest.approx(factor, rel=1e-9)
    assert report.sentence.startswith("the gradient is ")
    assert report.sentence.endswith(named)
    assert str(report) == report.summary() == report.sentence
    assert "\n" not in report.sentence


def test_a_right_pair_is_right() -> None:
    report = check_cost_gradient_pair((cost, gradient), A, B, theta=THETA)
    assert report == CostGradientReport(
        "equal", 1.0, "the gradient is the derivative of the reported cost", report.tensors
    )
    assert report.ok
    assert [f.status for f in report.findings] == ["ok"]
    assert report.findings[0].ratio <= 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: gradient(t) * [1, 1, 1, 1, 1, 2],
        lambda t: gradient(t)[::-1],
        lambda t: gradient(t) + 0.1,
        lambda t: np.abs(gradient(t)),
        lambda t: 0.0 * t,
        lambda t: gradient(2.0 * t),
    ],
)
def test_what_is_no_multiple_is_different(wrong: Gradient) -> None:
    report = check_cost_gradient_pair((cost, wrong), A, B, theta=THETA)
    assert (report.status, report.ratio) == ("different", None)
    assert "is not the derivative of the reported cost in theta" in report.sentence
    assert report.findings[0].status == "wrong"


def test_tensors_are_judged_apart() -> None:
    theta = {"W": rng.normal(size=(3, 6)), "b": rng.normal(size=(3, 1)), "unused": np.ones(2)}
    Y = rng.normal(size=(3, 30))

    def residual(p: Any) -> Any:
        return p["W"] @ A.T + p["b"] - Y

    def grad(p: Any) -> Any:
        r = residual(p) / 30.0
        return {"W": r @ A, "b": r.sum(axis=1, keepdims=True), "unused": np.zeros(2)}

    both = (lambda p: np.sum(residual(p) ** 2) / 60.0, grad)
    assert check_cost_gradient_pair(both, theta=theta).ok
    off = (both[0], lambda p: grad(p) | {"b": 30.0 * grad(p)["b"]})
    report = check_cost_gradient_pair(off, A, Y.T, theta=theta)
    assert report.status == "different"
    assert "in b (30.000 times: n_samples)" in report.sentence
    assert report.sentence.endswith("; W, unused are right")
    assert {t.name: t.status for t in report.tensors} == {"W": "equal", "b": "proportional", "unused": "equal"}
    assert [f.status for f in report.findings] == ["ok", "wrong", "ok"]


def test_a_tensor_whose_gradient_is_small_is_judged_all_the_same() -> None:
    theta = {"large": np.ones(3), "small": np.ones(3)}
    both = (
        lambda p: np.sum(p["large"] ** 2) + 1e-5 * np.sum(p["small"] ** 2),
        lambda p: {"large": 2.0 * p["large"], "small": 4e-5 * p["small"]},
    )
    report = check_cost_gradient_pair(both, theta=theta)
    assert {t.name: t.status for t in report.tensors} == {"large": "equal", "small": "proportional"}


def test_nothing_of_the_callers_is_changed() -> None:
    theta = THETA.copy()

    def meddling(t: np.ndarray) -> np.ndarray:
        g = gradient(t)
        t *= 0.0
        return g

    assert check_cost_gradient_pair((cost, meddling), theta=theta).ok
    np.testing.assert_array_equal(theta, THETA)


def test_a_cost_in_float32_is_judged_as_well_as_it_can() -> None:
    single = lambda t: np.float32(cost(np.asarray(t, np.float32)))  # noqa: E731
    assert check_cost_gradient_pair((single, gradient), theta=THETA).ok
    report = check_cost_gradient_pair((single, lambda t: 30.0 * gradient(t)), A, B, theta=THETA)
    assert report.status == "proportional"
    assert report.ratio == pytest.approx(30.0, rel=1e-3)


def test_a_tiny_and_a_huge_cost_are_judged_alike() -> None:
    for scale in (1e-12, 1e12):
        scaled = (lambda t: scale * cost(t), lambda t: scale * gradient(t))  # noqa: B023
        assert check_cost_gradient_pair(scaled, theta=THETA).ok
        twice = (scaled[0], lambda t: 2.0 * scale * gradient(t))  # noqa: B023
        assert check_cost_gradient_pair(twice, theta=THETA).ratio == pytest.approx(2.0)


def test_a_kink_and_noise_are_unclear_and_say_so() -> None:
    kinked = (lambda t: float(np.sum(np.abs(t))), np.sign)
    assert check_cost_gradient_pair(kinked, theta=np.array([1e-4, 1.0, -1.0])).ok
    noise = np.random.default_rng(0)
    noisy = (lambda t: cost(t) * (1.0 + noise.normal() * 1e-2), gradient)
    for pair, theta in ((kinked, np.array([0.0, 1.0, -1.0])), (noisy, THETA)):
        report = check_cost_gradient_pair(pair, theta=theta)
        assert report.status == "unclear"
        assert not report.ok
        assert "cannot be compared in theta" in report.sentence
        assert report.findings[0].status == "warning"


def test_what_is_missing_is_one_line() -> None:
    for target, how, said in (
        ((cost, gradient), {}, "need theta="),
        ((cost, gradient), {"theta": THETA, "l2": 0.1}, "only a network takes settings"),
        (object(), {}, "pass \\(cost, gradient\\), a DenseNet, or an estimator"),
        (Unusual(X, 2), {"X": X, "y": X}, "_backprop of Unusual asks for momentum"),
        ((cost, lambda t: gradient(t)[:2]), {"theta": THETA}, "the gradient of theta is \\(2,\\)"),
        (Perceptron(X, 2), {}, "needs X and y"),
    ):
        with pytest.raises(ConfigError, match=said) as raised:
            check_cost_gradient_pair(target, **how)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_a_gradient_or_a_cost_of_the_wrong_kind_is_one_line() -> None:
    theta = {"W": np.ones(2), "b": np.ones(1)}
    square = lambda p: float(sum(np.sum(x**2) for x in p.values()))  # noqa: E731
    both = lambda p: {k: 2.0 * x for k, x in p.items()}  # noqa: E731
    for pair, at, said in (
        ((square, lambda p: {"W": 2.0 * p["W"]}), theta, "the gradient holds W but no 'b'"),
        ((square, lambda p: [2.0 * p["W"], 2.0 * p["b"]]), theta, "the gradient is a list; return a dict"),
        ((square, lambda p: both(p) | {"b": "x"}), theta, "the gradient of b is no array of numbers"),
        ((lambda t: t**2, lambda t: 2.0 * t), np.ones(3), r"must be one number, got one of shape \(3,\)"),
        ((lambda t: None, lambda t: t), np.ones(3), "must be one number, got one of type NoneType"),
        ((lambda t: np.log(-t[0]), lambda t: 1.0 / t), np.ones(1), "the cost at theta is nan"),
        ((square, both), {"W": "x"}, r"theta\['W'\] is no array of numbers"),
    ):
        with np.errstate(all="ignore"), pytest.raises(ConfigError, match=said) as raised:
            check_cost_gradient_pair(pair, theta=at)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_cost_may_come_in_any_shape_of_one_number(shape: tuple[int, ...]) -> None:
    for of in (np.float64, np.complex128):
        shaped = lambda t, of=of: np.reshape(cost(t) if np.iscomplexobj(t) else of(cost(t)).real, shape)  # noqa: E731
        assert check_cost_gradient_pair((shaped, gradient), theta=THETA).ok
        assert check_cost_gradient_pair((shaped, lambda t: 2.0 * gradient(t)), theta=THETA).ratio == pytest.approx(2.0)


def test_a_gradient_of_nan_says_so() -> None:
    report = check_cost_gradient_pair((cost, lambda t: np.where(t > 0.0, np.nan, gradient(t))), theta=THETA)
    assert report.status == "different"
    n = int(np.sum(THETA > 0.0))
    assert f"in theta ({n} of 6 entries of the gradient are NaN or infinite)" in report.sentence


@pytest.mark.parametrize("by", [1e-3, 1e-2, 0.5, -2.0])
@pytest.mark.parametrize("entries", [1, 3])
def test_few_wrong_entries_of_a_hundred_are_no_factor_and_the_worst_is_named(entries: int, by: float) -> None:
    numbers = np.random.default_rng(1)
    theta, scale = numbers.normal(size=100), numbers.uniform(0.5, 2.0, 100)
    off = np.ones(100)
    off[17 : 17 + entries] += by

    def wrong(t: np.ndarray) -> np.ndarray:
        return 2.0 * scale * t * off

    report = check_cost_gradient_pair((lambda t: float(np.sum(scale * np.real(t) ** 2)), wrong), theta=theta)
    assert (report.status, report.ratio) == ("different", None)
    assert " times" not in report.sentence
    assert ("it alone is wrong" if entries == 1 else f"{entries} of 100 are wrong") in report.sentence
    worst = 17 + int(np.argmax(np.abs(scale * theta)[17 : 17 + entries]))
    assert f"entry [{worst}]" in report.sentence


def test_a_factor_next_to_1_is_shown_with_its_digits() -> None:
    report = check_cost_gradient_pair((cost, lambda t: 1.0002 * gradient(t)), theta=THETA)
    assert report.status == "proportional"
    assert "is 1.0002 times the derivative" in report.sentence


# -- hundreds of pairs, right and wrong, some at the edge of the cost's domain ----------------------------------------

Family = Callable[[np.random.Generator, float], tuple[Callable[[Any], Any], Gradient, np.ndarray]]


def _sums(f: Callable[[Any], Any], g: Gradient) -> Family:
    def family(numbers: np.random.Generator, size: float) -> tuple[Callable[[Any], Any], Gradient, np.ndarray]:
        w = numbers.uniform(0.5, 2.0, 4)
        return lambda t: np.sum(w * f(t)), lambda t: w * g(t), size * numbers.uniform(0.5, 2.0, 4)

    return family


def _likelihood(numbers: np.random.Generator, size: float) -> tuple[Callable[[Any], Any], Gradient, np.ndarray]:
    """Of a normal distribution, by its mean and standard deviation."""
    x = size * numbers.normal(size=9)

    def value(t: Any) -> Any:
        return np.sum(np.log(t[1]) + 0.5 * ((x - t[0]) / t[1]) ** 2)

    def slopes(t: np.ndarray) -> np.ndarray:
        z = (x - t[0]) / t[1]
        return np.array([-np.sum(z) / t[1], np.sum(1.0 - z**2) / t[1]])

    return value, slopes, np.array([0.3 * size, size * numbers.uniform(0.5, 1.5)])


def _mixed(numbers: np.random.Generator, size: float) -> tuple[Callable[[Any], Any], Gradient, np.ndarray]:
    """One parameter next to the edge of the domain, the others far from it."""
    theta = np.r_[size, numbers.normal(size=3)]
    return lambda t: np.log(t[0]) + np.sum(t[1:] ** 2), lambda t: np.r_[1.0 / t[0], 2.0 * t[1:]], theta


FAMILIES: dict[str, Family] = {
    "log": _sums(np.log, lambda t: 1.0 / t),
    "sqrt": _sums(np.sqrt, lambda t: 0.5 / np.sqrt(t)),
    "power": _sums(lambda t: t**1.5, lambda t: 1.5 * np.sqrt(t)),
    "entropy": _sums(lambda t: t * np.log(t), lambda t: 1.0 + np.log(t)),
    "reciprocal": _sums(lambda t: 1.0 / t, lambda t: -1.0 / t**2),
    "reciprocal square": _sums(lambda t: t**-2.0, lambda t: -2.0 * t**-3.0),
    "log of abs": _sums(lambda t: np.log(np.abs(t)), lambda t: 1.0 / t),
    "raises": _sums(lambda t: np.array([math.log(x) for x in t]), lambda t: 1.0 / t),
    "likelihood": _likelihood,
    "mixed": _mixed,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_hundreds_of_right_pairs_are_not_accused_and_of_wrong_ones_none_is_missed(name: str) -> None:
    for seed in range(32):
        numbers = np.random.default_rng(seed)
        size = 10.0 ** numbers.uniform(-8.0, 1.0)
        value, slopes, theta = FAMILIES[name](numbers, size)
        report = check_cost_gradient_pair((value, slopes), theta=theta)
        assert report.ok, (seed, size, report.sentence)
        at = int(np.argmax(np.abs(slopes(theta))))
        factor = np.ones(theta.size)
        factor[at] = numbers.choice([-1.0, 0.0, 0.5, 0.99, 1.001, 2.0])
        report = check_cost_gradient_pair((value, lambda t: slopes(t) * factor), theta=theta)  # noqa: B023
        assert report.status in ("different", "proportional"), (seed, size, factor[at], report.sentence)


# -- estimators -------------------------------------------------------------------------------------------------------


class Perceptron:
    """One hidden layer of tanh, with the attributes of scikit-learn's and, written by hand, its arithmetic.

    The loss is the mean over examples *and outputs* of half the squared error; ``per`` says what the gradient is
    divided by beside the examples: scikit-learn forgets the outputs.
    """

    alpha = 0.0

    def __init__(self, X: np.ndarray, outputs: int, per: str = "forgotten", alpha: float = 0.0) -> None:
        numbers = np.random.default_rng(outputs)
        shapes = [(X.shape[1], 5), (5, outputs)]
        self.coefs_ = [numbers.normal(size=s) for s in shapes]
        self.intercepts_ = [numbers.normal(size=s[1]) for s in shapes]
        self.per, self.alpha = per, alpha

    def _backprop(self, X: Any, y: Any, activations: Any, deltas: Any, coef_grads: Any, intercept_grads: Any) -> Any:
        (W1, W2), (b1, b2), m = self.coefs_, self.intercepts_, len(X)
        activations[1] = np.tanh(X @ W1 + b1)
        activations[2] = activations[1] @ W2 + b2
        penalty = 0.5 * self.alpha * (np.sum(W1 * W1) + np.sum(W2 * W2)) / m
        loss = 0.5 * np.mean((activations[2] - y) ** 2) + penalty
        deltas[1] = activations[2] - y
        if self.per == "outputs":
            deltas[1] = deltas[1] / y.shape[1]
        deltas[0] = deltas[1] @ W2.T * (1.0 - activations[1] ** 2)
        for l in range(2):
            coef_grads[l] = (activations[l].T @ deltas[l] + self.alpha * self.coefs_[l]) / m
            intercept_grads[l] = deltas[l].sum(axis=0) / m
        return loss, coef_grads, intercept_grads


class Unusual(Perceptron):
    def _backprop(self, X: Any, momentum: float) -> Any:  # type: ignore[override]
        raise AssertionError("it must not be called")


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
def test_a_gradient_that_forgets_the_outputs_is_off_by_their_number(outputs: int, alpha: float) -> None:
    y = rng.normal(size=(40, outputs))
    model = Perceptron(X, outputs, alpha=alpha)
    before = [c.copy() for c in model.coefs_]
    report = check_cost_gradient_pair(model, X, y)
    assert report.ratio == pytest.approx(outputs, rel=1e-7)
    if outputs == 1:
        assert report.ok
    else:
        said = f"the gradient of the loss is {outputs}.000 times the derivative of the reported loss: n_outputs"
        assert report.status == "proportional"
        assert report.sentence.startswith(said)
        assert report.sentence.endswith("; the penalty is right") == (alpha > 0.0)
    assert check_cost_gradient_pair(Perceptron(X, outputs, "outputs", alpha), X, y).ok
    assert all(np.array_equal(a, b) for a, b in zip(before, model.coefs_, strict=True))
    assert model.alpha == alpha


def test_a_wrong_penalty_is_told_from_the_loss() -> None:
    class Doubled(Perceptron):
        def _backprop(
            self, X: Any, y: Any, activations: Any, deltas: Any, coef_grads: Any, intercept_grads: Any
        ) -> Any:
            loss, *_ = super()._backprop(X, y, activations, deltas, coef_grads, intercept_grads)
            coef_grads = [g + self.alpha * W / 40.0 for g, W in zip(coef_grads, self.coefs_, strict=True)]
            return loss, coef_grads, intercept_grads

    report = check_cost_gradient_pair(Doubled(X, 2, "outputs", alpha=0.7), X, rng.normal(size=(40, 2)))
    assert report.ratio == pytest.approx(2.0)
    assert report.sentence.startswith(
        "the gradient of the penalty is 2.000 times the derivative of the reported penalty"
    )
    assert report.sentence.endswith("; the loss is right")


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
def test_scikit_learns_regressor_is_off_by_its_outputs(outputs: int, activation: str) -> None:
    """https://github.com/scikit-learn/scikit-learn/issues/8349"""
    network = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    y = rng.normal(size=(40, outputs))
    y = y[:, 0] if outputs == 1 else y
    settings = {"hidden_layer_sizes": (5,), "activation": activation, "alpha": 0.1, "random_state": 0}
    model = network.MLPRegressor(**settings)
    report = check_cost_gradient_pair(model, X, y)
    assert report.ratio == pytest.approx(outputs, rel=1e-6)
    assert report.ok == (outputs == 1)
    if outputs > 1:
        assert f"{outputs}.000 times the derivative of the reported loss: n_outputs" in report.sentence
        assert report.sentence.endswith("; the penalty is right")
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize("labels", ["two classes", "three classes", "three labels"])
def test_scikit_learns_classifier_is_right(labels: str) -> None:
    network = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    y = {
        "two classes": rng.integers(0, 2, 40),
        "three classes": np.array(["a", "b", "c"])[rng.integers(0, 3, 40)],
        "three labels": rng.integers(0, 2, (40, 3)),
    }[labels]
    model = network.MLPClassifier(hidden_layer_sizes=(5, 4), random_state=1, max_iter=3)
    assert check_cost_gradient_pair(model, X, y).ok
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three iterations do not converge
        model.fit(X, y)
    fitted = [c.copy() for c in model.coefs_]
    assert check_cost_gradient_pair(model, X, y).ok
    assert all(np.array_equal(a, b) for a, b in zip(fitted, model.coefs_, strict=True))


# -- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSS_CASES)
def test_this_packages_networks_are_right_for_every_loss(name: str) -> None:
    loss, outputs, y = LOSS_CASES[name]
    net = small_net([4, 5, 3, outputs], activation=["tanh", "relu"], loss=loss, dtype="float32")
    before = net.parameters()
    report = check_cost_gradient_pair(net, rows(4), y, l2=0.1, l1=0.01)
    assert report.ok, report
    assert [t.name for t in report.tensors] == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert all(np.array_equal(before[k], v) for k, v in net.parameters().items())
    assert len(y) == ROWS


def test_running_statistics_are_no_parameters() -> None:
    """Nothing of the cost of a batch reads them, and no gradient belongs to them."""
    net = small_net([4, 5, 3, 2], activation="tanh", loss="squared_error", batch_norm=True)
    before = net.parameters()
    report = check_cost_gradient_pair(net, rows(4), rng.normal(size=(ROWS, 2)), l2=0.1)
    assert report.ok, report
    assert [t.name for t in report.tensors] == ["W1", "b1", "gamma1", "W2", "b2", "gamma2", "W3", "b3"]
    assert all(np.array_equal(before[k], v) for k, v in net.parameters().items())


def test_a_network_whose_cost_is_a_sum_and_whose_gradient_is_a_mean_is_found() -> None:
    from backprop_gpu.backends.reference import ReferenceKernels

    class Forgetful(ReferenceKernels):
        def output_delta(self, *args: Any, dZ: Any, db: Any, **kwargs: Any) -> None:
            super().output_delta(*args, dZ=dZ, db=db, **kwargs)
            dZ[...] = dZ * 3.0
            db[...] = db * 3.0

    net = small_net([4, 5, 3], loss="squared_error")
    net.backend.kernels = lambda kind="auto": Forgetful(net.backend)  # type: ignore[method-assign]
    report = check_cost_gradient_pair(net, rows(4), rng.normal(size=(ROWS, 3)))
    assert report.ratio == pytest.approx(3.0)
    assert report.sentence == "the gradient is 3.000 times the derivative of the reported cost: n_outputs"
