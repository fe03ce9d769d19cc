"""What a report and the plots show of a model's predictions: calibration, and the boundary between classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, ShapeError

BINS = 10
RESOLUTION = 72  # points of the grid of a boundary along each axis


@dataclass(frozen=True)
class Calibration:
    """Predictions in bins: how sure the model was, and how often it was right.

    Attributes
    ----------
    predicted, observed : (n_bins,)
        Mean probability of the rows in a bin, and the share of them that are positive; bins without rows are left out.
    counts : (n_bins,)
    error : float
        The expected calibration error: the mean of |predicted - observed| over rows (Naeini et al., 2015).
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float


def calibration(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> Calibration:
    """Bins of equal width, as ``sklearn.calibration.calibration_curve`` has them by default.

    Parameters
    ----------
    positive : (n,)
        Whether each row is positive.
    probability : (n,)
        That the model gives for it.

    Raises
    ------
    ShapeError, DataError
        If they do not fit, or there are no rows.
    """
    y, p = np.asarray(positive, np.float64).reshape(-1), np.asarray(probability, np.float64).reshape(-1)
    if y.shape != p.shape:
        raise ShapeError(f"there are {len(y)} labels and {len(p)} probabilities; give one for each row")
    if not len(y):
        raise DataError("there are no rows to calibrate on")
    at = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p)
    counts = np.bincount(at, minlength=bins)
    there = counts > 0
    predicted, observed = (np.bincount(at, v, bins)[there] / counts[there] for v in (p, y))
    error = float(np.sum(np.abs(predicted - observed) * counts[there]) / len(y))
    return Calibration(predicted, observed, counts[there], error)


def most_likely(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of class indices (n,) and probabilities (n, n_classes): whether the likeliest class is right, and how likely."""
    best = probabilities.argmax(axis=1)
    return best == np.asarray(truth).reshape(-1), probabilities.max(axis=1)


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


def margins(outputs: np.ndarray) -> list[np.ndarray]:
    """Fields (h, w) that are 0 where the predicted class changes: p - 1/2 of two classes, else each class's lead."""
    if outputs.shape[-1] == 1:
        return [outputs[..., 0] - 0.5]
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
