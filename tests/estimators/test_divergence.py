"""A fit that diverges raises scikit-learn's error, and leaves weights that predict numbers."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.errors import NonFiniteError
from backprop_gpu.training import non_finite
from backprop_gpu.training.callbacks import Callback, Epoch

RNG = np.random.default_rng(0)
X = (1e3 * RNG.standard_normal((100, 4))).astype("f4")
Y = 10.0 * X[:, 0]
WORDS = "Solver produced non-finite parameter weights. The input data may contain large values and need to be"


def diverge(model: Any, X: np.ndarray, y: np.ndarray, method: str = "fit", **given: Any) -> str:
    """Scikit-learn says it with a ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(ValueError, match=WORDS) as caught:
            getattr(model, method)(X, y, **given)
    assert isinstance(caught.value, NonFiniteError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "learning_rate_init": 1e38},
        {"solver": "sgd", "learning_rate_init": 0.01},
        {"solver": "sgd", "learning_rate_init": 1e38, "batch_norm": True},
        {"solver": "adam", "learning_rate_init": 1e38, "max_iter": 1},
        {"solver": "adam", "learning_rate_init": 1e30, "max_iter": 1, "weight_average": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["reference", "native"])
def test_the_weights_that_are_left_are_of_use(settings: dict[str, Any], kernels: str) -> None:
    model = MLPRegressor(hidden_layer_sizes=(6,), random_state=0, kernels=kernels, **settings)
    assert "lower learning_rate_init, or set clip_norm" in diverge(model, X, Y)
    assert all(np.isfinite(x).all() for x in (*model.coefs_, *model.intercepts_))
    assert np.isfinite(model.predict(X)).all()
    model.set_params(learning_rate_init=1e-4, max_iter=2, batch_norm=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert np.isfinite(MLPRegressor(**model.get_params() | {"solver": "adam"}).fit(X, Y).predict(X)).all()


def test_early_stopping_keeps_the_best_weights() -> None:
    """As scikit-learn does, whose own tests ask for a fit without an error."""
    model = MLPRegressor(hidden_layer_sizes=(6,), solver="sgd", learning_rate_init=1.0, early_stopping=True)
    with pytest.warns(ConvergenceWarning, match=r"Training diverged in epoch 3 \(-?inf in Z2\[.*: the best weights"):
        model.fit(X, Y)
    assert np.isnan(model.validation_scores_[-1])
    assert np.isfinite(model.predict(X)).all()


def test_partial_fit_goes_on_from_before() -> None:
    model = MLPRegressor(hidden_layer_sizes=(6,), solver="adam", random_state=0)
    model.partial_fit(X, Y)
    before = [x.copy() for x in (*model.coefs_, *model.intercepts_)]
    bad = X.copy()
    bad[-1] = 3e38
    diverge(model, bad, Y, "partial_fit")
    assert all(np.array_equal(a, b) for a, b in zip(before, (*model.coefs_, *model.intercepts_), strict=True))
    twin = MLPRegressor(hidden_layer_sizes=(6,), solver="adam", random_state=0)
    for each in (model, twin):
        each.partial_fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


def test_lbfgs_keeps_the_point_before() -> None:
    # The loss of these targets is infinite in float64 wherever it is looked at.
    model = MLPRegressor(hidden_layer_sizes=(6,), solver="lbfgs", random_state=0)
    assert "scale the features and the target" in diverge(model, X.astype("f8"), 1e300 * Y.astype("f8"))
    assert all(np.isfinite(x).all() for x in (*model.coefs_, *model.intercepts_))
    assert np.isfinite(model.predict(X)).all()


def test_an_ensemble_of_which_one_diverges_is_not_fitted_and_the_error_names_it() -> None:
    model = MLPClassifier(preset="tabular", learning_rate_init=1e3, max_iter=6, n_members=4, random_state=0)
    told = re.search(r"at step (\d+) \(batch (\d+)\) in epoch (\d+) of network (\d) of 4; ", diverge(model, X, Y > 0.0))
    assert told
    step, batch, epoch, network = map(int, told.groups())
    assert step == 3 * (epoch - 1) + batch
    assert 1 <= network <= 4
    with pytest.raises((NotFittedError, AttributeError)):
        model.predict(X)


class Steps(Callback):
    """Keeps the parameters that each step leaves."""

    every = 1

    def __init__(self) -> None:
        self.after: dict[int, dict[str, np.ndarray]] = {}

    def on_steps(self, step: int) -> None:
        self.after[step] = self.trainer.state_dict()["fit"]["step"]["parameters"]

    def on_epoch(self, epoch: Epoch) -> None:
        self.on_steps(epoch.step)


@pytest.mark.parametrize("share", [0.0, math.inf])
def test_the_same_rows_are_shuffled_when_steps_are_run_again(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the state was copied after every epoch or once, 73 steps before: orders are those that were drawn."""
    monkeypatch.setattr(non_finite, "SHARE", share)
    inputs, steps = np.random.default_rng(0).normal(size=(60, 4)), Steps()
    targets = 3.0 * (inputs**2).sum(axis=1)
    settings: dict[str, Any] = {"solver": "sgd", "learning_rate_init": 0.05, "batch_size": 25, "max_iter": 400}
    settings |= {"hidden_layer_sizes": (20,), "n_iter_no_change": 1000, "random_state": 0}
    message = diverge(MLPRegressor(callbacks=[steps], **settings), inputs, targets)
    model = MLPRegressor(**settings)
    assert diverge(model, inputs, targets) == message
    assert " of training row 43 at step 74 (batch 2)" in message
    np.testing.assert_array_equal(model.coefs_[0].T, steps.after[73]["W1"])
