"""Permutation importance: how much a score loses when the values of one column are shuffled among the rows.

Breiman 2001, "Random forests"; the shuffles are those of scikit-learn's ``permutation_importance``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._notebook import html_table


@dataclass(frozen=True)
class Importance:
    """How much each column of a table matters to a model on some rows.

    Attributes
    ----------
    columns : tuple of str
        Those of the table, in its order.
    metric : str
    score : float
        Of the rows as they are.
    drops : ndarray, shape (n_columns, repeats)
        How much worse the score is with the column shuffled, positive whichever way the metric is better.
    """

    columns: tuple[str, ...]
    metric: str
    score: float
    drops: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(n_columns,)."""
        return np.asarray(self.drops.mean(axis=1))

    @property
    def deviation(self) -> np.ndarray:
        """(n_columns,), of the repeats, as scikit-learn's ``importances_std``."""
        return np.asarray(self.drops.std(axis=1))

    def ranked(self) -> list[tuple[str, float, float]]:
        """(column, mean, deviation), the most important first."""
        order = np.argsort(-self.mean, kind="stable")
        return [(self.columns[j], float(self.mean[j]), float(self.deviation[j])) for j in order]

    def _repr_html_(self) -> str:
        title = f"{self.metric} {self.score:.4f}, and what it loses when a column is shuffled"
        return html_table(title, ("column", "loss", "deviation"), [list(row) for row in self.ranked()])


def permutation_drops(
    X: np.ndarray,
    groups: list[list[int]],
    score: Callable[[np.ndarray], float],
    greater_is_better: bool,
    repeats: int,
    random_state: int,
) -> tuple[float, np.ndarray]:
    """The score of X (n, k), and what it loses when the columns of a group are shuffled, (n_groups, repeats)."""
    whole, sign = score(X), 1.0 if greater_is_better else -1.0
    seed = np.random.RandomState(random_state).randint(np.iinfo(np.int32).max + 1)
    drops = np.empty((len(groups), repeats))
    for drop, columns in zip(drops, groups, strict=True):
        shuffled, order, shuffle = X.copy(), np.arange(len(X)), np.random.RandomState(seed)
        for repeat in range(repeats):
            shuffle.shuffle(order)
            shuffled[:, columns] = shuffled[order[:, None], columns]
            drop[repeat] = sign * (whole - score(shuffled))
    return whole, drops
