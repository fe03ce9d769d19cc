"""Disks that are full, read-only or broken, folders that are removed: one line, and nothing lost that need not be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.command import SHORT, environment, settings
from support.io_faults import faults

from backprop_gpu.build import load, prepare, run
from backprop_gpu.config_reading import load_config
from backprop_gpu.training.callbacks import Callback, Epoch, history_lines

pytestmark = pytest.mark.skipif(os.name == "nt", reason="faults of system calls as POSIX has them")

EPOCHS = 4
TRAIN = (*settings(training__epochs=EPOCHS, training__early_stopping="null", model__hidden="[4]", device="cpu"),)
WHOLE = {"checkpoints", "config.yaml", "history.jsonl", "model.safetensors", "metrics.json", "curve.png", "report.html"}
CHECKPOINT = r"000001-step-\d+\.safetensors"
THE_OTHERS_STAY = "; the checkpoints before it stay, and training goes on"
GOES_ON = "; training goes on, and so does the file when it can be written"


@dataclass(frozen=True)
class Scenario:
    """Faults of a run in folder ``name`` (``support.io_faults``): exit code, what is told, the files in the end."""

    name: str
    rule: str
    code: int
    told: str
    files: set[str]
    command: str = "train"


SCENARIOS = [
    Scenario("fine", "", 0, "", WHOLE),
    Scenario(
        "once", "write:2:ENOSPC:once/history.jsonl", 0,
        f"cannot write once/history.jsonl: No space left on device{GOES_ON}", WHOLE,
    ),
    Scenario("short", "write:2:SHORT:short/history.jsonl", 0, "", WHOLE),
    Scenario(
        "always", "write:2+:EDQUOT:always/history.jsonl;open:1:EDQUOT:always/.history.jsonl", 2,
        f"cannot write always/history.jsonl: Disk quota exceeded{GOES_ON}\n"
        "backprop-gpu: cannot write always/history.jsonl: Disk quota exceeded; always holds the model",
        {"checkpoints", "config.yaml", "history.jsonl", "model.safetensors"},
    ),
    Scenario(
        "config", "fsync:1:ENOSPC:config/.config.yaml", 2,
        "cannot write config/config.yaml: No space left on device", set(),
    ),
    Scenario("fixed", "mkdir:1:EROFS:fixed", 2, "cannot make the run folder fixed: Read-only file system", set()),
    Scenario(
        "full", "write:1+:ENOSPC:full/checkpoints/.0", 0,
        f"cannot write full/checkpoints/{CHECKPOINT}: No space left on device{THE_OTHERS_STAY}", WHOLE,
    ),
    Scenario(
        "flush", "fsync:1:EIO:flush/checkpoints/.0", 0,
        f"cannot write flush/checkpoints/{CHECKPOINT}: Input/output error{THE_OTHERS_STAY}", WHOLE,
    ),
    Scenario(
        "lock", "mkdir:1:EROFS:lock/checkpoints", 2,
        "cannot make the checkpoint folder lock/checkpoints: Read-only file system", {"config.yaml"},
    ),
    Scenario(
        "nolock", "flock:1:ENOLCK:nolock/", 0,
        "cannot lock nolock/checkpoints: No locks available; training goes on without, so start no other run there",
        WHOLE,
    ),
    Scenario(
        "model", "write:1+:ENOSPC:/model/.model.safetensors", 2,
        "cannot write model/model.safetensors: No space left on device; the model is in (.*) instead",
        {"checkpoints", "config.yaml", "history.jsonl"},
    ),
    Scenario(
        "metrics", "rename:1:EIO:metrics/metrics.json", 2,
        "cannot write metrics/metrics.json: Input/output error; metrics holds the model",
        WHOLE - {"metrics.json", "curve.png", "report.html"},
    ),
    Scenario(
        "picture", "write:1:ENOSPC:picture/.curve.png", 2,
        "cannot write picture/curve.png: No space left on device; all the rest of the run is there",
        WHOLE - {"curve.png"},
    ),
    Scenario(
        "page", "write:1:ENOSPC:page/.report.html", 2,
        "cannot write page/report.html: No space left on device; all the rest of the run is there",
        WHOLE - {"curve.png", "report.html"},
    ),
    Scenario(
        "old", "write:1:ENOSPC:old/.predicted.csv", 2,
        "cannot write old/predicted.csv: No space left on device", {"predicted.csv"}, "predict",
    ),
]  # fmt: skip

PROCESS = """
import contextlib, io, json, sys
from backprop_gpu.cli import main
for name, words in json.load(sys.stdin):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    print(json.dumps([name, code, err.getvalue()]))
"""


def words_of(scenario: Scenario) -> list[str]:
    if scenario.command == "predict":
        return ["predict", "fine", "moons", "--out", f"{scenario.name}/predicted.csv"]
    return ["train", "moons", "--quiet", "--run-dir", scenario.name, *TRAIN]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, str]]]:
    """All scenarios in one process, each with the faults of its own folder: exit codes and errors by name."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "old").mkdir()
    (folder / "old" / "predicted.csv").write_text("old\n")
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        input=json.dumps([(s.name, words_of(s)) for s in SCENARIOS]),
        env=environment(**faults(*(s.rule for s in SCENARIOS if s.rule))),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, {name: (code, err) for name, code, err in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_fault_is_one_line_and_costs_what_it_must(
    scenario: Scenario, ended: tuple[Path, dict[str, tuple[int, str]]]
) -> None:
    folder, results = ended
    code, err = results[scenario.name]
    assert code == scenario.code, err
    told = re.fullmatch(f"backprop-gpu: {scenario.told}\n" if scenario.told else "", err)
    assert told, err
    there = folder / scenario.name
    assert {p.name for p in there.iterdir()} == scenario.files if scenario.files else not there.exists()
    if scenario.name in ("full", "flush"):
        assert [p.name for p in (there / "checkpoints").iterdir()] == [".lock"]  # no half of one
    if scenario.command == "predict":
        assert (there / "predicted.csv").read_text() == "old\n"
    if scenario.name in ("once", "short"):
        assert (there / "history.jsonl").read_bytes().count(b"\n") == EPOCHS
        assert untimed(there) == untimed(folder / "fine")
    if "model.safetensors" in scenario.files:
        same_model(there, folder / "fine")
    if scenario.name == "model":
        elsewhere = Path(told[1])
        same_model(elsewhere, folder / "fine")
        shutil.rmtree(elsewhere.parent)


def untimed(folder: Path) -> list[dict[str, Any]]:
    """The lines of a history but for the seconds."""
    return [line | {"seconds": 0} for line in history_lines(folder / "history.jsonl")]


def same_model(path: Path, other: Path) -> None:
    one, two = (load(p, device="cpu").net.parameters() for p in (path, other))
    assert {k: x.tobytes() for k, x in one.items()} == {k: x.tobytes() for k, x in two.items()}


def test_a_run_folder_that_is_removed_while_training_is_made_again(tmp_path: Path) -> None:
    class Removes(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 1:
                shutil.rmtree(tmp_path / "run")

    config = load_config("moons", [word for word in SHORT if word != "--set"], device="cpu")
    outcome = run(prepare(config, progress=False), tmp_path / "run", [Removes()])
    assert {p.name for p in (tmp_path / "run").iterdir()} == WHOLE - {"curve.png", "report.html"}
    assert [line["epoch"] for line in history_lines(tmp_path / "run" / "history.jsonl")] == [1, 2]
    assert load_config(str(tmp_path / "run" / "config.yaml")).model_dump() == config.model_dump()
    assert outcome.metrics["epochs"] == 2
