"""The trainer: rows, a validation set and settings in; a trained network and the history of its epochs out."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backends.collective import SINGLE, Collective
from ..backends.locks import locked
from ..errors import CheckpointError, ConfigError, DataError, DivergedError, NonFiniteError, did_you_mean
from ..maths.optimizers import Optimizer
from ..maths.schedules import Schedule
from ..network.dense_net import DenseNet
from ..network.state import State
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets, check_weights
from .batches import DATA_ON
from .callbacks import Callback, Progress
from .checkpoint_file import state_in
from .class_weights import ClassWeight, check_class_weight, weights_by_class
from .early_stopping import COST, Best, EarlyStopping, whole
from .history import History
from .keywords import check_settings
from .loop import FitState, run_epochs
from .metrics import check_metrics, evaluate
from .placing import place_data
from .ranks import left_by_error
from .row_progress import with_rows
from .source_batches import is_source


class Trainer:
    """Fit a network to rows of examples.

    Parameters
    ----------
    net : DenseNet
        Trained in place.
    optimizer : str, dict or Optimizer, default "adam"
        With ``average`` (0.999, say) the moving average of the weights is what is validated, and what the network holds
        in the end; a further ``fit`` starts from there.
    schedule : str, dict or Schedule, default "constant"
    epochs : int, default 100
    batch_size : int, default 32
        Larger than the data works, with a note: every batch is then the whole data set. If the network has normalized
        layers it is the most that a batch has: they are then as equal as can be (1001 rows with 200: at most 167).
    micro_batch : int or None, default None
        Examples per pass; the gradient does not depend on it, unless layers are normalized, and memory does. Halved,
        with a note, where memory runs out.
    data_on : {"auto", "device", "host"}, default "auto"
        Where the data set lives: uploaded once, or each batch copied while the device computes, which allows a set
        larger than the device's memory (``open_rows`` reads one that is larger than the machine's). "auto" uploads a
        set that takes at most half of the memory that is available. Batches and results are the same.
    early_stopping : EarlyStopping, bool or None, default None
        True means ``EarlyStopping()``. Needs a validation set.
    restore_best : bool, default True
        With a validation set, end with the weights that were best on it.
    skip_non_finite : int, default 0
        Leave out up to so many batches of a fit whose step would leave NaN or infinity, each with a note; the next one
        ends the fit. 0: the first one does.
    metrics : str or sequence of str, default ()
        Computed on the validation set after each epoch; need one.
    units : callable, optional
        Values as the network gives them to those that metrics of a regression are about, where targets are scaled.
    shuffle : bool, default True
    seed : int, default 0
        Of the order of the examples.
    class_weight : mapping of int to float, "balanced" or None, default None
        How much examples of each class count in the cost, on validation rows too, but not in metrics; classes that the
        mapping leaves out count 1. "balanced": n / (k n_c), so that each of the k classes counts as much as another.
    callbacks : sequence of Callback, default ()
    progress : bool, default True
        A bar on standard error where that is a terminal, a line every few seconds elsewhere.
    ranks : Collective, default a single process
        ``backends.collective.launched()`` are the ranks that an MPI launcher started: they share each batch, and each
        has to call ``fit`` with the same arguments.
    exact_ranks : bool, default False
        Cut batches where ``native`` kernels give the bits of one process (``backends.collective.spans``).
    **settings
        Of :class:`~backprop_gpu.network.step.TrainingStep`: ``l1``, ``l2``, ``penalty_over``, ``clip_norm``, ``delta``,
        ``one_over_m``, ``reduction``.

    Attributes
    ----------
    history : History
        Of the last ``fit``; while it runs and after an error or Ctrl-C, the epochs that were finished.
    scored_too : (X, y) or None, default None
        Training rows that are scored after each epoch as the validation rows are, for ``Epoch.training``.

    Raises
    ------
    ConfigError
        For a setting out of its range.
    """

    def __init__(
        self,
        net: DenseNet,
        *,
        optimizer: str | dict[str, Any] | Optimizer = "adam",
        schedule: str | dict[str, Any] | Schedule = "constant",
        epochs: int = 100,
        batch_size: int = 32,
        micro_batch: int | None = None,
        data_on: str = "auto",
        early_stopping: EarlyStopping | bool | None = None,
        restore_best: bool = True,
        skip_non_finite: int = 0,
        metrics: Sequence[str] = (),
        units: Callable[[np.ndarray], np.ndarray] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        class_weight: ClassWeight = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        ranks: Collective = SINGLE,
        exact_ranks: bool = False,
        **settings: Any,
    ) -> None:
        for name, number in (("epochs", epochs), ("batch_size", batch_size), ("micro_batch", micro_batch)):
            if not whole(number, 1) and not (name == "micro_batch" and number is None):
                raise ConfigError(f"{name} must be a whole number from 1, got {number!r}")
        for name, number in (("seed", seed), ("skip_non_finite", skip_non_finite)):
            if not whole(number, 0):
                raise ConfigError(f"{name} must be a whole number from 0, got {number!r}")
        if data_on not in DATA_ON:
            raise ConfigError(
                f"data_on must be {' or '.join(DATA_ON)}, got {data_on!r}{did_you_mean(data_on, DATA_ON)}"
            )
        self.data_on = data_on
        self.net, self.epochs, self.batch_size = net, int(epochs), int(batch_size)
        self.micro_batch = None if micro_batch is None else int(micro_batch)
        if isinstance(early_stopping, bool):
            early_stopping = EarlyStopping() if early_stopping else None
        if not isinstance(early_stopping, EarlyStopping | None):
            raise ConfigError(f"early_stopping must be True or EarlyStopping(patience=20), got {early_stopping!r}")
        check_settings(settings, (Trainer, TrainingStep))
        self.early_stopping, self.restore_best = early_stopping, restore_best
        self.skip_non_finite = int(skip_non_finite)
        self.units: Callable[[np.ndarray], np.ndarray] = units or _unchanged
        watched = [early_stopping.metric] if early_stopping and early_stopping.metric != COST else []
        self.metrics = list(dict.fromkeys([*([metrics] if isinstance(metrics, str) else metrics), *watched]))
        check_metrics(self.metrics, task_of(net))
        self.shuffle, self.seed = shuffle, int(seed)
        self.class_weight = check_class_weight(class_weight, task_of(net))
        self._by_class: np.ndarray | None = None  # (K,), learnt in fit
        if not isinstance(callbacks, list | tuple) or not all(isinstance(each, Callback) for each in callbacks):
            raise ConfigError(f"callbacks must be a list of backprop_gpu.Callback objects, got {callbacks!r}")
        self.callbacks = [*callbacks, *([Progress()] if progress else [])]
        self.lock = net.lock
        self.exact_ranks = exact_ranks
        self.step = TrainingStep(net, optimizer, schedule=schedule, ranks=ranks, **settings)
        self.history = History()
        self.current: FitState | None = None  # the fit under way
        self._between = False  # whether it is between two steps
        self.scored_too: tuple[Any, ...] | None = None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        validation: tuple[Any, ...] | None = None,
        resume: State | str | os.PathLike[str] | None = None,
        allow_change: bool = False,
    ) -> History:
        """Train.

        Ctrl-C passes through as ``KeyboardInterrupt``; the finished epochs are in ``history``, and the network holds
        the best of them, or without a validation set what the last step made.

        Parameters
        ----------
        X : (n_samples, n_features)
            This and y may be a ``RowSource``, such as ``open_rows("X.npy")``, of which batches are read ahead.
        y : (n_samples,) or (n_samples, n_outputs)
        sample_weight : (n_samples,), optional
        validation : (X, y) or (X, y, sample_weight), optional
        resume : path or dict, optional
            A checkpoint of a fit of the same network, settings and data (:class:`~backprop_gpu.Checkpoint`), or a
            folder of them, of which the newest is taken; or what :meth:`state_dict` gave. It is gone on with: weights
            and history are in the end those of a fit that was never interrupted, bit for bit, or on another device or
            kernel set within rounding. A run that diverges falls back on weights of this state at the earliest.
        allow_change : bool, default False
            Take up a state of other settings, such as more epochs or another learning rate, or of other data; not of
            another network, optimizer, order or number of rows.

        Raises
        ------
        ShapeError, DataError
            For data that the network cannot take.
        ConfigError, CheckpointError
            For a state that does not fit, naming the field; the network is as it was.
        NonFiniteError
            If the cost or a parameter becomes NaN or infinite. The finished epochs are in ``history``, and the network
            holds the best of them, or without a validation set the weights of before the step that was not finite.
        """
        with left_by_error(self.step.ranks):
            self._check_validation(validation)
            rows = self._checked(X, y, sample_weight)
            held_out = None if validation is None else self._checked_validation(*validation)
            if isinstance(resume, str | os.PathLike):
                resume = state_in(resume)
            if isinstance(resume, dict) and "random_state" in resume and "step" not in resume:
                raise CheckpointError(
                    "resume is a checkpoint of an estimator; go on with the estimator's fit(resume=...)"
                )
            self.history = History()
            self.callbacks = with_rows(self.callbacks, rows)
            fit = self._fit_state(rows, held_out)
            if resume is not None:
                fit.load_state_dict(resume, allow_change)
            for callback in self.callbacks:
                callback.trainer = self
            if self.scored_too is not None:
                fit.training_scores = functools.partial(self._scores, *self.scored_too)
            with self._finishing(fit):
                run_epochs([fit], None if held_out is None else lambda _: [self._scores(*held_out)])
            return self.history

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows, targets and weights as batches take them."""
        net = self.net
        X = check_rows(X, net.sizes[0], dtype=net.dtype)
        Y = check_targets(y, net.loss, net.sizes[-1], X.shape[0])
        weights = None if sample_weight is None else check_weights(sample_weight, X.shape[0])
        if self.class_weight is not None and is_source((X, Y)):
            raise DataError("class_weight needs X and y in memory; give sample_weight, a number for each row")
        if self.class_weight is not None:
            given = None if weights is None else weights[:, 0]
            k = max(2, net.sizes[-1])
            self._by_class = weights_by_class(self.class_weight, class_indices(Y).astype(np.int64), k, given)
            weights = check_weights(self._cost_weights(Y, given), X.shape[0])
        if (
            weights is not None and not weights.all() and not is_source((X, Y))
        ):  # a row of weight 0 is no row: it must not fill up batches
            kept = weights[:, 0] > 0.0
            X, Y, weights = X[kept], Y[kept], weights[kept]
        return X, Y, weights

    def _cost_weights(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """How much each row counts in the cost, (n,): its own weight and that of its class."""
        if self._by_class is None:
            return sample_weight
        by_class = self._by_class[class_indices(y).astype(np.int64)]
        return by_class if sample_weight is None else by_class * sample_weight

    def _checked_validation(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[np.ndarray, ...]:
        X = check_rows(X, self.net.sizes[0], "validation X", self.net.dtype)
        rows = X, check_targets(y, self.net.loss, self.net.sizes[-1], X.shape[0])
        return rows if sample_weight is None else (*rows, check_weights(sample_weight, X.shape[0]))

    def _fit_state(self, rows: Any, validation: tuple[np.ndarray, ...] | None) -> FitState:
        """A fit to these rows that has not begun."""
        notes, step = self.history.notes, self.step
        step.release(scratch=False)  # the buffers of another fit's batches
        order: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": self.shuffle, "seed": self.seed}
        order |= {"ranks": step.ranks, "exact": self.exact_ranks}
        batches = place_data(self.net, rows, self.data_on, notes, **order)
        if self.batch_size > batches.n:
            notes.append(f"batch_size {self.batch_size} is larger than the {batches.n} examples: one batch each epoch")
        best = Best(self.early_stopping, self.epochs, restore=self.restore_best)
        names = ("epochs", "micro_batch", "metrics")
        return FitState(
            *(step, batches, best),
            epochs=self.epochs,
            settings=lambda: best.settings | {name: getattr(self, name) for name in names},
            validation=validation,
            history=self.history,
            callbacks=self.callbacks,
            micro_batch=self.micro_batch,
            between_steps=self._between_steps,
            skip_non_finite=self.skip_non_finite,
        )

    @contextlib.contextmanager
    def _finishing(self, fit: FitState) -> Iterator[None]:
        """Within it a fit is under way; however it ends, the network has the weights that it is to hold."""
        first, history = self.net.parameters(), self.history
        self.current = fit
        try:
            yield
            history.stopped = "early stopping" if fit.rule.stopped else "epochs"
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            self._finish(fit)
            raise
        except NonFiniteError as error:
            history.stopped = "diverged"
            fit.release()
            if not self._finish(fit) and not fit.outputs_are_finite():
                self.net.set_parameters(first)
                history.best_epoch = 0
            raise self._advised(error, min(fit.batches.epoch, len(history.epochs)) + 1) from None
        finally:
            self.current = None
            for callback in self.callbacks:
                callback.trainer = None
        self._finish(fit)

    @contextlib.contextmanager
    def _between_steps(self, fit: FitState) -> Iterator[None]:
        """Within it the state of the fit can be taken."""
        self._between = True
        try:
            yield
        finally:
            self._between = False

    def _check_validation(self, validation: Any) -> None:
        """That there is a validation set if one is needed, and that it is a pair."""
        if validation is not None and not (isinstance(validation, tuple | list) and len(validation) in (2, 3)):
            raise DataError(
                f"validation must be a pair of rows and targets, got {validation!r}: hold the last rows out, "
                "fit(X[:-100], y[:-100], validation=(X[-100:], y[-100:])), shuffled before if they are in an order"
            )
        if self.early_stopping is not None and validation is None:
            raise DataError("early stopping needs a validation set; pass validation=(X, y) or leave early_stopping out")
        if self.metrics and validation is None:
            raise DataError("metrics are computed on a validation set; pass validation=(X, y) or leave metrics out")

    def state_dict(self) -> State:
        """Where the fit stands, for ``fit(resume=...)``: to be called by a callback, in ``on_epoch`` or ``on_steps``.

        A tree of plain Python values and NumPy arrays, all copies: the step's state, the place of the next batch, the
        best weights so far, early stopping's count, the epochs that were finished. It names no device and holds no
        data.

        Raises
        ------
        ConfigError
            Anywhere else, where a fit is not between two steps, or there is none.
        """
        if self.current is None or not self._between:
            raise ConfigError("a fit's state is there between two steps: call state_dict in a callback's on_epoch")
        return self.current.state_dict()

    @locked
    def _finish(self, fit: FitState) -> bool:
        """Give the network the weights that it is to hold in the end; whether they are the best of a validation set."""
        fit.history.best_epoch = len(fit.history.epochs)
        self.step.adopt_average()
        if fit.rule.parameters is None:
            return False
        self.net.set_parameters(fit.rule.parameters)
        fit.history.best_epoch = fit.rule.epoch
        return True

    def _advised(self, error: NonFiniteError, epoch: int) -> NonFiniteError:
        """The error with what to change."""
        if not isinstance(error, DivergedError):
            return error
        clip = ", or set clip_norm" if self.step.clip_norm is None else ""
        fix = error.fix or f"lower optimizer.learning_rate (now {self.step.optimizer.learning_rate:g}){clip}"
        when = f"in epoch {epoch}"
        if error.from_start:
            scale = "scale inputs and targets (data.standardize, data.standardize_target), or use dtype float64"
            when, fix = "before the first step", error.fix or scale
        return DivergedError(f"{error} {when}; {fix}", error.from_start, error.found, fix)

    def _scores(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> dict[str, float]:
        with np.errstate(all="ignore"):  # as while training
            return self.evaluate(X, y, sample_weight)

    @locked
    def evaluate(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> dict[str, float]:
        """The cost (without penalty, with class weights) and this trainer's metrics (without them) on rows."""
        y, task = np.asarray(y), task_of(self.net)
        sample_weight = None if sample_weight is None else np.asarray(sample_weight).reshape(-1)
        result = {COST: self.net.cost(X, y, self._cost_weights(y, sample_weight))}
        if self.metrics:
            loss, AL = self.net.loss, self.net.predict_proba(X)
            if task == "regression":  # of quantiles the one in the middle is scored
                y, AL = (self.units(loss.point(v)) for v in (check_targets(y, loss, AL.shape[1], len(AL)), AL))
            result |= evaluate(self.metrics, task, class_indices(y) if task == "multiclass" else y, AL, sample_weight)
        return result


def task_of(net: DenseNet) -> str:
    """The task whose metrics a network's outputs are scored with: binary, multilabel, multiclass or regression."""
    if net.loss.labels == "binary":
        return "binary" if net.sizes[-1] == 1 else "multilabel"
    return "multiclass" if net.loss.labels == "classes" else "regression"


def class_indices(y: np.ndarray) -> np.ndarray:
    """Class labels (n_samples,) from labels (n_samples,), (n_samples, 1) or one-hot rows."""
    if y.ndim == 1:
        return y
    return y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values
