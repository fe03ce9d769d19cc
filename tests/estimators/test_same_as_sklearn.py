"""The same random_state gives scikit-learn's own weights, batches and stopping.

How far two correct programs may differ is measured: scikit-learn's own fit is repeated from starts moved by one unit in
the last place, and ours must end as near to the first as those do.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from scipy import sparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import shuffle
from support.estimators import SETS, distance, fitted, rows

import backprop_gpu
from backprop_gpu.estimators.labels import binarizer_of
from backprop_gpu.estimators.sklearn_rules import initial_parameters
from backprop_gpu.training.reshuffling import ReshufflingSampler

SLACK = 10.0  # the few perturbed runs are a sample of what rounding can do


def kind_of(target: str) -> str:
    return "MLPRegressor" if target in ("regression", "counts", "outputs") else "MLPClassifier"


def perturbed(kind: str, direction: float) -> type[Any]:
    """scikit-learn's estimator whose initial weights are moved by one unit in the last place."""

    class Perturbed(getattr(theirs, kind)):  # type: ignore[misc]
        def _init_coef(self, *given: Any) -> Any:
            coef, intercept = super()._init_coef(*given)
            return np.nextafter(coef, direction), np.nextafter(intercept, direction)

    return Perturbed


def compare(target: str, settings: dict[str, Any], **given: Any) -> None:
    """Fit scikit-learn's, ours, and two perturbed ones."""
    X, y = rows(target)
    kind = kind_of(target)
    settings = {"random_state": 7, "hidden_layer_sizes": (9, 5), **settings}
    reference = fitted(getattr(theirs, kind)(**settings), X, y, **given)
    extra = {"loss_scaling": "sklearn"} if target == "outputs" else {}
    ours = fitted(getattr(backprop_gpu, kind)(**settings, **extra), X, y, **given)
    moved = [fitted(perturbed(kind, d)(**settings), X, y, **given) for d in (-np.inf, np.inf)]
    allowed = SLACK * max(distance(reference, m) for m in moved)
    assert 0.0 < allowed < 1e-3
    assert distance(reference, ours) <= allowed
    assert (ours.n_iter_, ours.t_, ours.n_outputs_, ours.out_activation_) == (
        reference.n_iter_,
        reference.t_,
        reference.n_outputs_,
        reference.out_activation_,
    )
    np.testing.assert_allclose(ours.loss_, reference.loss_, rtol=1e-6)
    assert np.array_equal(ours.predict(X), reference.predict(X)) or target in ("regression", "counts", "outputs")


SOLVERS: list[dict[str, Any]] = [
    {"solver": "adam", "learning_rate_init": 0.01},
    {"solver": "sgd", "learning_rate_init": 0.1},
    {"solver": "sgd", "learning_rate_init": 0.5, "learning_rate": "invscaling", "power_t": 0.3},
    {"solver": "sgd", "learning_rate_init": 0.1, "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 2},
    {"solver": "sgd", "learning_rate_init": 0.1, "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate_init": 0.1, "momentum": 0.0},
    {"solver": "lbfgs"},
]


@pytest.mark.parametrize("settings", SOLVERS, ids=str)
@pytest.mark.parametrize("target", ["binary", "regression"])
def test_fifty_iterations_of_every_solver_and_schedule(target: str, settings: dict[str, Any]) -> None:
    compare(target, {"max_iter": 50, "batch_size": 50, **settings})


@pytest.mark.parametrize("target", SETS)
def test_every_kind_of_target(target: str) -> None:
    extra = {"loss": "poisson"} if target == "counts" else {}
    compare(target, {"max_iter": 20, "learning_rate_init": 0.01, "alpha": 0.1, "batch_size": 50, **extra})


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation(activation: str) -> None:
    compare("multiclass", {"max_iter": 10, "activation": activation, "batch_size": 50})


def test_without_shuffles_and_with_no_hidden_layer() -> None:
    compare("regression", {"max_iter": 10, "shuffle": False, "batch_size": 25})
    compare("binary", {"max_iter": 10, "hidden_layer_sizes": ()})


@pytest.mark.parametrize("target", ["binary", "multilabel", "regression"])
def test_early_stopping_splits_and_stops_alike(target: str) -> None:
    compare(target, {"max_iter": 40, "early_stopping": True, "learning_rate_init": 0.02, "n_iter_no_change": 3})


def test_momentum_one_is_the_number_before_it() -> None:
    X, y = rows("binary")
    settings: dict[str, Any] = {"solver": "sgd", "momentum": 1.0, "max_iter": 20, "random_state": 0}
    a, b = fitted(theirs.MLPClassifier(**settings), X, y), fitted(backprop_gpu.MLPClassifier(**settings), X, y)
    assert distance(a, b) < 1e-12


def test_example_weights() -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 120)
    for settings in ({"max_iter": 20, "batch_size": 50}, {"max_iter": 20, "solver": "lbfgs"}):
        compare("binary", settings, sample_weight=weights)


def test_the_loss_curve_and_the_scores_are_scikit_learns() -> None:
    X, y = rows("multiclass")
    settings: dict[str, Any] = {"random_state": 2, "max_iter": 15, "early_stopping": True, "learning_rate_init": 0.01}
    a, b = fitted(theirs.MLPClassifier(**settings), X, y), fitted(backprop_gpu.MLPClassifier(**settings), X, y)
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=1e-12)
    assert b.validation_scores_ == a.validation_scores_
    assert b.best_loss_ is None
    assert b.best_validation_score_ == a.best_validation_score_


def test_the_start_is_scikit_learns_bit_for_bit() -> None:
    sizes = (6, 4, 3)
    for activation, dtype in (("relu", "float32"), ("logistic", "float64")):
        model = theirs.MLPClassifier(activation=activation)
        model._random_state = np.random.RandomState(3)
        expected = [model._init_coef(k, n, np.dtype(dtype)) for k, n in pairwise(sizes)]
        coefs, intercepts = initial_parameters(np.random.RandomState(3), sizes, [activation == "logistic"] * 2, dtype)
        assert all(np.array_equal(c, e[0]) and c.dtype == dtype for c, e in zip(coefs, expected, strict=True))
        assert all(np.array_equal(b, e[1]) for b, e in zip(intercepts, expected, strict=True))


def test_the_order_of_the_rows_is_scikit_learns() -> None:
    for n in (1, 2, 120, 3000):
        ours, random_state, expected = ReshufflingSampler(n, [n], True), np.random.RandomState(5), np.arange(n)
        ours.restart(np.random.RandomState(5))
        for _ in range(4):
            expected = shuffle(expected, random_state=random_state)
            assert np.array_equal(ours.next_order(), expected)
        assert ours.next_order().dtype == np.int64


@pytest.mark.parametrize("kind", ["int64", "int8", "uint16", "bool", ">i4", "<U3", "float64"])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 9])
def test_labels_are_encoded_as_scikit_learn_encodes_them(kind: str, n_classes: int) -> None:
    y = np.random.default_rng(0).integers(0, n_classes, 40).astype(kind)
    expected, got = vars(LabelBinarizer().fit(y)), vars(binarizer_of(y))
    assert got.keys() == expected.keys()
    assert np.array_equal(got["classes_"], expected["classes_"])
    assert got["classes_"].dtype == expected["classes_"].dtype
    assert [v for k, v in got.items() if k != "classes_"] == [v for k, v in expected.items() if k != "classes_"]


def test_partial_fit_and_warm_start_go_on_as_scikit_learns_do() -> None:
    X, y = rows("multiclass")
    for solver in ("adam", "sgd"):
        a, b = (m.MLPClassifier(solver=solver, random_state=0) for m in (theirs, backprop_gpu))
        for start in (0, 40, 80, 20):
            part = slice(start, start + 40)
            a.partial_fit(X[part], y[part], classes=np.unique(y))
            b.partial_fit(X[part], y[part], classes=np.unique(y))
        assert distance(a, b) < 1e-14
        assert (a.t_, a.n_iter_, len(a.loss_curve_)) == (b.t_, b.n_iter_, len(b.loss_curve_))
    a, b = (m.MLPRegressor(warm_start=True, max_iter=4, random_state=0) for m in (theirs, backprop_gpu))
    for _ in range(3):
        fitted(a, X, X[:, 0])
        fitted(b, X, X[:, 0])
    assert distance(a, b) < 1e-14
    assert len(b.loss_curve_) == 12


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
def test_sparse_rows_give_the_bits_of_dense_rows(container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows("binary")
    X = np.where(np.abs(X) > 0.8, X, 0.0)
    settings: dict[str, Any] = {"max_iter": 6, "batch_size": 16, "random_state": 1, "early_stopping": True}
    dense = fitted(backprop_gpu.MLPClassifier(**settings), X, y)
    small = fitted(backprop_gpu.MLPClassifier(**settings), container(X), y)
    monkeypatch.setattr("backprop_gpu.training.reshuffling.DENSE_BYTES", 0)
    large = fitted(backprop_gpu.MLPClassifier(**settings), container(X), y)
    for other in (small, large):
        assert distance(dense, other) == 0.0
        assert other.loss_curve_ == dense.loss_curve_
        assert np.array_equal(other.predict_proba(container(X)), dense.predict_proba(X))


def test_rows_of_the_same_shape_are_trained_by_the_recorded_epoch() -> None:
    X, y = rows("multiclass")
    model = backprop_gpu.MLPClassifier(random_state=0).partial_fit(X[:40], y[:40], classes=[0, 1, 2])
    before = model._device_state.kept.captured
    model.partial_fit(X[40:80], y[40:80])
    assert model._device_state.kept.captured is before
    fresh = backprop_gpu.MLPClassifier(random_state=0).partial_fit(X[:40], y[:40], classes=[0, 1, 2])
    fresh._device_state.kept = None
    fresh.partial_fit(X[40:80], y[40:80])
    assert distance(model, fresh) == 0.0
