"""Parquet and Arrow files that are packed into rows, and trained on as rows in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from backprop_gpu.build import prepare, run
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.data.row_packing import can_be_packed, packed_rows
from backprop_gpu.errors import ConfigError, DataError
from backprop_gpu.model import load

N = 900


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def table() -> Any:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=N).astype(np.float32), rng.integers(-9, 9, N)
    kind = np.array(["no", "yes", "maybe"])[(a > 0) * 1 + (b > 4)]
    gaps = [None if k == 7 else float(k) for k in range(N)]
    columns = {"a": a, "b": pa.array(b.tolist(), pa.int16()), "flag": a > 1, "kind": kind, "gaps": gaps, "text": kind}
    return pa.table(columns)


def test_values_types_and_gaps_of_a_folder_of_files() -> None:
    whole = table()
    Path("set", "later").mkdir(parents=True)
    pq.write_table(whole.slice(0, 300), "set/0.parquet", row_group_size=100)
    pyarrow.feather.write_feather(whole.slice(300, 1), "set/1.feather")
    pq.write_table(whole.slice(301).select(["text", "kind", "gaps", "flag", "b", "a"]), "set/later/0.parquet")
    Path("set/notes.txt").touch()
    assert can_be_packed("set")
    assert not can_be_packed(".txt")
    found = packed_rows("set", "kind", ignore=["text", "gaps"])
    X, y = np.load(found.folder / "X.npy"), np.load(found.folder / "y.npy")
    assert (found.columns, found.classes, X.dtype) == (["a", "b", "flag"], ["maybe", "no", "yes"], np.float32)
    np.testing.assert_array_equal(X, np.stack([whole[name].to_numpy() for name in found.columns], axis=1))
    assert [found.classes[int(code)] for code in y] == whole["kind"].to_pylist()
    found = packed_rows("set", "b", columns=["gaps", "a"])  # packed anew, since it is asked for otherwise
    X, y = np.load(found.folder / "X.npy"), np.load(found.folder / "y.npy")
    assert (X.dtype, np.isnan(X[:, 0]).nonzero()[0].tolist(), X[8, 0]) == (np.float64, [7], 8.0)
    np.testing.assert_array_equal(y, whole["b"].to_numpy())
    assert sorted(os.listdir()) == ["set", "set.rows"]


def test_rows_are_packed_again_only_if_the_source_has_changed() -> None:
    pq.write_table(table(), "t.parquet")
    written = packed_rows("t.parquet", "b", columns=["a"]).folder / "X.npy"
    at = written.stat().st_mtime_ns
    assert packed_rows("t.parquet", "b", columns=["a"]).folder / "X.npy" == written
    assert written.stat().st_mtime_ns == at
    pq.write_table(table().slice(1), "t.parquet")
    packed_rows("t.parquet", "b", columns=["a"])
    assert np.load(written).shape == (N - 1, 1)


def test_a_run_predicts_what_it_was_given() -> None:
    pq.write_table(table(), "t.parquet", row_group_size=128)
    changes = ["data.source=t.parquet", "data.target=kind", "data.ignore=[text]", "data.in_memory=false"]
    changes += ["data.missing=mean", "training.epochs=20", "device=cpu", "training.batch_size=32"]
    config = load_config(None, changes)
    experiment = prepare(config, progress=False)
    assert experiment.config.data.task == "multiclass"
    outcome = run(experiment, "run")
    assert outcome.metrics["test"]["accuracy"] > 0.8
    model = load("run")
    whole = table()
    predicted = model.predict("t.parquet")
    assert np.mean(predicted == whole["kind"].to_numpy(zero_copy_only=False)) > 0.8
    assert main(["evaluate", "run"]) == 0


def test_what_cannot_be_packed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(), "t.parquet")
    with pytest.raises(DataError, match=r"column 'text' holds string, .* leave it out \(data.ignore=\[gaps, text\]\)"):
        packed_rows("t.parquet", "kind", ignore=["gaps"])
    with pytest.raises(ConfigError, match=r"has no column 'knd' \(did you mean 'kind'\?\)"):
        packed_rows("t.parquet", "knd", columns=["a"])
    Path("t.parquet.rows").mkdir()
    with pytest.raises(ConfigError, match="holds something else; rename it"):
        packed_rows("t.parquet", "b", columns=["a"])
    Path("t.parquet.rows").rmdir()
    Path("two").mkdir()
    pq.write_table(table(), "two/0.parquet")
    pq.write_table(table().drop_columns(["b"]), "two/1.parquet")
    with pytest.raises(DataError, match=r"two/1.parquet has other columns than two/0.parquet"):
        packed_rows("two", "a", columns=["flag"])
    Path("two/1.parquet").write_bytes(Path("two/0.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"two/1.parquet cannot be read"):
        packed_rows("two", "a", columns=["flag"])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backprop_gpu.data.row_packing._write", full)
    with pytest.raises(DataError, match=r"cannot pack rows to t.parquet.rows: No space left"):
        packed_rows("t.parquet", "b", columns=["a"])
    assert sorted(os.listdir()) == ["t.parquet", "two"]
