"""Datasets for whole estimators: five that come along and seven that are drawn, with the net a user would take."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backprop_gpu.errors import MissingDependencyError

from .peers import check_names


@dataclass(frozen=True)
class Dataset:
    """A dataset and how an MLP is fitted to it: scikit-learn's defaults but for what is said here.

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
        ``max_iter``; a large dataset is seen a few times only.
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


DATASETS = (
    Dataset("breast_cancer", "breast_cancer", 2),
    Dataset("digits", "digits", 10, epochs=100),
    Dataset("iris", "iris", 3),
    Dataset("wine", "wine", 3),
    Dataset("diabetes", "diabetes", 0, (64, 32)),
    Dataset("moons-200", "moons", 2, (16,), rows=200, features=2),
    Dataset("friedman-2k", "friedman1", 0, (64, 64), 100, 2_000, 10),
    Dataset("teacher-5k", "teacher", 3, (100,), 50, 5_000, 20, {"solver": "sgd", "learning_rate_init": 0.05}),
    Dataset("friedman-20k", "friedman1", 0, (128, 64), 20, 20_000, 20),
    Dataset("teacher-50k", "teacher", 10, (128, 64), 10, 50_000, 50),
    Dataset("values-200k", "teacher", 0, (64, 32), 5, 200_000, 30),
    Dataset("teacher-1m", "teacher", 2, (128, 64), 2, 1_000_000, 28, {"batch_size": 1_000}),
)
QUICK = ("iris", "diabetes", "moons-200")


def chosen_datasets(names: Sequence[str]) -> list[Dataset]:
    """The datasets of these names, or all.

    Raises
    ------
    ConfigError, MissingDependencyError
        For an unknown name; without scikit-learn, whose tables and models they are.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError("estimators needs scikit-learn; pip install scikit-learn")
    known = {dataset.name: dataset for dataset in DATASETS}
    check_names(names, known, "workload of estimators")
    return [known[name] for name in names or known]


def load(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """X (n, n_0), float64, every column with mean 0 and deviation 1, and y (n,): see :func:`raw`."""
    X, y = raw(dataset)
    X -= X.mean(axis=0)
    X /= np.where((spread := X.std(axis=0)) > 0.0, spread, 1.0)
    return X, y


def raw(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows X (n, n_0), float64, as they are read or drawn, and y (n,), shuffled.

    ``"teacher"`` is ``tanh(X A) B`` with noise of a third of its deviation: the largest of its outputs is the class, or
    the only one the value. ``"steps"`` has skewed columns (e^x, x normal) and an exclusive or of two of three
    thresholds as its class, a tenth of them turned over: what trees find at once.
    """
    rng = np.random.default_rng(0)
    if dataset.source == "teacher":
        X = rng.standard_normal((dataset.rows, dataset.features))
        A = rng.standard_normal((dataset.features, 16)) / np.sqrt(dataset.features)
        Z = np.tanh(2.0 * X @ A) @ rng.standard_normal((16, dataset.classes or 1))
        Z += Z.std() / 3.0 * rng.standard_normal(Z.shape)
        return X, Z.argmax(axis=1) if dataset.classes else Z.ravel() / Z.std()
    if dataset.source == "steps":
        x = rng.standard_normal((dataset.rows, dataset.features))
        y = ((x[:, 0] > 0.5) ^ (x[:, 1] > 0.0)) | (x[:, 2] > 1.0)
        return np.exp(2.0 * x), (y ^ (rng.random(dataset.rows) < 0.1)).astype(np.int64)
    X, y = _known(dataset)
    order = rng.permutation(len(X))
    return X[order], y[order]


def _known(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    from backprop_gpu.data.generated import friedman1, moons

    if dataset.source == "moons":
        return moons(dataset.rows)
    if dataset.source == "friedman1":
        return friedman1(dataset.rows, features=dataset.features)
    import sklearn.datasets

    X, y = getattr(sklearn.datasets, f"load_{dataset.source}")(return_X_y=True)
    return np.asarray(X, np.float64), np.asarray(y)
