"""Data and comparisons for the estimators' tests."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

SETS = ("binary", "multiclass", "multilabel", "regression", "counts", "outputs")


def rows(kind: str, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 6) in float64, and y of one kind of target."""
    if kind in ("regression", "counts", "outputs"):
        X, y = make_regression(n, 6, n_targets=3 if kind == "outputs" else 1, noise=5.0, random_state=4)
        y = scale(y)
        return X, np.round(np.exp(y)) if kind == "counts" else y
    X, y = make_classification(n, 6, n_informative=4, n_redundant=0, n_classes=3, random_state=5)
    if kind == "multilabel":
        return X, np.column_stack([X[:, 0] > 0, X[:, 1] > 0.5, y == 1]).astype(int)
    return X, np.array(["no", "yes"])[(y > 0).astype(int)] if kind == "binary" else y


def fitted(estimator: Any, X: Any, y: Any, **given: Any) -> Any:
    """The estimator, fitted; that it has not converged is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y, **given)


def distance(a: Any, b: Any) -> float:
    """The largest difference of two estimators' coefs and intercepts."""
    pairs = zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True)
    return float(max(np.abs(p - q).max() for p, q in pairs))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two estimators hold the very same weights."""
    pairs = zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True)
    return all(p.dtype == q.dtype and np.array_equal(p, q) for p, q in pairs)
