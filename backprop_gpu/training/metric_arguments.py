"""What the functions of ``metrics`` are given: targets, predictions and weights, checked."""

from __future__ import annotations

import numpy as np

from ..errors import DataError, ShapeError


def checked(
    a: np.ndarray, b: np.ndarray, sample_weight: np.ndarray | None, *, same_width: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Both as (n_samples, k), and the weights as float64."""
    a, b = (x[:, None] if x.ndim == 1 else x for x in (np.asarray(a), np.asarray(b)))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or (same_width and a.shape != b.shape):
        raise ShapeError(f"targets and predictions do not fit: {a.shape} and {b.shape}")
    if len(a) == 0:
        raise DataError("there are no samples to compute a metric of")
    if sample_weight is None:
        return a, b, None
    w = np.asarray(sample_weight, dtype=np.float64)
    if w.shape != (len(a),):
        raise ShapeError(f"sample_weight has shape {w.shape}; it must be ({len(a)},)")
    if not np.all(np.isfinite(w) & (w >= 0.0)) or not np.any(w):
        raise DataError("sample_weight must be finite, not negative, and not zero everywhere")
    return a, b, w


def mean(values: np.ndarray, w: np.ndarray | None) -> float:
    """The weighted mean."""
    return float(np.average(values, weights=w))


def is_multiclass(y_true: np.ndarray, p: np.ndarray) -> bool:
    """Whether these are class indices with a probability for each class."""
    return p.ndim == 2 and p.shape[1] > 1 and np.asarray(y_true)[:1].size == 1


def class_indices(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Labels as integers (n_samples, 1); ShapeError outside 0 .. n_classes - 1, where they would index another cell."""
    indices = np.asarray(labels).reshape(-1, 1).astype(np.intp)
    if indices.size and not 0 <= indices.min() <= indices.max() < n_classes:
        raise ShapeError(f"labels run from {indices.min()} to {indices.max()}; they must be 0 to {n_classes - 1}")
    return indices
