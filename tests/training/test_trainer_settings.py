"""What a trainer will not take: one clear line each, before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.small_nets import rows, two_moons

from backprop_gpu.errors import BackpropError, ConfigError, DataError, ShapeError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.callbacks import Callback
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.trainer import Trainer

X, Y = two_moons(20, seed=0)

SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs must be a whole number from 1, got 0"),
    ({"epochs": 2.5}, "epochs must be a whole number from 1, got 2.5"),
    ({"epochs": True}, "epochs must be a whole number from 1, got True"),
    ({"epochs": None}, "epochs must be a whole number from 1, got None"),
    ({"batch_size": -1}, "batch_size must be a whole number from 1, got -1"),
    ({"batch_size": None}, "batch_size must be a whole number from 1, got None"),
    ({"batch_size": "32"}, "batch_size must be a whole number from 1, got '32'"),
    ({"micro_batch": 0}, "micro_batch must be a whole number from 1, got 0"),
    ({"metrics": ["acuracy"]}, r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"),
    ({"optimizer": "adm"}, r"unknown optimizer 'adm' \(did you mean 'adam'\?\)"),
    ({"optimizer": {"name": "sgd", "learning_rate": -1.0}}, "learning_rate must be positive, got -1.0"),
    ({"optimizer": {"name": "sgd", "momentum": 0.9}}, "optimizer 'sgd' has no parameter 'momentum'"),
    ({"schedule": "cosin"}, r"unknown schedule 'cosin' \(did you mean 'cosine'\?\)"),
    ({"schedule": {"name": "cosine", "floor": 2.0}}, "floor must be from 0 to 1, got 2.0"),
    ({"l1": -0.1}, "l1 must be at least 0, got -0.1"),
    ({"l2": float("nan")}, "l2 must be at least 0, got nan"),
    ({"l2": "a little"}, "l2 must be at least 0, got 'a little'"),
    ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
    ({"clip_norm": "5"}, "clip_norm must be positive, got '5'"),
    ({"delta": "litteral"}, r"delta must be fused or literal, got 'litteral' \(did you mean 'literal'\?\)"),
    ({"one_over_m": "latest"}, r"one_over_m must be 'early' or 'late', got 'latest' \(did you mean 'late'\?\)"),
    ({"reduction": "max"}, "reduction must be mean or sum, got 'max'"),
    ({"penalty_over": "m"}, "penalty_over must be examples or none, got 'm'"),
    ({"metrics": "acuracy"}, r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"),
    ({"callbacks": print}, "callbacks must be a list of backprop_gpu.Callback objects, got <built-in function print>"),
    ({"callbacks": [print]}, "callbacks must be a list of backprop_gpu.Callback objects"),
    ({"callbacks": [Callback]}, "callbacks must be a list of backprop_gpu.Callback objects"),
    ({"callbacks": Callback()}, "callbacks must be a list of backprop_gpu.Callback objects"),
    ({"seed": -1}, "seed must be"),
    ({"seed": "one"}, "seed must be"),
    ({"seed": 1.5}, "seed must be"),
]


def assert_one_line(error: BaseException) -> None:
    """A message for the command line."""
    text = str(error)
    assert text.strip() == text != ""
    assert "\n" not in text


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=lambda v: str(v)[:40])
def test_a_setting_out_of_its_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Trainer(DenseNet([2, 4, 1], device="cpu"), progress=False, **settings)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "acuracy"}, r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"),
        ({"patience": 0}, "patience must be"),
        ({"patience": 2.5}, "patience must be"),
        ({"patience": "3"}, "patience must be"),
        ({"patience": True}, "patience must be"),
        ({"min_delta": -0.1}, "min_delta"),
        ({"min_delta": float("inf")}, "min_delta"),
        ({"min_delta": "0"}, "min_delta"),
    ],
    ids=str,
)
def test_an_early_stopping_rule_out_of_its_range(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EarlyStopping(**rule)
    assert_one_line(caught.value)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    n = np.int64(2)
    trainer = Trainer(net, epochs=n, batch_size=n * 5, micro_batch=n, seed=n, progress=False)
    rule = EarlyStopping(patience=n)
    assert [e.step for e in trainer.fit(X, Y).epochs] == [2, 4]
    assert rule.patience == 2


@pytest.mark.parametrize(
    ("metrics", "sizes", "loss"),
    [
        (["f1"], [2, 4, 2], "binary_cross_entropy"),
        (["accuracy", "rmse"], [2, 4, 1], "binary_cross_entropy"),
        (["roc_auc"], [2, 4, 1], "squared_error"),
    ],
    ids=str,
)
def test_a_metric_that_does_not_go_with_the_loss_is_refused_before_training(
    metrics: list[str], sizes: list[int], loss: str
) -> None:
    net = DenseNet(sizes, loss=loss, device="cpu")
    before = net.params.theta.copy()
    y = np.stack([Y] * sizes[-1], axis=1)
    with pytest.raises(ConfigError, match="does not go with the task") as caught:
        Trainer(net, metrics=metrics, progress=False).fit(X, y, validation=(X, y))
    assert_one_line(caught.value)
    np.testing.assert_array_equal(net.params.theta, before)
    with pytest.raises(ConfigError, match="does not go with the task"):
        Trainer(net, early_stopping=EarlyStopping(metrics[-1]), progress=False).fit(X, y, validation=(X, y))
    np.testing.assert_array_equal(net.params.theta, before)


NAN = X.copy()
NAN[3, 1] = np.nan

DATA: list[tuple[dict[str, Any], type[BackpropError], str]] = [
    ({"X": rows(3, n=20)}, ShapeError, r"X must be \(n_samples, 2\), got \(20, 3\)"),
    ({"X": X[0]}, ShapeError, r"one example is X.reshape\(1, -1\)"),
    ({"X": X[:0], "y": Y[:0]}, DataError, "X has no rows"),
    ({"X": NAN}, DataError, "X has nan at row 3, column 1"),
    ({"X": [["a", "b"]] * 20}, DataError, "X must hold numbers"),
    ({"y": Y[:19]}, ShapeError, r"y must be \(20, 1\) for loss 'binary_cross_entropy', got \(19, 1\)"),
    ({"y": Y + 1.0}, DataError, "y must be between 0 and 1, got"),
    ({"y": np.where(np.arange(20) == 7, np.inf, Y)}, DataError, "y has inf at row 7, column 0"),
    ({"y": ["no"] * 20}, DataError, "y must hold numbers"),
    ({"sample_weight": np.ones(19)}, ShapeError, r"sample_weight must be \(20,\), got \(19,\)"),
    ({"sample_weight": np.zeros(20)}, DataError, "positive somewhere"),
    ({"sample_weight": -np.ones(20)}, DataError, "at least 0 everywhere"),
    ({"sample_weight": np.full(20, np.nan)}, DataError, "sample_weight has nan at row 0"),
    ({"validation": (rows(3), Y[:6])}, ShapeError, r"validation X must be \(n_samples, 2\)"),
    ({"validation": (X, Y[:3])}, ShapeError, r"y must be \(20, 1\)"),
    ({"validation": (X[:0], Y[:0])}, DataError, "validation X has no rows"),
    ({"validation": (NAN, Y)}, DataError, "validation X has nan at row 3, column 1"),
]


@pytest.mark.parametrize(("data", "kind", "message"), DATA, ids=[m[:40] for *_, m in DATA])
def test_data_that_cannot_be_used(data: dict[str, Any], kind: type[BackpropError], message: str) -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    before = net.params.theta.copy()
    with pytest.raises(kind, match=message) as caught:
        Trainer(net, progress=False).fit(**({"X": X, "y": Y} | data))
    assert_one_line(caught.value)
    np.testing.assert_array_equal(net.params.theta, before)


@pytest.mark.parametrize("label", [3, -1, 0.5, 300])
def test_class_labels_out_of_range_name_the_row(label: float) -> None:
    y = np.where(np.arange(20) == 11, label, np.arange(20) % 3)
    net = DenseNet([2, 4, 3], loss="categorical_cross_entropy", device="cpu")
    with pytest.raises(DataError, match=r"y must be a class label from 0 to 2, got \[.*\] at row 11"):
        Trainer(net, progress=False).fit(X, y)


def test_metrics_without_validation_rows_are_refused() -> None:
    net = DenseNet([2, 4, 1], device="cpu")
    before = net.params.theta.copy()
    with pytest.raises(DataError, match=r"metrics .* validation set; pass validation=\(X, y\) or leave metrics out"):
        Trainer(net, metrics=["accuracy"], progress=False).fit(X, Y)
    np.testing.assert_array_equal(net.params.theta, before)


def test_what_others_would_write_works_or_is_told_apart() -> None:
    net = DenseNet([2, 1], device="cpu")
    assert Trainer(net, early_stopping=True, progress=False).early_stopping == EarlyStopping()
    assert Trainer(net, early_stopping=False, progress=False).early_stopping is None
    for settings, words in (
        ({"early_stopping": 5}, r"early_stopping must be True or EarlyStopping\(patience=20\), got 5"),
        ({"bach_size": 8}, "Trainer has no setting 'bach_size' .did you mean 'batch_size'"),
        ({"validation": 0.2}, "validation belongs to fit"),
        ({"learning_rate": 0.1}, "learning_rate is the optimizer's"),
    ):
        with pytest.raises(ConfigError, match=words):
            Trainer(net, **settings)  # type: ignore[arg-type]
    X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(DataError, match=r"validation must be a pair of rows and targets, got 0.2: hold the last rows"):
        Trainer(net, progress=False).fit(X, y, validation=0.2)  # type: ignore[arg-type]


def test_one_metric_needs_no_list() -> None:
    trainer = Trainer(DenseNet([2, 4, 1], device="cpu"), epochs=1, metrics="accuracy", progress=False)
    assert set(trainer.fit(X, Y, validation=(X, Y)).epochs[0].validation) == {"cost", "accuracy"}
