"""What makes a fit scikit-learn's: its initial weights, its order of the rows, its stopping rules, its callbacks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..errors import CheckpointError, NonFiniteError
from ..network.state import State, take, take_tensor, take_tensors
from ..training.callbacks import Epoch
from ..training.loop import FitState
from .fitted_network import FittedNetwork, OptimizerState, Parameters, device_state

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


# -- the order of the rows -------------------------------------------------------------------------------------------


class ReshufflingSampler:
    """The rows' order, shuffled again each epoch from where it was: ``sklearn.utils.shuffle`` of the indices.

    Where all rows of a batch have weight 0, at which scikit-learn stops with ZeroDivisionError, one of them is swapped
    for a row of the batch that has the most rows with a weight.

    Parameters
    ----------
    n : int
        Rows.
    sizes : sequence of int
        Of the batches.
    shuffle : bool
        False: the rows as they come.
    """

    def __init__(self, n: int, sizes: Sequence[int], shuffle: bool) -> None:
        self.n, self.sizes, self.shuffle = n, sizes, shuffle
        self.random_state: np.random.RandomState | None = None
        self.order = np.arange(n)
        self.counts: np.ndarray | None = None

    def set_weights(self, weights: np.ndarray | None) -> None:
        """Take the weights (n, 1) of the rows."""
        counts = None if weights is None else (weights[:, 0] != 0.0).astype(np.intp)
        self.counts = None if counts is None or counts.all() else counts

    def restart(self, random_state: np.random.RandomState) -> None:
        """A fit begins: rows as they come, shuffles from ``random_state``."""
        self.random_state, self.order = random_state, np.arange(self.n)

    def next_order(self) -> np.ndarray:
        """The order of the next epoch, int64, which the one after it overwrites."""
        if self.shuffle and self.random_state is not None:
            self.random_state.shuffle(self.order)  # swaps what it would swap in a range of numbers that selects from it
        if self.counts is not None:
            self._share(self.counts)
        return self.order

    def current_order(self) -> np.ndarray:
        """The order that was given last."""
        return self.order

    def _share(self, counts: np.ndarray) -> None:
        """Swap rows such that every batch has one that counts, if there are as many of them as batches."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        held = np.add.reduceat(counts[self.order], starts)
        for empty in np.flatnonzero(held == 0):
            rich = held.argmax()
            here = starts[empty]
            there = starts[rich] + counts[self.order[starts[rich] :]].argmax()
            self.order[[here, there]] = self.order[[there, here]]
            held[rich], held[empty] = held[rich] - 1, 1

    def state_dict(self) -> State:
        """The order of the epoch, (n,) int64, and where its generator stands; both are copies."""
        assert self.random_state is not None, "a fit has begun"
        return {"order": self.order.copy(), "random_state": random_state_dict(self.random_state)}

    def load_state_dict(self, state: Any) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        assert self.random_state is not None, "a fit has begun"
        order = take_tensor(state, "sampler.order", (self.n,), "int64")
        if not np.array_equal(np.sort(order), np.arange(self.n)):
            raise CheckpointError(f"sampler.order of the state is no order of {self.n} rows")
        load_random_state(self.random_state, take(state, "sampler.random_state", dict))
        self.order = order.copy()


def random_state_dict(random_state: np.random.RandomState) -> State:
    """Where a generator stands, as plain values."""
    where: Any = random_state.get_state(legacy=False)
    inner = where["state"]
    return {
        "generator": where["bit_generator"],
        "key": inner["key"].copy(),
        "position": int(inner["pos"]),
        "has_gauss": int(where["has_gauss"]),
        "gauss": float(where["gauss"]),
    }


def load_random_state(random_state: np.random.RandomState, state: Any) -> None:
    """Put a generator where :func:`random_state_dict` found one."""
    key = take_tensor(state, "random_state.key", (624,), "uint32")
    name, position = take(state, "random_state.generator", str), take(state, "random_state.position", int)
    has_gauss, gauss = take(state, "random_state.has_gauss", int), take(state, "random_state.gauss", float)
    if name != "MT19937" or position > len(key) or has_gauss > 1:
        raise CheckpointError("random_state of the state is none of NumPy's RandomState")
    random_state.set_state((name, key, position, has_gauss, gauss))


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
