"""Tables for whole estimators: five that come along and seven that are drawn, with the net a user would take."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingDependencyError, did_you_mean


@dataclass(frozen=True)
class Table:
    """A table and how an MLP is fitted to it: scikit-learn's defaults but for what is said here.

    Attributes
    ----------
    source : str
        A set of ``data.sources``, ``"moons"``, ``"friedman1"``, ``"teacher"`` or ``"steps"`` (see :func:`raw`).
    rows, features : int
        Of a drawn set.
    classes : int
        0 for regression.
    hidden : tuple of int
    epochs : int
        ``max_iter``; a large table is seen a few times only.
    settings : dict
        Other parameters of both estimators.
    """

    name: str
    source: str
    classes: int
    hidden: tuple[int, ...] = (100,)
    epochs: int = 200
    rows: int = 0
    features: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


TABLES = (
    Table("breast_cancer", "breast_cancer", 2),
    Table("digits", "digits", 10, epochs=100),
    Table("iris", "iris", 3),
    Table("wine", "wine", 3),
    Table("diabetes", "diabetes", 0, (64, 32)),
    Table("moons-200", "moons", 2, (16,), rows=200, features=2),
    Table("friedman-2k", "friedman1", 0, (64, 64), 100, 2_000, 10),
    Table("teacher-5k", "teacher", 3, (100,), 50, 5_000, 20, {"solver": "sgd", "learning_rate_init": 0.05}),
    Table("friedman-20k", "friedman1", 0, (128, 64), 20, 20_000, 20),
    Table("teacher-50k", "teacher", 10, (128, 64), 10, 50_000, 50),
    Table("values-200k", "teacher", 0, (64, 32), 5, 200_000, 30),
    Table("teacher-1m", "teacher", 2, (128, 64), 2, 1_000_000, 28, {"batch_size": 1_000}),
)
QUICK = ("iris", "diabetes", "moons-200")
MORE = (Table("steps-2k", "steps", 2, rows=2_000, features=10),)  # for scores, not for times


def chosen_tables(names: Sequence[str], kind: str) -> list[Table]:
    """The tables of these names, or all.

    Raises
    ------
    ConfigError, MissingDependencyError
        For an unknown name; without scikit-learn, whose tables and models they are.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError(f"bench {kind} needs scikit-learn; pip install scikit-learn")
    known = {table.name: table for table in (*TABLES, *(MORE if kind == "tabular" else ()))}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"bench {kind} has no workload {name!r}{hint}; it has {', '.join(known)}")
    return [known[name] for name in names or known]


def load(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """X (n, n_0), float64, every column with mean 0 and deviation 1, and y (n,): see :func:`raw`."""
    X, y = raw(table)
    X -= X.mean(axis=0)
    X /= np.where((spread := X.std(axis=0)) > 0.0, spread, 1.0)
    return X, y


def raw(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Rows X (n, n_0), float64, as they are read or drawn, and y (n,), shuffled.

    ``"teacher"`` is ``tanh(X A) B`` with noise of a third of its deviation: the largest of its outputs is the class, or
    the only one the value. ``"steps"`` has skewed columns (e^x, x normal) and an exclusive or of two of three
    thresholds as its class, a tenth of them turned over: what trees find at once.
    """
    rng = np.random.default_rng(0)
    if table.source == "teacher":
        X = rng.standard_normal((table.rows, table.features))
        A = rng.standard_normal((table.features, 16)) / np.sqrt(table.features)
        Z = np.tanh(2.0 * X @ A) @ rng.standard_normal((16, table.classes or 1))
        Z += Z.std() / 3.0 * rng.standard_normal(Z.shape)
        return X, Z.argmax(axis=1) if table.classes else Z.ravel() / Z.std()
    if table.source == "steps":
        x = rng.standard_normal((table.rows, table.features))
        y = ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.0)) | (x[:, 2] > 1.0)
        return np.exp(2.0 * x), (y ^ (rng.random(table.rows) < 0.1)).astype(np.int64)
    X, y = _known(table)
    order = rng.permutation(len(X))
    return X[order], y[order]


def _known(table: Table) -> tuple[np.ndarray, np.ndarray]:
    from ..data.generated import friedman1, moons

    if table.source == "moons":
        return moons(table.rows)
    if table.source == "friedman1":
        return friedman1(table.rows, features=table.features)
    import sklearn.datasets

    X, y = getattr(sklearn.datasets, f"load_{table.source}")(return_X_y=True)
    return np.asarray(X, np.float64), np.asarray(y)
