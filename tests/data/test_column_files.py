"""Parquet, Feather, Arrow and Excel files: read as their types say, everywhere a CSV is, and refused in one line."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backprop_gpu
from backprop_gpu import safe_files
from backprop_gpu.cli import main
from backprop_gpu.data import read_table
from backprop_gpu.data.column_summary import in_short
from backprop_gpu.data.read_settings import ReadSettings
from backprop_gpu.data.sources import column_names, read_texts
from backprop_gpu.errors import ConfigError, DataError

N = 60
DAY = datetime.date(2024, 1, 31)
FIRST = datetime.datetime(2024, 1, 31, 6)
DAYS = 19753.0  # from 1970 to 2024-01-31


def columns() -> dict[str, pa.Array]:
    """A column of each type that a file may state, each with the values that it must have."""
    k = range(N)
    return {
        "whole": pa.array([None if i % 9 == 4 else i % 5 for i in k], pa.int16()),
        "half": pa.array([i / 2 for i in k], pa.float16()),
        "price": pa.array([Decimal(i) / 4 for i in k], pa.decimal128(9, 2)),
        "flag": pa.array([None if i == 7 else i % 3 == 0 for i in k]),
        "day": pa.array([DAY + datetime.timedelta(days=i) for i in k], pa.date32()),
        "when": pa.array([FIRST + datetime.timedelta(hours=i) for i in k], pa.timestamp("ns", "UTC")),
        "clock": pa.array([datetime.time(i % 24, 30) for i in k], pa.time32("s")),
        "span": pa.array([datetime.timedelta(hours=i) for i in k], pa.duration("ms")),
        "colour": pa.array(["red", "blue", None][i % 3] for i in k).dictionary_encode(),
        "zip": pa.array(["10115", "20095"][i % 2] for i in k),
        "text": pa.array(["1,5", "2,75"][i % 2] for i in k).cast(pa.large_string()),
        "empty": pa.nulls(N),
        "rent": pa.array([i * 2 + 0.5 for i in k], pa.float32()),
    }


WANTED = {
    "whole": [np.nan if i % 9 == 4 else i % 5 for i in range(N)],
    "half": [i / 2 for i in range(N)],
    "price": [i / 4 for i in range(N)],
    "flag": [np.nan if i == 7 else float(i % 3 == 0) for i in range(N)],
    "day": [DAYS + i for i in range(N)],
    "when": [DAYS + (6 + i) / 24 for i in range(N)],
    "clock": [(i % 24 + 0.5) / 24 for i in range(N)],
    "span": [i / 24 for i in range(N)],
    "text": [1.5 if i % 2 == 0 else 2.75 for i in range(N)],
    "empty": [np.nan] * N,
}


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=17)
        return path
    make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
    with make(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=25)
    return path


def refusal(path: Path, error: type[Exception] = DataError, **settings: object) -> str:
    with pytest.raises(error) as caught:
        read_table(path, **{"target": "rent", **settings})  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow"])
def test_types_of_the_file_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    table = read_table(write(tmp_path / name, pa.table(columns())), target="rent")
    stored = dict(zip(table.stored_names, table.stored.T, strict=True))
    for column, values in WANTED.items():
        np.testing.assert_allclose(stored[column], values, rtol=1e-12, err_msg=column)
    assert table.categorical["colour"].tolist() == ["red", "blue", ""] * (N // 3)
    assert table.categorical["zip"].tolist() == ["10115", "20095"] * (N // 2)  # the file says that they are text
    assert table.target is not None
    assert table.target.tolist() == [i * 2 + 0.5 for i in range(N)]
    said = {r.name: (r.kind, r.how) for r in table.readings}
    assert said["when"] == ("date", "timestamp[ns, tz=UTC] in the file")
    assert said["price"] == ("number", "decimal128(9, 2) in the file")
    assert said["colour"][0] == "category"
    assert said["zip"] == ("text code", "string in the file")
    assert said["text"] == ("number", "decimal comma")
    assert "when (hour sin)" in table.numeric_names
    assert "day (hour sin)" not in table.numeric_names
    assert table.where(3).endswith(f"{name}, row 3")


def test_targets(tmp_path: Path) -> None:
    k = np.arange(12)
    path = write(
        tmp_path / "t.parquet",
        pa.table({"a": k / 2, "n": k % 3, "s": [f"c{i % 2}" for i in k], "b": pa.array(k % 2 == 0), "f": k * 1.5}),
    )
    for target, kind, first in (("n", "i", 0), ("s", "U", "c0"), ("b", "U", "True"), ("f", "f", 0.0)):
        found = read_table(path, target=target).target
        assert found is not None
        assert (found.dtype.kind, found[0]) == (kind, first)
    both = read_table(path, target=["n", "f"]).target
    assert both is not None
    assert both[5].tolist() == [2.0, 7.5]
    assert read_table(path, target="n", categorical=["n", "s"]).target.tolist()[:3] == ["0", "1", "2"]  # type: ignore[union-attr]
    gaps = write(tmp_path / "gaps.parquet", pa.table({"a": [1.0, 2.0], "rent": pa.array([3, None])}))
    assert "row 1: the target 'rent' is missing" in refusal(gaps)


def test_a_model_reads_each_kind_of_file_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on Parquet with a group's folds: evaluated and used on CSV, Arrow and Excel with the same numbers."""
    monkeypatch.chdir(tmp_path)
    made = {name: array for name, array in columns().items() if name not in ("text", "clock", "span", "empty")}
    made |= {"shop": pa.array([f"s{i // 6}" for i in range(N)])}
    table = pa.table(made)
    rows = table.to_pylist()
    for row in rows:
        row["when"] = row["when"].replace(tzinfo=None)
    for name in ("t.parquet", "t.arrow"):
        write(Path(name), table)
    book = openpyxl.Workbook()
    book.active.append(list(made))  # type: ignore[union-attr]
    for row in rows:
        book.active.append([str(v) if isinstance(v, Decimal) else v for v in row.values()])  # type: ignore[union-attr]
    book.save("t.xlsx")
    lines = [[("" if v is None else str(v)) for v in row.values()] for row in [dict.fromkeys(made), *rows]]
    lines[0] = list(made)
    Path("t.csv").write_text("\n".join(map(",".join, lines)))
    settings = "data.target=rent data.group_column=shop data.missing=indicator training.epochs=2 model.hidden=[3]"
    overrides = [word for each in settings.split() for word in ("--set", each)]
    assert main(["config", "init", "t.parquet", "--target", "rent", "--out", "first.yaml"]) == 0
    assert "timestamp[ns, tz=UTC] in the file" in Path("first.yaml").read_text()
    assert main(["train", "t.parquet", *overrides, "--folds", "3", "--quiet", "--run-dir", "run"]) == 0
    model = backprop_gpu.load("run")
    predicted = [model.predict(name) for name in ("t.parquet", "t.arrow", "t.xlsx", "t.csv")]
    for other in predicted[1:]:
        np.testing.assert_array_equal(other, predicted[0])
    np.testing.assert_array_equal(model.predict(table.to_pandas()), predicted[0])
    assert model.evaluate("t.xlsx") == model.evaluate("t.parquet")
    assert main(["predict", "run", "t.parquet", "--keep", "when", "--keep", "whole", "--out", "p.csv"]) == 0
    assert Path("p.csv").read_text().splitlines()[1].startswith("2024-01-31 06:00:00.000000000Z,0,")
    assert main(["evaluate", "run", "--json"]) == 0
    capsys.readouterr()
    assert main(["show", "run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["columns"]
    assert shown == json.loads(Path("run/metrics.json").read_text())["columns"]  # in the model and in the run folder
    said = {line["name"]: line for line in shown}
    assert (said["when"]["kind"], said["when"]["how"]) == ("date", "timestamp[ns, tz=UTC] in the file")
    assert (said["when"]["inputs"], said["colour"]["inputs"], said["rent"]["role"]) == (8, 3, "target")
    assert said["shop"]["role"] == "left out"
    assert main(["show", "run"]) == 0
    assert "decimal128(9, 2) in the file" in capsys.readouterr().out
    short = "\n".join(in_short(model.preprocessor))
    assert "1 category: colour (3)" in short
    assert short.count("\n") <= 14
    assert read_texts("t.xlsx", ["whole", "day"])[1][0] == "2024-01-31"
    assert json.loads(Path("run/metrics.json").read_text())["cross_validation"]["folds"]


def test_what_does_not_fit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(columns())
    path = write(tmp_path / "t.parquet", table)
    assert "delimiter does not apply" in refusal(path, ConfigError, delimiter=";")
    assert "no column 'rnt' (did you mean 'rent'?)" in refusal(path, target="rnt")
    nested = table.append_column("tags", pa.array([[1, 2]] * N))
    path = write(tmp_path / "nested.parquet", nested)
    assert "column 'tags' holds list<element: int64>, and each cell must be one value; leave it out" in refusal(path)
    assert read_table(path, target="rent", ignore=["tags"]).n_samples == N
    twice = pa.Table.from_arrays([table["rent"], table["rent"]], names=["rent", "rent"])
    assert "the name 'rent' of a column is there twice" in refusal(write(tmp_path / "twice.arrow", twice))
    assert "has columns but no rows" in refusal(write(tmp_path / "none.parquet", table.slice(0, 0)))
    words = pa.table({"a": pa.array(["x", "7", *map(str, range(30))]), "rent": range(32)})
    assert "row 0, column 'a': 'x' is not a number, but 31" in refusal(write(tmp_path / "words.feather", words))
    whole = (tmp_path / "t.parquet").read_bytes()
    for name, content in (
        ("cut.parquet", whole[:-99]),
        ("odd.arrow", b"x" * 99),
        ("odd.xlsx", b"PK\3\4"),
        ("e.feather", b""),
    ):
        (tmp_path / name).write_bytes(content)
        assert "write it again" in refusal(tmp_path / name) or "write the file again" in refusal(tmp_path / name)
    assert "there is no such file" in refusal(tmp_path / "absent.parquet")
    constant = pa.table({"a": pa.array(np.zeros(100_000)), "rent": pa.array(np.zeros(100_000))})
    bomb = write(tmp_path / "bomb.parquet", constant)
    pq.write_table(constant, bomb, compression="zstd")
    monkeypatch.setattr(safe_files, "MEMORY_AT_LEAST", 1 << 16)
    assert "unpacks to more than the" in refusal(bomb)


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, name in (("pyarrow", "t.parquet"), ("openpyxl", "t.xlsx")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        (tmp_path / name).write_bytes(b"")
        message = refusal(tmp_path / name, backprop_gpu.errors.MissingDependencyError)
        assert message == f"FILE is read by the package {package}; pip install {package}"


def test_a_workbook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append([])
    sheet.append(["day", "n", "n", "zip", "yes", "y"])
    for i in range(20):
        sheet.append([datetime.datetime(2024, 1, 31), i / 4, None if i == 3 else i, f"0{i}", i % 2 == 0, i % 3])
        if i == 9:
            sheet.append([])
    book.create_sheet("notes").append(["nothing"])
    path = tmp_path / "t.xlsx"
    book.save(path)
    table = read_table(path, target="y")
    assert table.columns == ("day", "n", "n.1", "zip", "yes")
    assert table.stored[4].tolist() == [DAYS, 1.0, 4.0, 1.0]
    assert np.isnan(table.stored[3, 2])
    assert table.categorical["zip"].tolist() == [f"0{i}" for i in range(20)]
    assert table.target is not None
    assert table.target.tolist() == [i % 3 for i in range(20)]
    assert table.where(0).endswith("line 3")
    assert table.where(10).endswith("line 14")
    assert "the first of 2 sheets is read, 'Sheet'" in caplog.text
    assert column_names(path, ReadSettings(header=False))[0] == "column 1"
    sheet.cell(5, 9).value = "aside"
    book.save(path)
    assert "line 5: 9 cells where the header has 6" in refusal(path, target="y")
