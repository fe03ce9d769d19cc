"""``report.html`` of a run: its numbers derived once more from other files, what it says of runs that did not end."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from support.pages import charts, loaded_from_elsewhere, table_under, tables

from backprop_gpu.build import load, read_split
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.report.numbers import boundary, contour, margins
from backprop_gpu.report.run_data import read_run
from backprop_gpu.report.run_report import write_report
from backprop_gpu.report.svg import (
    BOTTOM,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    Chart,
    Curve,
    drawn,
    log_ticks,
    thinned,
    ticks,
)

EVIL = '<script>alert(1)</script> & "quotes" {{body}} /* STYLE */'


def write_shop(path: Path) -> None:
    """200 rows: a column with a hostile name, one of categories with gaps, three classes of which one is hostile."""
    rng = np.random.default_rng(2)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow([EVIL, "town", "kind"])
        for _ in range(200):
            x, town = rng.normal(), rng.choice(["Bern", "Basel", ""])
            kind = ["small", "large", "<b>odd</b>"][int(rng.integers(3)) if rng.random() < 0.3 else int(x > 0)]
            out.writerow([f"{x:.4f}", town, kind])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of two classes and two columns, of three classes of a CSV, and of values; each as ``train`` leaves it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("BACKPROP_GPU_DEVICE", raising=False)
        write_shop(folder / "shop.csv")
        train("moons", "two", "training.epochs=25", "verify=true")
        train("shop.csv", "shop", "data.target=kind", "data.missing=indicator", "training.epochs=6")
        train("regression", "values", "training.epochs=6")
        yield folder


def train(config: str, name: str, *settings: str) -> None:
    changes = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", config, "--quiet", "--device", "cpu", "--run-dir", name, *changes]) == 0


def page_of(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def predicted(run: Path, *options: str) -> tuple[list[dict[str, str]], np.ndarray]:
    """The predictions file of all rows of a run's data, and which of them are its test rows."""
    config = load_config(str(run / "config.yaml"))
    test = read_split(config)[2]
    assert test is not None
    assert test.rows is not None
    out = run.parent / "predictions.csv"
    assert main(["predict", str(run), config.data.source, "--out", str(out), *options]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), test.rows


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_is_that_of_the_predictions_file(runs: Path) -> None:
    rows, test = predicted(runs / "shop")
    with (runs / "shop.csv").open(encoding="utf-8", newline="") as file:
        truth = [row["kind"] for row in csv.DictReader(file)]
    names = sorted(set(truth))
    want = [[sum(truth[i] == t and rows[i]["kind"] == p for i in test) for p in names] for t in names]
    page = page_of(runs / "shop")
    shown = table_under(page, "true ↓ predicted →")
    assert [row[0] for row in shown] == names
    assert [[int(cell) for cell in row[1:]] for row in shown] == want
    for (name, precision, recall, count), row, column in zip(
        table_under(page, "class"), want, zip(*want, strict=True), strict=True
    ):
        right = row[names.index(name)]
        assert int(count) == sum(row)
        assert recall == f"{right / sum(row):.3f}"
        assert precision == (f"{right / sum(column):.3f}" if sum(column) else "–")


def test_calibration_is_that_of_the_predictions_file(runs: Path) -> None:
    rows, test = predicted(runs / "two", "--proba")
    table = read_split(load_config("moons", ["training.epochs=25"]))[2]
    assert table is not None
    p = np.array([float(rows[i]["P(1)"]) for i in test])
    observed, mean = calibration_curve(table.target, p, n_bins=10)
    page = page_of(runs / "two")
    shown = np.array([[float(cell) for cell in row] for row in table_under(page, "mean probability")])
    np.testing.assert_allclose(shown[:, 0], mean, atol=6e-4)
    np.testing.assert_allclose(shown[:, 1], observed, atol=6e-4)
    assert shown[:, 2].sum() == len(test)
    error = np.sum(np.abs(observed - mean) * shown[:, 2]) / len(test)
    assert float(re.search(r'id="ece">([\d.]+)<', page)[1]) == pytest.approx(error, abs=6e-5)  # type: ignore[index]


def test_residuals_are_those_of_the_predictions_file(runs: Path) -> None:
    rows, test = predicted(runs / "values")
    table = read_split(load_config("regression", ["training.epochs=6"]))[2]
    assert table is not None
    assert table.target is not None
    error = np.array([float(rows[i]["y"]) for i in test]) - table.target
    page = page_of(runs / "values")
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.replace("−", "-")))
    assert float(facts["mean error"]) == pytest.approx(error.mean(), rel=6e-3)
    assert float(facts["root mean square"]) == pytest.approx(np.sqrt(np.mean(error**2)), rel=6e-3)
    assert float(facts["half of the rows within"].lstrip("±")) == pytest.approx(np.median(np.abs(error)), rel=6e-3)
    bars = [int(n) for n in re.findall(r"<title>(\d+) rows</title>", page)]
    assert bars == [n for n in np.histogram(error, bins=24)[0].tolist() if n]


def test_curves_and_scores_are_those_of_the_history_and_the_metrics(runs: Path) -> None:
    lines = [json.loads(line) for line in (runs / "two" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    page, metrics = page_of(runs / "two"), json.loads((runs / "two" / "metrics.json").read_text(encoding="utf-8"))
    found = charts(page)
    for title, key in (("mean loss", "cost"), ("accuracy", "accuracy")):
        for kind in ("training", "validation"):
            want = [[line["epoch"], line[kind][key]] for line in lines]
            np.testing.assert_allclose(found[title][kind], want, rtol=1e-4)
    np.testing.assert_allclose(found["cost J"]["J"], [[e["epoch"], e["cost"]] for e in lines], rtol=1e-4)
    for l in (1, 2, 3):
        want = [[e["epoch"], e["layers"][f"gradient {l}"]] for e in lines if e["layers"]]
        np.testing.assert_allclose(found["norm of dJ/dW"][f"layer {l}"], want, rtol=1e-4)
    scores = {row[0].split()[0]: row[1:] for row in table_under(page, "score")}
    for k, part in enumerate(("train", "validation", "test")):
        assert float(scores["accuracy"][k]) == pytest.approx(metrics[part]["accuracy"], abs=6e-5)
        assert int(scores["rows"][k]) == metrics[part]["rows"]


def test_parity_columns_and_configuration_are_shown(runs: Path) -> None:
    page = page_of(runs / "two")
    for line in json.loads((runs / "two" / "metrics.json").read_text(encoding="utf-8"))["parity"]:
        assert f"training: {escape(line)}</p>" in page
    assert "learning_rate:" in page
    assert "Not checked in this run" in page_of(runs / "values")
    pre = load(runs / "shop", "cpu").preprocessor
    shown = {row[0]: row[1:] for row in table_under(page_of(runs / "shop"), "column")}
    assert shown["town"] == ["categories", "3: (missing), Basel, Bern", "3 of 0 or 1"]
    assert float(re.search(r"/ ([\d.]+)", shown[EVIL][1])[1]) == pytest.approx(pre.scale[0], rel=6e-3)  # type: ignore[index]


def test_on_the_line_of_the_boundary_the_classes_are_equally_likely(runs: Path) -> None:
    """Points of the path, taken back to the columns' units, where the trained model gives 1/2."""
    model, page = load(runs / "two", "cpu"), page_of(runs / "two")
    X = read_run(runs / "two", "cpu").predictions.table.numeric  # type: ignore[union-attr]
    path = re.search(r'<path class="contour" d="(.*?)"', page)[1]  # type: ignore[index]
    points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", path), float)
    low, high = X.min(axis=0), X.max(axis=0)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    across, up = (points[:, 0] - LEFT) / (RIGHT - LEFT), (BOTTOM - points[:, 1]) / (BOTTOM - TOP)
    p = model.predict_proba(np.column_stack([low[0] + across * (high[0] - low[0]), low[1] + up * (high[1] - low[1])]))
    assert len(points) > 50
    assert np.abs(p - 0.5).max() < 0.12  # of a step of the grid, within which it is interpolated
    assert np.median(np.abs(p - 0.5)) < 0.01


def test_columns_are_ranked_by_what_their_shuffles_cost(runs: Path) -> None:
    model, table = load(runs / "values", "cpu"), read_split(load_config("regression", ["training.epochs=6"]))[2]
    found = model.permutation_importance(table, repeats=3)
    want = sorted(zip(found.columns, found.drops.mean(axis=1), strict=True), key=lambda pair: -pair[1])
    shown = [
        (name, float(loss.split(" ")[0].replace("−", "-")))
        for name, _, loss in table_under(page_of(runs / "values"), "shuffled")
    ]
    assert [name for name, _ in shown] == [name for name, _ in want]
    assert [loss for _, loss in shown] == pytest.approx([loss for _, loss in want], rel=6e-3, abs=1e-6)
    assert "Not computed here" not in page_of(runs / "two")


def test_a_contour_goes_where_a_field_has_the_level() -> None:
    found = boundary(lambda rows: rows[:, :1] ** 2 + rows[:, 1:] ** 2, np.array([[-2.0, -2.0], [2.0, 2.0]]), 101)
    step = found.x[1] - found.x[0]
    ends = np.array(contour(found.outputs[..., 0], 1.0)).reshape(-1, 2) * step + found.x[0]
    np.testing.assert_allclose(np.hypot(*ends.T), 1.0, atol=1e-3)
    angles = np.sort(np.arctan2(ends[:, 1], ends[:, 0]))
    assert np.diff(angles).max() < 0.1  # all around
    three = np.eye(3)[[[0, 0, 2], [1, 1, 2]]]
    assert [bool(contour(field)) for field in margins(three)] == [True] * 3
    assert contour(np.ones((3, 3))) == []


# -- the file ----------------------------------------------------------------------------------------------------------


def test_names_of_others_are_text_and_nothing_is_loaded(runs: Path) -> None:
    for name in ("two", "shop", "values"):
        page = page_of(runs / name)
        assert len(page.encode()) <= 200_000
        assert loaded_from_elsewhere(page) == []
    page = page_of(runs / "shop")
    assert "<script>alert" not in page
    assert "<b>odd" not in page
    assert escape(EVIL) in page


def test_a_long_and_wide_run_stays_small(runs: Path, tmp_path: Path) -> None:
    """3,000 epochs, eleven scores, thirty layers."""
    run = read_run(runs / "two", "cpu")
    rng = np.random.default_rng(0)
    scores = {f"score {k}": float(rng.random()) for k in range(11)}
    layers = {f"{kind} {l}": 0.5 for kind in ("gradient", "weights", "activation", "dead") for l in range(1, 31)}
    run.epochs = [
        {"epoch": k, "step": k, "cost": rng.random(), "learning_rate": 0.1, "seconds": k, "validation": scores}
        | {"training": {key: rng.random() for key in scores}, "layers": layers}
        for k in range(1, 3_001)
    ]
    path = write_report(run, tmp_path / "long.html")
    assert path.stat().st_size <= 500_000
    assert all(len(points) <= MOST_POINTS for curves in charts(path.read_text()).values() for points in curves.values())


def test_the_command_writes_the_same_page_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("two", "shop", "values"):
        before = page_of(runs / name)
        assert main(["report", str(runs / name), "--device", "cpu", "--html", str(runs / "again.html")]) == 0
        assert (runs / "again.html").read_text(encoding="utf-8") == before, name
    assert "again.html: open it in a browser" in capsys.readouterr().out


def test_a_run_that_did_not_end_and_data_that_changed_are_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reported(*removed: str, data: str | None = None) -> str:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(runs / "shop", run)
        for name in ("report.html", *removed):
            (run / name).unlink()
        if data is not None:
            config = (run / "config.yaml").read_text(encoding="utf-8")
            (tmp_path / "shop.csv").write_text(data, encoding="utf-8")
            text = config.replace(str(runs / "shop.csv"), str(tmp_path / "shop.csv"))
            (run / "config.yaml").write_text(text, encoding="utf-8")
        assert main(["report", str(run), "--device", "cpu"]) == 0
        return page_of(run)

    page = reported("metrics.json")
    assert "did not come to its end" in page
    assert table_under(page, "score") == table_under(page_of(runs / "shop"), "score")
    assert "no predictions" in reported("model.safetensors", "metrics.json")
    assert "There is no history" in reported("history.jsonl")
    changed = (runs / "shop.csv").read_text(encoding="utf-8").replace("Bern", "Chur")
    page = reported(data=changed)
    assert "the data have changed since the run" in page
    assert [table[0][0] for table in tables(page)] == ["score", "column"]
    assert "cannot be read again" in reported(data="a,b\n1,2\n")
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run folder with a config.yaml" in capsys.readouterr().err
    (tmp_path / "run" / "history.jsonl").write_text('{"epoch": "x"}\n', encoding="utf-8")
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "is not the history of a run" in capsys.readouterr().err


def test_runs_are_compared_in_the_terminal_and_in_one_page(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    train("moons", "wide", "training.epochs=25", "model.hidden=[4]")
    assert main(["report", "two", "wide"]) == 0
    out, page = capsys.readouterr().out, (runs / "comparison.html").read_text(encoding="utf-8")
    scores = {
        name: json.loads((runs / name / "metrics.json").read_text(encoding="utf-8"))["test"] for name in ("two", "wide")
    }
    best = min(scores, key=lambda name: scores[name]["cost"])
    (line,) = (line for line in out.splitlines() if f" {best} " in line)
    assert f"{scores[best]['cost']:.4f}*" in line
    shown = {row[0]: row[4] for row in table_under(page, "run")}
    assert {name: float(cost) for name, cost in shown.items()} == pytest.approx(
        {name: scores[name]["cost"] for name in scores}, abs=6e-5
    )
    assert re.search(rf'<th scope="row">{best}</th>.*?<td class=best>{shown[best]}</td>', page)
    assert table_under(page, "setting") == [["model.hidden", "[16, 16]", "[4]"]]
    assert set(charts(page)["validation mean loss"]) == {"two", "wide"}
    shutil.copytree("two", "ended")
    (runs / "ended" / "model.safetensors").unlink()
    (runs / "ended" / "metrics.json").unlink()
    assert main(["report", "two", "ended", "--html", "other.html"]) == 0
    said = capsys.readouterr().out
    assert f"{scores['two']['cost']:.4f}" in said  # the other has no scores, which costs this one none
    assert "note: ended: there is no model.safetensors" in said
    assert main(["report", "two", "shop", "--html", "other.html"]) == 0
    assert "different tasks or test rows" in capsys.readouterr().out
    assert "class=best" not in (runs / "other.html").read_text(encoding="utf-8")


# -- charts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3.0, 8.0, [-2, 0, 2, 4, 6, 8]),
        (1e-9, 3e-9, [1e-9, 1.5e-9, 2e-9, 2.5e-9, 3e-9]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, want: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(want)


def test_ticks_of_a_logarithmic_axis() -> None:
    assert log_ticks(1e-3, 10.0) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 10.0])
    assert log_ticks(0.3, 4.0) == pytest.approx([0.5, 1.0, 2.0])
    assert len(log_ticks(1e-30, 1e30)) <= 7


def test_a_thinned_curve_keeps_its_ends_and_its_peaks() -> None:
    points = [(float(k), float(np.sin(k / 50))) for k in range(5000)]
    points[1234] = (1234.0, 9.0)
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert (kept[0], kept[-1], max(y for _, y in kept)) == (points[0], points[-1], 9.0)
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    "y", [[1.0], [0.0, 0.0], [float("nan")], [], [None, 2.0], [1e-300, 1e300], [float("inf"), -1.0]], ids=repr
)
def test_a_chart_of_odd_numbers_has_no_nan_in_it(y: list[Any]) -> None:
    for log in (False, True):
        text = drawn(Chart("t", "x", [Curve("c", list(range(1, len(y) + 1)), y)], log=log, whole_x=True))
        assert not re.search(r"\bnan\b|\binf\b", text)
