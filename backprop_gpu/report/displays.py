"""Plots by matplotlib with the conventions of scikit-learn's Display objects.

``from_run`` takes a run folder and its rows for testing (where there are none those for validation, else for training),
``from_estimator`` a fitted estimator with rows and targets. Both draw; what was drawn is in ``ax_`` and ``figure_``.
``plot(ax=...)`` draws again. They need matplotlib (the extra ``plot``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.table import table_from_arrays
from ..errors import DataError
from ..training.class_metrics import calibration, ece
from ..training.history import History
from ..training.history_plot import HistoryDisplay as HistoryDisplay
from ..training.history_plot import pyplot
from ..training.metrics import confusion_matrix
from ..training.trainer import class_indices
from .numbers import Boundary, boundary, margins
from .run_data import Predictions, read_run

RunFolder = str | os.PathLike[str]


def _predictions(run: RunFolder, device: str | None) -> Predictions:
    read = read_run(run, device)
    if read.predictions is None:
        raise DataError(f"{run}: {'; '.join(read.missing)}")
    return read.predictions


class _Display:
    """What every display has.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    """

    ax_: Any
    figure_: Any

    def _on(self, ax: Any) -> Any:
        self.ax_ = pyplot().subplots()[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        return self.ax_


class ConfusionMatrixDisplay(_Display):
    """How many rows of each class (down) were predicted as each (across).

    Parameters
    ----------
    matrix : (n_classes, n_classes)
    display_labels : sequence of str
    """

    def __init__(self, matrix: np.ndarray, display_labels: Sequence[Any]) -> None:
        self.confusion_matrix, self.display_labels = np.asarray(matrix), [str(label) for label in display_labels]

    @classmethod
    def from_run(cls, run: RunFolder, *, device: str | None = None, ax: Any = None) -> ConfusionMatrixDisplay:
        """Plot a run's; DataError if it has no classes, or its rows are not to be had."""
        of = _predictions(run, device)
        if not of.codec.labels:
            raise DataError(f"{run} has the task {of.codec.task}; a confusion matrix is for classes")
        truth = class_indices(of.truth).astype(np.int64).reshape(-1)
        found = confusion_matrix(truth, of.codec.classes(of.outputs), n_classes=len(of.codec.labels))
        return cls(found, of.codec.class_names).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, ax: Any = None) -> ConfusionMatrixDisplay:
        """Plot that of a fitted classifier on rows X (n_samples, n_features) with labels y (n_samples,)."""
        classes = np.asarray(estimator.classes_)
        truth, guess = (np.searchsorted(classes, np.asarray(labels)) for labels in (y, estimator.predict(X)))
        return cls(confusion_matrix(truth, guess, n_classes=len(classes)), classes.tolist()).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> ConfusionMatrixDisplay:
        """Draw on ``ax``, or on a new figure."""
        ax, counts = self._on(ax), self.confusion_matrix
        self.im_ = ax.imshow(counts, cmap="Blues")
        ticks = np.arange(len(self.display_labels))
        ax.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
        ax.set_xticklabels(self.display_labels, rotation=90 if len(ticks) > 4 else 0)
        ax.set_yticklabels(self.display_labels)
        middle = counts.max() / 2
        for i, j in np.ndindex(counts.shape):
            colour = "white" if counts[i, j] > middle else "black"
            ax.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", color=colour)
        return self


class CalibrationDisplay(_Display):
    """How often the model was right in bins of how sure it was, beside the diagonal on which it should be.

    Parameters
    ----------
    prob_pred, prob_true : (n_bins,)
        Mean probability, and share of rows for which it was right to say so.
    error : float
        The expected calibration error.
    """

    def __init__(self, prob_pred: np.ndarray, prob_true: np.ndarray, error: float) -> None:
        self.prob_pred, self.prob_true, self.error = np.asarray(prob_pred), np.asarray(prob_true), error

    @classmethod
    def _of(cls, truth: np.ndarray, probabilities: np.ndarray, weights: Any = None) -> CalibrationDisplay:
        bins = calibration(truth, probabilities, weights)
        pairs = np.array([[row["predicted"], row["observed"]] for row in bins])
        return cls(pairs[:, 0], pairs[:, 1], ece(truth, probabilities, weights))

    @classmethod
    def from_run(cls, run: RunFolder, *, device: str | None = None, ax: Any = None) -> CalibrationDisplay:
        """Plot a run's; DataError if it predicts values, or its rows are not to be had."""
        of = _predictions(run, device)
        if of.codec.task in ("regression", "count"):
            raise DataError(f"{run} has the task {of.codec.task}; calibration is for probabilities")
        truth = class_indices(of.truth) if of.codec.task == "multiclass" else of.truth
        return cls._of(truth, of.outputs, of.table.weights).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, ax: Any = None) -> CalibrationDisplay:
        """Plot that of a fitted classifier on rows X (n_samples, n_features) with labels y (n_samples,)."""
        p, classes = np.asarray(estimator.predict_proba(X)), np.asarray(estimator.classes_)
        truth = np.searchsorted(classes, np.asarray(y))
        return cls._of(truth, p[:, 1:] if len(classes) == 2 else p).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> CalibrationDisplay:
        """Draw on ``ax``, or on a new figure."""
        ax = self._on(ax)
        ax.plot([0, 1], [0, 1], "k:", label="perfectly calibrated")
        label = f"expected calibration error {self.error:.4f}"
        (self.line_,) = ax.plot(self.prob_pred, self.prob_true, "s-", label=label)
        ax.set(xlabel="mean predicted probability", ylabel="share that was right")
        ax.legend()
        return self


class PredictionErrorDisplay(_Display):
    """Predicted values against true ones, or errors against predictions.

    Parameters
    ----------
    y_true, y_pred : (n_samples,)
    """

    def __init__(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        self.y_true, self.y_pred = np.asarray(y_true), np.asarray(y_pred)

    @classmethod
    def from_run(
        cls,
        run: RunFolder,
        *,
        output: int = 0,
        kind: str = "actual_vs_predicted",
        device: str | None = None,
        ax: Any = None,
    ) -> PredictionErrorDisplay:
        """Plot one target of a run; DataError if it predicts classes, or its rows are not to be had."""
        of = _predictions(run, device)
        if of.codec.task not in ("regression", "count"):
            raise DataError(f"{run} has the task {of.codec.task}; errors are of values, use ConfusionMatrixDisplay")
        truth, guess = of.values()
        return cls(truth[:, output], guess[:, output]).plot(kind=kind, ax=ax)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, kind: str = "actual_vs_predicted", ax: Any = None
    ) -> PredictionErrorDisplay:
        """Plot that of a fitted regressor on rows X (n_samples, n_features) with targets y (n_samples,)."""
        return cls(np.asarray(y), np.asarray(estimator.predict(X))).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "actual_vs_predicted", ax: Any = None) -> PredictionErrorDisplay:
        """Draw on ``ax``, or on a new figure; ``kind`` is actual_vs_predicted or residual_vs_predicted."""
        if kind not in ("actual_vs_predicted", "residual_vs_predicted"):
            raise DataError(f"kind must be actual_vs_predicted or residual_vs_predicted, got {kind!r}")
        ax, residual = self._on(ax), kind == "residual_vs_predicted"
        y = self.y_true - self.y_pred if residual else self.y_true
        ends = [self.y_pred.min(), self.y_pred.max()]
        (self.line_,) = ax.plot(ends, [0.0, 0.0] if residual else ends, "k--", linewidth=1)
        self.scatter_ = ax.scatter(self.y_pred, y, s=12, alpha=0.7)
        ax.set(xlabel="predicted", ylabel="true - predicted" if residual else "true")
        return self


class DecisionBoundaryDisplay(_Display):
    """What a model of two columns says all over the plane, with the lines on which the predicted class changes.

    Parameters
    ----------
    grid : Boundary
    names : pair of str
        Of the column across and the one up.
    levels : list of ndarray
        Fields that are 0 on these lines.
    rows : (n_samples, 2), optional
        Drawn over it, coloured by ``classes`` (n_samples,).
    """

    def __init__(
        self, grid: Boundary, names: Sequence[str], levels: list[np.ndarray], rows: Any = None, classes: Any = None
    ) -> None:
        self.grid, (self.xlabel, self.ylabel), self.levels = grid, names, levels
        self.rows, self.classes = rows, classes

    @classmethod
    def from_run(cls, run: RunFolder, *, device: str | None = None, ax: Any = None) -> DecisionBoundaryDisplay:
        """Plot a run's, with the rows; DataError if its columns are not two of numbers without gaps."""
        of = _predictions(run, device)
        pre, codec = of.model.preprocessor, of.codec
        X = np.asarray(of.table.numeric, np.float64)
        if len(pre.columns) != 2 or pre.categories or np.isnan(X).any() or not codec.labels:
            raise DataError(f"{run}: a decision boundary is for classes of two columns of numbers")
        names = list(pre.columns)
        found = boundary(lambda grid: of.model.predict_proba(table_from_arrays(grid, feature_names=names)), X)
        truth = class_indices(of.truth).astype(int).reshape(-1)
        return cls(found, names, margins(found.outputs, codec.threshold), X, truth).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any = None, *, ax: Any = None) -> DecisionBoundaryDisplay:
        """Plot that of a fitted classifier around rows X (n_samples, 2), with their labels y (n_samples,) if given."""
        rows, classes = np.asarray(X, np.float64), np.asarray(estimator.classes_)
        if rows.ndim != 2 or rows.shape[1] != 2:
            raise DataError(f"a decision boundary is drawn over two columns, X has shape {rows.shape}")
        names = [str(name) for name in getattr(X, "columns", ("column 0", "column 1"))]

        def predict(grid: np.ndarray) -> np.ndarray:
            # Rows of a frame are predicted as a frame, since the estimator knows the names.
            p = np.asarray(estimator.predict_proba(type(X)(grid, columns=X.columns) if hasattr(X, "columns") else grid))
            return p[:, 1:] if len(classes) == 2 else p

        found = boundary(predict, rows)
        codes = None if y is None else np.searchsorted(classes, np.asarray(y))
        return cls(found, names, margins(found.outputs), rows, codes).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> DecisionBoundaryDisplay:
        """Draw on ``ax``, or on a new figure."""
        ax, g = self._on(ax), self.grid
        field = g.outputs[..., 0] if g.outputs.shape[-1] == 1 else g.outputs.max(axis=-1)
        self.surface_ = ax.contourf(g.x, g.y, field, levels=8, cmap="Blues", alpha=0.6)
        for level in self.levels:
            if level.min() < 0 < level.max():
                ax.contour(g.x, g.y, level, levels=[0.0], colors="black", linewidths=1.5)
        codes = None if self.rows is None else np.zeros(len(self.rows), int) if self.classes is None else self.classes
        for k in [] if codes is None else np.unique(codes):
            chosen = self.rows[codes == k]
            ax.scatter(
                chosen[:, 0], chosen[:, 1], s=16, marker="osX^Dv"[int(k) % 6], edgecolors="white", linewidths=0.5
            )
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        return self


class LayerStatisticsDisplay(_Display):
    """Norms by layer, or dead units, over the epochs (:class:`~backprop_gpu.training.layers.LayerStatistics`).

    Parameters
    ----------
    epochs : sequence of mapping
        Lines of a history, or of ``vars(epoch)``.
    """

    def __init__(self, epochs: Sequence[dict[str, Any]]) -> None:
        self.epochs = [epoch for epoch in epochs if epoch.get("layers")]
        if not self.epochs:
            raise DataError("the layers were not followed: training.layer_statistics, or the callback LayerStatistics")

    @classmethod
    def from_run(cls, run: RunFolder, *, kind: str = "gradient", ax: Any = None) -> LayerStatisticsDisplay:
        """Plot those of a run folder."""
        return cls(read_run(run).epochs).plot(kind=kind, ax=ax)

    @classmethod
    def from_history(cls, history: History, *, kind: str = "gradient", ax: Any = None) -> LayerStatisticsDisplay:
        """Plot those of a fit with the callback."""
        return cls([vars(epoch) for epoch in history.epochs]).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "gradient", ax: Any = None) -> LayerStatisticsDisplay:
        """Draw on ``ax``, or on a new figure; ``kind`` is gradient, weights, activation or dead."""
        keys = [key for key in self.epochs[0]["layers"] if key.split()[0] == kind]
        if not keys:
            raise DataError(f"kind must be gradient, weights, activation or dead, got {kind!r}")
        ax, numbers = self._on(ax), [epoch["epoch"] for epoch in self.epochs]
        styles = ("-", "--", ":", "-.")
        self.lines_ = [
            ax.plot(
                numbers,
                [e["layers"][key] for e in self.epochs],
                styles[k % 4],
                marker=".",
                label=f"layer {key.split()[1]}",
            )[0]
            for k, key in enumerate(keys)
        ]
        titles = {"gradient": "norm of dJ/dW", "weights": "norm of W", "activation": "root mean square of A"}
        ax.set(xlabel="epoch", ylabel=titles.get(kind, "share of dead units"))
        if kind == "gradient":
            ax.set_yscale("log")
        ax.legend()
        return self
