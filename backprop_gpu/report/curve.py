"""The learning curve as a PNG, if matplotlib is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_file import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..training.callbacks import Epoch

_FEW = 30  # epochs up to which each is marked: a line through one point cannot be seen


def draw_curve(
    epochs: Sequence[Epoch], best_epoch: int, path: str | os.PathLike[str], title: str = "Learning curve"
) -> bool:
    """Cost and metrics on training and validation rows against the epoch, as a PNG; False where there is no matplotlib.

    Training and validation are like with like: both after the epoch, without penalty and dropout (``Epoch.training``).
    Without validation rows the only curve is J, as it was minimized.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    panels = panels_of(epochs)
    figure = Figure(figsize=(7, 1 + 3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (name, curves) in zip(
        figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True
    ):
        _draw(axes, name, curves, [e.epoch for e in epochs], best_epoch if epochs[0].validation else None)
    axes.set_xlabel("epoch")
    with replace_file(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=120)
    return True


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


def _draw(axes: Axes, name: str, curves: dict[str, list[float]], numbers: list[int], best_epoch: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(numbers) <= _FEW else {}
    for label, values in curves.items():
        axes.plot(numbers, values, label=label, **style)
    if best_epoch is not None:
        axes.axvline(best_epoch, color="0.6", linewidth=1, linestyle="--", label=f"kept: epoch {best_epoch}")
    least, most = min(map(min, curves.values())), max(map(max, curves.values()))
    if name.startswith("cost") and 0 < 10 * least < most:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(name)
    axes.legend()
