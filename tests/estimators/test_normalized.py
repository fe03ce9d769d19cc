"""Batch normalization, averaged weights, smoothed labels and quantiles, as parameters of the estimators."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.estimators import distance, fitted, rows, same_bits

from backprop_gpu import MLPClassifier, MLPRegressor, parity
from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.maths.optimizers import Adam

SETTINGS: dict[str, Any] = {"max_iter": 8, "random_state": 0, "learning_rate_init": 0.01, "batch_size": 40}
NEW: list[dict[str, Any]] = [
    {"batch_norm": True},
    {"hidden_layer_sizes": (7, 5), "batch_norm": [False, True], "early_stopping": True},
    {"weight_average": 0.9},
    {"weight_average": 0.9, "early_stopping": True},
    {"label_smoothing": 0.1},
    {"batch_norm": True, "weight_average": 0.9, "dropout": 0.1, "label_smoothing": 0.1, "dtype": "float32"},
]


def model(**settings: Any) -> MLPClassifier:
    return MLPClassifier(**{"hidden_layer_sizes": (7,), **SETTINGS, **settings})


@pytest.mark.parametrize("settings", NEW, ids=str)
def test_copies_predict_and_go_on_alike_and_parity_judges_them(settings: dict[str, Any], tmp_path: Path) -> None:
    X, y = rows("multiclass")
    m = fitted(model(**settings), X, y)
    assert parity.check(m, X, y).ok
    m.set_params(early_stopping=False).to_safetensors(tmp_path / "m.safetensors")
    copies = [pickle.loads(pickle.dumps(m)), MLPClassifier.from_safetensors(tmp_path / "m.safetensors")]
    for _ in range(2):
        m.partial_fit(X, y)
        for other in copies:
            other.partial_fit(X, y)
            assert same_bits(m, other)
            assert np.array_equal(m.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("more", [1, 2, 3, 5])
def test_rows_left_over_do_not_spoil_the_statistics(more: int) -> None:
    """The running variances are those of the rows, whatever their number; a last batch of one row has none."""
    X = np.random.default_rng(0).normal(size=(120 + more, 4))
    settings = {**SETTINGS, "batch_size": 60, "learning_rate_init": 1e-6, "max_iter": 60, "n_iter_no_change": 100}
    m = fitted(MLPRegressor(hidden_layer_sizes=(6,), batch_norm=True, **settings), X, X[:, 0])
    np.testing.assert_allclose(m.norms_["variance1"].ravel(), (X @ m.coefs_[0]).var(axis=0), rtol=0.05)
    streamed = MLPRegressor(hidden_layer_sizes=(6,), batch_norm=True, **settings)
    for _ in range(60):
        streamed.partial_fit(X, X[:, 0])
    np.testing.assert_allclose(streamed.norms_["variance1"].ravel(), (X @ streamed.coefs_[0]).var(axis=0), rtol=0.05)


def test_a_row_of_weight_0_fills_no_place_in_a_normalized_batch() -> None:
    """As everywhere else it is no row: batches are made of those that count."""
    X, y = rows("regression")
    w = np.arange(len(X)) % 3.0
    settings = {**SETTINGS, "batch_norm": True, "shuffle": False}
    a = fitted(MLPRegressor(hidden_layer_sizes=(6,), **settings), X, y, sample_weight=w)
    b = fitted(MLPRegressor(hidden_layer_sizes=(6,), **settings), X[w > 0], y[w > 0], sample_weight=w[w > 0])
    assert same_bits(a, b)


def test_single_rows_are_refused() -> None:
    X, y = rows("regression")
    m = fitted(MLPRegressor(hidden_layer_sizes=(6,), **SETTINGS | {"batch_size": "auto"}, batch_norm=True), X, y)
    before = [c.copy() for c in m.coefs_]
    with pytest.raises(ValueError, match="batch normalization needs at least 2 rows to train on, got 1"):
        m.partial_fit(X[:1], y[:1])
    assert all(np.array_equal(a, b) for a, b in zip(m.coefs_, before, strict=True))
    m.partial_fit(X[:2], y[:2])
    with pytest.raises(ValueError, match="batch_size must be at least 2 with batch_norm"):
        m.set_params(batch_size=1).fit(X, y)


def test_normalized_layers_have_their_statistics_beside_them() -> None:
    X, y = rows("multiclass")
    m = fitted(model(batch_norm=True), X, y)
    assert sorted(m.norms_) == ["gamma1", "mean1", "variance1"]
    assert np.abs(m.norms_["mean1"]).max() > 0.0
    assert m.network().batch_norm == [False, True, False]
    assert not hasattr(fitted(m.set_params(batch_norm=False), X, y), "norms_")
    with pytest.raises(ConfigError, match="no batch normalization"):
        fitted(model(batch_norm=True), X, y).to_sklearn()
    for name in ("batch_norm", "dropout"):
        value = True if name == "batch_norm" else 0.5
        with pytest.raises(ValueError, match=f"The '{name}' parameter .* a loss that stays the same; leave {name} out"):
            model(solver="lbfgs", **{name: value}).fit(X, y)


def test_the_weights_are_the_average_over_the_steps() -> None:
    X, y = rows("binary")
    seen: list[np.ndarray] = []

    def after(steps: int) -> np.ndarray:
        return fitted(model(batch_size=120, max_iter=steps), X, y).coefs_[0]

    seen = [after(t) for t in (1, 2, 3)]
    d = 0.9
    average = np.average(seen, axis=0, weights=[d * d, d, 1.0])
    averaged = fitted(model(batch_size=120, max_iter=3, weight_average=d), X, y)
    np.testing.assert_allclose(averaged.coefs_[0], average, rtol=1e-12)
    # partial_fit goes on from the weights themselves, not from their average
    one = model(batch_size=120, weight_average=d, shuffle=False)
    for _ in range(3):
        one.partial_fit(X, y, classes=["no", "yes"])
    whole = fitted(model(batch_size=120, weight_average=d, shuffle=False, max_iter=3), X, y)
    assert distance(one, whole) < 1e-14


def test_smoothed_labels_are_those_of_the_loss() -> None:
    X, y = rows("multiclass")
    m = fitted(model(label_smoothing=0.2, alpha=0.0), X, y)
    loss = get_loss({"name": "categorical_cross_entropy", "label_smoothing": 0.2})
    assert m.loss_and_gradient(X, y)[0] == pytest.approx(
        float(loss.value(np, np.log(m.predict_proba(X)).T, (y == np.arange(3)[:, None]).astype(float)).mean()),
        rel=1e-12,
    )


def test_an_optimizers_own_average_is_kept() -> None:
    X, y = rows("binary")
    own = Adam(SETTINGS["learning_rate_init"], variant="epsilon_hat", average=0.9)
    a = fitted(model(solver=own, learning_rate_init=0.001), X, y)
    assert same_bits(a, fitted(model(weight_average=0.9), X, y))


def test_every_quantile_is_predicted() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3))
    y = X[:, 0] + rng.standard_normal(400) * (1.0 + np.abs(X[:, 1]))
    loss = {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}
    m = fitted(MLPRegressor(loss, max_iter=60, learning_rate_init=0.01, random_state=0), X, y)
    below = (y[:, None] < m.predict(X)).mean(axis=0)
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.06)
    assert m.score(X, y) > 0.2
    both = fitted(MLPRegressor(loss, max_iter=3, early_stopping=True, random_state=0), X, np.column_stack([y, -y]))
    assert both.predict(X).shape == (400, 2, 3)
    assert both.n_outputs_ == 6
    assert parity.check(both, X, np.column_stack([y, -y])).ok
    one = fitted(MLPRegressor({"name": "quantile", "quantiles": [0.3]}, max_iter=3), X, y)
    assert one.predict(X).shape == (400,)
