"""Validation, early stopping and the best weights, against a second reading of the rule from the recorded numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.small_nets import two_moons

from backprop_gpu.errors import DataError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.history import History
from backprop_gpu.training.metrics import METRICS
from backprop_gpu.training.trainer import Trainer

EPOCHS = 60
TRAIN, VALIDATION = two_moons(40, seed=0, noise=0.45), two_moons(60, seed=1, noise=0.45)


class Weights(Callback):
    """Keeps the weights of every epoch."""

    def __init__(self, net: DenseNet) -> None:
        self.net, self.seen = net, []

    def on_epoch(self, epoch: Epoch) -> None:
        self.seen.append(self.net.backend.to_host(self.net.params.theta))


def overfit(
    *, device: str = "cpu", rate: float = 0.05, epochs: int = EPOCHS, metrics: Any = (), **settings: Any
) -> tuple[DenseNet, History, Weights]:
    """A network that is too large for its noisy data, so that validation improves at first and worsens after."""
    net = DenseNet([2, 24, 1], activation="tanh", device=device, seed=4)
    weights = Weights(net)
    trainer = Trainer(
        net,
        optimizer={"name": "adam", "learning_rate": rate},
        epochs=epochs,
        batch_size=16,
        metrics=metrics,
        callbacks=[weights],
        progress=False,
        **settings,
    )
    return net, trainer.fit(*TRAIN, validation=VALIDATION), weights


def by_the_rule(values: list[float], greater: bool, patience: int, min_delta: float) -> tuple[int, int, bool]:
    """(epochs run, best epoch, stopped early) from the validation values of a run that was not stopped."""
    best, best_at = (-math.inf if greater else math.inf), 0
    for at, value in enumerate(values, 1):
        if (value > best + min_delta) if greater else (value < best - min_delta):
            best, best_at = value, at
        elif at - best_at == patience:
            return at, best_at, True
    return len(values), best_at, False


@pytest.mark.parametrize("min_delta", [0.0, 0.01])
@pytest.mark.parametrize("patience", [1, 2, 5, 17])
@pytest.mark.parametrize("metric", ["cost", "log_loss", "accuracy", "roc_auc", "f1"])
def test_it_stops_where_the_rule_says_with_the_weights_of_the_best_epoch(
    metric: str, patience: int, min_delta: float
) -> None:
    names = [] if metric == "cost" else [metric]
    _, full, weights = overfit(metrics=names, restore_best=False)
    values = [e.validation[metric] for e in full.epochs]
    greater = metric != "cost" and METRICS[metric].greater_is_better
    ran, best, early = by_the_rule(values, greater, patience, min_delta)
    assert early, "the rule must come to bear before the epochs run out"
    rule = EarlyStopping(metric, patience, min_delta)
    net, history, _ = overfit(early_stopping=rule)
    assert (len(history.epochs), history.best_epoch, history.stopped) == (ran, best, "early stopping")
    assert [e.validation[metric] for e in history.epochs] == values[:ran]
    np.testing.assert_array_equal(net.params.theta, weights.seen[best - 1])
    again = Trainer(net, metrics=names, progress=False).evaluate(*VALIDATION)
    assert again[metric] == values[best - 1]


def test_the_rule_of_this_test_is_read_rightly() -> None:
    falling_then_rising = [3.0, 2.0, 1.0, 1.5, 1.0, 0.5]
    assert by_the_rule(falling_then_rising, False, 2, 0.0) == (5, 3, True)  # equal is no improvement
    assert by_the_rule(falling_then_rising, False, 3, 0.0) == (6, 6, False)
    assert by_the_rule(falling_then_rising, True, 1, 0.0) == (2, 1, True)
    assert by_the_rule(falling_then_rising, False, 2, 1.0) == (5, 3, True)  # 2 is not enough below 3, but 1 is


@pytest.mark.parametrize("patience", [1, 3, 8])
def test_patience_is_counted_in_epochs_after_the_best(patience: int) -> None:
    # At this rate no weight changes: the first epoch is the best and every later one is equal to it.
    _, history, _ = overfit(rate=1e-30, early_stopping=EarlyStopping(patience=patience))
    assert len(history.epochs) == 1 + patience
    assert (history.best_epoch, history.stopped) == (1, "early stopping")


def test_patience_that_does_not_run_out_ends_with_the_epochs() -> None:
    _, history, _ = overfit(rate=1e-30, epochs=5, early_stopping=EarlyStopping(patience=5))
    assert (len(history.epochs), history.stopped) == (5, "epochs")


def test_without_restoring_the_last_weights_stay() -> None:
    net, history, weights = overfit(early_stopping=EarlyStopping(patience=3), restore_best=False)
    assert history.stopped == "early stopping"
    assert history.best_epoch == len(history.epochs) == len(weights.seen)
    np.testing.assert_array_equal(net.params.theta, weights.seen[-1])


@pytest.mark.parametrize("device", ["cpu", "array_api_strict:device1"])
def test_validation_without_early_stopping_ends_with_the_best_weights(device: str) -> None:
    net, history, weights = overfit(device=device, metrics=["accuracy"], epochs=40)
    costs = [e.validation["cost"] for e in history.epochs]
    best = int(np.argmin(costs))
    assert 0 < best < 39  # neither the first nor the last, or this would show nothing
    assert (len(history.epochs), history.best_epoch, history.stopped) == (40, best + 1, "epochs")
    np.testing.assert_array_equal(net.backend.to_host(net.params.theta), weights.seen[best])
    assert net.cost(*VALIDATION) == costs[best]
    assert all(set(e.validation) == {"cost", "accuracy"} for e in history.epochs)


def test_no_validation_no_best_weights_to_restore() -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    weights = Weights(net)
    history = Trainer(net, epochs=3, callbacks=[weights], progress=False).fit(*TRAIN)
    assert all(e.validation == {} for e in history.epochs)
    assert history.best_epoch == 3
    np.testing.assert_array_equal(net.params.theta, weights.seen[-1])


def test_early_stopping_without_validation_is_an_error_before_anything_is_trained() -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    before = net.params.theta.copy()
    with pytest.raises(DataError, match=r"early stopping needs a validation set; pass validation=\(X, y\)"):
        Trainer(net, early_stopping=EarlyStopping(), progress=False).fit(*TRAIN)
    np.testing.assert_array_equal(net.params.theta, before)


def test_a_metric_that_is_never_a_number_stops_after_patience_and_keeps_the_last_weights() -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    weights = Weights(net)
    trainer = Trainer(net, epochs=20, early_stopping=EarlyStopping("roc_auc", 4), callbacks=[weights], progress=False)
    X, y = VALIDATION
    history = trainer.fit(*TRAIN, validation=(X[y == 1.0], y[y == 1.0]))  # one class: no area under a curve
    assert all(math.isnan(e.validation["roc_auc"]) for e in history.epochs)
    assert (len(history.epochs), history.best_epoch, history.stopped) == (4, 4, "early stopping")
    np.testing.assert_array_equal(net.params.theta, weights.seen[-1])


def test_a_validation_cost_that_is_never_finite_is_not_early_stopping() -> None:
    net = DenseNet([2, 1], loss="squared_error", device="cpu")
    with np.errstate(over="ignore"):
        history = Trainer(net, epochs=3, progress=False).fit(*TRAIN, validation=(VALIDATION[0] * 1e30, VALIDATION[1]))
    assert (len(history.epochs), history.stopped) == (3, "epochs")


def test_the_multiclass_metrics_take_every_form_of_labels() -> None:
    X, classes = TRAIN[0], np.arange(40) % 3
    found = []
    for y in (classes, classes[:, None], np.eye(3)[classes], classes.astype(float)):
        net = DenseNet([2, 5, 3], loss="categorical_cross_entropy", device="cpu")
        trainer = Trainer(net, epochs=2, metrics=["accuracy", "log_loss", "f1_macro", "roc_auc"], progress=False)
        found.append(trainer.fit(X, y, validation=(X, y)).epochs[-1].validation)
    assert found[1] == found[0]
    assert found[3] == found[0]
    assert found[2] == pytest.approx(found[0], rel=1e-6)  # one-hot sums take the other classes' zeros along
    assert found[0]["log_loss"] == pytest.approx(found[0]["cost"], rel=1e-6)


class Interrupt(Weights):
    """Ctrl-C after an epoch."""

    def __init__(self, net: DenseNet, at: int) -> None:
        super().__init__(net)
        self.at = at

    def on_epoch(self, epoch: Epoch) -> None:
        super().on_epoch(epoch)
        if epoch.epoch == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("validated", [True, False])
def test_an_interrupted_fit_leaves_its_history_and_the_best_weights(validated: bool) -> None:
    _, whole, _ = overfit(restore_best=False)
    best = int(np.argmin([e.validation["cost"] for e in whole.epochs])) + 1
    net = DenseNet([2, 24, 1], activation="tanh", device="cpu", seed=4)
    stop = Interrupt(net, best + 3)
    settings = {"optimizer": {"name": "adam", "learning_rate": 0.05}, "epochs": EPOCHS, "batch_size": 16}
    trainer = Trainer(net, callbacks=[stop], progress=False, **settings)
    assert trainer.history.epochs == []
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*TRAIN, validation=VALIDATION if validated else None)
    history = trainer.history
    assert [e.cost for e in history.epochs] == [e.cost for e in whole.epochs[: best + 3]]
    assert (history.stopped, history.best_epoch) == ("interrupted", best if validated else best + 3)
    np.testing.assert_array_equal(net.params.theta, stop.seen[history.best_epoch - 1])


def test_the_history_is_that_of_the_last_fit() -> None:
    net = DenseNet([2, 3, 1], device="cpu")
    trainer = Trainer(net, epochs=2, progress=False)
    first = trainer.fit(*TRAIN)
    assert trainer.history is first
    again = trainer.fit(*TRAIN)
    assert trainer.history is again is not first


@pytest.mark.parametrize(("metric", "loss"), [("r2", "squared_error"), ("roc_auc", "binary_cross_entropy")])
def test_a_watched_metric_that_is_no_number_on_the_validation_set_is_noted(metric: str, loss: str) -> None:
    X, y = TRAIN
    watch = EarlyStopping(metric, patience=3)
    trainer = Trainer(DenseNet([2, 3, 1], loss=loss, device="cpu"), early_stopping=watch, epochs=5, progress=False)
    history = trainer.fit(X, y, validation=(X[:1], y[:1]))
    assert history.stopped == "early stopping"
    assert f"early stopping watches {metric}, which is not a number on this validation set" in history.notes[-1]
    trainer = Trainer(DenseNet([2, 3, 1], loss=loss, device="cpu"), metrics=[metric], epochs=2, progress=False)
    history = trainer.fit(X, y, validation=(X[:1], y[:1]))  # followed, it does no harm
    assert len(history.epochs) == 2
    assert not [note for note in history.notes if "not a number" in note]
