"""Count, mean and variance of columns in one pass: parts are computed apart and merged.

The merge is that of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
variances", COMPSTAT 1982); a part is computed in two passes over rows in memory. Parts are merged in pairs, as a binary
counter adds, so that the error grows with the logarithm of their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Of the values of each of k columns that are not missing; all arrays (k,).

    Attributes
    ----------
    count : int64
    mean : float64
    m2 : float64
        The sum of squared deviations from the mean: n times the variance.
    low, high : float64
        The smallest and the largest value; infinite and minus infinite where there is none.
    """

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """Of rows (n, k) in float64; NaN is missing."""
        missing = np.isnan(rows)
        gaps = bool(missing.any())
        count = len(rows) - missing.sum(axis=0)
        of = np.maximum(count, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (np.where(missing, 0.0, rows) if gaps else rows).sum(axis=0) / of
            deviation = np.where(missing, 0.0, rows - mean) if gaps else rows - mean
            squares = np.einsum("ij,ij->j", deviation, deviation)
            rest = deviation.sum(axis=0)
            m2 = np.maximum(squares - rest * rest / of, 0.0)
            mean = mean + rest / of
        low = np.where(missing, np.inf, rows).min(axis=0, initial=np.inf)
        high = np.where(missing, -np.inf, rows).max(axis=0, initial=-np.inf)
        return cls(count, mean, m2, low, high)

    def merged(self, other: Moments) -> Moments:
        """Of the values of both."""
        count = self.count + other.count
        with np.errstate(over="ignore", invalid="ignore"):
            share = other.count / np.maximum(count, 1)
            delta = other.mean - self.mean
            mean = np.where(self.count == 0, other.mean, self.mean + delta * share)
            m2 = self.m2 + other.m2 + delta * delta * (self.count * share)
        return Moments(count, mean, m2, np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class MergedMoments:
    """Merges the moments of parts in the order in which they are added: the same parts give the same bits."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Moments]] = []

    def add(self, part: Moments) -> None:
        """The next part."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            level, part = level + 1, self._waiting.pop()[1].merged(part)
        self._waiting.append((level, part))

    def total(self) -> Moments:
        """Of all parts so far, of which there is one."""
        found = self._waiting[-1][1]
        for _, earlier in reversed(self._waiting[:-1]):
            found = earlier.merged(found)
        return found
