"""``solver="lbfgs"``: SciPy's L-BFGS-B on the flat vector, cost and gradient from the step on the device."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from .._typing import Array
from ..errors import NonFiniteError
from ..maths.ledger import Denominator
from ..network.memory import all_finite
from ..training.callbacks import Callback, Epoch, StartedCallbacks
from .fitted_network import FittedNetwork, device_state
from .sklearn_rules import SklearnCallbacks

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

    What computes them is recorded once and replayed for every point.
    """

    def __init__(self, network: FittedNetwork, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None) -> None:
        net, step, m = network.net, network.step, len(X)
        self.network, self.total = network, None if weights is None else float(weights.sum())
        with net.lock.held(), net.backend.activate():
            w = None if weights is None else net.upload_columns(weights)
            batch = AllRows(net.upload_columns(X), net.upload_columns(Y), w, m)
            table, values = net.backend.zeros((1, step.n_step_scalars), net.dtype), net.backend.zeros((1,), net.dtype)
            step.load(table, [Denominator.of(step.reduction, m, self.total)])
            step.reserve(m, MICRO_BATCH)
            self._replay = net.kernels.capture(step.program(table, values, batch, MICRO_BATCH, update=False))

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """(J, dJ/dtheta) at theta, both (size,) vectors with the padding of FlatParams."""
        network, step, net = self.network, self.network.step, self.network.net
        with net.lock.held(), net.backend.activate(), np.errstate(all="ignore"):
            set_theta(network, theta)
            step.rewind()
            self._replay(1)
            grad = net.backend.to_host(net.params.grad).astype(np.float64)
            return step.cost() / network.step.report_divisor, grad


class Progress:
    """Called after every iteration: keeps where it ended, for Ctrl-C, and calls our callbacks and scikit-learn's."""

    def __init__(
        self, estimator: Any, network: FittedNetwork, callbacks: Sequence[Callback], sklearn_callbacks: SklearnCallbacks
    ) -> None:
        self.estimator, self.network, self.callbacks, self.sklearn_callbacks = (
            estimator,
            network,
            callbacks,
            sklearn_callbacks,
        )
        self.iteration, self.stopped, self.start = 0, False, time.perf_counter()
        self.reached: OptimizeResult | None = None
        sklearn_callbacks.begin_epoch()

    def __call__(self, intermediate_result: OptimizeResult) -> None:
        """SciPy's hook: the point is put where the network reads it, so that it can be asked for predictions."""
        if not math.isfinite(intermediate_result.fun):
            return
        self.reached = OptimizeResult(x=intermediate_result.x.copy(), fun=intermediate_result.fun)
        self.iteration += 1
        if not self.callbacks and self.sklearn_callbacks.root is None:
            return
        set_theta(self.network, intermediate_result.x)
        seconds = time.perf_counter() - self.start
        epoch = Epoch(self.iteration, self.iteration, float(intermediate_result.fun), 1.0, {}, seconds)
        with device_state(self.estimator).pause(None):
            for callback in self.callbacks:
                callback.on_epoch(epoch)
        if self.sklearn_callbacks.end_epoch():
            self.stopped = True
            raise StopIteration
        self.sklearn_callbacks.begin_epoch()


def set_theta(network: FittedNetwork, theta: np.ndarray) -> None:
    """Put a flat vector where the network reads its parameters."""
    net = network.net
    with net.lock.held(), net.backend.activate():
        net.params.theta[...] = net.backend.asarray(theta, net.dtype)


def fit_lbfgs(
    estimator: Any,
    network: FittedNetwork,
    X: np.ndarray,
    Y: np.ndarray,
    weights: np.ndarray | None,
    sklearn_callbacks: SklearnCallbacks,
) -> None:
    """Minimize J from the network's parameters, and leave the minimum there; ``n_iter_`` and ``loss_`` are written.

    Interrupted by Ctrl-C it warns, and leaves the point that the last whole iteration reached.

    Raises
    ------
    NonFiniteError
        If it ends where the cost or a parameter is not finite; it leaves that point then too.
    """
    e, net = estimator, network.net
    verbose = 1 if e.verbose is True or e.verbose >= 1 else -1
    start = net.backend.to_host(net.params.theta).astype(np.float64)
    interrupted = False
    options = {"maxfun": e.max_fun, "maxiter": e.max_iter, "gtol": e.tol}
    options |= _get_additional_lbfgs_options_dict("iprint", verbose)
    with StartedCallbacks(list(e.callbacks), e.max_iter) as callbacks:
        progress = Progress(e, network, callbacks, sklearn_callbacks)
        objective = Objective(network, X, Y, weights)
        try:
            result = minimize(objective, start, method="L-BFGS-B", jac=True, callback=progress, options=options)
        except KeyboardInterrupt:
            interrupted = True
            warnings.warn("Training interrupted by user.", stacklevel=5)
            result = progress.reached or OptimizeResult(x=start, fun=np.nan)
            e.n_iter_ = progress.iteration
        else:
            e.n_iter_ = result.nit if progress.stopped else _check_optimize_result("lbfgs", result, e.max_iter)
    e.loss_ = float(result.fun)
    set_theta(network, result.x)
    if not all_finite(net) or not (math.isfinite(e.loss_) or interrupted):
        set_theta(network, start if progress.reached is None else progress.reached.x)
        raise NonFiniteError(f"the cost became {e.loss_} after iteration {progress.iteration}")
