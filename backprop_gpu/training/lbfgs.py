"""L-BFGS on all rows: SciPy's, on the flat vector of the parameters; cost and gradient from a step on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import Array
from ..maths.ledger import Denominator
from ..network.dense_net import DenseNet
from ..network.memory import all_finite
from ..network.step import TrainingStep

MICRO_BATCH = 16_384  # examples per pass: the gradient does not depend on it, memory does


@dataclass
class AllRows:
    """The rows as the one batch of a step, columns: X (n_0, m), Y (k, m), weights (1, m) or None."""

    X: Array
    Y: Array
    weights: Array | None
    m: int
    first: int = 0

    def gather(self, counters: Array) -> None:
        """They are there."""


class Objective:
    """J and dJ/dtheta of all rows as functions of the flat vector, for SciPy: float64 there, the net's dtype here.

    What computes them is recorded once and replayed for every point. X (m, n_0), Y (m, k), weights (m, 1) or None.
    """

    def __init__(self, step: TrainingStep, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None) -> None:
        net, m = step.net, len(X)
        self.step, self.net = step, net
        with net.lock.held(), net.backend.activate():
            w = None if weights is None else net.upload_columns(weights)
            batch = AllRows(net.upload_columns(X), net.upload_columns(Y), w, m)
            table, values = net.backend.zeros((1, step.n_step_scalars), net.dtype), net.backend.zeros((1,), net.dtype)
            step.load(table, [Denominator.of(step.reduction, m, None if weights is None else float(weights.sum()))])
            step.reserve(m, MICRO_BATCH)
            self._replay = net.kernels.capture(step.program(table, values, batch, MICRO_BATCH, update=False))

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """(J, dJ/dtheta) at theta, both (size,) vectors with the padding of FlatParams."""
        step, net = self.step, self.net
        with net.lock.held(), net.backend.activate(), np.errstate(all="ignore"):
            set_theta(net, theta)
            step.rewind()
            self._replay(1)
            return step.cost() / step.report_divisor, get_theta(net, net.params.grad)


def get_theta(net: DenseNet, vector: Array) -> np.ndarray:
    """A vector of the parameters' size on the host, float64."""
    return net.backend.to_host(vector).astype(np.float64)


def set_theta(net: DenseNet, theta: np.ndarray) -> None:
    """Put a flat vector where the network reads its parameters."""
    with net.lock.held(), net.backend.activate():
        net.params.theta[...] = net.backend.asarray(theta, net.dtype)


@dataclass
class Minimum:
    """Where L-BFGS ended, which is where the network's parameters are.

    Attributes
    ----------
    cost : float
        J there.
    iterations : int
    result : scipy.optimize.OptimizeResult or None
        SciPy's; None if a callback or Ctrl-C ended it.
    interrupted : bool
        Whether Ctrl-C did: it is where the last whole iteration ended.
    finite : bool
        False: the end was not finite, and this is where the last iteration of a finite cost ended.
    """

    cost: float
    iterations: int
    result: Any
    interrupted: bool
    finite: bool


def minimize_cost(
    objective: Objective, options: dict[str, Any], on_iteration: Callable[[int, float], bool] | None
) -> Minimum:
    """Minimize J from the network's parameters, and leave the minimum there.

    ``options``: those of SciPy's method L-BFGS-B. ``on_iteration(k, J)`` is called after iteration k, counted from 1,
    with the network's parameters where it ended; L-BFGS ends if it returns True.
    """
    from scipy.optimize import minimize

    net, iterations, stopped, interrupted = objective.net, 0, False, False
    theta, cost = get_theta(net, net.params.theta), math.nan

    def progress(intermediate_result: Any) -> None:
        nonlocal theta, cost, iterations, stopped
        if not math.isfinite(intermediate_result.fun):
            return
        theta, cost, iterations = intermediate_result.x.copy(), float(intermediate_result.fun), iterations + 1
        if on_iteration is None:
            return
        set_theta(net, theta)
        if on_iteration(iterations, cost):
            stopped = True
            raise StopIteration

    result: Any = None
    try:
        result = minimize(objective, theta, method="L-BFGS-B", jac=True, callback=progress, options=options)
    except KeyboardInterrupt:
        interrupted = True
    x, end = (theta, cost) if result is None else (result.x, float(result.fun))
    set_theta(net, x)
    finite = all_finite(net) and (math.isfinite(end) or interrupted)
    if not finite:
        set_theta(net, theta)
    return Minimum(end, iterations, None if stopped else result, interrupted, finite)
