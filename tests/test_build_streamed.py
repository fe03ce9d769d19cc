"""``train`` on rows that stay in their files: the run that rows in memory would give, killed and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import command_line, environment, settings

from backprop_gpu.build import prepare, run
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.data import streamed_table
from backprop_gpu.model import load
from backprop_gpu.report.run_data import read_run
from backprop_gpu.run_fit import encoded
from backprop_gpu.run_folder import CHECKPOINTS
from backprop_gpu.training.checkpoint_file import checkpoints_in

N = 3000
FEW = ["data.source=X.npy", "data.target=y.npy", "data.in_memory=false", "training.batch_size=64", "model.hidden=[5]"]
FEW += ["training.epochs=2", "device=cpu", "name=streamed"]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    monkeypatch.setattr(streamed_table, "_PART_VALUES", 3 * 256)  # of the pass: 12 parts
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(N, 3)) * [1.0, 10.0, 1e-3] + [5.0, 1e4, 0.0]).astype(np.float32)
    X[::7, 1] = 1e4
    np.save("X.npy", X)
    np.save("y.npy", (X[:, 0] > 5.0) * 2 + (X[:, 2] > 0))
    np.save("t.npy", X[:, 0] * 3.0 + 1e-3 * X[:, 1])
    Path("parts").mkdir()
    for k, part in enumerate(np.split(X, [1000, 1001])):
        np.save(f"parts/{k}.npy", part)


def config(*more: str) -> Any:
    return load_config(None, [*FEW, *more])


@pytest.mark.parametrize(
    "more", [("data.source=parts",), ("data.target=t.npy", "data.missing=indicator", "data.test=0")]
)
def test_the_run_is_that_of_rows_in_memory(more: tuple[str, ...]) -> None:
    streamed = prepare(config(*more), progress=False)
    history = run(streamed, "run").history
    other = prepare(config(*more), progress=False)
    (X, y), held_out = encoded(other)
    assert held_out is not None
    X, y, of_held_out = X[:], y[:], (held_out[0][:], held_out[1])
    assert len(X) + len(of_held_out[0]) + (0 if other.test is None else other.test.n_samples) == N
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=2e-6)
    np.testing.assert_allclose(X.std(axis=0), 1.0, atol=2e-6)
    in_memory = other.trainer.fit(X, y, validation=of_held_out)
    assert streamed.model.net.params.theta.tobytes() == other.model.net.params.theta.tobytes()
    assert [e.validation for e in history.epochs] == [e.validation for e in in_memory.epochs]
    assert load("run").evaluate(other.validation) == json.loads(Path("run/metrics.json").read_text())["validation"]


def test_parts_are_disjoint_uniform_and_do_not_depend_on_the_files() -> None:
    one, parts = (prepare(config(f"data.source={source}"), progress=False) for source in ("X.npy", "parts"))
    np.testing.assert_array_equal(one.model.preprocessor.mean, parts.model.preprocessor.mean)
    np.testing.assert_array_equal(one.model.preprocessor.scale, parts.model.preprocessor.scale)
    assert one.model.test_rows == parts.model.test_rows
    tables: Any = (one.train, one.validation, one.test)
    rows = [table.rows(np.arange(table.n_samples)) for table in tables]
    assert sorted(np.concatenate(rows).tolist()) == list(range(N))
    assert [len(part) for part in rows] == [2100, 450, 450]
    X = np.load("X.npy").astype(np.float64)[rows[0]]
    np.testing.assert_allclose(one.model.preprocessor.mean, X.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(one.model.preprocessor.scale, X.std(axis=0), rtol=1e-12)


def test_a_run_that_is_killed_in_an_epoch_goes_on_to_the_same_bits() -> None:
    words = [word for pair in FEW for word in ("--set", pair)] + ["--set", "training.epochs=8"]
    words += settings(checkpoint__every_steps=1, checkpoint__keep=3)
    run(prepare(config("training.epochs=8", "checkpoint=null"), progress=False), "whole")
    killed = subprocess.Popen(
        command_line("train", "--quiet", "--run-dir", "run", *words),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not Path("run", CHECKPOINTS).is_dir() or len(checkpoints_in(Path("run", CHECKPOINTS))) < 3:
        assert time.monotonic() < end
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not Path("run", "model.safetensors").exists()
    run(prepare(load_config("run/config.yaml", ["checkpoint=null"]), progress=False), "run", resume=True)
    assert Path("run", "model.safetensors").read_bytes() == Path("whole", "model.safetensors").read_bytes()


def test_the_commands_of_a_run_know_such_rows(capsys: pytest.CaptureFixture[str]) -> None:
    run(prepare(config(), progress=False), "run")
    assert main(["evaluate", "run"]) == 0
    assert "450" in capsys.readouterr().out
    assert main(["devices", "--plan", "run/config.yaml"]) == 0
    assert "on the device" not in capsys.readouterr().out  # but copied batch by batch
    assert main(["gradcheck", "run/config.yaml"]) == 0
    found = read_run("run")
    assert found.missing == []
    assert found.tables["test"].n_samples == 450


def test_held_out_parts_are_no_larger_than_they_need_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_table, "MOST_HELD_OUT", 100)
    made = prepare(config(), progress=False)
    assert made.validation is not None
    assert (made.train.n_samples, made.validation.n_samples) == (2800, 100)
    assert made.train.notes == ("of 3,000 rows 100 are validated and 100 tested on, the other 2,800 trained on",)


REFUSED = [
    ("data.group_column=g", "data.group_column needs the rows in memory (data.in_memory: true); leave it out"),
    ("training.class_weight=balanced", "training.class_weight needs the rows in memory"),
    ("data.standardize=robust", "data.standardize: robust needs the rows in memory"),
    ("data.missing=median", "missing: median needs all rows in memory; set missing to mean or indicator"),
    ("data.target=wrong.npy", "wrong.npy"),
    ("data.target=null", "X.npy: give the file that holds y, e.g. target: y.npy"),
    ("data.source=moons", "data.in_memory: false reads rows from .npy, Parquet and Arrow files; moons is none"),
    ("data.source=gaps.npy", "gaps.npy, row 1234, column 'x1': the value is missing"),
    ("data.source=infinite.npy", "infinite.npy, row 777, column 2: an input is infinite; correct it"),
    ("data.source=short.npy", "short.npy: X has 10 rows and y has 3000; they must agree"),
    ("data.task=binary", "X.npy: a binary target has two classes, this one has 4"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_streamed_is_one_line(change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.load("X.npy")
    np.save("short.npy", X[:10])
    for name, row, column, value in (("gaps.npy", 1234, 1, np.nan), ("infinite.npy", 777, 2, np.inf)):
        wrong = X.copy()
        wrong[row, column] = value
        np.save(name, wrong)
    words = [word for pair in [*FEW, "data.test=0", "data.validation=0.001", change] for word in ("--set", pair)]
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
