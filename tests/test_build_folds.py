"""Runs on rows that are divided by group, time or a column, and cross-validation: nothing leaks from a fold's rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick, run, strict_json
from support.tables import write_csv

from backprop_gpu.build import prepare
from backprop_gpu.cli import main
from backprop_gpu.errors import ConfigError, DataError
from backprop_gpu.rows import read_folds, read_split
from backprop_gpu.run_fit import encoded, fit


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def visits(n: int = 90) -> list[list[str]]:
    """Patients with three visits each; a day; a part; written to visits.csv."""
    rng = np.random.default_rng(0)
    days = rng.permutation(n)
    rows = [
        [
            f"{rng.normal():.3f}",
            "xy"[i % 2],
            f"p{i // 3}",
            f"2024-{1 + d // 28:02}-{1 + d % 28:02}",
            "abc"[i % 3],
            f"{i % 7}",
        ]
        for i, d in enumerate(days)
    ]
    write_csv(Path("visits.csv"), rows, ["x", "ward", "patient", "day", "part", "y"])
    return rows


DATA: dict[str, Any] = {"source": "visits.csv", "target": "y", "task": "regression", "ignore": ["part"]}


def test_patients_days_and_parts() -> None:
    rows = visits()
    run("r", quick(data=DATA | {"group_column": "patient", "ignore": ["day", "part"]}))
    parts = read_split(quick(data=DATA | {"group_column": "patient", "ignore": ["day", "part"]}))
    who = [{rows[i - 2][2] for i in part.lines} for part in parts if part is not None and part.lines is not None]
    assert len(who) == 3
    assert len(set.union(*who)) == sum(map(len, who)) == 30
    assert parts[0].columns == ("x", "ward")
    train, validation, test = read_split(quick(data=DATA | {"time_column": "day", "ignore": ["patient", "part"]}))
    spans = [
        [rows[i - 2][3] for i in part.lines] for part in (train, validation, test) if part and part.lines is not None
    ]
    assert max(spans[0]) < min(spans[1]) <= max(spans[1]) < min(spans[2])
    kept = read_split(quick(data=DATA | {"time_column": "day", "ignore": [], "columns": ["x", "day"]}))[0]
    assert kept.columns == ("x", "day")  # a column that is listed stays an input
    for row in rows:
        row[4] = {"a": "train", "b": "test", "c": "val"}[row[4]]
    write_csv(Path("visits.csv"), rows, ["x", "ward", "patient", "day", "part", "y"])
    config = quick(data=DATA | {"split_column": "part", "ignore": ["patient", "day"]}, training={"early_stopping": {}})
    outcome = run("s", config)
    assert [outcome.metrics[part]["rows"] for part in ("train", "validation", "test")] == [30, 30, 30]
    assert main(["evaluate", "s", "--json"]) == 0


def test_cross_validation(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "training.epochs=2", "--set", "model.hidden=[3]", "--device", "cpu"]
    assert main(["train", "breast_cancer", *words, "--folds", "3", "--run-dir", "r"]) == 0
    out = capsys.readouterr().out
    found = strict_json(Path("r", "metrics.json").read_text(encoding="utf-8"))["cross_validation"]
    assert len(found["folds"]) == 3
    assert sum(fold["rows"] for fold in found["folds"]) == 569
    values = [fold["accuracy"] for fold in found["folds"]]
    assert found["mean"]["accuracy"] == pytest.approx(np.mean(values))
    assert found["deviation"]["accuracy"] == pytest.approx(np.std(values, ddof=1))
    assert "Cross-validation, 3 folds" in out
    assert f"fold 2 of 3: accuracy {values[1]:.4f}" in out
    assert main(["evaluate", "r", "--json"]) == 0  # the run's own model and test rows are as without folds
    assert json.loads(capsys.readouterr().out)["rows"] == 114


def test_each_fold_learns_from_its_own_rows_alone() -> None:
    """Other numbers and categories in the rows of a fold, and on them alone, change nothing that is learnt for it."""
    rows = visits()
    data = DATA | {"split_column": "part", "folds": 3, "ignore": ["patient", "day"], "missing": "indicator"}
    config = quick(data=data | {"unknown": "ignore"})

    def learnt(fold: int) -> tuple[Any, dict[str, np.ndarray]]:
        experiment = prepare(config, progress=False, parts=list(read_folds(config))[fold])
        fit(experiment, *encoded(experiment))
        return experiment.model.preprocessor, experiment.model.net.parameters()

    before, weights = learnt(1)
    train = list(read_folds(config))[1][0]
    np.testing.assert_allclose(before.mean, train.numeric.mean(axis=0), rtol=1e-12)
    for row in rows:
        if row[4] == "b":
            row[0], row[1], row[5] = "" if row[0] < "0" else "1e6", "never", "1000"
    write_csv(Path("visits.csv"), rows, ["x", "ward", "patient", "day", "part", "y"])
    after, same = learnt(1)
    assert after.categories == before.categories
    assert after.indicators == ()
    assert after.feature_names == before.feature_names
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.target.scale, before.target.scale)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, same[name])
    assert learnt(0)[0].categories != before.categories  # where they are training rows, they are seen


def test_what_does_not_fit_is_told() -> None:
    visits()
    for given, words in [
        ({"folds": 4, "split_column": "part", "ignore": []}, "names 3 folds; set data.folds: 3"),
        ({"group_column": "patients", "ignore": ["day"]}, "no column 'patients'"),
        ({"time_column": "ward"}, "neither a number nor a date"),
        ({"group_column": "patient", "folds": 40, "ignore": ["day", "part"]}, "30 groups are too few for 40 folds"),
    ]:
        with pytest.raises(DataError, match=words):
            run("r" + words[:2].strip(), quick(data=DATA | given))
    rows = [[*row[:4], "train" if i % 4 else "test", "ab"[i % 2]] for i, row in enumerate(visits())]
    write_csv(Path("visits.csv"), rows, ["x", "ward", "patient", "day", "part", "y"])
    data = {"source": "visits.csv", "target": "y", "split_column": "part", "ignore": ["patient", "day"]}
    with pytest.raises(DataError, match="chosen on validation rows, and there are none"):
        run("none", quick(data=data, training={"threshold": "f1"}))
    assert not Path("none").exists()
    rows = visits()
    rows[5][1] = "rare"
    write_csv(Path("visits.csv"), rows, ["x", "ward", "patient", "day", "part", "y"])
    config = quick(data=DATA | {"folds": 5, "test": 0.0, "validation": 0.0, "ignore": ["patient", "day", "part"]})
    with pytest.raises(DataError, match=r"fold \d: visits.csv, line 7, column 'ward': 'rare' is not among"):
        run("rare", config)
    assert not Path("rare").exists()  # found before anything is trained or written
    with pytest.raises(ConfigError, match="both divide the rows"):
        quick(data=DATA | {"group_column": "patient", "time_column": "day"})
