"""The first NaN or infinity ends a fit before its update: the network is left with the weights of the step before.

A recorded epoch runs without looking at its numbers, so what costs nothing per step is done: now and then the state is
looked at and copied. Where something is not finite, the copy is brought back and the steps since are run again, which
gives the same bits, up to the first one that leaves NaN or infinity. The state before that step is what stays; that
step, run call by call, says where it came from.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Array, Program, Replay
from ..errors import DivergedError
from ..maths.optimizers import Optimizer
from ..network.memory import buffers_finite, state_of, surely_finite
from ..network.non_finite import NonFinite, find_non_finite
from ..network.state import State
from .batches import BatchBuffers
from .callbacks import Callback

if TYPE_CHECKING:
    from .epoch import EpochProgram

LOOK_SECONDS = 1.0  # between two looks while an epoch runs
SHARE = 100  # times as long as looking at everything and copying it takes, steps run before it is done again
SKIPPED = "skipped batch "
NO_COSTS = np.zeros(0)
LARGE = 1e6  # an input or target beyond this is a likelier cause than the learning rate


@dataclass
class OnNonFinite:
    """What to do about a batch whose step is not finite.

    Attributes
    ----------
    skip : int
        Leave out so many batches of a fit, each with a note; the next one ends it. 0: the first one does.
    notes : list of str
        Where that is said; those that are there count.
    callbacks : sequence of Callback
        Their ``on_search`` is called between the steps that are run again.
    """

    skip: int = 0
    notes: list[str] = field(default_factory=list)
    callbacks: Sequence[Callback] = ()

    @property
    def skipped(self) -> int:
        """Batches that have been left out."""
        return sum(note.startswith(SKIPPED) for note in self.notes)


# An epoch, the steps before it, and what the scalars of its steps depend on beside them: optimizer and total steps.
_Begun = tuple[int, int, Optimizer, int]


class FiniteState:
    """Keeps the state of one network's epochs finite.

    Every look is at costs and, where others see the state, at parameters and running statistics. Everything is looked
    at when it is time for a copy, so that an epoch of a few microseconds costs no more for it: an infinity shows in
    time.

    Parameters
    ----------
    program : EpochProgram
    policy : OnNonFinite

    Attributes
    ----------
    thorough : bool
        Every look is at everything: before callbacks see the state, or a batch is skipped.
    """

    def __init__(self, program: EpochProgram, policy: OnNonFinite) -> None:
        self.step, self.policy, self.thorough = program.step, policy, policy.skip > 0
        # Which holds this: a circle would keep its buffers until Python looks for circles.
        self.program: EpochProgram = weakref.proxy(program)
        self._parameters, self._buffers = state_of(self.step.net), self.step.state_buffers
        self._replays: list[tuple[Replay, BatchBuffers, int]] = []
        self._left_out: set[int] = set()  # batches of the epoch that were skipped
        self._n = len(program.batches)
        self._costs = NO_COSTS  # as they were looked at last
        self._epochs: list[_Begun] = []  # since the copy
        self._before: Sequence[float] | np.ndarray = ()  # J of the batches of the first of them that the copy is behind
        self._order: State | None = None  # where the sampler of orders stood, if there is one
        self._next: tuple[int, int, int] | None = None  # the epoch that goes on from this one, if nothing else changed
        self._looked = self._copied = self._seconds = 0.0
        self._unseen = False

    def begin(self, epoch: int, begun: int, costs: Sequence[float] | np.ndarray) -> None:
        """An epoch begins after so many steps, or goes on behind the batches that have these costs.

        They are NaN where a batch was skipped.
        """
        n, step = len(costs), self.step
        self._left_out = set(np.flatnonzero(~np.isfinite(costs)).tolist()) if n else set()
        if n or self._next != (epoch, begun, step.net.changes):
            self._copy(costs)
        else:
            self._epochs.append((epoch, begun, step.optimizer, step.total_steps))
        self._costs = NO_COSTS

    def _copy(self, costs: Sequence[float] | np.ndarray) -> None:
        """The state behind the batches that have these costs is the one to come back to."""
        step, here = self.step, self.program
        step.remember()
        sampler = here.batches.sampler
        self._order = None if sampler is None else sampler.state_dict()
        ended = len(costs) == self._n
        epoch = here.epoch, here.begun, step.optimizer, step.total_steps
        self._epochs, self._before = ([], ()) if ended else ([epoch], costs)
        self._looked = self._copied = time.perf_counter()

    def glance(self, taken: int) -> int:
        """As :meth:`look` if the last look is a second ago; several ranks have to look alike, every 64 steps."""
        if self.step.ranks.size > 1:
            return taken if taken % 64 else self.look(taken)
        return self.look(taken) if time.perf_counter() - self._looked > LOOK_SECONDS else taken

    def look(self, taken: int, everything: bool = False, seen: bool = True) -> int:
        """How many batches of the epoch are behind a state that is finite: ``taken``, or fewer if one was skipped.

        ``everything``: at the optimizer's vectors too. Not ``seen``: at the costs alone, unless it is time for more.

        Raises
        ------
        DivergedError
            If a step was not finite and may not be skipped; the state is that of before this step.
        """
        start = time.perf_counter()
        due = start - self._copied > SHARE * self._seconds or self.step.ranks.size > 1
        everything = everything or due or self.thorough
        self._unseen = not (seen or everything)
        if not self._is_finite(taken, self._buffers if everything else () if self._unseen else self._parameters):
            taken = self._leave_out(taken)
        elif due:
            self._copy(self._costs)
            self._seconds = self._copied - start
        elif not self._unseen:
            self._looked = start
        if taken == self._n:
            step = self.step
            self._next = (self.program.epoch + 1, step.t, step.net.changes)
        return taken

    def finish(self) -> None:
        """The fit ends: look at what was not seen at the end of its last epoch.

        Raises
        ------
        DivergedError
            As :meth:`look`.
        """
        if self._unseen:
            with self.step.lock.held(), self.step.net.backend.activate():
                self._unseen = False
                if not self._are_finite(self._buffers):  # the costs are
                    self._leave_out(self._n)

    def abort(self) -> None:
        """The fit is interrupted: nothing is left that is not finite."""
        with self.step.lock.held(), self.step.net.backend.activate():
            if not self._are_finite(self._buffers):
                self._epochs = self._epochs[:1]
                self._return_to(len(self._before))

    def undo(self) -> None:
        """Bring the copy back, if one was made."""
        if self._epochs:
            self.step.recover()

    def costs(self) -> np.ndarray:
        """J of the epoch's batches, with the mean of the others for those that were skipped."""
        costs = self._costs if len(self._costs) == self._n else self.program.costs(self._n)
        if self._left_out and len(self._left_out) < self._n:
            left_out = sorted(self._left_out)
            costs[left_out] = np.delete(costs, left_out).mean()
        return costs

    def _is_finite(self, taken: int, buffers: Sequence[Array]) -> bool:
        """Whether the costs are, and these buffers."""
        costs = self._costs = self.program.costs(taken)
        if self._left_out:
            costs = np.delete(costs, sorted(self._left_out))
        if not (surely_finite(costs) or np.isfinite(costs).all()):
            return False
        return not buffers or self._are_finite(buffers)

    def _are_finite(self, buffers: Sequence[Array]) -> bool:
        with np.errstate(all="ignore"):
            return buffers_finite(self.step.net.backend, buffers)

    @np.errstate(all="ignore")
    def _leave_out(self, taken: int) -> int:
        """Go back to before the first step that was not finite; past it if it may be skipped."""
        under_way, k = self.program.epoch, self._first_bad(taken)
        self._return_to(k)
        found = find_non_finite(self.step, self._program_of(k))
        self._return_to(k)
        where = self._where(k, found)
        if self.policy.skipped >= self.policy.skip or self.program.epoch != under_way:
            skipped = f"; {self.policy.skipped} batches were skipped before" if self.policy.skip else ""
            from_start = self.program.begun + k == 0 and not (found and found.operation == "update")
            raise DivergedError(f"{where}{skipped}", from_start, found, self._fix(k, found))
        self.policy.notes.append(f"{SKIPPED}{k + 1} of epoch {self.program.epoch + 1}: {where}")
        self._left_out.add(k)
        costs = np.append(self.program.costs(k), np.nan)
        self.program.set_position(costs)
        self._copy(costs)
        return k + 1

    def _first_bad(self, taken: int) -> int:
        """The first batch whose step leaves something that is not finite; its epoch is the last one of ``_epochs``."""
        for n, k in self._again(taken):
            self._run(k)
            if not self._are_finite([self.step.value, *self._buffers]):  # what the step left: J and the state
                self._epochs = self._epochs[: n + 1]
                return k
        raise DivergedError(
            "the numbers were not finite, and are when the same steps are run again: something has changed the network "
            "meanwhile, or the device is faulty",
            from_start=False,
        )

    def _return_to(self, k: int) -> None:
        """The state behind the first k batches of the last epoch, by running those since the copy again."""
        for _, each in self._again(k):
            self._run(each)

    def _again(self, k: int) -> Iterator[tuple[int, int]]:
        """Bring the copy back; then each epoch since, by number, with each batch up to k of the last one."""
        self.step.recover()
        if self._order is not None:
            self.program.batches.sampler.load_state_dict(self._order)  # type: ignore[union-attr]
        before = self._before
        for n, epoch in enumerate(self._epochs):
            number, steps, self.step.optimizer, self.step.total_steps = epoch
            self.program.open(number, steps, before)
            for batch in range(len(before), k if epoch is self._epochs[-1] else self._n):
                yield n, batch
            before = ()

    def _run(self, k: int) -> None:
        """The step over batch k once more."""
        if not self._replays:
            capture = self.step.net.kernels.capture
            self._replays = [(capture(program), buffers, n) for program, buffers, n in self.program.parts]
        replay, buffers, _ = self._replays[self._part_of(k)]
        fill = buffers.filler(k, 1)
        replay(1) if fill is None else replay(1, fill)
        self.program.count(k + 1)
        for callback in self.policy.callbacks:
            callback.on_search()

    def _part_of(self, k: int) -> int:
        return int(k >= self.program.parts[0][2])

    def _program_of(self, k: int) -> Program:
        """The step over batch k as plain calls."""
        program, buffers, _ = self.program.parts[self._part_of(k)]
        fill = buffers.filler(k, 1)

        def filled() -> None:
            if fill is not None:
                fill()
            program()

        return filled

    def _fix(self, k: int, found: NonFinite | None) -> str:
        """What to change, if it is not the learning rate."""
        if found is None or found.example is None:
            return ""
        if found.tensor.startswith("A") and found.layer is not None:  # of a Z that is finite
            return f"make activation {self.step.net.activations[found.layer].name} finite for finite inputs"
        causes = {"dense": ("inputs", 0, "data.standardize"), "output_delta": ("targets", 1, "data.standardize_target")}
        if found.operation in causes:
            what, which, option = causes[found.operation]
            order, rows = self.program.batches.order_of(k), self.program.batches.rows[which]
            batch = rows[order]  # type: ignore[index]
            sizes = np.abs(batch.toarray() if hasattr(batch, "toarray") else batch)
            largest = sizes[found.example].max()
            if largest > LARGE and np.median(sizes.max(axis=1)) > LARGE:
                return f"scale {what} ({option}), or use dtype float64"
            if largest > LARGE:
                row = order[found.example]
                return f"training row {row} has {what} up to {largest:.2g}: correct them, or scale them ({option})"
        return ""

    def _where(self, k: int, found: NonFinite | None) -> str:
        """What was found, in words: with the row of the data set, from 0, the step and the batch, from 1."""
        here = self.program
        what = "NaN or infinity" if found is None else str(found)
        if found is not None and found.example is not None:
            what += f" of training row {here.batches.order_of(k)[found.example]}"
        return f"{what} at step {here.begun + k + 1} (batch {k + 1})"
