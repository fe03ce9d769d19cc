"""Several outputs: the gradient is that of the reported loss, or scikit-learn's (scikit-learn#8349)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from support.estimators import distance, fitted, rows

from backprop_gpu import MLPClassifier, MLPRegressor, parity
from backprop_gpu.estimators.fitted_network import FittedNetwork, build_net, plan_for
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.training.lbfgs import Objective

ALPHA = 0.3
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2.0, (len(rows("outputs")[0]), 1))


def objective(**settings: Any) -> tuple[Objective, np.ndarray]:
    """The function that lbfgs minimizes over the rows with three outputs, and a start."""
    X, y = rows("outputs")
    y = np.abs(y) if settings.get("loss") == "poisson" else y
    model = MLPRegressor(hidden_layer_sizes=(4,), activation="tanh", alpha=ALPHA, **settings)
    plan = plan_for(model, (6, 4, 3), get_loss(model.loss), "float64", len(X))
    network = FittedNetwork(plan, build_net(plan, 0, "glorot_uniform"))
    return Objective(network.step, X, y, WEIGHTS), network.net.backend.to_host(network.net.params.theta)


def slopes(function: Objective, theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """dJ/dtheta by central differences, where the vector holds parameters."""
    found = np.zeros_like(theta)
    for i in np.flatnonzero(theta):
        ends = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[i] += sign * h
            ends.append(function(moved)[0])
        found[i] = (ends[0] - ends[1]) / (2.0 * h)
    return found


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "absolute_error"])
def test_the_gradient_is_the_derivative_of_the_reported_loss(loss: str) -> None:
    function, theta = objective(loss=loss)
    _, grad = function(theta)
    where = np.flatnonzero(theta)
    np.testing.assert_allclose(grad[where], slopes(function, theta)[where], rtol=1e-6, atol=1e-8)


def test_scikit_learns_gradient_is_three_times_that_of_the_data_and_once_that_of_the_penalty() -> None:
    function, theta = objective(loss_scaling="sklearn")
    plain, _ = objective()
    value, grad = function(theta)
    assert value == pytest.approx(plain(theta)[0], rel=1e-14)
    n = function.net.params.n_weights
    where = np.flatnonzero(theta)
    penalty = np.concatenate([theta[:n], np.zeros(len(theta) - n)]) * ALPHA / WEIGHTS.sum()
    expected = 3.0 * (slopes(function, theta) - penalty) + penalty
    np.testing.assert_allclose(grad[where], expected[where], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_the_switch_reproduces_scikit_learn_and_the_default_does_not(solver: str) -> None:
    X, y = rows("outputs")
    settings: dict[str, Any] = {"solver": solver, "alpha": ALPHA, "max_iter": 15, "random_state": 0, "batch_size": 40}
    reference = fitted(theirs.MLPRegressor(**settings), X, y)
    switched = fitted(MLPRegressor(loss_scaling="sklearn", **settings), X, y)
    default = fitted(MLPRegressor(**settings), X, y)
    assert distance(reference, switched) < 1e-9
    assert switched.loss_ == pytest.approx(reference.loss_, rel=1e-9)
    assert distance(reference, default) > 1e-4


def test_one_output_has_nothing_to_scale() -> None:
    X, y = rows("regression")
    a, b = (fitted(MLPRegressor(max_iter=5, random_state=0, loss_scaling=s), X, y) for s in ("derivative", "sklearn"))
    assert distance(a, b) == 0.0


def test_poisson_sums_outputs_as_scikit_learn_does() -> None:
    X, y = rows("outputs")
    settings: dict[str, Any] = {"loss": "poisson", "max_iter": 10, "random_state": 0}
    reference, ours = (fitted(c(**settings), X, np.exp(y)) for c in (theirs.MLPRegressor, MLPRegressor))
    assert distance(reference, ours) < 1e-13
    assert ours.loss_ == pytest.approx(reference.loss_, rel=1e-12)


@pytest.mark.parametrize(
    ("scaling", "verdict"),
    [
        ("derivative", "the gradient is the derivative of the reported loss and penalty"),
        ("sklearn", "3.000 times the derivative of the reported loss: n_outputs; the penalty is right"),
    ],
)
def test_the_public_check_of_pairs_says_it_too(scaling: str, verdict: str) -> None:
    X, y = rows("outputs")
    model = fitted(
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, alpha=ALPHA, loss_scaling=scaling, random_state=0), X, y
    )
    report = parity.check_cost_gradient_pair(model, X, y)
    assert report.ok == (scaling == "derivative")
    assert verdict in str(report)


def test_loss_and_gradient_are_those_of_a_fit() -> None:
    X, y = rows("multiclass")
    weights = np.linspace(0.5, 1.5, len(y))
    settings: dict[str, Any] = {"solver": "sgd", "momentum": 0, "max_iter": 1, "batch_size": len(y), "random_state": 0}
    start = fitted(MLPClassifier((5,), learning_rate_init=1e-300, dropout=0.0, **settings), X, y, sample_weight=weights)
    after = fitted(MLPClassifier((5,), learning_rate_init=0.25, **settings), X, y, sample_weight=weights)
    loss, (coef_grads, intercept_grads) = start.loss_and_gradient(X, y, weights)
    assert loss == pytest.approx(after.loss_, rel=1e-13)
    for grad, p, q in zip(
        coef_grads + intercept_grads, start.coefs_ + start.intercepts_, after.coefs_ + after.intercepts_, strict=True
    ):
        np.testing.assert_allclose(p - 0.25 * grad, q, rtol=1e-10, atol=1e-14)
