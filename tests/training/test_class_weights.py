"""Class weights of a trainer: the weights of its rows, balanced as scikit-learn does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from support.tables import arrays

from backprop_gpu import DenseNet, Trainer
from backprop_gpu.errors import ConfigError
from backprop_gpu.training.class_weights import weights_by_class


def _net(task: str) -> DenseNet:
    loss = {"binary": "binary_cross_entropy", "multiclass": "categorical_cross_entropy"}[task]
    return DenseNet([5, 4, 1 if task == "binary" else 3], loss=loss, device="cpu", dtype="float64", seed=3)


def test_balanced_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, w = rng.choice([0, 1, 3], 50, p=[0.7, 0.2, 0.1]), rng.random(50)
    there = np.array([0, 1, 3])
    for weights in (None, w):
        found = weights_by_class("balanced", y, 4, weights)
        np.testing.assert_allclose(
            found[there], compute_class_weight("balanced", classes=there, y=y, sample_weight=weights)
        )
        assert found[2] == 1.0  # no row has it


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_weight_is_the_weight_of_its_rows(task: str) -> None:
    X, y = arrays(task)
    own = np.linspace(0.5, 2.0, len(X))
    given: dict[int, float] = {1: 4.0, 0: 0.5}
    by_class = np.array([0.5, 4.0, 1.0])[y]
    fits: list[tuple[Any, Any]] = [(given, own), (None, own * by_class)]
    ends = []
    for class_weight, weights in fits:
        net = _net(task)
        trainer = Trainer(net, epochs=3, class_weight=class_weight, metrics="accuracy", progress=False)
        history = trainer.fit(X, y, sample_weight=weights, validation=(X[:40], y[:40], weights[:40]))
        ends.append((net.parameters(), history))
    for name, value in ends[0][0].items():
        np.testing.assert_array_equal(value, ends[1][0][name])
    last = [history.epochs[-1].validation for _, history in ends]
    assert last[0]["cost"] == last[1]["cost"]  # class weights count in the cost
    net = _net(task)
    net.set_parameters(ends[0][0])
    hits = net.predict(X[:40]) == y[:40]
    # the history's last epoch need not be the best, whose weights the network holds
    best = ends[0][1].epochs[ends[0][1].best_epoch - 1].validation
    assert best["accuracy"] == pytest.approx(np.average(hits, weights=own[:40]))  # and not in metrics


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("balancd", "did you mean 'balanced'"),
        ({0: -1.0}, "numbers from 0"),
        ({"a": 1.0}, "class numbers"),
        (2.0, "mapping"),
    ],
)
def test_what_is_no_class_weight_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Trainer(_net("binary"), class_weight=given)
    with pytest.raises(ConfigError, match="the task is regression"):
        Trainer(DenseNet([5, 1], loss="squared_error", device="cpu"), class_weight=given)
    X, y = arrays("binary")
    with pytest.raises(ConfigError, match="no class 2; they are 0 to 1"):
        Trainer(_net("binary"), class_weight={2: 1.0}, progress=False).fit(X, y)
