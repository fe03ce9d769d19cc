"""Data that cannot be used: one clear error each, of scikit-learn's kinds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from support.estimators import fitted, rows

from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.errors import DeviceError

X, Y = rows("binary")
_, VALUES = rows("regression")


def changed(value: float) -> np.ndarray:
    wrong = X.copy()
    wrong[3, 2] = value
    return wrong


CASES: list[tuple[Any, Any, dict[str, Any], str]] = [
    (changed(np.nan), Y, {}, "Input X contains NaN"),
    (changed(np.inf), Y, {}, "Input X contains infinity"),
    (X, np.where(np.arange(120) == 5, np.nan, VALUES), {}, "Input y contains NaN"),
    (X[:, 0], Y, {}, "Expected 2D array, got 1D array"),
    (X[:0], Y[:0], {}, "Found array with 0 sample"),
    (X[:50], Y, {}, "inconsistent numbers of samples"),
    (X, Y, {"sample_weight": np.ones(7)}, r"sample_weight.shape == \(7,\)"),
    (X, Y, {"sample_weight": np.zeros(120)}, "must contain at least one non-zero"),
    (X, Y, {"sample_weight": np.full(120, np.nan)}, "Input sample_weight contains NaN"),
    (X, Y, {"X_val": X[:9]}, "X_val and y_val go together"),
    (X, Y, {"X_val": X[:9, :5], "y_val": Y[:9]}, "X has 5 features, but MLPClassifier is expecting 6"),
    (X, Y, {"X_val": X[:9], "y_val": np.array(["no"] * 8 + ["what"])}, "y_val has labels that y .* not: .*what"),
    (X, Y, {"X_val": X[:9], "y_val": Y[:8]}, "X_val, y_val: .*inconsistent numbers of samples"),
    (X, Y, {"X_val": changed(np.nan), "y_val": Y}, "X_val, y_val: Input X contains NaN"),
    (X, Y, {"X_val": X, "y_val": Y, "sample_weight_val": np.zeros(120)}, "sample_weight_val: .* at least one non-zero"),
    (X, Y, {"X_val": X, "y_val": Y, "sample_weight_val": -np.ones(120)}, "sample_weight_val: Negative values"),
    (X, Y, {"sample_weight_val": np.ones(120)}, "sample_weight_val goes with X_val and y_val"),
    (
        X,
        np.array(["a", None] * 60, object),
        {},
        "y must hold labels of one kind, none of them missing; got NoneType, str",
    ),
    (X, np.array(["a", 1] * 60, object), {}, "y must hold labels of one kind, none of them missing; got number, str"),
    (X, np.array([["a", 1], ["b", None]] * 60, object), {}, "one kind, none of them missing; got NoneType, number"),
]


@pytest.mark.parametrize(("x", "y", "given", "telling"), CASES, ids=[c[3][:30] for c in CASES])
def test_one_error_says_what_is_wrong(x: Any, y: Any, given: dict[str, Any], telling: str) -> None:
    with pytest.raises(ValueError, match=telling):
        MLPClassifier(max_iter=2).fit(x, y, **given)


def test_a_table_without_weight_is_refused() -> None:
    for weight, given in (({"no": 0.0, "yes": 0.0}, None), ({"no": 0.0}, (Y == "yes").astype(float))):
        with pytest.raises(ValueError, match="Every row has weight 0; class_weight and sample_weight must leave some"):
            MLPClassifier(class_weight=weight).fit(X, np.where(given == 1, "no", Y), sample_weight=given)
    early = MLPClassifier(early_stopping=True, random_state=0)
    with pytest.raises(ValueError, match="The validation set is too small"):
        early.fit(X, Y, sample_weight=(np.arange(120) < 2).astype(float))


def test_class_weights_that_do_not_fit_are_refused() -> None:
    both = np.column_stack([Y == "yes", Y == "no"]).astype(int)
    for weight, y, telling in (
        ({"no": 1.0, "Yes": 2.0}, Y, r"names \['Yes'\], which y has not; the classes of y are \['no', 'yes'\]"),
        ({"no": -1.0}, Y, r"numbers from 0, got {'no': -1.0}"),
        ({"no": np.nan}, Y, "numbers from 0, got {'no': nan}"),
        ({0: 1.0, 1: 2.0}, both, "must be a list of 2 dicts, one for each column of y"),
        ([{0: 1.0}], both, "must be a list of 2 dicts, one for each column of y"),
        ([{"no": 1.0}, {"yes": 1.0}], Y, "must be a dict of {label: weight}"),
    ):
        with pytest.raises(ValueError, match=telling):
            MLPClassifier(class_weight=weight).fit(X, y)
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight=["balanced", None]).partial_fit(X, both, classes=[0, 1])


def test_a_row_of_weight_zero_does_not_matter() -> None:
    weights = np.r_[np.zeros(40), np.ones(80)]
    a = fitted(MLPRegressor(solver="lbfgs", random_state=0), X, VALUES, sample_weight=weights)
    b = fitted(MLPRegressor(solver="lbfgs", random_state=0), X[40:], VALUES[40:])
    np.testing.assert_allclose(a.predict(X), b.predict(X), rtol=1e-3, atol=1e-3)


def test_one_class_is_predicted_as_it_is() -> None:
    model = fitted(MLPClassifier(max_iter=3), X, np.full(120, "only"))
    assert set(model.predict(X)) == {"only"}
    assert list(model.classes_) == ["only"]


def test_a_constant_target_is_learned() -> None:
    model = fitted(MLPRegressor(max_iter=400, learning_rate_init=0.01, random_state=0), X, np.full(120, 3.0))
    np.testing.assert_allclose(model.predict(X), 3.0, atol=0.3)


def test_unseen_labels_are_refused_by_partial_fit_and_warm_start() -> None:
    model = MLPClassifier(max_iter=2, random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        model.partial_fit(X, Y)
    model.partial_fit(X, Y, classes=["no", "yes"])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`.*maybe"):
        model.partial_fit(X, np.where(np.arange(120) == 2, "maybe", Y.astype("<U5")))
    warm = fitted(MLPClassifier(max_iter=2, warm_start=True), X, Y)
    with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same classes"):
        warm.fit(X, np.full(120, "no"))


def test_a_fit_that_is_continued_keeps_its_shape() -> None:
    two = np.column_stack([Y == "yes", Y == "no"]).astype(int)
    for model, y in ((MLPClassifier((4,), max_iter=1), Y), (MLPRegressor(hidden_layer_sizes=(4,), max_iter=1), VALUES)):
        fitted(model.set_params(warm_start=True), X, y)
        before = model.predict(X)
        for again in (model.fit, model.partial_fit):
            model.set_params(hidden_layer_sizes=(4, 3))
            with pytest.raises(
                ValueError, match=r"The 'hidden_layer_sizes' parameter .*\(4,\) were fitted.* got \(4, 3\)"
            ):
                again(X, y)
            model.set_params(hidden_layer_sizes=(4,))
            with pytest.raises(
                ValueError, match=r"y must have (1 outputs|one label for each row), as in the fit.* got"
            ):
                again(X, two)
        assert np.array_equal(model.predict(X), before)
    labels = fitted(MLPClassifier((4,), max_iter=1), X, two)
    for y in (Y == "yes", np.column_stack([two, two])):
        with pytest.raises(ValueError, match="y must have 2 columns of labels, as in the fit; got shape"):
            labels.partial_fit(X, y.astype(int))


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_validation_set_of_one_row_stops_nothing_early(kind: Any) -> None:
    y = Y if kind is MLPClassifier else VALUES
    model = kind(early_stopping=True, random_state=0, max_iter=3)
    one = (np.arange(9) == 4).astype(float)
    for given in (
        {"X_val": X[:1], "y_val": y[:1]},
        {"X_val": X[:9], "y_val": y[:9], "sample_weight_val": one},
    ):
        with pytest.raises(ValueError, match="X_val is too small for early_stopping: it needs at least two rows"):
            model.fit(X, y, **given)
    followed = fitted(model.set_params(early_stopping=False), X, y, X_val=X[:1], y_val=y[:1])
    assert np.isfinite(followed.validation_loss_curve_).all()
    preset = fitted(kind(preset="tabular", n_members=1, max_iter=3), X, y, X_val=X[:1], y_val=y[:1])
    assert np.isfinite(preset.members_[0].validation_loss_curve_).all()


def test_a_validation_set_of_one_value_is_said_to_tell_nothing() -> None:
    model = MLPRegressor(early_stopping=True, random_state=0, max_iter=3)
    for y_val in (np.full(9, 3.0), np.r_[np.full(8, 3.0), 4.0]):
        weights = (y_val == 3.0).astype(float)
        with pytest.warns(UserWarning, match="targets of the validation set are all the same: their R2") as said:
            fitted(model, X, VALUES, X_val=X[:9], y_val=y_val, sample_weight_val=weights)
        assert said[0].filename == fitted.__code__.co_filename
    fitted(model, X, np.full(120, 3.0))  # there is nothing else to hold out


def test_counts_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match=r"y must be at least 0 for loss='poisson', got -"):
        MLPRegressor("poisson").fit(X, VALUES)


def test_partial_fit_is_there_for_stochastic_solvers_only() -> None:
    for model in (MLPClassifier(solver="lbfgs"), MLPRegressor(solver="lbfgs")):
        assert not hasattr(model, "partial_fit")
        with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
            _ = model.partial_fit
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPRegressor(early_stopping=True).partial_fit(X, VALUES)
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=["no", "yes"])


def test_lbfgs_refuses_what_it_cannot_follow() -> None:
    with pytest.raises(ValueError, match="solver='lbfgs' follows no validation set"):
        MLPRegressor(solver="lbfgs").fit(X, VALUES, X_val=X, y_val=VALUES)
    with pytest.raises(ValueError, match="The 'dropout' parameter of MLPRegressor is not valid: solver='lbfgs' needs"):
        MLPRegressor(solver="lbfgs", dropout=0.5).fit(X, VALUES)


def test_a_fit_whose_scores_are_never_numbers_keeps_its_start() -> None:
    model = MLPRegressor(solver="sgd", early_stopping=True, max_iter=3, random_state=0)
    fitted(model.set_params(hidden_layer_sizes=(4,), learning_rate_init=1e-3), X, VALUES)
    fitted(model.set_params(hidden_layer_sizes=(3,), learning_rate_init=1e9, activation="identity"), X, 1e200 * VALUES)
    assert [c.shape for c in model.coefs_] == [(6, 3), (3, 1)]
    assert not (np.array(model.validation_scores_) > -np.inf).any()


def test_before_fit_and_with_other_columns() -> None:
    for method in (MLPClassifier().predict, MLPRegressor().predict, MLPRegressor().network, MLPRegressor().to_sklearn):
        with pytest.raises(NotFittedError):
            method(X) if method.__name__ == "predict" else method()
    with pytest.raises(ValueError, match="X has 5 features, but MLPRegressor is expecting 6 features"):
        fitted(MLPRegressor(max_iter=1), X, VALUES).predict(X[:, :5])


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="array_api_strict has no device 'device9'"):
        MLPRegressor(device="array_api_strict:device9").fit(X, VALUES)


def test_a_run_that_diverges_says_so_once() -> None:
    model = MLPRegressor(solver="sgd", learning_rate_init=1e6, max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
            model.fit(X, VALUES)


def test_warnings_are_scikit_learns() -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached and the optimization hasn't"):
        MLPRegressor(max_iter=2).fit(X, VALUES)
    with pytest.warns(UserWarning, match="Got `batch_size` less than 1 or larger than sample size"):
        fitted(MLPRegressor(max_iter=1, batch_size=500), X, VALUES)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        MLPRegressor(solver="lbfgs", max_iter=2).fit(X, VALUES)
