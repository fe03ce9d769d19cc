"""The learning curve as a PNG, if matplotlib is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic_file import replace_file
from ..training.history_plot import HistoryDisplay, panels_of

if TYPE_CHECKING:
    from ..training.callbacks import Epoch


def draw_curve(
    epochs: Sequence[Epoch], best_epoch: int, path: str | os.PathLike[str], title: str = "Learning curve"
) -> bool:
    """Cost and metrics on training and validation rows against the epoch, as a PNG; False where there is no matplotlib.

    Training and validation are like with like: both after the epoch, without penalty and dropout (``Epoch.training``).
    Without validation rows the only curve is J, as it was minimized.
    """
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(epochs)
    figure = Figure(figsize=(7, 1 + 3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    HistoryDisplay(epochs, best_epoch).plot(ax=figure.subplots(len(panels), sharex=True, squeeze=False))
    with replace_file(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=120)
    return True
