"""How much examples of each class count."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import ConfigError, did_you_mean

ClassWeight = Mapping[int, float] | str | None
"""``{class number: weight}``, of which those left out count 1; "balanced"; or None."""


def check_class_weight(given: Any, task: str) -> ClassWeight:
    """The same, if it is a ``ClassWeight`` and the task has classes; else ConfigError."""
    if given is None:
        return None
    if task not in ("binary", "multiclass"):
        raise ConfigError(f"class_weight is for classes; the task is {task}: leave it out")
    if isinstance(given, str):
        if given != "balanced":
            raise ConfigError(
                f"class_weight: {given!r}{did_you_mean(given, ['balanced'])}; it is balanced or a mapping"
            )
        return given
    if not isinstance(given, Mapping) or not all(
        isinstance(k, Integral) and isinstance(w, Real) for k, w in given.items()
    ):
        raise ConfigError(f"class_weight must be balanced or a mapping of class numbers to weights, got {given!r}")
    if not all(0.0 <= float(w) < np.inf for w in given.values()):
        raise ConfigError(f"class_weight must hold numbers from 0, got {dict(given)}")
    return given


def weights_by_class(
    given: ClassWeight, classes: np.ndarray, n_classes: int, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """The weight of each class, (n_classes,) float64.

    Parameters
    ----------
    given : ClassWeight
        "balanced": n / (k n_c) where k classes are there and n_c of the n rows (their weights, if they have any) are of
        class c, as scikit-learn has it: each class counts the same, all rows together n.
    classes : (n,)
        Class numbers of the training rows.
    sample_weight : (n,), optional
    """
    found = np.ones(n_classes)
    if isinstance(given, str):
        totals = np.bincount(classes, sample_weight, n_classes).astype(np.float64)
        there = totals > 0.0
        found[there] = totals.sum() / (np.count_nonzero(there) * totals[there])
    elif given is not None:
        for number, weight in given.items():
            if not 0 <= number < n_classes:
                raise ConfigError(f"class_weight: there is no class {number}; they are 0 to {n_classes - 1}")
            found[number] = weight
    return found
