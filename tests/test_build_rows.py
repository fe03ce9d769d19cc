"""Every task and kind of source through a whole run, and what a run predicts for raw rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick, run, timeless
from support.tables import COLUMNS, arrays, shop_rows, write_csv

from backprop_gpu.build import Outcome, load, prepare, read_split
from backprop_gpu.config import Config
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import DataError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


# -- prediction on raw rows ------------------------------------------------------------------------------------------


def shop(**data: Any) -> Config:
    data = {"source": "shop.csv", "target": "kauft", "test": 0.2} | data
    return quick(data=data, training={"epochs": 30}, optimizer={"learning_rate": 0.05})


def test_rows_of_a_csv_whose_columns_stand_in_another_order() -> None:
    rows = shop_rows()
    write_csv(Path("shop.csv"), rows)
    outcome = run("r", shop())
    assert outcome.model.net.sizes == (5, 6, 1)  # two numbers and three colours
    model = load("r")
    predicted = model.predict(model.read("shop.csv"))
    assert set(predicted.tolist()) == {"ja", "nein"}
    assert np.mean(predicted == [row[3] for row in rows]) > 0.9

    order = [2, 0, 3, 1]
    write_csv(Path("other.csv"), [[row[j] for j in order] for row in rows], [COLUMNS[j] for j in order])
    write_csv(Path("bare.csv"), [[row[2], "?", row[1], row[0]] for row in rows], [COLUMNS[2], "more", *COLUMNS[1::-1]])
    for name in ("other.csv", "bare.csv"):
        np.testing.assert_array_equal(model.predict(model.read(name)), predicted)
        np.testing.assert_array_equal(
            model.predict_proba(model.read(name)), model.predict_proba(model.read("shop.csv"))
        )
    assert model.evaluate(model.read("other.csv", labelled=True)) == model.evaluate(
        model.read("shop.csv", labelled=True)
    )


@pytest.mark.parametrize("missing", ["mean", "median", "indicator"])
def test_missing_values_are_filled_as_in_training(missing: str) -> None:
    rows = shop_rows()
    for i in range(0, 60, 7):
        rows[i][0] = ""
        rows[i + 1][2] = "NA"
    write_csv(Path("shop.csv"), rows)
    with pytest.raises(DataError, match=r"shop\.csv, line \d+, column 'größe': the value is missing"):
        run("refused", shop())
    run("r", shop(missing=missing))
    model = load("r")
    width = 2 + 4 + (missing == "indicator")  # numbers, three colours and none, where a number is missing
    assert model.net.sizes[0] == width
    size = np.array([float(row[0]) for row in rows if row[0]])
    # Only training rows count, of which there are at most all.
    fill = model.preprocessor.fill
    assert fill is not None
    assert size.min() < fill[0] < size.max()
    write_csv(Path("gap.csv"), [["", "0.5", "rot"], [repr(float(fill[0])), "0.5", "rot"]], COLUMNS[:3])
    p = model.predict_proba(model.read("gap.csv"))
    assert (p[0] == p[1]).all() == (missing != "indicator")


def test_an_unseen_category_is_an_error_unless_it_is_to_be_ignored() -> None:
    write_csv(Path("shop.csv"), shop_rows())
    write_csv(Path("new.csv"), [["0.1", "0.2", "lila"]], COLUMNS[:3])
    run("strict", shop())
    with pytest.raises(DataError, match=r"new\.csv, line 2, column 'farbe': 'lila'"):
        (model := load("strict")).predict(model.read("new.csv"))
    run("lenient", shop(unknown="ignore"))
    model = load("lenient")
    assert model.predict(model.read("new.csv")).shape == (1,)


def test_a_delimiter_is_remembered() -> None:
    write_csv(Path("shop.csv"), shop_rows(), delimiter=";")
    run("r", shop(delimiter=";"))
    write_csv(Path("new.csv"), [row[:3] for row in shop_rows(5, seed=1)], COLUMNS[:3], delimiter=";")
    model = load("r")
    assert model.predict(model.read("new.csv")).shape == (5,)


def test_a_single_column_can_be_predicted_from() -> None:
    write_csv(Path("xy.csv"), [[str(i), "hi" if i > 30 else "lo"] for i in range(60)], ["x", "y"])
    run("r", quick(data={"source": "xy.csv", "target": "y"}))
    write_csv(Path("x.csv"), [[str(i)] for i in range(7)], ["x"])
    model = load("r")
    assert model.predict(model.read("x.csv")).shape == (7,)


def test_a_model_from_numpy_predicts_the_same_elsewhere() -> None:
    outcome = run("r", quick(dtype="float64", model={"hidden": [16, 8], "activation": ["tanh", "silu"]}))
    here, there = load("r", "cpu"), load("r/model.safetensors", "array_api_strict:device1")
    assert (here.net.backend.name, there.net.backend.name) == ("numpy", "array_api_strict:device1")
    table = read_split(outcome_config := load_config("r/config.yaml"))[2]
    assert table is not None
    assert outcome_config.dtype == "float64"
    p, q = here.predict_proba(table), there.predict_proba(table)
    # The two sum in different orders: gamma_n = n u / (1 - n u) for each product (Higham 2002, 3.1), and sums of
    # |W| |A| of a few hundred at most in three layers of at most 30 terms; 1e-12 is four decades above that.
    np.testing.assert_allclose(q, p, rtol=0, atol=1e-12)
    assert np.abs(p - 0.5).max() > 0.1
    np.testing.assert_array_equal(there.predict(table), outcome.model.predict(table))


# -- tasks and sources -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "count"])
def test_every_task_through_an_npz_file(task: str) -> None:
    X, y = arrays(task, n=400)
    np.savez("data.npz", X=X, y=y)
    config = quick(
        data={"source": "data.npz", "task": task, "standardize_target": task == "regression"},
        training={"epochs": 40},
        optimizer={"learning_rate": 0.02},
    )
    outcome = run("r", config)
    model = load("r")
    predicted = model.predict(model.read("data.npz"))
    assert predicted.shape == y.shape
    test = outcome.metrics["test"]
    if task in ("regression", "count"):
        assert predicted.dtype == np.float64
        assert test["r2"] > (0.9 if task == "regression" else 0.3)
    else:
        assert predicted.dtype.kind == "i"
        assert np.mean(predicted == y) > 0.8
        assert test["accuracy"] > 0.75


def test_a_standardized_target_is_reported_in_its_own_units() -> None:
    X, y = arrays("regression")
    np.savez("data.npz", X=X, y=y)
    outcome = run("r", quick(data={"source": "data.npz", "task": "regression", "standardize_target": True}))
    table = read_split(load_config("r/config.yaml"))[2]
    assert table is not None
    assert table.target is not None
    error = outcome.model.predict(table) - table.target
    test = outcome.metrics["test"]
    assert test["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert test["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-6)
    assert test["r2"] == pytest.approx(
        1 - np.sum(error**2) / np.sum((table.target - table.target.mean()) ** 2), rel=1e-6
    )
    # The cost is what was minimized: half the squared error of the standardized target.
    scale = y_scale(outcome)
    best = outcome.history.epochs[outcome.history.best_epoch - 1].validation
    assert best["rmse"] == pytest.approx(outcome.metrics["validation"]["rmse"], rel=1e-5)  # like with like
    assert test["cost"] == pytest.approx(0.5 * np.mean((error / scale) ** 2), rel=1e-5)
    assert scale > 50


def y_scale(outcome: Outcome) -> float:
    codec = outcome.model.preprocessor.target
    assert codec is not None
    assert codec.scale is not None
    return float(codec.scale[0])


def test_a_memory_mapped_file_is_trained_on_and_left_alone() -> None:
    X, y = arrays("binary", n=400)
    np.save("X.npy", X)
    np.save("y.npy", y)
    before = Path("X.npy").read_bytes()
    more: dict[str, Any] = {"training": {"epochs": 20}, "optimizer": {"learning_rate": 0.02}}
    config = quick(data={"source": "X.npy", "target": "y.npy"}, **more)
    experiment = prepare(config, progress=False)
    stored: Any = experiment.train.stored
    while not isinstance(stored, np.memmap):
        stored = stored.base
    outcome = run("r", config)
    np.savez("same.npz", X=X, y=y)
    same = run("same", quick(data={"source": "same.npz"}, **more))
    assert Path("X.npy").read_bytes() == before
    assert timeless(outcome.metrics) == timeless(same.metrics)
    model = load("r")
    np.testing.assert_array_equal(model.predict(model.read("X.npy")), load("same").predict(model.read("same.npz")))
    assert model.evaluate(model.read("X.npy", labelled=True, target="y.npy"))["accuracy"] > 0.8


def test_classes_are_called_by_their_names() -> None:
    outcome = run("r")
    assert outcome.metrics["test"]["confusion_matrix"]["classes"] == ["malignant", "benign"]
    X, _ = arrays("binary")
    np.savez("words.npz", X=X, y=np.where(X[:, 0] > 0, "up", "down"))
    outcome = run("words", quick(data={"source": "words.npz"}))
    assert outcome.metrics["test"]["confusion_matrix"]["classes"] == ["down", "up"]


def test_auto_takes_numpy_for_a_small_network_and_says_why() -> None:
    net = prepare(quick(device="auto"), progress=False).model.net
    assert net.backend.name == "numpy"
    assert re.match(r"CUDA (cannot be used: .+; .+|works, but .+ predicted .+; use --device cuda)", net.backend.reason)
