"""The fit loop of the stochastic solvers: scikit-learn's epochs, stopping and learning rates around recorded passes."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..training.callbacks import Epoch, Running
from .engine import Engine, SolverState
from .listening import Listeners
from .progress import say
from .validation import Validation

SMALLEST_RATE = 1e-6  # "adaptive" does not divide a rate any further


class StochasticFit:
    """One call of ``fit`` or ``partial_fit`` of an estimator.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its parameters are read, its fitted attributes written.
    engine : Engine
        Holds the start; trained in place.
    state : SolverState
        Of the optimizer, which it leaves behind again.
    validation : Validation or None
    incremental : bool
        ``partial_fit``: one epoch, no complaint.
    """

    def __init__(
        self,
        estimator: Any,
        engine: Engine,
        state: SolverState,
        validation: Validation | None,
        listeners: Listeners,
        *,
        incremental: bool,
    ) -> None:
        self.e, self.engine, self.state, self.validation = estimator, engine, state, validation
        self.listeners, self.incremental = listeners, incremental
        self.best: dict[str, np.ndarray] | None = None

    def run(self, X: Any, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Train on rows X (n, n_0), dense or sparse, Y (n, k) and weights (n, 1)."""
        e, engine, n = self.e, self.engine, X.shape[0]
        self.state.to(engine)
        epochs = engine.epochs(X, Y, weights, e.shuffle)
        epochs.begin(e._random_state)
        sizes = np.array(epochs.sizes, np.float64) / (n * engine.report_divisor)
        engine.step.total_steps = engine.step.t + e.max_iter * len(epochs.sizes)
        start = time.perf_counter()
        try:
            e.n_iter_ = 0
            with Running(list(e.callbacks), e.max_iter) as callbacks:
                for number in range(e.max_iter):
                    self.listeners.begin()
                    e.loss_ = float(np.dot(epochs.run(number), sizes))
                    e.n_iter_ += 1
                    e.t_ += n
                    e.loss_curve_.append(e.loss_)
                    say(e.verbose, f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
                    judged = self._judge()
                    for callback in callbacks:
                        seconds = time.perf_counter() - start
                        rate = engine.step.learning_rate
                        callback.on_epoch(Epoch(e.n_iter_, engine.step.t, e.loss_, rate, judged, seconds))
                    if self._ends() or self.listeners.end() or self.incremental:
                        break
                    if e.n_iter_ == e.max_iter:
                        warnings.warn(
                            f"Stochastic Optimizer: Maximum iterations ({e.max_iter}) reached and the optimization "
                            "hasn't converged yet.",
                            ConvergenceWarning,
                            stacklevel=4,
                        )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        self.state.take(engine)

    def _judge(self) -> dict[str, float]:
        """Count the epochs without progress: of the validation score with ``early_stopping``, else of the loss."""
        e, judged = self.e, {}
        if self.validation is not None:
            with self.engine.step.averaged():
                judged = self.validation.judge()
            e.validation_loss_curve_.append(judged["cost"])
            for name in e.validation_metrics:
                e.validation_metric_curves_.setdefault(name, []).append(judged[name])
        if not e.early_stopping:
            e.best_loss_ = math.inf if e.best_loss_ is None else e.best_loss_  # an earlier fit may have stopped early
            e._no_improvement_count = e._no_improvement_count + 1 if e.loss_ > e.best_loss_ - e.tol else 0
            e.best_loss_ = e.loss_ if e.loss_ < e.best_loss_ else e.best_loss_
            return judged
        assert self.validation is not None
        score = judged[self.validation.score]
        if e.validation_scores_ is None:  # an earlier fit did not
            e.validation_scores_, e.best_validation_score_ = [], -math.inf
        e.validation_scores_.append(score)
        say(e.verbose, f"Validation score: {score:f}")
        e._no_improvement_count = e._no_improvement_count + 1 if score < e.best_validation_score_ + e.tol else 0
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            with self.engine.step.averaged():
                self.best = self.engine.net.parameters()
        return judged

    def _ends(self) -> bool:
        """The end of an epoch: rates that change with it, and whether there has been no progress for too long."""
        e, state = self.e, self.state
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            self._set_rate(float(e.learning_rate_init) / (e.t_ + 1) ** e.power_t)
        if not e._no_improvement_count > e.n_iter_no_change:
            return False
        what = "Validation score" if e.early_stopping else "Training loss"
        text = f"{what} did not improve more than tol={e.tol:f} for {e.n_iter_no_change:d} consecutive epochs."
        if e.solver != "sgd" or e.learning_rate != "adaptive":
            say(e.verbose, f"{text} Stopping.")
            return True
        if state.learning_rate <= SMALLEST_RATE:
            say(e.verbose, f"{text} Learning rate too small. Stopping.")
            return True
        self._set_rate(state.learning_rate / 5.0)
        say(e.verbose, f"{text} Setting learning rate to {state.learning_rate:f}")
        e._no_improvement_count = 0
        return False

    def _set_rate(self, rate: float) -> None:
        self.state.learning_rate = rate
        self.engine.set_rate(rate)
