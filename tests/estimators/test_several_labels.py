"""Several labels of several classes each, on shared hidden layers (scikit-learn#12505)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
import skops.io
from support.estimators import fitted, same_bits

from backprop_gpu import MLPClassifier, parity
from backprop_gpu.errors import ConfigError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 4))
Y = np.column_stack(
    [
        np.array(["low", "mid", "top"])[np.digitize(X[:, 0], [-0.4, 0.4])],
        np.array(["no", "yes"])[(X[:, 1] > 0).astype(int)],
    ]
)
SETTINGS: dict[str, Any] = {"learning_rate_init": 0.02, "max_iter": 60, "random_state": 0}


def model(**settings: Any) -> MLPClassifier:
    return MLPClassifier((20,), **{**SETTINGS, **settings})


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_every_column_is_learned(solver: str) -> None:
    m = fitted(model(solver=solver, max_iter=60 if solver == "adam" else 8), X, Y)
    assert [list(c) for c in m.classes_] == [["low", "mid", "top"], ["no", "yes"]]
    assert (m.n_outputs_, m.out_activation_) == (5, "softmax")
    predicted = m.predict(X)
    assert predicted.shape == Y.shape
    assert ((predicted == Y).mean(axis=0) > 0.9).all()
    assert m.score(X, Y) == (predicted == Y).all(axis=1).mean()
    proba = m.predict_proba(X)
    assert [p.shape for p in proba] == [(150, 3), (150, 2)]
    for p, log_p, column, classes in zip(proba, m.predict_log_proba(X), predicted.T, m.classes_, strict=True):
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(log_p, np.log(p))
        assert np.array_equal(classes[p.argmax(axis=1)], column)


def test_the_loss_is_the_sum_of_the_columns_log_losses() -> None:
    m = fitted(model(max_iter=3, alpha=0.0), X, Y)
    expected = -sum(
        np.log(p[np.arange(150), np.searchsorted(c, y)]).mean()
        for p, c, y in zip(m.predict_proba(X), m.classes_, Y.T, strict=True)
    )
    assert m.loss_and_gradient(X, Y)[0] == pytest.approx(expected, rel=1e-12)
    assert parity.check_cost_gradient_pair(fitted(model(max_iter=3, activation="tanh"), X, Y), X, Y).ok
    for smoothing in (0.0, 0.2):
        assert parity.check(fitted(model(max_iter=3, label_smoothing=smoothing), X, Y), X, Y).ok


def test_early_stopping_copies_weights_and_partial_fit(tmp_path: Path) -> None:
    m = fitted(model(early_stopping=True, class_weight="balanced"), X, Y)
    assert m.validation_scores_ is not None
    assert len(m.validation_scores_) == m.n_iter_
    m.set_params(early_stopping=False, class_weight=None)
    m.to_safetensors(tmp_path / "m.safetensors")
    types = "classifier.MLPClassifier", "fitted_network.OptimizerState", "labels.MultiOutputLabels"
    own = [f"backprop_gpu.estimators.{name}" for name in types]
    by_skops = skops.io.loads(skops.io.dumps(m), trusted=own)
    for other in (pickle.loads(pickle.dumps(m)), MLPClassifier.from_safetensors(tmp_path / "m.safetensors"), by_skops):
        assert same_bits(m, other)
        assert np.array_equal(m.predict(X), other.predict(X))
    a, b = model(max_iter=1), model()
    fitted(a, X, Y)
    b.partial_fit(X, Y, classes=[["low", "mid", "top"], ["no", "yes"]])
    assert same_bits(a, b)
    assert b.partial_fit(X[:5], Y[:5]).score(X, Y) > 0.0


def test_what_it_cannot_do_is_said() -> None:
    m = fitted(model(max_iter=2), X, Y)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model().partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`.*what"):
        m.partial_fit(X, np.where(Y == "mid", "what", Y))
    with pytest.raises(ValueError, match="y must have 2 columns of labels"):
        m.loss_and_gradient(X, Y[:, 0])
    with pytest.raises(ConfigError, match="scikit-learn's MLPClassifier has no several labels"):
        m.to_sklearn()
    for name in ("rmse", "f1"):
        with pytest.raises(
            ValueError, match=f"'validation_metrics' .*'{name}' does not go with the task several labels"
        ):
            model(early_stopping=True, validation_metrics=[name]).fit(X, Y)


def test_metrics_are_followed_on_the_validation_set() -> None:
    names, w = ["accuracy", "log_loss", "f1_macro", "roc_auc"], np.linspace(0.5, 2.0, 60)
    m = fitted(model(max_iter=5, validation_metrics=names), X, Y, X_val=X[:60], y_val=Y[:60], sample_weight_val=w)
    curves = m.validation_metric_curves_
    assert [len(curves[name]) for name in names] == [5] * 4
    T, P, proba = Y[:60].T, m.predict(X[:60]).T, m.predict_proba(X[:60])
    columns = list(zip(T, P, proba, m.classes_, strict=True))
    expected = {
        "accuracy": m.score(X[:60], Y[:60], w),
        "log_loss": sum(sk.log_loss(t, p, sample_weight=w, labels=c) for t, _, p, c in columns),
        "f1_macro": np.mean([sk.f1_score(t, y, average="macro", sample_weight=w) for t, y, _, _ in columns]),
        "roc_auc": np.mean(
            [
                sk.roc_auc_score(T[0], proba[0], multi_class="ovr", sample_weight=w),
                sk.roc_auc_score(T[1], proba[1][:, 1], sample_weight=w),
            ]
        ),
    }
    for name in names:
        assert curves[name][-1] == pytest.approx(expected[name], rel=1e-12)
    assert m.validation_loss_curve_[-1] == pytest.approx(curves["log_loss"][-1], rel=1e-12)
    again = fitted(model(early_stopping=True, validation_metrics=names), X, Y)
    assert again.validation_scores_ == again.validation_metric_curves_["accuracy"]
