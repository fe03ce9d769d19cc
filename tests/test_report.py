"""What a person sees of a run: progress off a terminal, tables on a narrow one, curves that compare like with like."""

from __future__ import annotations

import io
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick, run
from support.tables import arrays

from backprop_gpu.build import load
from backprop_gpu.cli import main
from backprop_gpu.report import terminal
from backprop_gpu.report.curve import draw_curve, panels_of
from backprop_gpu.rows import read_split
from backprop_gpu.training.callbacks import Epoch, Progress
from backprop_gpu.training.metrics import METRICS


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


# -- the curve -------------------------------------------------------------------------------------------------------


def test_training_and_validation_are_scored_by_one_rule() -> None:
    """With a penalty and dropout: the last epoch's scores are those of the final weights, on rows of either kind."""
    config = quick(
        model={"hidden": [6], "dropout": 0.3},
        regularization={"l2": 5.0},
        training={"epochs": 4, "restore_best": False, "metrics": ["accuracy"]},
    )
    outcome = run("r", config)
    train, validation, _ = read_split(config)
    assert validation is not None
    last = outcome.history.epochs[-1]
    for part, table in (("training", train), ("validation", validation)):
        scored = outcome.model.evaluate(table)
        assert getattr(last, part) == pytest.approx({key: scored[key] for key in ("cost", "accuracy")}, rel=1e-6)
    assert last.cost > 2 * last.training["cost"]  # J holds the penalty
    lines = [json.loads(line) for line in Path("r/history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["training"] for line in lines] == [epoch.training for epoch in outcome.history.epochs]


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression", "count"])
def test_every_task_has_curves_of_both_kinds(task: str) -> None:
    X, y = arrays(task)
    np.savez("d.npz", X=X, y=y)
    outcome = run("r", quick(data={"source": "d.npz", "task": task}))
    panels = panels_of(outcome.history.epochs)
    assert panels[0][0] == "cost (without penalty)"
    assert {name for name, _ in panels[1:]} <= set(METRICS)
    assert len(panels) >= 2
    for _, curves in panels:
        assert list(curves) == ["training", "validation"]
        assert [len(values) for values in curves.values()] == [3, 3]


def test_without_validation_rows_the_curve_is_the_cost_that_was_minimized() -> None:
    outcome = run("r", quick(data={"validation": 0, "test": 0.2}))
    ((name, curves),) = panels_of(outcome.history.epochs)
    assert name == "cost J"
    (values,) = curves.values()
    assert values == [epoch.cost for epoch in outcome.history.epochs]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed; pip install matplotlib")
@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_picture_of_any_length(n: int, tmp_path: Path) -> None:
    from matplotlib.image import imread

    scores = [{"cost": 1.0 / k, "accuracy": 1.0 - 0.5 / k} for k in range(1, n + 1)]
    better = [{key: 0.9 * value for key, value in s.items()} for s in scores]
    epochs = [Epoch(k, k, 3.0 / k, 0.1, scores[k - 1], 0.0, better[k - 1]) for k in range(1, n + 1)]
    assert draw_curve(epochs, n, tmp_path / "c.png", "shop: run")
    picture = imread(tmp_path / "c.png")
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.3)  # the colour of the first curve
    half = len(picture) // 2
    for panel in (blue[:half], blue[half:]):
        assert panel[:, 150:620].any()  # beside the legend, where a single epoch has its point


# -- progress --------------------------------------------------------------------------------------------------------


def progress_lines(monkeypatch: pytest.MonkeyPatch, interval: float, epochs: int = 5) -> list[str]:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    progress = Progress(interval)
    progress.on_start(epochs)
    for k in range(1, epochs + 1):
        progress.on_epoch(Epoch(k, k, 1.0 / k, 0.1, {"cost": 2.0 / k, "accuracy": 0.5}, float(k)))
    progress.on_end()
    return shown.getvalue().splitlines()


def test_off_a_terminal_there_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = progress_lines(monkeypatch, interval=0.0)
    assert lines[1] == "epoch 2/5  cost 0.5000  val cost 1.0000  val accuracy 0.5000  (2 s)"
    assert len(lines) == 5
    assert progress_lines(monkeypatch, interval=1e9) == []


def test_quiet_prints_the_folder_alone(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ["train", "moons", "--quiet", "--set", "training.epochs=1"]
    assert main([*quiet, "--run-dir", "a"]) == 0
    assert capsys.readouterr().out == "a\n"
    assert main(quiet) == 0
    assert re.fullmatch(r"runs.moons-\d{8}-\d{6}\n", capsys.readouterr().out)
    assert load("a").net.sizes[0] == 2


def test_the_reason_against_cuda_is_for_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "moons", "--run-dir", "a", "--set", "training.epochs=1", "--device", "auto"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("device: "))
    assert "pip" not in line
    assert len(line) <= 80 or "predicted" in line


# -- narrow terminals ------------------------------------------------------------------------------------------------


def printed(show: Any, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    show(terminal.console())
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("names", [["malignant", "benign"], [*"0123456789"], [f"class number {k}" for k in range(12)]])
def test_no_count_and_no_class_is_cut(
    names: list[str], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = 1000 + np.arange(len(names) ** 2).reshape(len(names), -1)
    matrix = {"classes": names, "rows_true": counts.tolist()}
    out = printed(lambda c: terminal.print_confusion(c, matrix, "the test rows"), width, monkeypatch, capsys)
    assert "…" not in out
    assert "Confusion matrix of the test rows" in " ".join(out.split())
    flat = "".join(out.split())
    assert all(str(count) in flat for count in counts.flat)
    assert all("".join(name.split()) in flat for name in names)
    assert max(map(len, out.splitlines())) <= width


def test_scores_are_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a class with quite a long name indeed, longer than a line"
    part = {"rows": 12345, "cost": 0.12345, "f1": 0.98765, "confusion_matrix": {"positive_class": long}}
    parts = {"train": part, "validation": part, "test": part}
    out = printed(lambda c: c.print(terminal.scores(parts)), 60, monkeypatch, capsys)
    assert "…" not in out
    assert out.count("0.9877") == out.count("12345") == 3
    assert max(map(len, out.splitlines())) <= 60


def test_devices_and_parity_are_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for command in (["devices"], ["gradcheck", "moons"], ["parity", "run", "moons", "--rows", "8"]):
        assert main(command) == 0
        assert "…" not in capsys.readouterr().out, command
