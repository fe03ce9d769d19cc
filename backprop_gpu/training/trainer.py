"""The training loop: epochs over batches, validation, early stopping, the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._notebook import html_table
from ..backends.locks import in_turn
from ..errors import ConfigError, DataError, DivergedError, NonFiniteError, did_you_mean
from ..maths.optimizers import Optimizer
from ..maths.registry import is_number
from ..maths.schedules import Schedule
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets, check_weights
from .batches import Batches
from .callbacks import Callback, Epoch, Progress, Running
from .capacity import DATA_ON, RoomyPass, place_data
from .keywords import check_settings
from .metrics import METRICS, check_metrics, evaluate

COST = "cost"
SHOWN = 10  # epochs at either end of a history in a notebook


def _whole(number: Any, least: int) -> bool:
    """Whether a setting is a whole number, of Python or NumPy, from ``least``."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and bool(number >= least)


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when ``metric`` on the validation set has not improved by ``min_delta`` for ``patience`` epochs.

    Attributes
    ----------
    metric : str, default "cost"
        ``"cost"`` or a name of ``training.metrics``; it knows which way is better.
    patience : int, default 20
    min_delta : float, default 0.0
    """

    metric: str = COST
    patience: int = 20
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.metric != COST and self.metric not in METRICS:
            hint = did_you_mean(self.metric, [COST, *METRICS])
            raise ConfigError(
                f"early_stopping: unknown metric {self.metric!r}{hint}; known: cost, {', '.join(METRICS)}"
            )
        if not _whole(self.patience, 1) or not (is_number(self.min_delta) and 0.0 <= self.min_delta < math.inf):
            raise ConfigError("early_stopping: patience must be at least 1 and min_delta at least 0")

    @property
    def greater_is_better(self) -> bool:
        """Which way the metric improves."""
        return self.metric != COST and METRICS[self.metric].greater_is_better


@dataclass
class History:
    """The epochs of a run.

    Attributes
    ----------
    epochs : list of Epoch
    best_epoch : int
        The epoch whose weights the network holds now: the best on the validation set, or the last.
    stopped : str
        Why it ended: ``"epochs"``, ``"early stopping"``, ``"interrupted"`` or ``"diverged"``.
    notes : list of str
        What a user should know, such as a batch size larger than the data.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "epochs"
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        last = f", cost={self.epochs[-1].cost:.6g}" if self.epochs else ""
        judged = self.epochs[-1].validation if self.epochs else {}
        validation = "".join(f", validation {name}={value:.6g}" for name, value in judged.items())
        return (
            f"<History: {len(self.epochs)} epochs, best {self.best_epoch}, stopped by {self.stopped}{last}{validation}>"
        )

    def _repr_html_(self) -> str:
        """The first epochs and the last ones."""
        names = list(self.epochs[-1].validation) if self.epochs else []
        rows: list[list[Any]] = [
            [e.epoch, e.step, e.cost, e.learning_rate, *(e.validation.get(name) for name in names)] for e in self.epochs
        ]
        if len(rows) > 2 * SHOWN:
            rows[SHOWN:-SHOWN] = [["..."] * (4 + len(names))]
        header = ("epoch", "step", "cost", "learning rate", *(f"validation {name}" for name in names))
        return html_table(repr(self).strip("<>"), header, rows)


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
        larger than the device's memory or (as a ``numpy.memmap``) than the machine's. "auto" uploads a set that takes
        at most half of the memory that is available. Batches and results are the same.
    early_stopping : EarlyStopping, bool or None, default None
        True means ``EarlyStopping()``. Needs a validation set.
    restore_best : bool, default True
        With a validation set, end with the weights that were best on it.
    metrics : sequence of str, default ()
        Computed on the validation set after each epoch; need one.
    units : callable, optional
        Values as the network gives them to those that metrics of a regression are about, where targets are scaled.
    shuffle : bool, default True
    seed : int, default 0
        Of the order of the examples.
    callbacks : sequence of Callback, default ()
    progress : bool, default True
        A bar on standard error where that is a terminal, a line every few seconds elsewhere.
    **settings
        Of :class:`~backprop_gpu.network.step.TrainingStep`: ``l1``, ``l2``, ``penalty_over``, ``clip_norm``, ``delta``,
        ``one_over_m``, ``reduction``.

    Attributes
    ----------
    history : History
        Of the last ``fit``; while it runs and after an error or Ctrl-C, the epochs that were finished.

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
        metrics: Sequence[str] = (),
        units: Callable[[np.ndarray], np.ndarray] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        **settings: Any,
    ) -> None:
        for name, number in (("epochs", epochs), ("batch_size", batch_size), ("micro_batch", micro_batch)):
            if not _whole(number, 1) and not (name == "micro_batch" and number is None):
                raise ConfigError(f"{name} must be a whole number from 1, got {number!r}")
        if not _whole(seed, 0):
            raise ConfigError(f"seed must be a whole number from 0, got {seed!r}")
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
        self.units: Callable[[np.ndarray], np.ndarray] = units or _unchanged
        watched = [early_stopping.metric] if early_stopping and early_stopping.metric != COST else []
        self.metrics = list(dict.fromkeys([*metrics, *watched]))
        check_metrics(self.metrics, task_of(net))
        self.shuffle, self.seed = shuffle, int(seed)
        self.callbacks = [*callbacks, *([Progress()] if progress else [])]
        self.turns = net.turns
        self.step = TrainingStep(net, optimizer, schedule=schedule, **settings)
        self.history = History()

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        validation: tuple[Any, Any] | None = None,
    ) -> History:
        """Train.

        Ctrl-C passes through as ``KeyboardInterrupt``; the finished epochs are in ``history``, and the network holds
        the best of them, or without a validation set what the last step made.

        Parameters
        ----------
        X : (n_samples, n_features)
        y : (n_samples,) or (n_samples, n_outputs)
        sample_weight : (n_samples,), optional
        validation : (X, y), optional

        Raises
        ------
        ShapeError, DataError
            For data that the network cannot take.
        NonFiniteError
            If the cost or a parameter becomes NaN or infinite. The finished epochs are in ``history``, and the network
            holds the best of them, or without a validation set the weights with which the last epoch began.
        """
        net = self.net
        if validation is not None and not (isinstance(validation, tuple | list) and len(validation) == 2):
            raise DataError(
                f"validation must be a pair of rows and targets, got {validation!r}: hold the last rows out, "
                "fit(X[:-100], y[:-100], validation=(X[-100:], y[-100:])), shuffled before if they are in an order"
            )
        if self.early_stopping is not None and validation is None:
            raise DataError("early stopping needs a validation set; pass validation=(X, y) or leave early_stopping out")
        if self.metrics and validation is None:
            raise DataError("metrics are computed on a validation set; pass validation=(X, y) or leave metrics out")
        X = check_rows(X, net.sizes[0], dtype=net.dtype)
        Y = check_targets(y, net.loss, net.sizes[-1], X.shape[0])
        weights = None if sample_weight is None else check_weights(sample_weight, X.shape[0])
        if weights is not None and not weights.all():  # a row of weight 0 is no row: it must not fill up batches
            kept = weights[:, 0] > 0.0
            X, Y, weights = X[kept], Y[kept], weights[kept]
        if validation is not None:
            X_val = check_rows(validation[0], net.sizes[0], "validation X", net.dtype)
            validation = (X_val, check_targets(validation[1], net.loss, net.sizes[-1], X_val.shape[0]))
        history = self.history = History()
        self.step.release(scratch=False)  # the buffers of another fit's batches
        order = {"batch_size": self.batch_size, "shuffle": self.shuffle, "seed": self.seed}
        batches = place_data(self.step, (X, Y, weights), self.data_on, history.notes, **order)
        if self.batch_size > X.shape[0]:
            history.notes.append(
                f"batch_size {self.batch_size} is larger than the {X.shape[0]} examples: one batch each epoch"
            )
        self.step.total_steps = self.step.t + self.epochs * len(batches)
        self._run(batches, validation, history)
        return history

    def _run(self, batches: Batches, validation: tuple[np.ndarray, np.ndarray] | None, history: History) -> None:
        best, first = _Best(self.early_stopping or EarlyStopping(patience=self.epochs)), self.net.parameters()
        start = time.perf_counter()
        epochs = RoomyPass(self.step, batches, self.micro_batch, history.notes)
        try:
            with Running(self.callbacks, self.epochs) as callbacks:
                for number in range(1, self.epochs + 1):
                    cost = self._epoch(epochs, number)
                    epoch = Epoch(number, self.step.t, cost, self.step.learning_rate)
                    out_of_patience = False
                    if validation is not None:
                        with self.step.averaged(), np.errstate(all="ignore"):  # as while training
                            epoch.validation = self.evaluate(*validation)
                            out_of_patience = best.done(epoch, self.net)
                        self._note_of_no_number(epoch, history)
                    if number == self.epochs and not (self.restore_best and best.parameters):
                        epochs.close()  # so that looking at outputs takes no more memory than training did
                        self._check_outputs(epochs, number)
                    epoch.seconds = time.perf_counter() - start
                    history.epochs.append(epoch)
                    for callback in callbacks:
                        callback.on_epoch(epoch)
                    if out_of_patience and self.early_stopping is not None:
                        history.stopped = "early stopping"
                        break
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            self._finish(best, history)
            raise
        except NonFiniteError:
            history.stopped = "diverged"
            epochs.close()
            if not self._finish(best, history) and not epochs.outputs_are_finite():
                self.net.set_parameters(first)
                history.best_epoch = 0
            raise
        self._finish(best, history)

    def _note_of_no_number(self, epoch: Epoch, history: History) -> None:
        """Say after the first epoch that the validation set cannot be judged by what early stopping watches."""
        metric = COST if self.early_stopping is None else self.early_stopping.metric
        if epoch.epoch == 1 and math.isnan(epoch.validation[metric]) and math.isfinite(epoch.validation[COST]):
            history.notes.append(
                f"early stopping watches {metric}, which is not a number on this validation set: no epoch is the best. "
                "Hold out more rows (r2 needs two, roc_auc both classes), or watch cost"
            )

    @in_turn
    def _finish(self, best: _Best, history: History) -> bool:
        """Give the network the weights that it is to hold in the end; whether they are the best of a validation set."""
        history.best_epoch = len(history.epochs)
        self.step.adopt_average()
        if not self.restore_best or best.parameters is None:
            return False
        best.restore(self.net)
        history.best_epoch = best.epoch
        return True

    def _check_outputs(self, epochs: RoomyPass, number: int) -> None:
        """That what the last step made, which no cost has seen, gives numbers; the epoch's first weights did."""
        with self.step.averaged():
            if epochs.outputs_are_finite():
                return
        self.step.recover()
        raise NonFiniteError(f"the outputs became infinite or NaN in epoch {number}; {self._cure()}")

    def _cure(self) -> str:
        clip = ", or set clip_norm" if self.step.clip_norm is None else ""
        return f"lower optimizer.learning_rate (now {self.step.optimizer.learning_rate:g}){clip}"

    def _epoch(self, epochs: RoomyPass, number: int) -> float:
        """One pass over the data; returns the mean of J over its examples."""
        try:
            costs = epochs.run(number - 1)
        except DivergedError as error:
            if error.from_start:
                cure = "scale inputs and targets (data.standardize, data.standardize_target), or use dtype float64"
                raise NonFiniteError(f"{error} before the first step; {cure}") from None
            raise NonFiniteError(f"{error} in epoch {number}; {self._cure()}") from None
        return float(np.dot(costs, epochs.batches.sizes) / epochs.batches.n)

    @in_turn
    def evaluate(self, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """The cost (without penalty) and this trainer's metrics on rows."""
        y, task = np.asarray(y), task_of(self.net)
        result = {COST: self.net.cost(X, y)}
        if self.metrics:
            loss, AL = self.net.loss, self.net.predict_proba(X)
            if task == "regression":  # quantiles are judged by the one in the middle
                y, AL = (self.units(loss.point(v)) for v in (check_targets(y, loss, AL.shape[1], len(AL)), AL))
            result |= evaluate(self.metrics, task, class_indices(y) if task == "multiclass" else y, AL)
        return result


def task_of(net: DenseNet) -> str:
    """The task whose metrics a network's outputs can be judged by: binary, multilabel, multiclass or regression."""
    if net.loss.labels == "binary":
        return "binary" if net.sizes[-1] == 1 else "multilabel"
    return "multiclass" if net.loss.labels == "classes" else "regression"


def class_indices(y: np.ndarray) -> np.ndarray:
    """Class labels (n_samples,) from labels (n_samples,), (n_samples, 1) or one-hot rows."""
    if y.ndim == 1:
        return y
    return y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)


class _Best:
    """The best epoch so far, with its parameters kept on the host."""

    def __init__(self, rule: EarlyStopping) -> None:
        self.rule, self.epoch = rule, 0
        self.score = -math.inf if rule.greater_is_better else math.inf
        self.parameters: dict[str, np.ndarray] | None = None

    def done(self, epoch: Epoch, net: DenseNet) -> bool:
        """Take note of an epoch; True when patience has run out."""
        now = epoch.validation[self.rule.metric]
        gain = now - self.score if self.rule.greater_is_better else self.score - now
        if gain > self.rule.min_delta:
            self.score, self.epoch, self.parameters = now, epoch.epoch, net.parameters()
        return epoch.epoch - self.epoch >= self.rule.patience

    def restore(self, net: DenseNet) -> None:
        """Put the best parameters back."""
        assert self.parameters is not None, "done was called"
        net.set_parameters(self.parameters)


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values
