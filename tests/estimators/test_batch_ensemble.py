"""Estimators of ensembles whose members share weights (``batch_ensemble``)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_friedman1

from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SETTINGS: dict[str, Any] = {"hidden_layer_sizes": (12, 7), "max_iter": 8, "random_state": 0, "batch_size": 32}
X, y = load_iris(return_X_y=True)


def test_the_network_is_an_ensemble_and_everything_of_it_is_there(tmp_path: Path) -> None:
    """Predictions, copies, files, a warm start, partial_fit, the loss curve."""
    model = MLPClassifier(batch_ensemble=4, **SETTINGS).fit(X, y)
    net = model.network()
    assert (net.members, net.sizes) == (4, (4, 12, 7, 3))
    assert [c.shape for c in model.coefs_] == [(4, 12), (12, 7), (7, 12)]
    assert model.norms_["R1"].shape == (4, 4)
    assert len(model.loss_curve_) == 8
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    model.to_safetensors(tmp_path / "model.safetensors")
    copies = (pickle.loads(pickle.dumps(model)), MLPClassifier.from_safetensors(tmp_path / "model.safetensors"))
    for other in (*copies, clone(model).fit(X, y)):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    scores = model.score(X, y)
    model.set_params(warm_start=True, max_iter=60).fit(X, y)
    assert model.score(X, y) > max(scores, 0.93)
    assert model.partial_fit(X, y).network().members == 4
    with pytest.raises(ConfigError, match="batch_ensemble=1"):
        model.to_sklearn()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_each_net_of_the_preset_may_be_one(kind: Any, tmp_path: Path) -> None:
    data, target = (X, y) if kind is MLPClassifier else make_friedman1(200, random_state=0)
    given = {"hidden_layer_sizes": (24,), "max_iter": 60, "random_state": 0}
    model = kind(preset="tabular", n_members=2, batch_ensemble=8, **given).fit(data, target)
    assert [m.network().members for m in model.members_] == [8, 8]
    model.to_safetensors(tmp_path / "model.safetensors")
    other = kind.from_safetensors(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(other.predict(data), model.predict(data))
    assert model.score(data, target) > 0.6


def test_several_outputs_follow_the_gradient_that_scikit_learn_follows() -> None:
    """The loss of several values is summed there: an ensemble of equal members does as one of them."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(60, 3))
    target = np.column_stack([data[:, 0], data[:, 1] * data[:, 2]])
    model = MLPRegressor(batch_ensemble=3, loss_scaling="sklearn", alpha=0.01, **SETTINGS).fit(data, target)
    assert model.predict(data).shape == (60, 2)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_ensemble": 0},
        {"batch_ensemble": 2.5},
        {"batch_ensemble": 2, "batch_norm": True},
        {"batch_ensemble": 2, "hidden_layer_sizes": ()},
        {"batch_ensemble": 2, "solver": "lbfgs"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"batch_ensemble|members"):
        MLPClassifier(**(SETTINGS | settings)).fit(X, y)
