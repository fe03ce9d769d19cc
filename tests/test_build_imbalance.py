"""Rare classes: weights, the positive class, a threshold that is chosen, scores that say so; all in the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.runs import quick, run
from support.tables import write_csv

from backprop_gpu import Model, load, read_table
from backprop_gpu.cli import main
from backprop_gpu.data.roles import read_role, with_weights
from backprop_gpu.errors import ConfigError, DataError
from backprop_gpu.rows import read_split
from backprop_gpu.training.class_metrics import calibration
from backprop_gpu.training.metrics import METRICS
from backprop_gpu.training.thresholds import best_threshold

DATA = {"source": "churn.csv", "target": "churn", "weight_column": "w", "positive": "gone", "validation": 0.3}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def churn(n: int = 300) -> pd.DataFrame:
    """One in eight is gone, more of them where x is large; weights of 1 and 2; written to churn.csv."""
    rng = np.random.default_rng(1)
    gone = rng.random(n) < 0.125
    rows = [
        [f"{x:.3f}", "ab"[i % 2], str(1 + i % 2), "gone" if g else "stays"]
        for i, (x, g) in enumerate(zip(rng.normal(size=n) + 1.2 * gone, gone, strict=True))
    ]
    write_csv(Path("churn.csv"), rows, ["x", "plan", "w", "churn"])
    return pd.read_csv("churn.csv")


def test_weights_scores_and_the_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    frame = churn()
    config = quick(data=DATA, training={"class_weight": "balanced", "threshold": "f1", "epochs": 20})
    outcome = run("r", config)
    model = load("r")
    assert model.preprocessor.columns == ("x", "plan")
    train, validation, test = read_split(outcome.model and config.with_task("binary"))
    assert validation is not None
    assert test is not None
    y, p = (validation.target == "gone").astype(int), model.predict_proba(validation)[:, 0]
    chosen = best_threshold(y, p, "f1", validation.weights)
    assert outcome.metrics["threshold"] == chosen == model.preprocessor.target.threshold  # type: ignore[union-attr]
    assert chosen != 0.5
    assert model.predict(validation).tolist() == ["gone" if value > chosen else "stays" for value in p]

    scores, truth, q = model.evaluate(test), (test.target == "gone").astype(int), model.predict_proba(test)[:, 0]
    for name in ("balanced_accuracy", "f1", "mcc", "roc_auc", "average_precision", "brier", "ece"):
        takes = q > chosen if METRICS[name].takes == "labels" else q
        assert scores[name] == pytest.approx(METRICS[name].function(truth, takes, test.weights)), name
    assert scores["calibration"] == calibration(truth, q, test.weights)
    assert scores["confusion_matrix"]["positive_class"] == "gone"
    assert scores == outcome.metrics["test"]

    whole = model.evaluate(frame)  # by the file's weights, however the rows come
    assert model.evaluate("churn.csv") == model.evaluate(frame.to_dict("records")) == whole
    assert main(["evaluate", "r", "churn.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == whole
    bare = model.evaluate(frame.drop(columns="w"))
    assert bare["accuracy"] == pytest.approx(np.mean(model.predict(frame) == frame["churn"]))
    assert bare["accuracy"] != whole["accuracy"]
    assert main(["evaluate", "r"]) == 0
    out = capsys.readouterr().out
    assert "average_precision of gone" in out
    assert "Calibration on the test rows" in out

    X, y_train = model.preprocessor.transform(train), model.preprocessor.encode_target(train)[:, 0]
    assert train.weights is not None
    by_class = [train.weights.sum() / (2.0 * train.weights[y_train == k].sum()) for k in (0, 1)]
    first = run(
        "w",
        quick(data=DATA, training={"class_weight": dict(zip(("stays", "gone"), by_class, strict=True)), "epochs": 20}),
    )
    np.testing.assert_allclose(first.model.net.predict_proba(X), model.net.predict_proba(X), rtol=1e-4)


def test_a_constant_model_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    churn()
    words = ["--set", "data.target=churn", "--set", "data.ignore=[w]", "--set", "model.hidden=[2]"]
    assert main(["train", "churn.csv", *words, "--set", "training.epochs=1", "--run-dir", "r", "--device", "cpu"]) == 0
    line = "The model says stays of all of the test rows, as a constant would"
    assert line in capsys.readouterr().out
    assert main(["evaluate", "r"]) == 0
    assert line in capsys.readouterr().out
    assert main(["evaluate", "r", "--threshold", "0.999", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["always_predicts"] == "gone"


def test_costs_move_the_threshold() -> None:
    churn()
    found = []
    for cost in ({"false_negative": 20.0}, {"false_positive": 20.0}):
        outcome = run(f"r{len(found)}", quick(data=DATA, training={"threshold": cost}))
        found.append(outcome.metrics["threshold"])
    assert found[0] < found[1]
    assert isinstance(outcome.model, Model)


def test_what_does_not_fit_is_told() -> None:
    churn()
    cases = [
        ({"data": DATA | {"positive": "gon"}}, "data.positive: there is no class 'gon' (did you mean 'gone'?)"),
        (
            {"data": DATA, "training": {"class_weight": {"goner": 2.0}}},
            "training.class_weight: there is no class 'goner'",
        ),
        (
            {"data": DATA | {"weight_column": "plan"}},
            "churn.csv, line 2, column 'plan': a weight must be a number from 0",
        ),
        ({"data": DATA | {"weight_column": "v"}}, "has no column 'v'"),
        ({"data": {"weight_column": "w"}}, "data.weight_column names a column of a CSV"),
    ]
    for given, words in cases:
        with pytest.raises((ConfigError, DataError)) as caught:
            run("r", quick(**given))
        assert words in str(caught.value)
    for given, words in [
        ({"data": {"task": "regression"}, "training": {"class_weight": "balanced"}}, "the task is regression"),
        ({"data": {"task": "multiclass"}, "training": {"threshold": 0.3}}, "the task is multiclass"),
        ({"data": {"task": "count", "positive": "a"}}, "the task is count"),
        ({"data": {"validation": 0.0}, "training": {"threshold": "f1"}}, "chosen on validation rows"),
    ]:
        with pytest.raises(ConfigError, match=words):
            quick(**given)


def test_weights_of_a_npz() -> None:
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((60, 2)), np.arange(60) % 3
    np.savez("t.npz", X=X, y=(X[:, 0] > 0).astype(np.int64), w=w)
    outcome = run("r", quick(data={"source": "t.npz", "weight_column": "w"}))
    whole = outcome.model.evaluate("t.npz")
    hits = outcome.model.predict(X) == (X[:, 0] > 0)
    assert whole["accuracy"] == pytest.approx(np.average(hits, weights=w))
    np.savez("bad.npz", X=X, y=(X[:, 0] > 0).astype(np.int64), w=w[:5])
    with pytest.raises(DataError, match="'w' holds 5 weights for 60 rows"):
        outcome.model.evaluate("bad.npz")


def test_weights_are_read_as_the_file_writes_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x;w;y\n1,5;0,5;a\n2,5;1.000,25;b\n3;2;a\n", encoding="utf-8")
    table = read_table(path, target="y")
    weighted = with_weights(table, read_role(str(path), "w", "weight_column"), "w")
    np.testing.assert_array_equal(weighted.weights, [0.5, 1000.25, 2.0])
    with pytest.raises(DataError, match="line 3, column 'w': a weight must be a number from 0"):
        with_weights(table, np.array(["1", "one", "2"]), "w")
