"""Where an optimizer stands, in scikit-learn's objects and in ours: the same numbers, so that either goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from ..estimators.engine import SolverState, as_named, as_parameters

# Slot of our optimizer: attribute of scikit-learn's.
_SLOTS = {"adam": {"m": "ms", "v": "vs"}, "sgd": {"v": "velocities"}}


def to_sklearn(e: Any, state: SolverState) -> AdamOptimizer | SGDOptimizer:
    """The optimizer of an estimator of scikit-learn's, which has its ``coefs_``, in the state of ours."""
    params = [*e.coefs_, *e.intercepts_]
    found: AdamOptimizer | SGDOptimizer
    if e.solver == "adam":
        found = AdamOptimizer(params, e.learning_rate_init, e.beta_1, e.beta_2, e.epsilon)
        found.t = state.t
    else:
        rule = (e.learning_rate, e.momentum, e.nesterovs_momentum, e.power_t)
        found = SGDOptimizer(params, e.learning_rate_init, *rule)
        found.learning_rate = state.learning_rate
        found.t = state.t  # which scikit-learn does not count, and does not mind
    for slot, attribute in _SLOTS[e.solver].items():
        if slot in state.slots:
            coefs, intercepts = as_parameters(state.slots[slot])
            setattr(found, attribute, [*coefs, *intercepts])
    return found


def from_sklearn(solver: str, optimizer: AdamOptimizer | SGDOptimizer) -> SolverState:
    """The inverse of :func:`to_sklearn`."""
    adam = solver == "adam"
    rate = optimizer.learning_rate_init if adam else optimizer.learning_rate
    slots: dict[str, dict[str, np.ndarray]] = {}
    for slot, attribute in _SLOTS[solver].items():
        arrays = getattr(optimizer, attribute)
        half = len(arrays) // 2
        slots[slot] = as_named((arrays[:half], arrays[half:]))
    return SolverState(float(rate), getattr(optimizer, "t", 0), slots)


def flat_layout(e: Any) -> tuple[list[tuple[int, int, tuple[int, int]]], list[tuple[int, int]]]:
    """Where scikit-learn's L-BFGS keeps each of an estimator's coefs (start, end, shape) and intercepts (start, end)."""
    coefs, intercepts, start = [], [], 0
    for coef in e.coefs_:
        coefs.append((start, start + coef.size, coef.shape))
        start += coef.size
    for intercept in e.intercepts_:
        intercepts.append((start, start + intercept.size))
        start += intercept.size
    return coefs, intercepts
