"""A fit that is resumed from a state of its own ends as if it had not been interrupted, bit for bit."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from support.estimators import rows

from backprop_gpu import Callback, Checkpoint, DenseNet, MLPClassifier, MLPRegressor, Trainer
from backprop_gpu.build import train
from backprop_gpu.errors import CheckpointError, ConfigError
from backprop_gpu.training import reshuffling

VALUES = ("regression", "counts", "outputs")


class Keep(Callback):
    """Takes the state after every step, by way of the fit that it is a callback of."""

    every = 1

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_steps(self, step: int) -> None:
        assert self.trainer is not None
        self.states.append(copy.deepcopy(self.trainer.state_dict()))

    def on_epoch(self, epoch: Any) -> None:
        self.on_steps(epoch.step)


def fit(model: Any, X: Any, y: Any, **given: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y, **given)


def plain(value: Any) -> Any:
    """For comparing: arrays as bytes; estimators as what they hold."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.random.RandomState):
        return plain(value.get_state(legacy=False))
    return plain(vars(value)) if type(value).__module__.startswith(("backprop_gpu", "sklearn")) else value


def left(model: Any) -> Any:
    """All that a fit leaves; NaN is equal to NaN."""
    apart = ("callbacks", "random_state", "_device_state", "members_")
    found = {k: v for k, v in vars(model).items() if k not in apart}
    members = [left(member) for member in vars(model).get("members_", [])]
    return repr(plain(found)), members


RUNS: dict[str, dict[str, Any]] = {
    "adam": {"dropout": 0.2, "max_iter": 3},
    "early stopping": {"early_stopping": True, "validation_metrics": ["log_loss"], "n_iter_no_change": 1, "tol": 1.0},
    "averaged and normalized": {"weight_average": 0.9, "batch_norm": True, "max_iter": 3},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 10.0, "max_iter": 6},
    "inverse scaling": {"solver": "sgd", "learning_rate": "invscaling", "max_iter": 3},
    "schedule": {"solver": "adamw", "learning_rate": "one_cycle", "max_iter": 3, "clip_norm": 0.5},
    "from NumPy's generator": {"random_state": None, "early_stopping": True, "initializer": "auto", "max_iter": 3},
}


@pytest.mark.parametrize("name", RUNS)
def test_resumed_at_any_step_it_ends_as_if_it_had_not_been_interrupted(name: str) -> None:
    settings = {"hidden_layer_sizes": (5,), "batch_size": 50, "random_state": 3, "max_iter": 8, **RUNS[name]}
    for kind, target in ((MLPClassifier, "multiclass"), (MLPRegressor, "outputs")):
        X, y = rows(target)
        given = {k: v for k, v in settings.items() if kind is MLPClassifier or k != "validation_metrics"}
        weights = np.linspace(0.5, 2.0, len(X))
        whole = kind(**given, callbacks=[Keep()])
        end = left(fit(whole, X, y, sample_weight=weights))
        states = whole.callbacks[0].states
        assert len(states) >= 3 * 2
        for k in sorted({0, 1, len(states) // 2, len(states) - 2, len(states) - 1}):
            again = fit(kind(**given, callbacks=[Keep()]), X, y, sample_weight=weights, resume=states[k])
            assert left(again) == end, k
            assert len(again.callbacks[0].states) == len(states) - k - 1
            np.testing.assert_array_equal(again.predict(X), whole.predict(X))
        clone(whole)  # callbacks hold nothing of the fit


class StopInEvaluation(Keep):
    """Asks for the end of the fit at the fourth block of an evaluation: between the second and third of its second."""

    every, asked = 10**9, 0

    @property
    def stops(self) -> bool:  # type: ignore[override]
        self.asked += 1
        return self.asked >= 4

    def on_steps(self, step: int) -> None:
        super().on_steps(step)
        raise KeyboardInterrupt

    def on_epoch(self, epoch: Any) -> None:
        """Take no state."""


@pytest.mark.parametrize("preset", [None, "tabular"])
def test_stopped_in_an_evaluation_it_begins_with_the_evaluation(preset: str | None) -> None:
    X = np.random.default_rng(0).normal(size=(7000, 2))
    y = X[:, 0] * X[:, 1] > 0
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 500, "random_state": 3, "max_iter": 3}
    settings |= {"preset": preset, "validation_fraction": 0.9, "weight_average": 0.9}
    settings |= {"n_members": 2} if preset else {"early_stopping": True}
    end = left(fit(MLPClassifier(**settings), X, y))
    stopped = MLPClassifier(**settings, callbacks=[StopInEvaluation()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped.fit(X, y)
    (state,) = stopped.callbacks[0].states
    assert left(fit(MLPClassifier(**settings), X, y, resume=state)) == end


def test_a_warm_start_and_a_generator_of_ones_own_go_on_too() -> None:
    X, y = rows("multiclass")

    def second(resume: Any = None) -> tuple[Any, Any]:
        generator = np.random.RandomState(5)
        model = MLPClassifier((5,), batch_size=50, random_state=generator, max_iter=3, warm_start=True)
        if resume is None:
            fit(model, X, y)
        model.set_params(callbacks=[Keep()])
        fit(model, X, y, resume=resume)
        return (left(model)[0], plain(generator)), model.callbacks[0].states

    end, states = second()
    assert second(states[3])[0] == end


@pytest.mark.parametrize("large", [False, True])
def test_a_sparse_table_goes_on(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows("regression")
    X = sparse.csr_matrix(X)
    if large:
        monkeypatch.setattr(reshuffling, "DENSE_BYTES", 0)
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 50, "random_state": 0, "max_iter": 3}
    whole = MLPRegressor(**settings, callbacks=[Keep()])
    end = left(fit(whole, X, y))
    assert left(fit(MLPRegressor(**settings), X, y, resume=whole.callbacks[0].states[3])) == end


@pytest.mark.parametrize("n", [120, 15])
def test_an_ensemble_goes_on_in_any_of_its_nets(n: int) -> None:
    X, y = (a[:n] for a in rows("regression"))
    settings: dict[str, Any] = {"preset": "tabular", "hidden_layer_sizes": (6,), "n_members": 3, "max_iter": 4}
    settings |= {"random_state": 0, "batch_norm": True, "n_iter_no_change": 2}
    whole = MLPRegressor(**settings, callbacks=[Keep()])
    end = left(fit(whole, X, y))
    states = whole.callbacks[0].states
    found = set()
    for k in sorted({0, len(states) // 2, len(states) - 4, len(states) - 1}):
        begun = [state is not None for state in states[k]["members"]]
        found.add(sum(begun))
        for callbacks in ((), [Keep()]):  # together, or one by one
            again = fit(MLPRegressor(**settings, callbacks=callbacks), X, y, resume=states[k])
            assert left(again) == end, k
    assert found >= {1, 2, 3}


def test_a_checkpoint_is_written_and_read(tmp_path: Any) -> None:
    X, y = rows("binary")

    class Stop(Callback):
        def on_epoch(self, epoch: Any) -> None:
            if epoch.epoch == 2:
                raise KeyboardInterrupt

    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 50, "random_state": 0, "max_iter": 4}
    end = left(fit(MLPClassifier(**settings), X, y))
    stopped = MLPClassifier(**settings, callbacks=[Checkpoint(tmp_path / "run", every_steps=1), Stop()])
    with pytest.warns(UserWarning, match="interrupted by user"):
        stopped.fit(X, y)
    assert stopped.n_iter_ == 2
    again = MLPClassifier(**settings, callbacks=[Checkpoint(tmp_path / "run")])
    assert left(fit(again, X, y, resume=tmp_path / "run")) == end


def test_a_state_that_does_not_fit_is_refused_by_name() -> None:
    X, y = rows("multiclass")
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 50, "random_state": 0, "max_iter": 2}
    model = MLPClassifier(**settings, callbacks=[Keep()])
    fit(model, X, y)
    state = model.callbacks[0].states[1]
    other = MLPClassifier(**settings | {"max_iter": 3})
    with pytest.raises(ConfigError, match="max_iter is 2 in it and 3 here; set it to that, or pass allow_change=True"):
        other.fit(X, y, resume=state)
    assert fit(other, X, y, resume=state, allow_change=True).n_iter_ == 3
    with pytest.raises(ConfigError, match="of other data: X is not what it was"):
        MLPClassifier(**settings).fit(X + 1.0, y, resume=state)
    with pytest.raises(ConfigError, match=r"hidden_layer_sizes is \[5\] in it and \[4\] here"):
        MLPClassifier(**settings | {"hidden_layer_sizes": (4,)}).fit(X, y, resume=state)
    for wrong in ({}, [], 3, {"random_state": {}}):
        with pytest.raises(CheckpointError, match="state"):
            MLPClassifier(**settings).fit(X, y, resume=wrong)
    with pytest.raises(CheckpointError, match=r"resume must be a checkpoint's path or a state \(a mapping\), got 3"):
        MLPClassifier(**settings).fit(X, y, resume=3)
    for allow_change in (False, True):
        with pytest.raises(ConfigError, match="another number of training rows: 120 in the state, 100 here"):
            MLPClassifier(**settings).fit(X[:100], y[:100], resume=state, allow_change=allow_change)
    damaged = copy.deepcopy(state)
    damaged["fit"]["batches"]["sampler"]["order"][0] = damaged["fit"]["batches"]["sampler"]["order"][1]
    with pytest.raises(CheckpointError, match=r"sampler\.order of the state is no order of 120 rows"):
        MLPClassifier(**settings).fit(X, y, resume=damaged)
    tabular = MLPClassifier(preset="tabular", n_members=2, max_iter=1)
    with pytest.raises(CheckpointError, match="members"):
        tabular.fit(X, y, resume=state)


def test_a_checkpoint_of_a_trainer_is_called_that(tmp_path: Any) -> None:
    X, y = rows("binary")
    net = DenseNet([X.shape[1], 3, 1], loss="binary_cross_entropy", device="cpu")
    Trainer(net, epochs=1, callbacks=[Checkpoint(tmp_path)], progress=False).fit(X, (y == "yes") * 1.0)
    for settings in ({}, {"preset": "tabular"}):
        with pytest.raises(CheckpointError, match=r"is a checkpoint of a Trainer, as backprop-gpu train writes it"):
            MLPClassifier(**settings).fit(X, y, resume=tmp_path)


def test_a_checkpoint_of_an_estimator_is_called_that(tmp_path: Any) -> None:
    X, y = rows("regression")
    folder = tmp_path / "checkpoints"
    fit(MLPRegressor(hidden_layer_sizes=(3,), max_iter=1, callbacks=[Checkpoint(folder)]), X, y)
    net = DenseNet([X.shape[1], 3, 1], loss="squared_error", device="cpu")
    with pytest.raises(CheckpointError, match="is a checkpoint of an estimator; go on with the estimator's fit"):
        Trainer(net, epochs=1, progress=False).fit(X, y, resume=folder)
    with pytest.raises(CheckpointError, match="is a checkpoint of a fit in Python, and not of backprop-gpu train"):
        train("moons", resume=tmp_path, progress=False)


def test_a_state_is_there_between_steps_alone_and_lbfgs_has_none() -> None:
    X, y = rows("regression")
    model = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, solver="lbfgs", callbacks=[Keep()])
    with pytest.raises(ConfigError, match="call state_dict in a callback's on_epoch"):
        model.state_dict()
    with pytest.raises(ConfigError, match="solver='lbfgs' has no state to be taken: SciPy keeps it"):
        fit(model, X, y)
    with pytest.raises(ValueError, match="solver='lbfgs' cannot be resumed"):
        model.fit(X, y, resume={})
