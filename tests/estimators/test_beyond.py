"""What scikit-learn's estimators do not have: class weights, dropout, validation sets, callbacks, other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.callback import FitCallback
from sklearn.model_selection import GridSearchCV, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from support.estimators import distance, fitted, rows, same_bits

from backprop_gpu import Callback, Epoch, MLPClassifier, MLPRegressor


@pytest.mark.parametrize("weights", ["balanced", {0: 1.0, 1: 2.0, 2: 0.5}])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_class_weights_are_example_weights(weights: Any, solver: str) -> None:
    X, y = rows("multiclass")
    y = np.where((y == 2) & (X[:, 0] > 0), 1, y)
    own = np.linspace(0.5, 1.5, len(y))
    settings: dict[str, Any] = {"solver": solver, "max_iter": 5, "random_state": 0}
    a = fitted(MLPClassifier(class_weight=weights, **settings), X, y, sample_weight=own)
    b = fitted(MLPClassifier(**settings), X, y, sample_weight=own * compute_sample_weight(weights, y))
    assert same_bits(a, b)
    assert distance(a, fitted(MLPClassifier(**settings), X, y, sample_weight=own)) > 1e-6


@pytest.mark.parametrize("target", ["multiclass", "multilabel", "several"])
def test_class_weights_are_about_the_classes_of_the_fit_not_of_a_batch(target: str) -> None:
    X, y = rows("multiclass" if target == "several" else target)
    weight: Any = {0: 2.0, 2: 5.0} if target == "multiclass" else [{1: 5.0}, None, {0: 0.5}]
    classes: Any = [0, 1, 2]
    if target == "several":
        y = np.column_stack([y, y > 0])
        weight, classes = [{0: 2.0, 2: 5.0}, {1: 3.0}], [[0, 1, 2], [0, 1]]
    model, plain = (MLPClassifier((5,), random_state=0, class_weight=w) for w in (weight, None))
    batches = [y[:, 0] == 0 if y.ndim == 2 else y == k for k in range(3)]
    for part in [np.full(120, True), *batches]:
        each = weight if y.ndim == 2 else [weight]
        per_row = np.prod(
            [[(w or {}).get(k, 1.0) for k in c] for w, c in zip(each, y[part].reshape(part.sum(), -1).T, strict=True)],
            axis=0,
        )
        model.partial_fit(X[part], y[part], classes=classes)
        plain.partial_fit(X[part], y[part], sample_weight=per_row, classes=classes)
        assert same_bits(model, plain)


@pytest.mark.parametrize("weight", ["balanced", {"yes": 7.0}])
@pytest.mark.parametrize("preset", [None, "tabular"])
def test_class_weights_count_alike_in_every_validation_set(weight: Any, preset: str | None) -> None:
    X, y = rows("binary")
    own = np.linspace(1.0, 2.0, 40)
    settings: dict[str, Any] = {"max_iter": 4, "random_state": 0, "preset": preset, "n_members": 1}
    by_class = dict(zip(["no", "yes"], [40 / (y[:80] == "no").sum(), 40 / (y[:80] == "yes").sum()], strict=True))
    by_class = by_class if weight == "balanced" else {"no": 1.0, **weight}
    rows_of = np.array([by_class[label] for label in y])
    sets = {"X_val": X[80:], "y_val": y[80:]}
    a = fitted(MLPClassifier(class_weight=weight, **settings), X[:80], y[:80], **sets, sample_weight_val=own)
    weighted = {"sample_weight": rows_of[:80], "sample_weight_val": own * rows_of[80:]}
    b = fitted(MLPClassifier(**settings), X[:80], y[:80], **sets, **weighted)
    one, other = (m if preset is None else m.members_[0] for m in (a, b))
    assert same_bits(one, other)
    np.testing.assert_allclose(one.validation_loss_curve_, other.validation_loss_curve_, rtol=1e-6)
    if preset is None and weight != "balanced":  # split off or given, they count the same
        splitter = ShuffleSplit(1, test_size=40, random_state=0)
        inside, outside = next(iter(splitter.split(X)))
        split = fitted(MLPClassifier(class_weight=weight, validation_fraction=splitter, **settings), X, y)
        sets = {"X_val": X[outside], "y_val": y[outside]}
        given = fitted(MLPClassifier(class_weight=weight, **settings), X[inside], y[inside], **sets)
        assert split.validation_loss_curve_ == given.validation_loss_curve_


def test_a_target_of_one_class_scores_on_validation_as_score_does() -> None:
    X, _ = rows("binary")
    y = np.full(120, "only")
    settings: dict[str, Any] = {"random_state": 0, "max_iter": 3, "validation_metrics": ["accuracy", "log_loss"]}
    for seed in range(3):
        model = fitted(MLPClassifier((3,), early_stopping=True, **settings | {"random_state": seed}), X, y)
        assert model.validation_scores_ == [1.0] * 3 == [model.score(X, y)] * 3
        assert model.validation_metric_curves_["accuracy"] == [1.0] * 3
        log_loss = model.validation_metric_curves_["log_loss"]
        np.testing.assert_allclose(log_loss, model.validation_loss_curve_, rtol=1e-12)
    given = fitted(MLPClassifier((3,), **settings), X, y, X_val=X[:9], y_val=y[:9])
    assert given.validation_metric_curves_["accuracy"] == [1.0] * 3


def test_dropout_trains_differently_and_predicts_without() -> None:
    X, y = rows("binary")
    settings: dict[str, Any] = {"max_iter": 5, "random_state": 0}
    plain = fitted(MLPClassifier(**settings), X, y)
    a, b = (fitted(MLPClassifier(dropout=0.3, **settings), X, y) for _ in range(2))
    assert same_bits(a, b)
    assert distance(a, plain) > 1e-4
    assert np.array_equal(a.predict_proba(X), a.predict_proba(X))
    per_layer = fitted(MLPClassifier((8, 6), dropout=[0.0, 0.5], **settings), X, y)
    assert per_layer.network().dropout == [0.0, 0.0, 0.5, 0.0]


def test_clipping_bounds_a_step() -> None:
    X, y = rows("regression")
    settings: dict[str, Any] = {"solver": "sgd", "momentum": 0, "alpha": 0, "max_iter": 1, "random_state": 0}
    start = MLPRegressor(learning_rate_init=1e-300, **settings)
    model = MLPRegressor(learning_rate_init=1.0, clip_norm=1e-3, **settings)
    before, after = fitted(start, X, y), fitted(model, X, y)
    moved = [q - p for p, q in zip(before.coefs_ + before.intercepts_, after.coefs_ + after.intercepts_, strict=True)]
    assert np.sqrt(sum((d * d).sum() for d in moved)) == pytest.approx(1e-3, rel=1e-6)


def test_a_validation_set_is_followed_without_changing_the_fit() -> None:
    X, y = rows("binary")
    settings: dict[str, Any] = {"max_iter": 7, "random_state": 0}
    plain = fitted(MLPClassifier(**settings), X[:80], y[:80])
    model = MLPClassifier(validation_metrics=["accuracy", "log_loss"], **settings)
    fitted(model, X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert same_bits(plain, model)
    assert len(model.validation_loss_curve_) == 7
    assert model.validation_scores_ is None
    assert model.validation_metric_curves_["accuracy"][-1] == model.score(X[80:], y[80:])
    p = model.predict_proba(X[80:])
    expected = -np.log(np.where(y[80:] == "yes", p[:, 1], p[:, 0])).mean()
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
    assert model.validation_metric_curves_["log_loss"][-1] == pytest.approx(expected, rel=1e-12)


def test_early_stopping_may_be_turned_on_and_off_between_fits() -> None:
    X, y = rows("binary")
    model = fitted(MLPClassifier(max_iter=3, warm_start=True, random_state=0), X, y)
    fitted(model.set_params(early_stopping=True), X, y)
    assert len(model.validation_scores_) == 3
    fitted(model.set_params(early_stopping=False), X, y)
    assert len(model.loss_curve_) == 9
    assert model.best_loss_ == min(model.loss_curve_[6:])


@pytest.mark.parametrize("target", ["multiclass", "multilabel", "regression", "outputs"])
def test_ones_own_validation_set_decides_early_stopping(target: str) -> None:
    X, y = rows(target)
    kind = MLPRegressor if target in ("regression", "outputs") else MLPClassifier
    model = kind(early_stopping=True, max_iter=60, random_state=0, learning_rate_init=0.02, n_iter_no_change=2)
    fitted(model, X[:80], y[:80], X_val=X[80:], y_val=y[80:], sample_weight_val=np.linspace(1, 2, 40))
    scores = model.validation_scores_
    assert scores is not None
    assert len(scores) == model.n_iter_
    assert model.best_validation_score_ == max(scores)
    assert model.score(X[80:], y[80:], sample_weight=np.linspace(1, 2, 40)) == pytest.approx(max(scores), rel=1e-12)


def test_a_splitter_holds_rows_out() -> None:
    X, y = rows("binary")
    splitter = ShuffleSplit(1, test_size=30, random_state=3)
    inside, outside = next(iter(splitter.split(X, y)))
    settings: dict[str, Any] = {"max_iter": 4, "random_state": 0, "early_stopping": True}
    a = fitted(MLPClassifier(validation_fraction=splitter, **settings), X, y)
    b = fitted(MLPClassifier(**settings), X[inside], y[inside], X_val=X[outside], y_val=y[outside])
    assert same_bits(a, b)
    assert a.validation_scores_ == b.validation_scores_
    fitted(MLPClassifier(validation_fraction=StratifiedKFold(4), **settings), X, y)


class Listener(Callback):
    """What a callback of ours is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_start(self, epochs: int) -> None:
        self.heard.append(epochs)

    def on_epoch(self, epoch: Epoch) -> None:
        self.heard.append((epoch.epoch, epoch.step, epoch.cost, sorted(epoch.validation)))

    def on_end(self) -> None:
        self.heard.append("end")


def test_callbacks_of_ours_hear_every_epoch() -> None:
    X, y = rows("binary")
    listener = Listener()
    model = fitted(MLPClassifier(max_iter=3, batch_size=60, callbacks=[listener]), X, y, X_val=X[:9], y_val=y[:9])
    expected = [(i, 2 * i, model.loss_curve_[i - 1], ["accuracy", "cost"]) for i in (1, 2, 3)]
    assert listener.heard == [3, *expected, "end"]


def test_callbacks_of_ours_hear_every_iteration_of_lbfgs() -> None:
    X, y = rows("regression")
    listener = Listener()
    model = fitted(MLPRegressor(solver="lbfgs", max_iter=5, random_state=0, callbacks=[listener]), X, y)
    assert [h[0] for h in listener.heard[1:-1]] == [1, 2, 3, 4, 5]
    assert listener.heard[-2][2] == model.loss_
    assert same_bits(model, fitted(MLPRegressor(solver="lbfgs", max_iter=5, random_state=0), X, y))


class StopAfter:
    """A callback of scikit-learn's protocol that ends the fit after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.scores, self.ends = epochs, [], 0

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        self.ends += 1

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any = None, y: Any = None, fitted_estimator: Any = None
    ) -> bool:
        if context.task_name != "epoch":
            return False
        self.scores.append(fitted_estimator.score(X, y))
        return len(self.scores) == self.epochs


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_scikit_learns_callbacks_see_a_fitted_estimator_and_may_stop(kind: Any, solver: str) -> None:
    X, y = rows("binary" if kind is MLPClassifier else "regression")
    callback = StopAfter(4)
    assert isinstance(callback, FitCallback)
    model = fitted(kind(solver=solver, max_iter=30, random_state=0).set_callbacks(callback), X, y)
    assert model.n_iter_ == len(callback.scores) == 4
    assert callback.scores[-1] == model.score(X, y)
    assert callback.ends == 1


def test_an_interrupted_fit_keeps_what_it_had() -> None:
    X, y = rows("regression")

    class Interrupt(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 3:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = MLPRegressor(max_iter=9, random_state=0, callbacks=[Interrupt()]).fit(X, y)
    assert model.n_iter_ == 3
    assert same_bits(model, fitted(MLPRegressor(max_iter=3, random_state=0), X, y))


def test_verbose_prints_scikit_learns_lines(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = rows("binary")
    settings: dict[str, Any] = {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1}
    fitted(MLPClassifier(verbose=True, max_iter=4, random_state=0, **settings), X, y)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("Iteration 1, loss = 0.")
    assert out[3] == (
        "Training loss did not improve more than tol=10.000000 for 1 consecutive epochs. "
        "Setting learning rate to 0.000200"
    )


def test_in_searches_pipelines_and_with_routing() -> None:
    X, y = rows("binary")
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=40, random_state=0)),
        {"mlpclassifier__alpha": [1e-4, 10.0], "mlpclassifier__activation": ["tanh", ["relu"]]},
        cv=2,
        error_score="raise",
    )
    fitted(search, X, y)
    assert search.best_score_ > 0.6
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(max_iter=3, random_state=0).set_fit_request(sample_weight=True, X_val=True, y_val=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        fitted(pipe, X, y, sample_weight=np.ones(len(y)), X_val=X[:20], y_val=y[:20])
        assert len(pipe[-1].validation_loss_curve_) == 3
