"""The fit loop: epochs over batches, until a stopping rule ends the fit. ``Trainer`` and the estimators share it.

They differ in what they pass in: batches and their order, the stopping rule, what evaluates the validation set, and
callbacks. A fit between two steps is a tree of plain values (``FitState.state_dict``) from which it can be resumed.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError, ConfigError, DivergedError
from ..network.state import ALLOW, State, check_layout, check_same, plain, take, take_tensor
from ..network.step import TrainingStep
from .batches import Batches
from .callbacks import Callback, Epoch, StartedCallbacks
from .epoch import EpochProgram, JointEpoch
from .evaluation import Evaluate, scores_of
from .fingerprint import fingerprint
from .history import History
from .micro_batch import CONFIGURATION, AutoMicroBatch, SettingNames
from .non_finite import OnNonFinite
from .pauses import pauses_of
from .ranks import agree_at_the_start, agree_on_weights
from .spikes import note_of_spike

ROWS_CHECKED = 32  # whose outputs show that the weights of the last step are of use


class StoppingRule(Protocol):
    """Decides after each epoch whether the fit ends, and keeps the best weights.

    Attributes
    ----------
    epoch : int
        The best so far, from 1; 0: there is none.
    parameters : dict or None
        Its weights, on the host, as ``DenseNet.parameters`` gives them.
    has_callbacks : bool
        Whether others see the network in ``end_epoch``.
    """

    has_callbacks: bool
    epoch: int
    parameters: dict[str, np.ndarray] | None

    @property
    def stopped(self) -> bool:
        """Whether the fit ends before its last epoch."""

    def begin_epoch(self) -> None:
        """An epoch begins."""

    def end_epoch(self, epoch: Epoch, fit: FitState) -> None:
        """An epoch has ended: its cost and its validation are known."""

    def state_dict(self) -> State:
        """What an exact resume needs."""

    def load_state_dict(self, state: State, fit: FitState) -> None:
        """Go on from what :meth:`state_dict` gave."""


class FitState:
    """A fit under way: all that it consists of beside the network.

    Parameters
    ----------
    step : TrainingStep
        It is trained in place.
    batches : Batches
        They know which batch is the next.
    rule : StoppingRule
    epochs : int
        The most there may be.
    settings : callable
        Gives what else the fit depends on: a state of other settings is refused.
    validation : (X, Y) or (X, Y, weights), optional
        The validation set.
    history : History, optional
        Empty; it is filled, and a jump of the cost is noted. Left out, the fit has one that holds epochs for callbacks
        alone.
    callbacks : sequence of Callback
    micro_batch : int, optional
        The most examples of a pass.
    names : SettingNames
    between_steps : callable
        Gives, for this fit, the context in which callbacks are called.
    checks_outputs : bool, default True
        Whether the last weights, which no cost has seen, must give finite outputs.
    skip_non_finite : int, default 0
        See ``Trainer``.

    Attributes
    ----------
    first_step : int
        Optimizer steps before the fit, which its schedule does not count from.
    resumed : bool
        Whether it goes on from a state.
    training_scores : callable or None
        Scores of training rows after each epoch, for ``Epoch.training``.
    costs : (k,)
        J of the first k batches of the epoch in whose middle the fit is resumed.
    """

    def __init__(
        self,
        step: TrainingStep,
        batches: Batches,
        rule: StoppingRule,
        *,
        epochs: int,
        settings: Callable[[], State],
        validation: tuple[Any, ...] | None = None,
        history: History | None = None,
        callbacks: Sequence[Callback] = (),
        micro_batch: int | None = None,
        names: SettingNames = CONFIGURATION,
        between_steps: Callable[[FitState], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        checks_outputs: bool = True,
        skip_non_finite: int = 0,
    ) -> None:
        self.step, self.batches, self.rule, self.epochs = step, batches, rule, epochs
        self._settings, self.validation, self.resumed = settings, validation, False
        self.callbacks, self.checks_outputs, self._between_steps = list(callbacks), checks_outputs, between_steps
        self.history, self._start = history or History(), time.perf_counter()
        self._reported = history is not None
        self._non_finite = OnNonFinite(skip_non_finite, self.history.notes, self.callbacks)
        self.program: EpochProgram | None = None
        self.training_scores: Callable[[], dict[str, float]] | None = None
        self.micro_batch = AutoMicroBatch(step, batches, micro_batch, names)
        self.first_step, self.costs = step.t, np.zeros(0, step.net.dtype)
        self._sizes = np.array(batches.sizes, np.float64)

    @property
    def over(self) -> bool:
        """Whether there is no further epoch."""
        return self.rule.stopped or self.batches.epoch >= self.epochs

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The fit begins, or goes on, now."""
        self.step.total_steps = self.first_step + self.epochs * len(self.batches)
        resumed = self.history.epochs
        self._start = time.perf_counter() - (resumed[-1].seconds if resumed else 0.0)
        if self.step.ranks.size > 1:
            agree_at_the_start(self)
        if resumed:
            self.call(self.callbacks, lambda c: c.on_resume(resumed))

    def prepared(self) -> EpochProgram:
        """The programs of an epoch; their buffers are made at first use."""
        if self.program is None:
            self.step.rewind(len(self.costs))
            self.program = EpochProgram(self.step, self.batches, self.micro_batch.size, self._non_finite)
            self.program.finite.thorough |= bool(self.callbacks)
        return self.program

    def evaluated(self, costs: np.ndarray, validation: dict[str, float], training: dict[str, float]) -> Epoch:
        """An epoch has ended with J of each batch, and with these scores; tells the stopping rule."""
        if len(self.costs):
            self.costs = self.costs[:0]
        if self.step.ranks.size > 1:
            agree_on_weights(self.step)
        if self._reported:
            note_of_spike(self.history, costs, self.batches.epoch, self.step.t - len(costs))
        cost = float(costs.dot(self._sizes)) / (self.batches.n * self.step.report_divisor)
        epoch = Epoch(self.batches.epoch, self.step.t, cost, 0.0, validation, training=training)
        self.rule.end_epoch(epoch, self)  # which may change the rate
        return epoch

    def end_epoch(self, epoch: Epoch) -> None:
        """Check the weights if it was the last, and call the callbacks."""
        if self.over:
            if self.program is not None:
                self.program.finite.finish()
            if self.checks_outputs and self.rule.parameters is None:
                self.release()  # so that looking at outputs takes no more memory than training did
                self._check_outputs()
        if self._reported or self.callbacks:
            epoch.learning_rate, epoch.seconds = self.step.learning_rate, time.perf_counter() - self._start
            self.history.epochs.append(epoch)
        if self.callbacks:
            self.call(self.callbacks, lambda c: c.on_epoch(epoch))

    def call(self, callbacks: Sequence[Callback], what: Callable[[Callback], None]) -> None:
        """Call callbacks between two steps, when the state of the fit can be taken."""
        with self._between_steps(self):
            for callback in callbacks:
                what(callback)

    def call_before_evaluation(self) -> None:
        """Call ``on_steps`` behind the last step of an epoch that has not been evaluated yet, and not to the end."""
        batches = self.batches
        batches.epoch, batches.batch = batches.epoch - 1, len(batches)
        try:
            self.call(self.callbacks, lambda c: c.on_steps(self.step.t))
        finally:
            batches.taken(batches.epoch, len(batches))

    # -- memory and divergence ---------------------------------------------------------------------------------------

    def release(self) -> None:
        """Free the buffers of an epoch."""
        self.program = None
        self.step.release(scratch=False)

    def abort(self) -> None:
        """The fit is interrupted: leave nothing that is not finite."""
        if self.program is not None:
            self.program.finite.abort()

    def halve(self, first: bool) -> None:
        """Memory ran out: take half as many examples at a time; ``first``: no epoch has been run by these programs."""
        moved = not first or self.step.batches_begun > len(self.costs) + 1
        if self.program is not None and not moved:
            self.program.finite.undo()  # the first step may have ended in the middle of its update
        self.program = None
        self.micro_batch.halve(moved)

    def outputs_are_finite(self) -> bool:
        """Whether the network's weights, which may be finite and yet useless, give numbers for the first rows."""
        X = self.batches.first_rows(min(ROWS_CHECKED, self.micro_batch.size))
        with np.errstate(all="ignore"):
            return bool(np.isfinite(self.step.net.predict_proba(X)).all())

    def _check_outputs(self) -> None:
        with self.step.averaged():
            finite = self.outputs_are_finite()
        if not finite:
            self.step.recover()
            raise DivergedError("the outputs became infinite or NaN", from_start=False)

    # -- state -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def settings(self) -> State:
        """What a state must have been made with, as plain values."""
        weighted, validation_rows = self.batches.rows[2] is not None, len(self.validation[1]) if self.validation else 0
        return dict(plain(self._settings() | {"weighted": weighted, "validation_rows": validation_rows}))

    @functools.cached_property
    def data(self) -> State:
        """A fingerprint of each array of the data."""
        X, y, weights = self.batches.rows
        arrays: State = {"X": X, "y": y, "sample_weight": weights}
        held_out = dict(zip(("validation_X", "validation_y", "validation_weight"), self.validation or (), strict=False))
        arrays |= {"validation_X": None, "validation_y": None} | held_out
        return {name: None if x is None else fingerprint(x, self.step.net.dtype) for name, x in arrays.items()}

    def state_dict(self) -> State:
        """See :meth:`Trainer.state_dict`."""
        costs = self.costs if self.program is None else self.program.costs(self.batches.batch)
        return {
            "settings": plain(self.settings),
            "data": dict(self.data),
            "step": self.step.state_dict(),
            "batches": self.batches.state_dict(),
            "costs": costs.copy(),
            "micro_batch": self.micro_batch.size,
            "first_step": self.first_step,
            "best": self.rule.state_dict(),
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
        batches = take(state, "fit.batches", dict)
        there, here = take(state, "fit.settings", dict), self.settings
        if (rows := take(batches, "batches.rows", int)) != self.batches.n:
            anew = "fit anew, without resume"
            why = f"a fit cannot go on with another number of training rows: {rows} in the state, {self.batches.n} here"
            if not allow_change:
                check_same(there, here, "", fix=f"{anew}; {why}")
            raise ConfigError(f"{why}; give the old rows, or {anew}")
        if not allow_change:
            check_same(there, here, "", fix=ALLOW)
            self._check_data(take(state, "fit.data", dict))
        self.batches.load_state_dict(batches)
        self.costs = take_tensor(state, "fit.costs", (self.batches.batch,), self.step.net.dtype)
        self.first_step, micro_batch = take(state, "fit.first_step", int), take(state, "fit.micro_batch", int)
        if there.get("micro_batch") == here.get("micro_batch"):  # memory may have run out with what was asked for
            self.micro_batch.take_at_most(micro_batch)
        self.rule.load_state_dict(take(state, "fit.best", dict), self)
        self.history.load_state_dict(take(state, "fit.history", dict))
        if len(self.history.epochs) != self.batches.epoch:
            raise CheckpointError(
                f"history.epochs of the state are {len(self.history.epochs)}, before epoch {self.batches.epoch + 1}"
            )
        if take(step, "step.t", int) < self.first_step + self.batches.batch:
            raise CheckpointError(f"the state has taken fewer steps than the {self.batches.batch} of its epoch")
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


def run_epochs(
    fits: Sequence[FitState], evaluate: Evaluate | None = None, captured: JointEpoch | None = None
) -> JointEpoch | None:
    """Train a network, or several that advance together, each until its fit is over.

    Returns the captured epoch of those that were the last, unless its buffers have been freed.

    Parameters
    ----------
    fits : sequence of FitState
        Of networks that share a kernel set, over batches of the same sizes.
    evaluate : callable, optional
    captured : JointEpoch, optional
        The epoch of these very fits, where it has been captured already.

    Raises
    ------
    DivergedError
        If a cost, a parameter or the last outputs are not finite.
    DeviceError
        If memory runs out and a smaller micro-batch cannot help.
    KeyboardInterrupt
        From Ctrl-C, between two steps. In both cases the networks have finite weights.
    """
    for fit, program in zip(fits, captured.programs if captured else (), strict=False):
        fit.program = program
    with contextlib.ExitStack() as started:
        for fit in fits:
            started.enter_context(StartedCallbacks(fit.callbacks, fit.epochs))
            fit.begin()
        pauses, seen, active = pauses_of(fits), _is_seen(fits, evaluate), [fit for fit in fits if not fit.over]
        try:
            while active:
                for fit in active:
                    fit.rule.begin_epoch()
                first, costs = captured is None, None
                while costs is None:
                    try:
                        captured = captured or JointEpoch([fit.prepared() for fit in active])
                        costs = captured.train(costs=[fit.costs for fit in active], pauses=pauses, seen=seen)
                    except MemoryError:
                        captured = None
                    if costs is None:  # not in the handler, where the error's frames would keep their buffers
                        for fit in active:
                            fit.halve(first)
                for fit in active if first else ():
                    fit.history.notes += fit.micro_batch.notes()
                scores = scores_of(active, evaluate) if seen else [({}, {}) for _ in active]
                epochs = [fit.evaluated(J, *found) for fit, J, found in zip(active, costs, scores, strict=True)]
                over = [fit for fit in active if fit.over]
                if over and (over[0].checks_outputs or len(active) > 1):
                    captured = None  # those that go on are captured without the others
                for fit, epoch in zip(active, epochs, strict=True):
                    fit.end_epoch(epoch)
                if over:
                    active = [fit for fit in active if not fit.over]
        except KeyboardInterrupt:
            for fit in active:
                fit.abort()
            raise
    return captured


def _is_seen(fits: Sequence[FitState], evaluate: Evaluate | None) -> bool:
    """Whether someone sees the networks after each epoch."""
    return evaluate is not None or any(f.callbacks or f.rule.has_callbacks or f.training_scores for f in fits)
