"""What a model says over two columns, and the lines where that changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESOLUTION = 72  # points of the grid of a boundary along each axis


@dataclass(frozen=True)
class Boundary:
    """What a model of two inputs says on a grid.

    Attributes
    ----------
    x, y : (RESOLUTION,)
        The grid, in the units of the two columns.
    outputs : (RESOLUTION, RESOLUTION, n_outputs)
        Probabilities or values at (y, x).
    """

    x: np.ndarray
    y: np.ndarray
    outputs: np.ndarray


def boundary(predict: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, resolution: int = RESOLUTION) -> Boundary:
    """Evaluate ``predict`` (rows (n, 2) to outputs (n, n_outputs)) on a grid around ``rows`` (n, 2)."""
    low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    margin = 0.06 * np.where(high > low, high - low, 1.0)
    x, y = (np.linspace(low[j] - margin[j], high[j] + margin[j], resolution) for j in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    outputs = np.asarray(predict(grid))
    return Boundary(x, y, outputs.reshape(resolution, resolution, -1))


def margins(outputs: np.ndarray, threshold: float = 0.5) -> list[np.ndarray]:
    """Fields (h, w) that are 0 where the predicted class changes: p - threshold of two, else each class's lead."""
    if outputs.shape[-1] == 1:
        return [outputs[..., 0] - threshold]
    fields = []
    for k in range(outputs.shape[-1]):
        others = np.delete(outputs, k, axis=-1).max(axis=-1)
        fields.append(outputs[..., k] - others)
    return fields


Segment = tuple[tuple[float, float], tuple[float, float]]


def contour(field: np.ndarray, level: float = 0.0) -> list[Segment]:
    """Pieces of the line on which a field (h, w) has a level, in units of the grid (column, row): marching squares."""
    above = field > level
    cells = above[:-1, :-1].astype(int) + above[:-1, 1:] + above[1:, :-1] + above[1:, 1:]
    found: list[Segment] = []
    for i, j in np.argwhere((cells > 0) & (cells < 4)).tolist():
        corners = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)]
        crossed = []
        for (xa, ya), (xb, yb) in zip(corners, corners[1:] + corners[:1], strict=True):
            a, b = float(field[ya, xa]) - level, float(field[yb, xb]) - level
            if (a > 0) != (b > 0):
                t = a / (a - b)
                crossed.append((xa + t * (xb - xa), ya + t * (yb - ya)))
        found += [(crossed[k], crossed[k + 1]) for k in range(0, len(crossed) - 1, 2)]
    return found
