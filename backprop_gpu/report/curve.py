"""The learning curve as a picture, where matplotlib is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.callbacks import Epoch


def draw_curve(epochs: Sequence[Epoch], best_epoch: int, path: str | os.PathLike[str]) -> bool:
    """Cost on the training and validation rows against the epoch, as a PNG; False where there is no matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [e.epoch for e in epochs]
    axes.plot(numbers, [e.cost for e in epochs], label="training (while the weights moved, penalty included)")
    if epochs[0].validation:
        axes.plot(numbers, [e.validation["cost"] for e in epochs], label="validation")
        axes.axvline(best_epoch, color="0.6", linewidth=1, linestyle="--", label=f"kept: epoch {best_epoch}")
    if min(e.cost for e in epochs) > 0:
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="cost J")
    axes.legend()
    figure.savefig(path, dpi=120)
    return True
