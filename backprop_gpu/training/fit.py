"""A fit under way: where it stands, as a tree from which it can be taken up again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from ..network.state import ALLOW, State, check_layout, check_same, plain, take, take_tensor
from .batches import Batches
from .capacity import RoomyPass
from .early_stopping import Best, EarlyStopping
from .history import History

if TYPE_CHECKING:
    from .trainer import Trainer


class Fit:
    """What a fit holds beside the network and its step.

    Attributes
    ----------
    batches : Batches
        They know which batch is the next.
    passes : RoomyPass
    best : Best
    history : History
    first_step : int
        Optimizer steps before the fit, which its schedule does not count from.
    costs : (k,)
        J of the first k batches of an epoch in whose middle the fit is taken up.
    """

    def __init__(self, trainer: Trainer, batches: Batches, history: History, n_validation: int) -> None:
        self.trainer, self.batches, self.history, self.n_validation = trainer, batches, history, n_validation
        self.first_step, self.costs = trainer.step.t, np.zeros(0, trainer.net.dtype)
        self.best = Best(trainer.early_stopping or EarlyStopping(patience=trainer.epochs))
        self.passes = RoomyPass(trainer.step, batches, trainer.micro_batch, history.notes)

    @property
    def over(self) -> bool:
        """Whether there is no further epoch."""
        return self.batches.epoch >= self.trainer.epochs or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether patience has run out."""
        return self.trainer.early_stopping is not None and self.best.out_of_patience

    def _settings(self) -> State:
        t = self.trainer
        rule = None if t.early_stopping is None else asdict(t.early_stopping)
        settings = {"epochs": t.epochs, "micro_batch": t.micro_batch, "early_stopping": rule, "metrics": t.metrics}
        rows = {"weighted": self.batches.rows[2] is not None, "validation_rows": self.n_validation}
        return {key: plain(value) for key, value in (settings | {"restore_best": t.restore_best} | rows).items()}

    def state_dict(self) -> State:
        """See :meth:`Trainer.state_dict`."""
        return {
            "settings": self._settings(),
            "step": self.trainer.step.state_dict(),
            "batches": self.batches.state_dict(),
            "costs": self.passes.costs(self.batches.batch),
            "micro_batch": self.passes.micro_batch,
            "first_step": self.first_step,
            "best": self.best.state_dict(),
            "history": self.history.state_dict(),
        }

    def load_state_dict(self, state: Any, allow_change: bool) -> None:
        """Go on from there: all is checked before the network is touched.

        Raises
        ------
        ConfigError, CheckpointError
            As ``TrainingStep.load_state_dict`` does.
        """
        step = take(state, "fit.step", dict)
        check_layout(self.trainer.step, step)
        there, here = take(state, "fit.settings", dict), self._settings()
        if not allow_change:
            check_same(there, here, "", fix=ALLOW)
        self.batches.load_state_dict(take(state, "fit.batches", dict))
        self.costs = take_tensor(state, "fit.costs", (self.batches.batch,), self.trainer.net.dtype)
        self.first_step, micro_batch = take(state, "fit.first_step", int), take(state, "fit.micro_batch", int)
        if there.get("micro_batch") == here["micro_batch"]:  # memory may have run out with what was asked for
            self.passes.take_at_most(micro_batch)
        self.best.load_state_dict(take(state, "fit.best", dict), self.trainer.net)
        self.history.load_state_dict(take(state, "fit.history", dict))
        if len(self.history.epochs) != self.batches.epoch:
            raise CheckpointError(
                f"history.epochs of the state are {len(self.history.epochs)}, before epoch {self.batches.epoch + 1}"
            )
        self.trainer.step.load_state_dict(step, allow_change=allow_change)
