"""The learning curves of a fit, by matplotlib, with the conventions of scikit-learn's Display objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .callbacks import Epoch, history_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .history import History

HISTORY_FILE = "history.jsonl"  # of a run folder
FEW = 30  # epochs up to which each is marked: a line through one point cannot be seen


def pyplot() -> Any:
    """matplotlib.pyplot.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install matplotlib") from None
    return plt


def panels_of(epochs: Sequence[Epoch]) -> list[tuple[str, dict[str, list[float]]]]:
    """What is drawn: for the cost, then each metric, the curves by their names."""
    if not epochs[0].validation:
        return [("cost J", {"training (J: with the penalty, while the weights moved)": [e.cost for e in epochs]})]
    found = []
    for key in epochs[0].validation:
        curves = {"validation": [e.validation[key] for e in epochs]}
        if all(key in e.training for e in epochs):
            curves = {"training": [e.training[key] for e in epochs], **curves}
        found.append(("cost (without penalty)" if key == "cost" else key, curves))
    return found


class HistoryDisplay:
    """The curves of a fit: for the cost, then each metric, those of training and validation rows scored alike.

    Without validation rows the only curve is J, as it was minimized.

    Parameters
    ----------
    epochs : sequence of Epoch
    best_epoch : int, optional
        Where a line says which weights were kept.

    Attributes
    ----------
    ax_ : ndarray of Axes
        One for each panel.
    figure_ : Figure
    lines_ : list of Line2D

    Raises
    ------
    DataError
        If there are no epochs.
    """

    def __init__(self, epochs: Sequence[Epoch], best_epoch: int | None = None) -> None:
        if not epochs:
            raise DataError("there are no epochs to plot; fit first")
        self.epochs, self.best_epoch = epochs, best_epoch

    @classmethod
    def from_history(cls, history: History, *, ax: Any = None) -> HistoryDisplay:
        """Plot what ``Trainer.fit`` returned."""
        return cls(history.epochs, history.best_epoch or None).plot(ax=ax)

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], *, ax: Any = None) -> HistoryDisplay:
        """Plot the history of a run folder; CheckpointError if it cannot be read."""
        names = ("epoch", "step", "cost", "learning_rate", "validation", "seconds", "training", "layers")
        lines = history_lines(Path(run) / HISTORY_FILE)
        try:
            epochs = [Epoch(**{name: line[name] for name in names if name in line}) for line in lines]
        except TypeError:
            raise DataError(f"{Path(run) / HISTORY_FILE} is not the history of a run; check the path") from None
        return cls(epochs).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> HistoryDisplay:
        """Plot ``loss_curve_`` of a fitted estimator and, if it stopped early, its ``validation_scores_``.

        The two are different quantities and get axes of their own.
        """
        if not getattr(estimator, "loss_curve_", None):
            raise DataError(f"{type(estimator).__name__} has no loss_curve_; fit it with a stochastic solver first")
        found = cls([Epoch(k, k, J, 0.0) for k, J in enumerate(estimator.loss_curve_, start=1)])
        scores = getattr(estimator, "validation_scores_", None)
        if scores is not None and len(scores):
            found._more = [("validation score", {"validation": [float(score) for score in scores]})]
        return found.plot(ax=ax)

    _more: list[tuple[str, dict[str, list[float]]]] = []  # noqa: RUF012  (replaced, never changed)

    def plot(self, *, ax: Any = None) -> HistoryDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One for each panel, or for the first ones alone; None: a new figure.

        Returns
        -------
        HistoryDisplay
        """
        import numpy as np

        panels = [*panels_of(self.epochs), *self._more]
        if ax is None:
            size = {"figsize": (7, 1 + 3 * len(panels)), "layout": "constrained"}
            ax = pyplot().subplots(len(panels), sharex=True, squeeze=False, **size)[1]
        self.ax_ = np.atleast_1d(np.asarray(ax, object)).reshape(-1)
        self.figure_, self.lines_ = self.ax_[0].figure, []
        kept = self.best_epoch if self.epochs[0].validation else None
        for axes, (name, curves) in zip(self.ax_, panels, strict=False):
            numbers = list(range(1, len(next(iter(curves.values()))) + 1))
            self.lines_ += draw_panel(axes, name, curves, numbers, kept)
        self.ax_[-1].set_xlabel("epoch")
        return self


def draw_panel(
    axes: Axes, name: str, curves: dict[str, list[float]], numbers: list[int], best_epoch: int | None
) -> list[Any]:
    """Draw one panel; returns its lines."""
    from matplotlib.ticker import MaxNLocator

    style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(numbers) <= FEW else {}
    lines = [axes.plot(numbers, values, label=label, **style)[0] for label, values in curves.items()]
    if best_epoch is not None:
        axes.axvline(best_epoch, color="0.6", linewidth=1, linestyle="--", label=f"kept: epoch {best_epoch}")
    least, most = min(map(min, curves.values())), max(map(max, curves.values()))
    if name.startswith("cost") and 0 < 10 * least < most:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(name)
    axes.legend()
    return lines
