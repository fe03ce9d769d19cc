"""Checked rows on the host, and those of them that are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split

from ..training.validation import HeldOut


@dataclass
class Rows:
    """Checked rows on the host: X (n, n_0) dense or sparse; Y as the loss takes it; weights (n, 1) or None."""

    X: Any
    Y: np.ndarray
    weights: np.ndarray | None

    @property
    def n_weighted(self) -> int:
        """How many rows have a weight."""
        return len(self.Y) if self.weights is None else int(np.count_nonzero(self.weights))

    def weighted(self) -> Rows:
        """The rows that have a weight: one of weight 0 is no row."""
        if self.weights is None or self.n_weighted == len(self.Y):
            return self
        return self.take(np.flatnonzero(self.weights))

    def take(self, rows: np.ndarray) -> Rows:
        """Some of the rows; a sparse table stays sparse."""
        X = self.X.tocsr() if issparse(self.X) else self.X
        return Rows(X[rows], self.Y[rows], None if self.weights is None else self.weights[rows])


def dense(X: Any) -> np.ndarray:
    """Rows as the network takes them."""
    return X.toarray() if issparse(X) else X


def split_off(estimator: Any, rows: Rows) -> tuple[Rows, HeldOut]:
    """(rows to train on, held-out rows): see :func:`split_apart`."""
    inside, held_out = split_apart(estimator, rows)
    return rows.take(inside), held_out


def split_apart(estimator: Any, rows: Rows) -> tuple[np.ndarray, HeldOut]:
    """(which rows to train on, held-out rows), by scikit-learn's own split or the estimator's splitter.

    Raises
    ------
    ValueError
        If fewer than two rows that have a weight would be held out.
    """
    fraction = estimator.validation_fraction
    if hasattr(fraction, "split"):
        inside, outside = next(iter(fraction.split(rows.X, rows.Y[:, 0])))
    else:
        inside, outside = train_test_split(
            np.arange(rows.X.shape[0]),
            random_state=estimator._random_state,
            test_size=fraction,
            stratify=estimator._stratify(rows.Y),
        )
    out = rows.take(outside)
    held_out = HeldOut(dense(out.X), estimator._one_hot(out.Y), out.weights)
    if len(held_out.weighted) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return inside, held_out
