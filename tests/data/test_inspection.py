"""What is seen in a table before anything is trained."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from backprop_gpu import cli, read_table
from backprop_gpu.cli_init import configuration
from backprop_gpu.config_reading import load_config
from backprop_gpu.data.inspection import Inspection, inspect
from backprop_gpu.rows import read_split
from backprop_gpu.safe_yaml import parse_yaml

pytestmark = pytest.mark.filterwarnings("ignore")  # notes about columns are said here in another form


def written(folder: Path, task: str) -> Path:
    """60 rows with an identifier, a constant, gaps, a date, a copy of the target, a column of nothing."""
    rng = np.random.default_rng(0)
    lines = ["id,area,town,when,same,nothing,price,copy"]
    for i in range(60):
        area, town, noise = rng.integers(20, 200), ["Bern", "Basel", "Chur"][i % 3], rng.integers(0, 300)
        price = f"{1000 + 13 * area + noise}" if task == "values" else ["low", "high"][int(area > 170)]
        copy = f"{2 * (1000 + 13 * area + noise)}" if task == "values" else f"grade {int(area > 170)}"
        when = f"2024-{1 + i % 12:02}-{1 + i % 28:02}"
        lines.append(f"K{i:03},{area},{town if i % 10 else ''},{when},7,,{price},{copy}")
    path = folder / f"{task}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def found(path: Path) -> Inspection:
    return inspect(read_table(path, target="price"))


def test_columns_of_values(tmp_path: Path) -> None:
    seen = found(written(tmp_path, "values"))
    assert (seen.rows, seen.task, seen.classes) == (60, "regression", {})
    by_name = {column.name: column for column in seen.columns}
    assert [name for name, column in by_name.items() if column.leave_out] == ["id", "same", "nothing"]
    assert by_name["id"].leave_out == "an identifier: 60 different values in 60 rows"
    assert [name for name, column in by_name.items() if column.warning] == ["copy"]
    assert (by_name["town"].kind, by_name["town"].gaps, by_name["town"].different) == ("category", 6, 3)
    assert by_name["when"].kind == "date"
    assert seen.gaps == ["town"]


def test_columns_of_classes(tmp_path: Path) -> None:
    seen = found(written(tmp_path, "classes"))
    assert seen.task == "binary"
    assert sum(seen.classes.values()) == 60
    assert set(seen.classes) == {"high", "low"}
    assert [column.name for column in seen.columns if column.warning] == ["copy"]


def test_a_table_in_the_order_of_time_can_be_tested_on_its_latest_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written behind # is read and divides the rows by time, which stays an input."""
    rows = [f"2024-01-{1 + i // 24:02} {i % 24:02}:00,{i % 7},{i % 24 + i % 7}" for i in range(400)]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(["when,promo,units", *rows]) + "\n", encoding="utf-8")
    assert cli.main(["config", "init", str(path), "--target", "units"]) == 0
    text = capsys.readouterr().out
    assert "  # The rows follow when. Take the # away to be tested on the latest ones, as new rows will be:\n" in text
    (tmp_path / "s.yaml").write_text(re.sub(r"  # (time_column|columns):", r"  \1:", text), encoding="utf-8")
    train, _, test = read_split(load_config(str(tmp_path / "s.yaml")))
    assert "when (hour sin)" in train.numeric_names
    days = [part.numeric[:, part.numeric_names.index("when")] for part in (train, test)]
    assert days[0].max() < days[1].min()
    path.write_text("\n".join(["when,promo,units", *rows[::-1]]) + "\n", encoding="utf-8")
    assert cli.main(["config", "init", str(path), "--target", "units"]) == 0
    assert "time_column" not in capsys.readouterr().out


def test_a_file_that_is_trained_on_at_once_is_left_what_init_would_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "values")
    words = ["train", "values.csv", "--target", "price", "--preset", "tabular", "--run-dir", "run"]
    assert cli.main([*words, "--set", "training.epochs=1", "--set", "data.ignore=[copy]"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("left out: id, an identifier: 60 different values in 60 rows\nleft out: same, ")
    assert "identifiers" not in said.err
    assert load_config("run/config.yaml").data.ignore == ["copy", "id", "same", "nothing"]
    assert cli.main(["predict", "run", "values.csv", "--keep", "id"]) == 0
    assert capsys.readouterr().out.startswith("id,price\nK000,")


@pytest.mark.parametrize("task", ["values", "classes"])
def test_what_is_written_is_read_and_trains(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, task)
    assert cli.main(["config", "init", f"{task}.csv", "--target", "price", "--out", "my.yaml"]) == 0
    config = load_config("my.yaml")
    assert (config.data.missing, config.data.ignore) == ("indicator", ["id", "same", "nothing"])
    assert config.training.threshold == ("balanced_accuracy" if task == "classes" else 0.5)
    assert cli.main(["train", "my.yaml", "--set", "training.epochs=2", "--run-dir", "run", "--quiet"]) == 0


def test_without_a_file_the_yaml_is_all_of_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "values")
    assert cli.main(["config", "init", str(path), "--target", "price"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["data"]["target"] == "price"
    assert "copy: number, " in text
    assert "is it known before the target is?" in text


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, "values"), tmp_path / "my.yaml"
    out.write_text("mine", encoding="utf-8")
    assert cli.main(["config", "init", str(path), "--target", "price", "--out", str(out)]) == 2
    assert "is there already; give another file, or remove it" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "mine"


def test_names_of_columns_make_no_settings(tmp_path: Path) -> None:
    path, names = tmp_path / "odd.csv", ["a\nseed: 5", "b\u2028c", 'd"\\\x7f', "*e"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *([i, i % 5, i % 3, i % 2] for i in range(20))])
    seen = inspect(read_table(path, target=names[3]))
    written = parse_yaml(configuration(seen, names[2], {}), "odd.yaml")
    assert {key: written["data"][key] for key in ("source", "target")} == {"source": names[2], "target": names[3]}
    assert set(written) == {"data", "preset", "training"}
