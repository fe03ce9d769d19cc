"""When to stop: the rule, and the best epoch so far with its weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, did_you_mean
from ..maths.registry import is_number
from ..network.dense_net import DenseNet
from ..network.state import State, take, take_tensors
from .callbacks import Epoch
from .metrics import METRICS

if TYPE_CHECKING:
    from .loop import FitState

COST = "cost"


def whole(number: Any, least: int) -> bool:
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
        if not whole(self.patience, 1) or not (is_number(self.min_delta) and 0.0 <= self.min_delta < math.inf):
            raise ConfigError("early_stopping: patience must be at least 1 and min_delta at least 0")

    @property
    def greater_is_better(self) -> bool:
        """Which way the metric improves."""
        return self.metric != COST and METRICS[self.metric].greater_is_better


class Best:
    """The best epoch so far, with its parameters kept on the host; a fit's stopping rule.

    Parameters
    ----------
    rule : EarlyStopping or None
        None: the fit ends with its last epoch, and the best is that of the least cost.
    epochs : int
        The most there may be.

    Attributes
    ----------
    epoch : int
        From 1; 0: there is none.
    score : float
        Of that epoch, by the rule's metric.
    parameters : dict or None
        As ``DenseNet.parameters`` gives them; None too if the best is not to be restored.
    out_of_patience : bool
        Whether as many epochs as the rule allows have passed since the best.
    """

    has_callbacks = False

    def __init__(self, rule: EarlyStopping | None, epochs: int, *, restore: bool = True) -> None:
        self.stops, self.rule, self.restores = rule is not None, rule or EarlyStopping(patience=epochs), restore
        self.epoch, self.out_of_patience = 0, False
        self.score = -math.inf if self.rule.greater_is_better else math.inf
        self.parameters: dict[str, np.ndarray] | None = None

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return self.stops and self.out_of_patience

    @property
    def settings(self) -> State:
        """What a state must have been made with."""
        return {"early_stopping": asdict(self.rule) if self.stops else None, "restore_best": self.restores}

    def begin_epoch(self) -> None:
        """There is nothing to do."""

    def end_epoch(self, epoch: Epoch, fit: FitState) -> None:
        """Take note of an epoch that was evaluated."""
        if not epoch.validation:
            return
        now = epoch.validation[self.rule.metric]
        if epoch.epoch == 1 and math.isnan(now) and math.isfinite(epoch.validation[COST]):
            fit.history.notes.append(
                f"early stopping watches {self.rule.metric}, which is not a number on this validation set: no epoch is "
                "the best. Hold out more rows (r2 needs two, roc_auc both classes), or watch cost"
            )
        gain = now - self.score if self.rule.greater_is_better else self.score - now
        if gain > self.rule.min_delta:
            self.score, self.epoch = now, epoch.epoch
            if self.restores:
                with fit.step.averaged():  # which was evaluated
                    self.parameters = fit.step.net.parameters()
        self.out_of_patience = epoch.epoch - self.epoch >= self.rule.patience

    def restore(self, net: DenseNet) -> None:
        """Put the best parameters back."""
        assert self.parameters is not None, "an epoch was evaluated"
        net.set_parameters(self.parameters)

    def state_dict(self) -> State:
        """What an exact resume needs, as plain values; of the parameters copies."""
        kept = None if self.parameters is None else {name: x.copy() for name, x in self.parameters.items()}
        return {
            "epoch": self.epoch,
            "score": float(self.score),
            "out_of_patience": self.out_of_patience,
            "parameters": kept,
        }

    def load_state_dict(self, state: State, fit: FitState) -> None:
        """Go on from what :meth:`state_dict` gave for this network.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        kept, net = take(state, "best.parameters", dict, optional=True), fit.step.net
        if kept is not None:
            shapes = {name: x.shape for name, x in net.parameters().items()}
            kept = {n: x.copy() for n, x in take_tensors(state, "best.parameters", shapes, net.dtype).items()}
        epoch, score = take(state, "best.epoch", int), float(take(state, "best.score", float))
        patience = take(state, "best.out_of_patience", bool)
        self.epoch, self.score, self.out_of_patience, self.parameters = epoch, score, patience, kept
