"""From the raw columns of a table to the inputs of ``preset="tabular"``: scale, clip, bins, gaps, one-hot, dates.

Learnt on the training rows:

* a number x becomes z / sqrt(1 + (z/3)^2) with z = (x - median) / (distance of the quartiles), which is nearly z around
  0 and keeps outliers within +-3 (Holzmueller, Grinsztajn & Steinwart 2024, section 3: robust scale and smooth clip);
* beside it stand the components of its piecewise-linear encoding (:mod:`~backprop_gpu.data.piecewise_linear`);
* a gap is 0, the median, and a column of 0 and 1 says where the gaps of each column with some were;
* a category is one-hot; one that training did not see is all zeros;
* a date is a number, the days since 1970, and beside it stand its year, and month, weekday and hour on a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .date_text import BINNED, PARTS, expand
from .piecewise_linear import PiecewiseLinear

CLIP = 3.0
KINDS = ("number", *PARTS, "category")


def smooth_clip(z: np.ndarray) -> np.ndarray:
    """z / sqrt(1 + (z/3)^2)."""
    return z / np.hypot(1.0, z / CLIP)  # the root, which does not overflow


@dataclass(frozen=True)
class RobustScale:
    """x -> z / sqrt(1 + (z/3)^2), z = (x - centre) / spread, column by column: within +-3, nearly z around 0.

    Attributes
    ----------
    centre, spread : ndarray of shape (n_columns,)
        Median, and distance of the quartiles; where that is 0 half the range, and 1 for a constant column.
    """

    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray) -> RobustScale:
        """Learn from rows X (n, n_columns); NaN is a missing value, a column without any value has centre 0."""
        X = np.where(np.isnan(X).all(axis=0), 0.0, X)
        low, centre, high = np.nanquantile(X, [0.25, 0.5, 0.75], axis=0)
        half_range = (np.nanmax(X, axis=0) - np.nanmin(X, axis=0)) / 2.0
        spread = np.where(high > low, high - low, half_range)
        return cls(centre, np.where(spread > 0.0, spread, 1.0))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Scaled rows; a missing value becomes 0, as the median does."""
        z = smooth_clip((X - self.centre) / self.spread)
        return np.where(np.isnan(z), 0.0, z)


@dataclass(frozen=True)
class TabularInputs:
    """What turns raw columns into inputs; made by :meth:`fit` or :meth:`from_state`.

    Attributes
    ----------
    kinds : tuple of str
        Of each raw column: "number"; "date", "datetime" or "time" (days); "category" (0, 1, ..., or -1 for one that
        training did not see).
    sizes : tuple of int
        How many categories each column has; 0 for numbers and dates.
    gaps : ndarray of bool, shape (n_numeric,)
        Which of the numbers and dates had gaps.
    scale : RobustScale
        Of the numbers and dates, then of the parts of the dates.
    bins : PiecewiseLinear
        Of the numbers, dates and parts, likewise: of the parts the hours alone have some.
    """

    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    gaps: np.ndarray
    scale: RobustScale
    bins: PiecewiseLinear

    @classmethod
    def fit(cls, X: np.ndarray, bins: int, kinds: Sequence[str] = (), sizes: Sequence[int] = ()) -> TabularInputs:
        """Learn from raw columns X (n, n_columns), float64, NaN where missing.

        Parameters
        ----------
        X : ndarray
        bins : int
            Components of the piecewise-linear encoding of each number; 0 for none.
        kinds, sizes : sequence
            See the class; empty: all are numbers.
        """
        kinds = tuple(kinds) or ("number",) * X.shape[1]
        numeric = _with_parts(X, kinds)
        parts = [name for kind in kinds for name in PARTS.get(kind, ())]
        binned = [True] * (numeric.shape[1] - len(parts)) + [name in BINNED for name in parts]
        each = zip(numeric.T, binned, strict=True)
        edges = (PiecewiseLinear.fit(x[:, None], bins if wanted else 0).edges[0] for x, wanted in each)
        return cls(
            kinds=kinds,
            sizes=tuple(sizes) or (0,) * X.shape[1],
            gaps=np.isnan(X[:, _numeric(kinds)]).any(axis=0),
            scale=RobustScale.fit(numeric),
            bins=PiecewiseLinear(tuple(edges)),
        )

    @property
    def width(self) -> int:
        """The number of inputs."""
        return len(self.scale.centre) + int(self.gaps.sum()) + self.bins.width + sum(self.sizes)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Inputs (n, width) of raw columns (n, n_columns): scaled numbers, gaps, bins, categories."""
        numeric = _with_parts(X, self.kinds)
        gaps = np.isnan(numeric[:, : len(self.gaps)][:, self.gaps])
        parts = [self.scale(numeric), gaps, self.bins(numeric[:, : len(self.bins.edges)])]
        parts += [X[:, j, None] == np.arange(size) for j, size in enumerate(self.sizes) if size]
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(tensors, JSON-able dict) from which :meth:`from_state` makes the same, to the bit."""
        tensors = {"centre": self.scale.centre, "spread": self.scale.spread, "edges": self.bins.joined}
        kept = {"kinds": list(self.kinds), "sizes": list(self.sizes), "gaps": self.gaps.tolist()}
        kept["edges"] = self.bins.counts
        return tensors, kept

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], kept: Mapping[str, Any]) -> TabularInputs:
        """Undo :meth:`state`.

        Raises
        ------
        CheckpointError
            If the parts do not fit together.
        """
        kinds, sizes, counts = tuple(kept["kinds"]), tuple(kept["sizes"]), list(kept["edges"])
        gaps, edges = np.array(kept["gaps"], bool), tensors["edges"]
        n_numeric = len(_numeric(kinds))
        n_scaled = n_numeric + sum(len(PARTS.get(kind, ())) for kind in kinds)
        fits = set(kinds) <= set(KINDS) and len(sizes) == len(kinds) and len(gaps) == n_numeric
        fits = fits and len(counts) in (n_numeric, n_scaled)  # parts had no bins once
        fits = fits and all(isinstance(n, int) and n >= 0 for n in (*sizes, *counts)) and edges.shape == (sum(counts),)
        fits = fits and all((size > 0) <= (kind == "category") for size, kind in zip(sizes, kinds, strict=True))
        for x in (tensors["centre"], tensors["spread"]):
            fits = fits and x.shape == (n_scaled,) and bool(np.isfinite(x).all())
        if not fits:
            raise CheckpointError("the inputs of the preset do not fit together; make the file again")
        scale = RobustScale(tensors["centre"], tensors["spread"])
        return cls(kinds, sizes, gaps, scale, PiecewiseLinear.split(edges, counts))


def _numeric(kinds: Sequence[str]) -> list[int]:
    """Where the numbers and dates are."""
    return [j for j, kind in enumerate(kinds) if kind != "category"]


def _with_parts(X: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """The numbers and dates, and after them the parts of each date."""
    dates = [expand(X[:, j], kind) for j, kind in enumerate(kinds) if kind in PARTS]
    return np.concatenate([X[:, _numeric(kinds)], *dates], axis=1)
