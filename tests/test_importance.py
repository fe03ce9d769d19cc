"""Permutation importance of a table's columns: scikit-learn's numbers; all inputs of a column together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from support.runs import quick, run
from support.tables import shop_rows, write_csv

from backprop_gpu import Model
from backprop_gpu.cli import main
from backprop_gpu.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


class Wrapped:
    """A model as scikit-learn calls it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def fit(self, X: Any, y: Any) -> None:
        raise AssertionError("it is fitted")

    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        return float(r2_score(y, self.model.predict(X)))


def test_the_numbers_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    y = 2.0 * X[:, 0] - X[:, 1]
    np.savez("t.npz", X=X, y=y)
    config = quick(
        data={"source": "t.npz"}, dtype="float64", training={"epochs": 30}, optimizer={"learning_rate": 0.05}
    )
    model = run("r", config).model
    found = model.permutation_importance("t.npz", repeats=4, random_state=7)
    want = permutation_importance(Wrapped(model), X, y, n_repeats=4, random_state=7)
    np.testing.assert_allclose(found.drops, want.importances, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.mean, want.importances_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.deviation, want.importances_std, rtol=1e-9, atol=1e-12)
    assert found.score == pytest.approx(r2_score(y, model.predict(X)))
    assert found.ranked()[0][0] == "x0"
    assert "x0" in found._repr_html_()
    error = model.permutation_importance("t.npz", "rmse", repeats=1)  # less is better: worse is still positive
    assert error.mean[0] > error.mean[1] > abs(error.mean[2])


def test_the_inputs_of_a_column_are_shuffled_together(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shop_rows(120)
    for i in range(0, 120, 7):
        rows[i][1] = ""
    write_csv(Path("shop.csv"), rows)
    data = {"source": "shop.csv", "target": "kauft", "missing": "indicator"}
    model = run("r", quick(data=data, training={"epochs": 30})).model
    assert model.feature_names == model.preprocessor.feature_names
    assert model.preprocessor.origins == ("größe", "höhe", "höhe", "farbe", "farbe", "farbe")
    found = model.permutation_importance("shop.csv", "accuracy", repeats=2, random_state=3)
    assert found.columns == ("größe", "höhe", "farbe")
    frame = pd.read_csv("shop.csv")
    seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max + 1)
    order = np.arange(len(frame))
    np.random.RandomState(seed).shuffle(order)
    for j, name in enumerate(found.columns):  # the raw column shuffled in the table
        shuffled = frame.assign(**{name: frame[name].to_numpy()[order]})
        drop = model.evaluate(frame)["accuracy"] - model.evaluate(shuffled)["accuracy"]
        assert found.drops[j, 0] == pytest.approx(drop, abs=1e-12), name
    assert main(["importance", "r", "shop.csv", "--json", "--metric", "accuracy", "--seed", "3", "--repeats", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    ranked = [{"column": name, "mean": mean, "deviation": spread} for name, mean, spread in found.ranked()]
    assert (printed["columns"], printed["score"], printed["rows"]) == (ranked, found.score, 120)
    assert main(["importance", "r"]) == 0  # the run's own test rows
    assert "log_loss" in capsys.readouterr().out
    for words, error in (
        (["--metric", "rmse"], "does not go with"),
        (["--repeats", "0"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
    ):
        assert main(["importance", "r", *words]) == 2
        assert error in capsys.readouterr().err


def test_a_model_is_loaded_saved_and_transforms() -> None:
    write_csv(Path("shop.csv"), shop_rows())
    run("r", quick(data={"source": "shop.csv", "target": "kauft"}))
    model = Model.load("r", "cpu")
    frame = pd.read_csv("shop.csv")
    inputs = model.transform(frame)
    assert inputs.shape == (60, len(model.feature_names))
    assert model.feature_names[2:] == ("farbe=blau", "farbe=grün", "farbe=rot")
    np.testing.assert_array_equal(inputs[:, 4], frame["farbe"] == "rot")
    np.testing.assert_array_equal(model.net.predict_proba(inputs), model.predict_proba("shop.csv"))
    model.save("copy.safetensors")
    np.testing.assert_array_equal(Model.load("copy.safetensors", "cpu").predict(frame), model.predict(frame))
    with pytest.raises(DataError, match="X lacks the column 'höhe'"):
        model.transform(frame.drop(columns="höhe"))
    filled = model.set_policies(missing_columns="fill").transform(frame.drop(columns="höhe"))
    np.testing.assert_array_equal(filled[:, 1], 0.0)  # the mean, standardized
    with pytest.raises(DataError, match="X has columns that the training data did not have: mood"):
        model.set_policies(extra_columns="error").transform(frame.assign(mood="good"))
    with pytest.raises(ConfigError, match="unknown: 'ignor' "):
        model.set_policies(unknown="ignor")
