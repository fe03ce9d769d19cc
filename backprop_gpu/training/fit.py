"""A fit under way: where it stands, as a tree from which it can be taken up again."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError
from ..network.state import ALLOW, State, check_layout, check_same, plain, take, take_tensor
from ..network.step import TrainingStep
from .batches import Batches
from .capacity import RoomyPass
from .early_stopping import Best, EarlyStopping
from .history import History

Rows = tuple[np.ndarray, np.ndarray]
_PART_BYTES, _PARTS = 2**20, 64  # what a fingerprint reads of an array at a time, and how often at most


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
    validation : (X, y) or None
    resumed : bool
        Whether it goes on from a state.
    costs : (k,)
        J of the first k batches of an epoch in whose middle the fit is taken up.
    """

    def __init__(
        self,
        step: TrainingStep,
        batches: Batches,
        history: History,
        rule: EarlyStopping | None,
        settings: State,
        validation: Rows | None = None,
    ) -> None:
        """``rule``: of early stopping; ``settings``: what else a fit depends on, ``epochs`` and ``micro_batch`` too."""
        self.step, self.batches, self.history, self.rule = step, batches, history, rule
        self.validation, self.resumed = validation, False
        more = {"weighted": batches.rows[2] is not None, "validation_rows": 0 if not validation else len(validation[0])}
        self.settings: State = plain({"early_stopping": None if rule is None else asdict(rule)} | settings | more)
        self.first_step, self.costs = step.t, np.zeros(0, step.net.dtype)
        self.best = Best(rule or EarlyStopping(patience=settings["epochs"]))
        self.passes = RoomyPass(step, batches, settings["micro_batch"], history.notes)

    @property
    def over(self) -> bool:
        """Whether there is no further epoch."""
        return self.batches.epoch >= self.settings["epochs"] or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether patience has run out."""
        return self.rule is not None and self.best.out_of_patience

    @functools.cached_property
    def data(self) -> State:
        """A fingerprint of each array of the data."""
        X, y, weights = self.batches.rows
        arrays: State = {"X": X, "y": y, "sample_weight": weights}
        arrays |= dict(zip(("validation_X", "validation_y"), self.validation or (None, None), strict=True))
        return {name: None if x is None else fingerprint(x, self.step.net.dtype) for name, x in arrays.items()}

    def state_dict(self) -> State:
        """See :meth:`Trainer.state_dict`."""
        return {
            "settings": plain(self.settings),
            "data": dict(self.data),
            "step": self.step.state_dict(),
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
        check_layout(self.step, step)
        there, here = take(state, "fit.settings", dict), self.settings
        if not allow_change:
            check_same(there, here, "", fix=ALLOW)
            self._check_data(take(state, "fit.data", dict))
        self.batches.load_state_dict(take(state, "fit.batches", dict))
        self.costs = take_tensor(state, "fit.costs", (self.batches.batch,), self.step.net.dtype)
        self.first_step, micro_batch = take(state, "fit.first_step", int), take(state, "fit.micro_batch", int)
        if there.get("micro_batch") == here["micro_batch"]:  # memory may have run out with what was asked for
            self.passes.take_at_most(micro_batch)
        self.best.load_state_dict(take(state, "fit.best", dict), self.step.net)
        self.history.load_state_dict(take(state, "fit.history", dict))
        if len(self.history.epochs) != self.batches.epoch:
            raise CheckpointError(
                f"history.epochs of the state are {len(self.history.epochs)}, before epoch {self.batches.epoch + 1}"
            )
        self.step.load_state_dict(step, allow_change=allow_change)
        self.resumed = True

    def _check_data(self, there: State) -> None:
        """That the data are those of a state.

        Raises
        ------
        ConfigError
            Names the first array that is not.
        """
        for name, here in self.data.items():
            if plain(there.get(name)) != here:
                raise ConfigError(
                    f"the state is of other data: {name} is not what it was; give the same rows again, or {ALLOW}"
                )


def fingerprint(rows: np.ndarray, dtype: str) -> str:
    """SHA-256 of rows as training reads them: of their shape, and of the values in the network's dtype.

    Of an array of more than 64 MiB the values are those of 64 parts of a MiB, evenly spread, the first and the last
    among them: a resume must not have to read a data set that is larger than memory.
    """
    kind = "int64" if rows.dtype == np.int64 else dtype
    sha = hashlib.sha256(f"{kind} {rows.shape}".encode())
    part = max(1, _PART_BYTES // max(1, rows[:1].size * np.dtype(kind).itemsize))
    starts = np.arange(0, len(rows), part)
    if len(starts) > _PARTS:
        starts = np.linspace(0, len(rows) - part, _PARTS).astype(np.int64)
    for start in starts:
        sha.update(np.ascontiguousarray(rows[start : start + part], kind).data)
    return sha.hexdigest()
