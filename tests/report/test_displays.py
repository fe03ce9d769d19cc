"""Plots with scikit-learn's conventions: what they show is what scikit-learn's own, or the files of a run, say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix
from support.runs import quick, run

pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install matplotlib")
import matplotlib.pyplot as plt

from backprop_gpu import DenseNet, History, MLPClassifier, MLPRegressor, Trainer, load
from backprop_gpu.errors import BackpropError, DataError
from backprop_gpu.report import displays
from backprop_gpu.rows import read_split
from backprop_gpu.training.layers import LayerStatistics

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(90, 2)), np.array(["no", "perhaps", "yes"])
Y = LABELS[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    run(str(path / "two"), quick(data={"source": "moons"}, training={"epochs": 8}))
    run(str(path / "values"), quick(data={"source": "regression"}, training={"epochs": 2, "layer_statistics": False}))
    return path


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def rows_of(path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """Model, and predictions and truth of the test rows."""
    config = json.loads(json.dumps({"source": "moons" if path.name == "two" else "regression"}))
    table = read_split(quick(data=config))[2]
    assert table is not None
    assert table.target is not None
    model = load(path, "cpu")
    return model, model.predict(table), table.target


def test_the_displays_of_a_run_show_its_test_rows(folder: Path) -> None:
    model, guess, truth = rows_of(folder / "two")
    shown = displays.ConfusionMatrixDisplay.from_run(folder / "two", device="cpu")
    np.testing.assert_array_equal(shown.confusion_matrix, confusion_matrix(truth, guess))
    assert [t.get_text() for t in shown.ax_.texts] == [str(n) for n in confusion_matrix(truth, guess).flat]
    table = read_split(quick(data={"source": "moons"}))[2]
    observed, mean = calibration_curve(truth, model.predict_proba(table)[:, 0], n_bins=10)
    curve = displays.CalibrationDisplay.from_run(folder / "two", device="cpu")
    np.testing.assert_allclose(curve.line_.get_xydata(), np.column_stack([mean, observed]), rtol=1e-6)
    lines = [json.loads(line) for line in (folder / "two" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    history = displays.HistoryDisplay.from_run(folder / "two")
    np.testing.assert_allclose(history.lines_[0].get_ydata(), [line["training"]["cost"] for line in lines])
    np.testing.assert_allclose(history.lines_[1].get_ydata(), [line["validation"]["cost"] for line in lines])
    norms = displays.LayerStatisticsDisplay.from_run(folder / "two", kind="weights")
    followed = [line for line in lines if line["layers"]]
    assert [list(line.get_ydata()) for line in norms.lines_] == [
        [e["layers"][f"weights {l}"] for e in followed] for l in (1, 2)
    ]
    field = displays.DecisionBoundaryDisplay.from_run(folder / "two", device="cpu").grid
    at = np.column_stack([np.full(72, field.x[10]), field.y])
    np.testing.assert_allclose(field.outputs[:, 10], model.predict_proba(at), rtol=1e-5)


def test_errors_of_values_and_what_a_run_does_not_have(folder: Path) -> None:
    _, guess, truth = rows_of(folder / "values")
    shown = displays.PredictionErrorDisplay.from_run(folder / "values", device="cpu", kind="residual_vs_predicted")
    np.testing.assert_allclose(shown.scatter_.get_offsets(), np.column_stack([guess, truth - guess]))
    for display, name in (
        (displays.ConfusionMatrixDisplay, "values"),
        (displays.CalibrationDisplay, "values"),
        (displays.DecisionBoundaryDisplay, "values"),
        (displays.LayerStatisticsDisplay, "values"),
        (displays.PredictionErrorDisplay, "two"),
        (displays.HistoryDisplay, "absent"),
    ):
        with pytest.raises(BackpropError):
            display.from_run(folder / name)
    with pytest.raises(DataError, match="kind must be"):
        shown.plot(kind="residuals")


def test_the_displays_of_an_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(X, columns=["a", "b"])
    model = MLPClassifier(random_state=0, max_iter=400, early_stopping=True, n_iter_no_change=5).fit(frame, Y)
    matrix = displays.ConfusionMatrixDisplay.from_estimator(model, frame, Y)
    np.testing.assert_array_equal(matrix.confusion_matrix, confusion_matrix(Y, model.predict(frame)))
    assert matrix.display_labels == [*LABELS]
    curve = displays.CalibrationDisplay.from_estimator(model, frame, Y)
    p = model.predict_proba(frame)
    observed, mean = calibration_curve(model.predict(frame) == Y, p.max(axis=1), n_bins=10)
    np.testing.assert_allclose([curve.prob_pred, curve.prob_true], [mean, observed], rtol=1e-6)
    boundary = displays.DecisionBoundaryDisplay.from_estimator(model, frame, Y)
    assert (boundary.ax_.get_xlabel(), boundary.ax_.get_ylabel()) == ("a", "b")
    history = displays.HistoryDisplay.from_estimator(model)
    assert [list(line.get_ydata()) for line in history.lines_] == [model.loss_curve_, list(model.validation_scores_)]
    regressor = MLPRegressor(random_state=0, max_iter=400, solver="lbfgs").fit(X, X[:, 0])
    _, mine = plt.subplots()
    shown = displays.PredictionErrorDisplay.from_estimator(regressor, X, X[:, 0], ax=mine)
    assert (shown.ax_, shown.figure_) == (mine, mine.figure)
    np.testing.assert_allclose(shown.scatter_.get_offsets(), np.column_stack([regressor.predict(X), X[:, 0]]))
    with pytest.raises(DataError, match="loss_curve_"):
        displays.HistoryDisplay.from_estimator(regressor)
    with pytest.raises(DataError, match="two columns"):
        displays.DecisionBoundaryDisplay.from_estimator(model, X[:, :1])


def test_a_history_plots_itself() -> None:
    y = (X[:, 0] > 0) * 1.0
    trainer = Trainer(DenseNet([2, 4, 1], device="cpu"), epochs=5, metrics=["accuracy"], progress=False)
    trainer.callbacks = [LayerStatistics(X[:60], y[:60])]
    history = trainer.fit(X[:60], y[:60], validation=(X[60:], y[60:]))
    shown = history.plot()
    assert len(shown.ax_) == 2
    assert list(shown.lines_[0].get_ydata()) == [e.validation["cost"] for e in history.epochs]
    assert displays.LayerStatisticsDisplay.from_history(history, kind="dead").ax_.get_ylabel() == "share of dead units"
    _, mine = plt.subplots()
    assert history.plot(ax=mine).ax_[0] is mine
    with pytest.raises(DataError, match="no epochs"):
        History().plot()


def test_a_model_in_a_notebook_is_small_and_escaped(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", X=np.resize(X, (90, 60)), y=Y, feature_names=[f"<i>{k}</i>" for k in range(60)])
    run(str(tmp_path / "run"), quick(data={"source": str(tmp_path / "wide.npz")}, training={"epochs": 1}))
    html = load(tmp_path / "run", "cpu")._repr_html_()
    assert "&lt;i&gt;0&lt;/i&gt;" in html
    assert "40 more" in html
    assert "<i>" not in html
    assert "target: multiclass" in html
    assert len(html) < 5000
