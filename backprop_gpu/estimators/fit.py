"""The fit loop of the stochastic solvers: scikit-learn's epochs, stopping and learning rates around recorded passes.

One loop for one network and for several that advance together; what is of a network alone is in its fit.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..errors import NonFiniteError
from ..training.batches import Batches
from ..training.callbacks import Callback, Epoch, StartedCallbacks
from ..training.validation import Judgement, Validation
from .fitted_network import Engine, SolverState
from .progress import say
from .sklearn_callbacks import Listeners, tell

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
    title : str
        What ``verbose`` puts before a line.
    watched : str
        What ``verbose`` says has not improved: that of which ``_no_improvement_count`` counts epochs.
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
        title: str = "",
        watched: str = "",
    ) -> None:
        self.e, self.engine, self.state, self.validation = estimator, engine, state, validation
        self.listeners, self.incremental, self.title = listeners, incremental, title
        loss_or_score = "Validation score" if estimator.early_stopping else "Training loss"
        self.watched = watched or f"{loss_or_score} did not improve more than tol={estimator.tol:f}"
        self.best: dict[str, np.ndarray] | None = None
        self._judgement: Judgement | None = None

    def begin(self, batches: Batches) -> None:
        """Get ready for passes over the rows of ``batches``."""
        e, step = self.e, self.engine.step
        self.state.to(self.engine)
        batches.sampler.restart(e._random_state)  # type: ignore[union-attr]
        self._n = sum(batches.sizes)
        self._shares = np.array(batches.sizes, np.float64) / (self._n * self.engine.report_divisor)
        step.total_steps = step.t + e.max_iter * len(batches.sizes)
        self._start = time.perf_counter()
        e.n_iter_ = 0

    def end_epoch(self, costs: np.ndarray, judged: dict[str, float], callbacks: Sequence[Callback]) -> bool:
        """Take in the J of each batch and what ``judge`` says, tell whoever listens; True if it was the last epoch."""
        e, step = self.e, self.engine.step
        e.loss_ = float(np.dot(costs, self._shares))
        e.n_iter_ += 1
        e.t_ += self._n
        e.loss_curve_.append(e.loss_)
        if e.verbose:
            self._say(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        self._take(judged)
        seconds = time.perf_counter() - self._start
        tell(e, callbacks, Epoch(e.n_iter_, step.t, e.loss_, step.learning_rate, judged, seconds))
        if self._ends() or self.listeners.end() or self.incremental:
            return True
        if e.n_iter_ == e.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({e.max_iter}) reached and the optimization "
                "hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,  # the caller of advance's caller's caller: fit
            )
            return True
        return False

    def diverged(self, error: NonFiniteError) -> None:
        """An epoch that came to nothing, with ``early_stopping``: warn, since the best weights are kept."""
        e = self.e
        e.loss_, e.n_iter_ = math.nan, e.n_iter_ + 1
        e.loss_curve_.append(e.loss_)
        e.validation_scores_.append(math.nan)
        text = f"Training diverged in epoch {e.n_iter_} ({error}): the best weights are kept. Lower learning_rate_init."
        warnings.warn(text, ConvergenceWarning, stacklevel=5)

    def _say(self, text: str) -> None:
        say(self.e.verbose, self.title + text)

    def judge(self) -> dict[str, float]:
        """``cost`` and the metrics of the held-out rows; nothing without any."""
        if self.validation is None:
            return {}
        self._judgement = self._judgement or Judgement([self.validation])
        with self.engine.step.averaged():
            return self._judgement.run()[0]

    def _take(self, judged: dict[str, float]) -> None:
        """Count the epochs without progress: of the validation score with ``early_stopping``, else of the loss."""
        e = self.e
        if self.validation is not None:
            e.validation_loss_curve_.append(judged["cost"])
            for name in e.validation_metrics:
                e.validation_metric_curves_.setdefault(name, []).append(judged[name])
        if not e.early_stopping:
            e.best_loss_ = math.inf if e.best_loss_ is None else e.best_loss_  # an earlier fit may have stopped early
            e._no_improvement_count = e._no_improvement_count + 1 if e.loss_ > e.best_loss_ - e.tol else 0
            e.best_loss_ = e.loss_ if e.loss_ < e.best_loss_ else e.best_loss_
            return
        assert self.validation is not None
        score = judged[self.validation.score]
        if e.validation_scores_ is None:  # an earlier fit did not
            e.validation_scores_, e.best_validation_score_ = [], -math.inf
        e.validation_scores_.append(score)
        self._say(f"Validation score: {score:f}")
        e._no_improvement_count = e._no_improvement_count + 1 if score < e.best_validation_score_ + e.tol else 0
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            with self.engine.step.averaged():
                self.best = self.engine.net.parameters()

    def _ends(self) -> bool:
        """The end of an epoch: rates that change with it, and whether there has been no progress for too long."""
        e, state = self.e, self.state
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            self._set_rate(float(e.learning_rate_init) / (e.t_ + 1) ** e.power_t)
        if not e._no_improvement_count > e.n_iter_no_change:
            return False
        text = f"{self.watched} for {e.n_iter_no_change:d} consecutive epochs."
        if e.solver != "sgd" or e.learning_rate != "adaptive":
            self._say(f"{text} Stopping.")
            return True
        if state.learning_rate <= SMALLEST_RATE:
            self._say(f"{text} Learning rate too small. Stopping.")
            return True
        self._set_rate(state.learning_rate / 5.0)
        self._say(f"{text} Setting learning rate to {state.learning_rate:f}")
        e._no_improvement_count = 0
        return False

    def _set_rate(self, rate: float) -> None:
        self.state.learning_rate = rate
        self.engine.set_rate(rate)


Played = tuple[np.ndarray, dict[str, float]]
Play = Callable[[Sequence[StochasticFit], int], Sequence[Played]]
"""Trains an epoch (from 0) of each fit; J of each batch and what ``judge`` says then, for each."""


def advance(fits: Sequence[StochasticFit], play: Play) -> bool:
    """Epochs of fits that have begun, until each has ended; Ctrl-C ends all of them, with what they have: False."""
    interrupted = False
    try:
        with contextlib.ExitStack() as stack:
            callbacks = {
                id(fit): stack.enter_context(StartedCallbacks(list(fit.e.callbacks), fit.e.max_iter)) for fit in fits
            }
            epoch, going = 0, list(fits)
            while going:
                for fit in going:
                    fit.listeners.begin()
                begun, going = going, []
                for fit, (costs, judged) in zip(begun, play(begun, epoch), strict=True):
                    if not fit.end_epoch(costs, judged, callbacks[id(fit)]):
                        going.append(fit)
                epoch += 1
    except KeyboardInterrupt:
        interrupted = True
        warnings.warn("Training interrupted by user.", stacklevel=4)
    for fit in fits:
        fit.state.take(fit.engine)
    return not interrupted
