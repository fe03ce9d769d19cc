"""What makes a fit scikit-learn's: its initial weights, its stopping rules and learning rates, its callbacks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..errors import BackpropError, NonFiniteError
from ..maths.losses import Loss
from ..network.state import State, take, take_tensor, take_tensors
from ..training.callbacks import Epoch
from ..training.loop import FitState
from .fitted_network import (
    FittedNetwork,
    OptimizerState,
    Parameters,
    build_net,
    device_state,
    fitted_of,
    plan_for,
    sizes_of,
)
from .params import SKLEARN_START, invalid, is_logistic, per_layer

SMALLEST_RATE = 1e-6  # "adaptive" does not divide a rate any further


# -- initial weights -------------------------------------------------------------------------------------------------


def initial_parameters(
    random_state: np.random.RandomState, sizes: Sequence[int], logistic: Sequence[bool], dtype: str
) -> Parameters:
    """coefs (n_{l-1}, n_l) and intercepts (n_l,), from U(-a, a), a = sqrt(6 / (n_{l-1} + n_l)).

    2 stands in place of 6 for the logistic function (``logistic``, one for each layer; the output counts as the last
    hidden layer). Drawn in float64 whatever ``dtype``, weights before biases, layer by layer, as scikit-learn does.
    Source: Glorot & Bengio 2010, equation 16.
    """
    coefs, intercepts = [], []
    for k, n, small in zip(sizes, sizes[1:], logistic, strict=False):
        bound = math.sqrt((2.0 if small else 6.0) / (k + n))
        coefs.append(random_state.uniform(-bound, bound, (k, n)).astype(dtype, copy=False))
        intercepts.append(random_state.uniform(-bound, bound, n).astype(dtype, copy=False))
    return coefs, intercepts


def initialize(e: Any, sizes: tuple[int, ...], loss: Loss, dtype: str) -> None:
    """Fitted attributes of a first fit, and initial weights in scikit-learn's order of draws."""
    e.n_iter_, e.t_, e.n_layers_ = 0, 0, len(sizes)
    e.out_activation_ = {"sigmoid": "logistic", "exponential": "exp"}.get(loss.link_name, loss.link_name)
    n_hidden = len(sizes) - 2
    try:
        hidden = [is_logistic(a) for a in per_layer(e.activation, n_hidden)]
    except BackpropError as error:
        raise invalid(e, "activation", error) from error
    output = hidden[-1] if hidden else e.activation == "logistic"
    e.coefs_, e.intercepts_ = initial_parameters(e._random_state, sizes, [*hidden, output], dtype)
    vars(e).pop("norms_", None)
    named = e.initializer != SKLEARN_START or e.batch_ensemble > 1  # scikit-learn draws no output layer for each member
    if named or np.any(e.batch_norm):
        plan, seed = plan_for(e, sizes, loss, dtype, 1), draw_seed(e) if named else 0
        start = fitted_of(build_net(plan, seed, start_of(e) if named else "zeros").parameters())
        vars(e).update(start if named else {"norms_": start["norms_"]})
    e._seed = draw_seed(e) if np.any(e.dropout) else 0
    record = blank_record(e)
    for name in record:  # of an earlier fit
        vars(e).pop(name, None)
    if e.solver != "lbfgs":
        vars(e).update(record)


def start_of(e: Any) -> str:
    """The name of the initializer."""
    return "auto" if e.initializer == SKLEARN_START else e.initializer


def blank_record(e: Any) -> dict[str, Any]:
    """The attributes that a stochastic solver writes epoch by epoch, as they are before the first."""
    stopping = bool(e.early_stopping)
    return {
        "loss_curve_": [],
        "_no_improvement_count": 0,
        "validation_scores_": [] if stopping else None,
        "best_validation_score_": -math.inf if stopping else None,
        "best_loss_": None if stopping else math.inf,
        "_best": e._held(),
        "validation_loss_curve_": [],
        "validation_metric_curves_": {name: [] for name in e.validation_metrics},
    }


def check_sizes(e: Any, sizes: tuple[int, ...]) -> None:
    """That fitted weights are those of a network of these sizes."""
    fitted = sizes_of(e)[1:]
    if fitted[:-1] != sizes[1:-1]:
        reason = f"weights of {fitted[:-1]} were fitted, which warm_start and partial_fit continue; got {sizes[1:-1]}"
        raise invalid(e, "hidden_layer_sizes", reason)
    if fitted[-1] != sizes[-1]:
        raise ValueError(f"y must have {fitted[-1]} outputs, as in the fit that is continued; got {sizes[-1]}.")


def draw_seed(e: Any) -> int:
    """A seed of dropout's masks or of a named initializer."""
    return int(e._random_state.randint(0, 2**31 - 1))


# -- stopping rules and learning rates -------------------------------------------------------------------------------


class SklearnRule:
    """scikit-learn's stopping rules and learning rates; writes its attributes and its verbose lines, epoch by epoch.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its parameters are read, its fitted attributes written.
    network : FittedNetwork
    optimizer : OptimizerState
        Has the learning rate.
    callbacks : SklearnCallbacks
    incremental : bool
        ``partial_fit``: one epoch.
    title : str
        What ``verbose`` puts before a line.
    """

    attributes = (
        *("loss_", "n_iter_", "t_", "loss_curve_", "best_loss_", "_no_improvement_count", "validation_scores_"),
        *("best_validation_score_", "validation_loss_curve_", "validation_metric_curves_"),
    )
    watched = ""  # what verbose says has not improved; empty: the loss or the score by ``tol``

    def __init__(
        self,
        estimator: Any,
        network: FittedNetwork,
        optimizer: OptimizerState,
        callbacks: SklearnCallbacks,
        *,
        incremental: bool = False,
        title: str = "",
    ) -> None:
        self.estimator, self.network, self.optimizer, self.callbacks = estimator, network, optimizer, callbacks
        self.incremental, self.title = incremental, title
        self.stopped, self.epoch = False, 0
        self.parameters: dict[str, np.ndarray] | None = None
        self.has_callbacks = callbacks.root is not None

    def begin_epoch(self) -> None:
        """Tell scikit-learn's callbacks."""
        self.callbacks.begin_epoch()

    def end_epoch(self, epoch: Epoch, fit: FitState) -> None:
        """Write its loss and scores, and decide whether it was the last; scikit-learn's callbacks may say so too."""
        e = self.estimator
        e.loss_, e.n_iter_, e.t_ = epoch.cost, epoch.epoch, e.t_ + fit.batches.n
        e.loss_curve_.append(e.loss_)
        if e.verbose:
            self._say(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        if epoch.validation:
            e.validation_loss_curve_.append(epoch.validation["cost"])
            for name in e.validation_metrics:
                e.validation_metric_curves_.setdefault(name, []).append(epoch.validation[name])
        self._count(epoch, fit)
        self.stopped = self._ends() or self.callbacks.end_epoch() or self.incremental

    def _say(self, text: str) -> None:
        if self.estimator.verbose:
            print(self.title + text)

    def _count(self, epoch: Epoch, fit: FitState) -> None:
        """Count the epochs without progress: of the validation score with ``early_stopping``, else of the loss."""
        e = self.estimator
        if not e.early_stopping:
            e.best_loss_ = math.inf if e.best_loss_ is None else e.best_loss_  # an earlier fit may have stopped early
            e._no_improvement_count = e._no_improvement_count + 1 if e.loss_ > e.best_loss_ - e.tol else 0
            e.best_loss_ = e.loss_ if e.loss_ < e.best_loss_ else e.best_loss_
            return
        score = epoch.validation[self.network.score]
        if e.validation_scores_ is None:  # an earlier fit did not
            e.validation_scores_, e.best_validation_score_ = [], -math.inf
        e.validation_scores_.append(score)
        self._say(f"Validation score: {score:f}")
        e._no_improvement_count = e._no_improvement_count + 1 if score < e.best_validation_score_ + e.tol else 0
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            self.keep(epoch, fit)

    def keep(self, epoch: Epoch, fit: FitState) -> None:
        """The weights that were evaluated are the best so far."""
        self.epoch = epoch.epoch
        with fit.step.averaged():
            self.parameters = fit.step.net.parameters()

    def diverged(self, error: NonFiniteError) -> None:
        """An epoch came to nothing, with ``early_stopping``: warn, since the best weights are kept."""
        e = self.estimator
        e.loss_, e.n_iter_ = math.nan, e.n_iter_ + 1
        e.loss_curve_.append(e.loss_)
        e.validation_scores_.append(math.nan)
        self.stopped = True
        text = f"Training diverged in epoch {e.n_iter_} ({error}): the best weights are kept. Lower learning_rate_init."
        warnings.warn(text, ConvergenceWarning, stacklevel=6)

    def _ends(self) -> bool:
        """Change the learning rate if it is time to; whether there has been no progress for too long."""
        e, rate = self.estimator, self.optimizer.learning_rate
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            self._set_rate(float(e.learning_rate_init) / (e.t_ + 1) ** e.power_t)
        if not e._no_improvement_count > e.n_iter_no_change:
            return False
        loss_or_score = "Validation score" if e.early_stopping else "Training loss"
        watched = self.watched or f"{loss_or_score} did not improve more than tol={e.tol:f}"
        text = f"{watched} for {e.n_iter_no_change:d} consecutive epochs."
        if e.solver != "sgd" or e.learning_rate != "adaptive":
            self._say(f"{text} Stopping.")
            return True
        if rate <= SMALLEST_RATE:
            self._say(f"{text} Learning rate too small. Stopping.")
            return True
        self._set_rate(rate / 5.0)
        self._say(f"{text} Setting learning rate to {rate / 5.0:f}")
        e._no_improvement_count = 0
        return False

    def _set_rate(self, rate: float) -> None:
        self.optimizer.learning_rate = rate
        self.network.set_rate(rate)

    def state_dict(self) -> State:
        """The attributes of the epochs so far, the learning rate, and the best weights; all copies."""
        found = {name: vars(self.estimator).get(name) for name in self.attributes}
        kept = None if self.parameters is None else {name: x.copy() for name, x in self.parameters.items()}
        return {
            "attributes": {name: _as_arrays(value) for name, value in found.items()},
            "learning_rate": self.optimizer.learning_rate,
            "stopped": self.stopped,
            "epoch": self.epoch,
            "parameters": kept,
        }

    def load_state_dict(self, state: State, fit: FitState) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        net, kept = fit.step.net, take(state, "best.parameters", dict, optional=True)
        if kept is not None:
            shapes = {name: x.shape for name, x in net.parameters().items()}
            kept = {n: x.copy() for n, x in take_tensors(state, "best.parameters", shapes, net.dtype).items()}
        attributes, rate = take(state, "best.attributes", dict), float(take(state, "best.learning_rate", float))
        stopped, epoch = take(state, "best.stopped", bool), take(state, "best.epoch", int)
        found = {name: _as_lists(attributes, "attributes", name) for name in self.attributes}
        self.stopped, self.epoch, self.parameters = stopped, epoch, kept
        vars(self.estimator).update(found)
        if self.estimator.solver == "sgd" and self.estimator.learning_rate in ("invscaling", "adaptive"):
            self._set_rate(rate)


def _as_arrays(value: Any) -> Any:
    """An attribute with its lists of numbers as arrays."""
    if isinstance(value, dict):
        return {name: _as_arrays(curve) for name, curve in value.items()}
    return np.array(value, np.float64) if isinstance(value, list) else value


def _as_lists(state: State, where: str, name: str) -> Any:
    """The inverse of :func:`_as_arrays`, for the attribute ``name`` of a state."""
    value = state.get(name)
    if isinstance(value, dict):
        return {key: _as_lists(value, f"{where}.{name}", key) for key in value}
    if isinstance(value, np.ndarray):
        return take_tensor(state, f"{where}.{name}", (value.size,), "float64").tolist()
    counts = name in ("n_iter_", "t_", "_no_improvement_count")
    return take(state, f"{where}.{name}", int if counts else float, optional=not counts)


# -- callbacks -------------------------------------------------------------------------------------------------------


class SklearnCallbacks:
    """scikit-learn's callbacks (``sklearn.callback``) that were set on an estimator, or propagated to it, if any.

    There is one task for the fit, and one for each epoch.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, weights: Any, max_subtasks: int) -> None:
        self.lock = device_state(estimator).lock
        self.root: Any = None
        self.context: Any = None
        if not getattr(estimator, "_skl_callbacks", None):
            return
        metadata = None if weights is None else {"sample_weight": weights}
        self.given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self.attributes: Callable[[], dict[str, Any]] = estimator._reconstruction
        self.root = estimator._init_callback_context(max_subtasks=max_subtasks)
        self.root.call_on_fit_task_begin(**self.given)

    def begin_epoch(self) -> None:
        """An epoch begins."""
        if self.root is not None:
            self.context = self.root.subcontext(task_name="epoch")
            with self.lock.released():
                self.context.call_on_fit_task_begin(**self.given)

    def end_epoch(self) -> bool:
        """An epoch has ended; True if a callback asks to stop."""
        if self.context is None:
            return False
        with self.lock.released():
            return bool(self.context.call_on_fit_task_end(**self.given, reconstruction_attributes=self.attributes))

    def end(self) -> None:
        """The fit has ended."""
        if self.root is not None:
            with self.lock.released():
                self.root.call_on_fit_task_end(**self.given, reconstruction_attributes=self.attributes)
