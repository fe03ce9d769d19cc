"""Whether an estimator's class weights are what the same weights of the rows would be, checked from outside by fits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .comparator import Comparator
from .findings import Finding

NEAR = 1e-3  # of the distance between what is right and a fault: how near a fit must come to be one of them
SETTINGS = {"max_iter": 2, "warm_start": False, "early_stopping": False, "verbose": False, "callbacks": ()}


def row_weights(class_weight: Any, y: Any) -> np.ndarray:
    """What class weights mean for rows with labels y (n,) or (n, n_labels): the product over labels, (n,)."""
    labels_of_rows = np.asarray(y)
    columns = list(labels_of_rows.T) if labels_of_rows.ndim == 2 else [labels_of_rows]
    each = class_weight if isinstance(class_weight, list) else [class_weight] * len(columns)
    total = np.ones(len(columns[0]))
    for given, column in zip(each, columns, strict=True):
        labels, at = np.unique(column, return_inverse=True)
        if isinstance(given, Mapping):
            known = [[w for key, w in given.items() if key == label] for label in labels.tolist()]
            weights = np.array([float(found[0]) if found else 1.0 for found in known])
        else:  # "balanced"
            weights = len(column) / (len(labels) * np.bincount(at))
        total *= weights[at.reshape(-1)]
    return total


def compare_class_weights(model: Any, X: Any, y: Any, sample_weight: Any) -> list[Finding]:
    """Fit new estimators with the model's class weights, and with the same as weights of the rows: are they equal?

    ``partial_fit`` is asked as well, where it takes such weights.
    """
    by_class = row_weights(model.class_weight, y)
    given = np.ones(len(by_class)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    methods = ["fit"]
    if isinstance(model.class_weight, Mapping | list) and hasattr(model, "partial_fit"):
        methods.append("partial_fit")
    comparator = Comparator()
    for method in methods:
        got = _fitted(model, method, X, y, sample_weight, model.class_weight)
        want = _fitted(model, method, X, y, given * by_class, None)
        others = {
            "class weights are not applied": _fitted(model, method, X, y, given, None),
            "class weights are applied twice": _fitted(model, method, X, y, given * by_class**2, None),
            "class weights replace sample_weight": _fitted(model, method, X, y, by_class, None),
        }
        far = min((d for other in others.values() if (d := _distance(want, other)) > 0.0), default=0.0)
        name = f"weights of {method}"
        if _distance(got, want) <= NEAR * far:  # the two multiply in different orders
            comparator.same(method, name, want, want)
            continue
        nearest = min(others, key=lambda text: _distance(got, others[text]))
        cause = nearest if _distance(got, others[nearest]) <= NEAR * far else "other weights than were given"
        comparator.findings[name] = replace(comparator.same(method, name, got, want), cause=cause)
    return list(comparator.findings.values())


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b), initial=0.0))


def _fitted(model: Any, method: str, X: Any, y: Any, weights: Any, class_weight: Any) -> np.ndarray:
    """The parameters after a few epochs from the same start, as one vector."""
    random_state = model.random_state if isinstance(model.random_state, int) else 0
    settings = SETTINGS | {"class_weight": class_weight, "random_state": random_state}
    new = type(model)(**model.get_params() | settings)
    more = {"classes": model.classes_} if method == "partial_fit" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a few epochs do not converge is known
        getattr(new, method)(X, y, sample_weight=weights, **more)
    return np.concatenate([np.ravel(p).astype(np.float64) for p in (*new.coefs_, *new.intercepts_)])
