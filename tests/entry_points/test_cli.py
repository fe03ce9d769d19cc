"""The command line, run as a user runs it: train, gradcheck, devices, config, and the ways in."""

from __future__ import annotations

import csv
import importlib
import json
import re
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.command import ROOT, SHORT, Command, metrics, settings
from support.tables import arrays, shop_rows, write_csv

from backprop_gpu.cli import main
from backprop_gpu.config_reading import carried, load_config
from backprop_gpu.maths.activations import ACTIVATIONS

CARRIED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


# -- train -----------------------------------------------------------------------------------------------------------


def test_train_alone_does_the_main_job(tmp_path: Path) -> None:
    out = Command(tmp_path).ok("train")
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"breast_cancer-\d{8}-\d{6}", run.name)
    found = metrics(run)
    assert found["test"]["accuracy"] >= 0.96
    assert f"{found['test']['accuracy']:.4f}" in out
    assert "30 - 16 - 8 - 1, 641 parameters, float32" in out
    assert re.search(r"^device: numpy \((CUDA .+|the CPU .+)\)$", out, re.MULTILINE)
    for word in ("train", "validation", "test", "accuracy", "log_loss", "roc_auc", "malignant", "benign", "60 epochs"):
        assert word in out
    assert f"weights of epoch {found['best_epoch']}" in out
    assert f"run folder: {Path('runs') / run.name}" in out
    assert not [line for line in out.splitlines() if len(line) > 80 and not line.startswith("device: ")]


def test_the_digits(tmp_path: Path) -> None:
    out = Command(tmp_path).ok("train", "digits", "--run-dir", "digits")
    assert metrics(tmp_path / "digits")["test"]["accuracy"] >= 0.97
    assert "Confusion matrix" in out


@pytest.mark.parametrize("name", ["moons", "regression"])
def test_the_other_small_configurations_learn(name: str, tmp_path: Path) -> None:
    Command(tmp_path).ok("train", name, "--run-dir", "run", *settings(training__epochs=25))
    test = metrics(tmp_path / "run")["test"]
    assert test["accuracy"] > 0.93 if name == "moons" else test["r2"] > 0.8


def test_the_large_configuration_trains_on_fewer_rows(tmp_path: Path) -> None:
    few = settings(data__options__n=600, training__epochs=1, model__hidden="[32, 32, 32, 16]")
    assert "64 - 32 - 32 - 32 - 16 - 1" in Command(tmp_path).ok("train", "gpu_large", "--run-dir", "run", *few)


def test_the_curve_is_a_picture_or_a_line_that_says_what_is_missing(tmp_path: Path) -> None:
    out = Command(tmp_path).ok("train", "--run-dir", "run", *SHORT)
    picture = tmp_path / "run" / "curve.png"
    if find_spec("matplotlib") is None:
        assert not picture.exists()
        assert "pip install matplotlib" in out
    else:
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.read_bytes()[-8:-4] == b"IEND"
        assert "matplotlib" not in out


def test_quiet_is_quiet(tmp_path: Path) -> None:
    assert Command(tmp_path).ok("train", "--quiet", "--run-dir", "run", *SHORT) == "run\n"
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_configuration_of_ones_own(tmp_path: Path) -> None:
    write_csv(tmp_path / "shop.csv", shop_rows())
    text = "name: shop\ndata: {source: shop.csv, target: kauft}\ntraining: {epochs: 2}\n"
    (tmp_path / "shop.yaml").write_text(text, encoding="utf-8")
    out = Command(tmp_path).ok(
        "train", "shop.yaml", "--set", "optimizer.learning_rate=1e-3", "--run-dir", "deep/in/run"
    )
    assert "shop: 5 - 16 - 8 - 1" in out
    written = yaml.safe_load((tmp_path / "deep" / "in" / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert (written["optimizer"]["learning_rate"], written["data"]["target"]) == (0.001, "kauft")


def test_a_batch_larger_than_the_data_works_with_a_note(tmp_path: Path) -> None:
    out = Command(tmp_path).ok("train", "--run-dir", "run", *SHORT, *settings(training__batch_size=100000))
    assert re.search(r"^note: batch_size 100000 is larger than the 370 examples", out, re.MULTILINE)


@pytest.mark.parametrize("task", ["multilabel", "count"])
def test_tasks_that_no_carried_configuration_has(task: str, tmp_path: Path) -> None:
    X, y = arrays(task)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    command = Command(tmp_path)
    mine = f"data: {{source: data.npz, task: {task}}}\ntraining: {{epochs: 2}}\n"
    (tmp_path / "mine.yaml").write_text(mine)
    out = command.ok("train", "mine.yaml", "--run-dir", "run")
    assert ("f1_macro" if task == "multilabel" else "rmse") in out
    rows = list(csv.reader(command.ok("predict", "run", "data.npz").splitlines()))
    assert rows[0] == (["y0", "y1", "y2"] if task == "multilabel" else ["y"])
    assert len(rows) == 121


# -- gradcheck, devices, config --------------------------------------------------------------------------------------


STRICT = ("--device", "array_api_strict:device1")


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ((), 8),
        (("moons", *settings(loss__delta="literal", loss__one_over_m="late")), 8),
        (("digits", "--rows", "3", *STRICT, *settings(model__hidden="[5]", model__dropout=0)), 3),
        (("regression", "--rows", "1", *settings(regularization__l1=0.1, loss__reduction="sum")), 1),
        (("breast_cancer", "--rows", "1000"), 370),
    ],
)
def test_gradcheck_passes(arguments: tuple[str, ...], rows: int, tmp_path: Path) -> None:
    out = Command(tmp_path).ok("gradcheck", *arguments)
    found = re.search(r"^gradient ok, worst relative error (\S+)$", out, re.MULTILINE)
    assert found
    assert float(found[1]) <= 1e-12
    assert "WRONG" not in out
    assert f"{rows} row" in " ".join(out.split())
    assert list(tmp_path.iterdir()) == []


def test_gradcheck_checks_the_cost_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Penalty, form and ledger included: what the check was asked is written down on its way."""
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    module = importlib.import_module("backprop_gpu.gradcheck")
    check, asked = module.gradcheck, {}

    def written_down(*arguments: Any, **options: Any) -> Any:
        asked.update(options)
        return check(*arguments, **options)

    monkeypatch.setattr(module, "gradcheck", written_down)
    regularization = {"l1": 0.5, "l2": 0.25, "penalty_over": "none"}
    ledger = {"delta": "literal", "one_over_m": "late", "reduction": "sum"}
    more = settings(**{f"regularization__{key}": value for key, value in regularization.items()})
    more += settings(**{f"loss__{key}": value for key, value in ledger.items()})
    assert main(["gradcheck", "moons", *more]) == 0
    assert asked == regularization | ledger


def test_gradcheck_with_a_wrong_formula_fails_and_names_the_tensors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    forgetful = replace(ACTIVATIONS["tanh"], vjp_function=lambda xp, dA, Z, A: dA)
    monkeypatch.setitem(ACTIVATIONS, "tanh", forgetful)
    assert main(["gradcheck", "moons", "--set", "kernels=reference", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"W1\W.+WRONG.+got .+, want ", out)
    assert re.search(r"W3\W.+ok", out)
    assert re.search(r"^gradient wrong in layer \d, d[Wb]\d", out, re.MULTILINE)


def test_devices_say_what_is_used_and_why(tmp_path: Path) -> None:
    command = Command(tmp_path)
    out = command.ok("devices")
    for word in ("numpy", "cupy", "array_api_strict", "torch", "Used", "because", "BLAS", "Python", "auto (default)"):
        assert word in out
    sections = {section["title"]: section["rows"] for section in json.loads(command.ok("devices", "--json"))}
    assert set(sections) == {"Devices", "Used", "Processor", "Versions", "Hints"}
    assert {"name": "numpy", "ok": True}.items() <= sections["Devices"][0].items()


def test_devices_and_who_asked(tmp_path: Path) -> None:
    command = Command(tmp_path)

    def used(*arguments: str, **variables: str) -> list[str]:
        sections = json.loads(command.ok("devices", "--json", *arguments, **variables))
        return [row["text"] for section in sections if section["title"] == "Used" for row in section["rows"]]

    strict = "array_api_strict:device1"
    asked, name, reason = used(BACKPROP_GPU_DEVICE=strict)
    assert (asked, name) == (f"{strict} (BACKPROP_GPU_DEVICE)", strict)
    assert "asked for" in reason
    assert used("--device", "cpu", BACKPROP_GPU_DEVICE=strict)[:2] == ["cpu (--device)", "numpy"]
    assert used("--device", "nump")[0] == "nump (--device)"
    assert "there is no device 'nump' (did you mean 'numpy'?)" in used("--device", "nump")[1]


def test_config_list_names_what_is_carried(tmp_path: Path) -> None:
    lines = Command(tmp_path).ok("config", "list").splitlines()
    assert [line.split()[0] for line in lines] == CARRIED
    for line, path in zip(lines, carried().values(), strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {line.split(maxsplit=1)[1]}")


def test_config_show_fills_in_everything_and_is_read_back(tmp_path: Path) -> None:
    command = Command(tmp_path)
    shown = command.ok("config", "show", "digits", "--set", "seed=5")
    assert yaml.safe_load(shown) == load_config("digits", ["seed=5"]).model_dump()
    (tmp_path / "mine.yaml").write_text(shown, encoding="utf-8")
    assert command.ok("config", "show", "mine.yaml") == shown
    assert command.ok("config", "validate", "mine.yaml") == "mine.yaml: valid\n"
    assert "breast_cancer" in command.ok("config", "validate")


def test_config_schema_is_json(tmp_path: Path) -> None:
    schema = json.loads(Command(tmp_path).ok("config", "schema"))
    assert {"data", "model", "loss", "optimizer", "training"} <= set(schema["properties"])


# -- who chooses the device ------------------------------------------------------------------------------------------


def test_the_device_of_the_variable_and_of_the_command_line(tmp_path: Path) -> None:
    command = Command(tmp_path)
    more = ["--quiet", *SHORT]
    command.ok("train", "--run-dir", "a", *more, BACKPROP_GPU_DEVICE="array_api_strict:device1")
    assert metrics(tmp_path / "a")["device"] == "array_api_strict:device1"
    command.ok("train", "--run-dir", "b", "--device", "cpu", *more, BACKPROP_GPU_DEVICE="array_api_strict:device1")
    assert metrics(tmp_path / "b")["device"] == "numpy"
    command.ok("train", "--run-dir", "c", "--set", "device=cpu", *more, BACKPROP_GPU_DEVICE="array_api_strict:device1")
    assert metrics(tmp_path / "c")["device"] == "numpy"


# -- the ways in -----------------------------------------------------------------------------------------------------


def test_help_and_version(tmp_path: Path) -> None:
    command = Command(tmp_path)
    out = command.ok("--help")
    for word in ("train", "evaluate", "predict", "gradcheck", "devices", "config"):
        assert word in out
        assert word in command.ok(word, "--help")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert command.ok("--version") == f"backprop-gpu {project['version']}\n"
    assert project["scripts"] == {"backprop-gpu": "backprop_gpu.__main__:entry"}


def test_bench_says_where_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--rounds", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("python -m benchmarks --help")


def test_main_is_a_function(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    assert main(["config", "validate", "digits"]) == 0
    assert capsys.readouterr() == ("digits: valid\n", "")
    assert main(["config", "validate", "digist"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    command = Command(tmp_path)
    for arguments in (("--debug", "train", "nowhere.yaml"), ("train", "nowhere.yaml", "--debug")):
        done = command(*arguments)
        assert done.code != 0
        assert done.err.startswith("Traceback")
        assert "ConfigError: no configuration at nowhere.yaml" in done.err
