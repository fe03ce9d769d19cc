"""A parity report as a picture: the ratio of every tensor in dataflow order, and the worst tensor entry by entry."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_file import replace_file
from ..errors import MissingDependencyError
from .comparator import Comparison
from .findings import Finding

FLOOR, CEILING = 1e-4, 1e4  # ratios outside are drawn at the edge
LARGEST = 256  # rows and columns of the heat map; larger tensors show the largest ratio of each tile
COLOURS = {"ok": "tab:blue", "warning": "tab:orange", "wrong": "tab:red"}


def draw(
    path: str | os.PathLike[str], title: str, findings: Sequence[Finding], shown: Finding, whole: Comparison | None
) -> None:
    """Write the picture; its format is that of the file name's ending. ``whole``: the comparison behind ``shown``.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("a picture needs matplotlib; pip install matplotlib") from None
    figure = Figure(figsize=(12, max(4.0, 0.2 * len(findings) + 1.5)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=10)
    _ratios(left, findings)
    _heat(right, figure, shown, whole)
    with replace_file(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=120)


def _ratios(axes: Any, findings: Sequence[Finding]) -> None:
    places = np.arange(len(findings))
    shown = [min(max(f.ratio, FLOOR), CEILING) for f in findings]
    axes.barh(places, [s - FLOOR for s in shown], left=FLOOR, color=[COLOURS[f.status] for f in findings], height=0.7)
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set(xlim=(FLOOR, CEILING * 1.5), xlabel="difference / bound, largest entry")
    axes.set_yticks(places, [f"{f.operation}  {f.tensor}" for f in findings], fontsize=7)
    axes.invert_yaxis()


def _heat(axes: Any, figure: Any, finding: Finding, comparison: Comparison | None) -> None:
    if comparison is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"{finding.tensor}: not recorded entry by entry", ha="center", va="center")
        return
    ratio = comparison.ratio()
    tiles = _tiles(ratio)
    finite = tiles[np.isfinite(tiles)]
    top = max(float(finite.max()) if finite.size else 0.0, 1.0)
    image = axes.imshow(
        np.minimum(tiles, top), aspect="auto", interpolation="nearest", vmin=0.0, vmax=top, cmap="magma"
    )
    shape = "x".join(map(str, finding.shape))
    axes.set_title(f"{finding.tensor} ({shape}): difference / bound", fontsize=9)
    axes.set(xlabel="column", ylabel="row")
    figure.colorbar(image, ax=axes)


def _tiles(ratio: np.ndarray) -> np.ndarray:
    """(rows, columns) of at most LARGEST each, vectors wrapped into lines; each tile shows its largest ratio."""
    if ratio.ndim != 2:
        width = max(1, math.isqrt(ratio.size))
        ratio = np.append(ratio.reshape(-1), np.zeros(-ratio.size % width)).reshape(-1, width)
    for axis in (0, 1):
        if ratio.shape[axis] > LARGEST:
            starts = np.linspace(0, ratio.shape[axis], LARGEST, endpoint=False).astype(int)
            ratio = np.maximum.reduceat(ratio, starts, axis=axis)
    return ratio
