"""Label smoothing and quantiles from the configuration to the scores and the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick, run
from support.tables import read_csv

from backprop_gpu import DenseNet, Trainer
from backprop_gpu.build import load
from backprop_gpu.cli import main
from backprop_gpu.config import validate
from backprop_gpu.errors import ConfigError

QUANTILES = [0.1, 0.5, 0.9]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def noisy(columns: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Targets 100 + 20 x + noise whose spread is 10, each column with its own x."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, columns))
    return X, 100.0 + 20.0 * X + 10.0 * rng.normal(size=X.shape)


def test_quantiles_of_two_columns_cover_what_they_say() -> None:
    X, y = noisy(2)
    np.savez("data.npz", X=X, y=y)
    settings: dict[str, Any] = {
        "data": {"source": "data.npz", "task": "regression", "standardize_target": True},
        "model": {"hidden": []},
        "loss": {"name": "quantile", "quantiles": QUANTILES},
        "optimizer": {"name": "adam", "learning_rate": 0.02},
        "training": {"epochs": 60, "metrics": ["mae", "rmse"]},
    }
    outcome = run("r", quick(**settings))
    assert outcome.model.net.sizes == (2, 6)
    predicted = load("r").predict(load("r").read("data.npz"))
    assert predicted.shape == (400, 6)
    for j in range(2):
        for i, q in enumerate(QUANTILES):
            below = np.mean(y[:, j] < predicted[:, 3 * j + i])
            assert abs(below - q) < 0.06, (j, q, below)
    # Scores are those of the quantile in the middle, in the target's unit.
    everything = load("r").evaluate(load("r").read("data.npz", labelled=True), ["mae"])
    assert everything["mae"] == pytest.approx(np.mean(np.abs(predicted[:, [1, 4]] - y)), rel=1e-6)


def test_a_column_of_predictions_is_named_by_its_quantile() -> None:
    rows = [f"{i},{2.0 * i + (i % 3)}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["size,price", *rows]) + "\n", encoding="utf-8")
    loss = {"name": "quantile", "quantiles": [0.25, 0.75]}
    run("r", quick(data={"source": "t.csv", "target": "price", "task": "regression"}, loss=loss))
    assert main(["predict", "r", "t.csv", "--out", "p.csv"]) == 0
    table = read_csv(Path("p.csv"))
    assert table[0] == ["price q0.25", "price q0.75"]
    assert len(table) == 61


def test_the_validation_of_quantiles_takes_raw_targets() -> None:
    X, y = noisy(1, 60)
    net = DenseNet([1, 3], loss={"name": "quantile", "quantiles": QUANTILES}, device="cpu", dtype="float64")
    trainer = Trainer(net, epochs=2, metrics=["mae"], progress=False)
    history = trainer.fit(X, y, validation=(X, y[:, 0]))
    scores = trainer.evaluate(X, y)
    assert history.epochs[-1].validation == scores
    assert scores["mae"] == pytest.approx(np.mean(np.abs(net.predict(X)[:, 1] - y[:, 0])), rel=1e-12)
    error = net.predict(X) - y
    pinball = np.where(error > 0.0, 1.0 - np.array(QUANTILES), QUANTILES) * np.abs(error)
    assert scores["cost"] == pytest.approx(np.mean(pinball), rel=1e-12)


def test_smoothing_keeps_probabilities_off_the_ends() -> None:
    outcome = run("r", quick(loss={"label_smoothing": 0.4}, training={"epochs": 60}))
    table = load("r").read("breast_cancer")
    AL = outcome.model.predict_proba(table)
    assert 0.75 < AL.max() < 0.95  # the best answer to the label 1 is 0.8
    assert outcome.metrics["test"]["accuracy"] > 0.9


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="loss 'quantile' does not fit task 'binary'"):
        validate({"loss": "quantile"})
    with pytest.raises(ConfigError, match=r"loss: quantile: quantiles must be an increasing list"):
        validate({"data": {"task": "regression"}, "loss": {"name": "quantile", "quantiles": [0.9, 0.1]}})
    with pytest.raises(ConfigError, match=r"loss: label_smoothing must be at least 0 and below 1"):
        validate({"loss": {"label_smoothing": 1}})
