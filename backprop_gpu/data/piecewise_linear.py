"""Piecewise-linear encoding of numbers: each value as its place among the bins of its column.

Of the edges b_0 < ... < b_T of a column, component t of a value x is the part of bin t that lies below it:
e_t = clip((x - b_{t-1}) / (b_t - b_{t-1}), 0, 1). So x in bin t gives (1, ..., 1, part, 0, ..., 0), and a linear layer
on top is a piecewise-linear function of x, which follows steps and bends that one of x alone cannot.

Source: Gorishniy, Rubachev & Babenko 2022, "On embeddings for numerical features in tabular deep learning", section
3.2, equations 1 and 2, with quantiles as edges (3.2.1). There the first and the last component go on beyond the edges;
here they stop, and the scaled column beside them says how far out a value lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_COMPONENTS = 1024  # of all columns together: a wider table has fewer bins, or none


def bins_for(bins: int, columns: int) -> int:
    """Bins of each of so many columns where ``bins`` are asked for; 0: none, since one says no more than the column."""
    most = min(bins, MOST_COMPONENTS // max(columns, 1))
    return most if most > 1 else 0


@dataclass(frozen=True)
class PiecewiseLinear:
    """The edges of each column; ``edges[j]`` is empty for a column without components.

    Attributes
    ----------
    edges : tuple of ndarray of float64
        Increasing, at least 3 for T >= 2 components.
    """

    edges: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, X: np.ndarray, bins: int) -> PiecewiseLinear:
        """Learn from rows X (n, n_columns), in which NaN is a missing value.

        The edges are the quantiles 0, 1/bins, ..., 1, equal ones once; a column of at most ``bins`` different values
        has these as edges. One of two values or fewer has no components: they would repeat the column. With ``bins`` 0
        no column has any.
        """
        return cls(tuple(_edges(column[~np.isnan(column)], bins) if bins else np.empty(0) for column in X.T))

    @property
    def widths(self) -> tuple[int, ...]:
        """Components of each column."""
        return tuple(max(len(edges) - 1, 0) for edges in self.edges)

    @property
    def width(self) -> int:
        """Components of all columns together."""
        return sum(self.widths)

    @property
    def counts(self) -> list[int]:
        """Edges of each column."""
        return [len(edges) for edges in self.edges]

    @property
    def joined(self) -> np.ndarray:
        """All edges, which :meth:`split` takes apart."""
        return np.concatenate([np.empty(0), *self.edges])

    @classmethod
    def split(cls, joined: np.ndarray, counts: Sequence[int]) -> PiecewiseLinear:
        """The edges of columns that have so many each."""
        return cls(tuple(np.split(joined, np.cumsum(counts)[:-1])) if len(counts) else ())

    def names(self, columns: Sequence[str]) -> list[str]:
        """A name for each component: ``age in 20..30``."""
        named = zip(columns, self.edges, strict=True)
        return [f"{name} in {a:.6g}..{b:.6g}" for name, e in named for a, b in itertools.pairwise(e)]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Components (n, width) of rows X (n, n_columns), column by column; all 0 where a value is missing."""
        out = np.empty((len(X), self.width))
        start = 0
        for x, edges in zip(X.T, self.edges, strict=True):
            if len(edges) > 1:
                part = out[:, start : start + len(edges) - 1]
                np.subtract(x[:, None], edges[:-1], out=part)
                part /= np.diff(edges)
                np.clip(part, 0.0, 1.0, out=part)
                part[np.isnan(x)] = 0.0
                start += len(edges) - 1
        return out


NO_BINS = PiecewiseLinear(())


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """The edges of one column of present values; fewer than 3 are none."""
    found = np.unique(values)
    if len(found) > bins:
        found = np.unique(np.quantile(values, np.linspace(0.0, 1.0, bins + 1)))
    return found if len(found) > 2 else np.empty(0)
