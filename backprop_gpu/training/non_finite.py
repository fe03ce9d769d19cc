"""The first NaN or infinity ends a fit before its update: the network is left with the weights of the step before.

A recorded epoch runs without looking at its numbers, so what costs nothing per step is done: the state is copied when
an epoch begins, and looked at when it ends (and every second, and before callbacks see it). Where something is not
finite, the copy is brought back and the steps since are run again, which gives the same bits, up to the first one that
leaves NaN or infinity. The state before that step is what stays; that step, run call by call, says where it came from.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Program, Replay
from ..errors import DivergedError
from ..network.memory import buffers_finite, surely_finite
from ..network.non_finite import NonFinite, find_non_finite
from .batches import BatchBuffers

if TYPE_CHECKING:
    from .epoch import EpochProgram

LOOK_SECONDS = 1.0  # between two looks at the state while an epoch runs
COPY_SECONDS = 10.0  # between two copies of it, which is how much is run again at most
SKIPPED = "skipped batch "
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
    """

    skip: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> int:
        """Batches that have been left out."""
        return sum(note.startswith(SKIPPED) for note in self.notes)


class FiniteState:
    """Keeps the state of one network's epochs finite.

    Parameters
    ----------
    program : EpochProgram
        The programs and buffers of the epoch.
    policy : OnNonFinite
    """

    def __init__(self, program: EpochProgram, policy: OnNonFinite) -> None:
        self.step, self.policy = program.step, policy
        # Which holds this: a circle would keep its buffers until Python looks for circles.
        self.program: EpochProgram = weakref.proxy(program)
        self._replays: list[tuple[Replay, BatchBuffers, int]] = []
        self._left_out: set[int] = set()  # batches of the epoch that were skipped
        self._costs = np.zeros(0)  # as they were looked at last

    def begin(self, costs: Sequence[float] | np.ndarray) -> None:
        """An epoch begins, or goes on behind the batches that have these costs: NaN where one was skipped."""
        self._left_out = set()
        if len(costs):
            self._left_out.update(np.flatnonzero(~np.isfinite(np.asarray(costs, np.float64))).tolist())
        self._copy(len(costs), costs[-1] if len(costs) else 0.0)
        self._looked, self._costs = self._copied, np.zeros(0)

    def _copy(self, taken: int, cost: float) -> None:
        """The state behind so many batches, the last of which had this cost, is the one to come back to."""
        self.step.remember()
        self._from, self._cost_before = taken, cost
        self._finite_until = taken
        self._copied = time.monotonic()

    def glance(self, taken: int) -> int:
        """As :meth:`look` if the last look is a second ago."""
        return self.look(taken) if time.monotonic() - self._looked > LOOK_SECONDS else taken

    def look(self, taken: int) -> int:
        """How many batches of the epoch are behind a state that is finite: ``taken``, or fewer if one was skipped.

        Raises
        ------
        DivergedError
            If a step was not finite and may not be skipped; the state is that of before this step.
        """
        if not self._is_finite(taken):
            return self._leave_out(taken)
        self._looked, self._finite_until = time.monotonic(), taken
        if self._looked - self._copied > COPY_SECONDS:
            self._copy(taken, self._costs[-1])
        return taken

    def abort(self, taken: int) -> None:
        """The epoch is interrupted: nothing is left that is not finite."""
        if not self._is_finite(taken):
            self._return_to(self._from)

    def costs(self) -> np.ndarray:
        """J of the epoch's batches, with the mean of the others for those that were skipped."""
        n, left_out = len(self.program.batches), sorted(self._left_out)
        costs = self._costs if len(self._costs) == n else self.program.costs(n)
        if left_out and len(left_out) < len(costs):
            costs[left_out] = np.delete(costs, left_out).mean()
        return costs

    def _is_finite(self, taken: int) -> bool:
        """Whether costs and state are; asked under ``np.errstate``."""
        costs = self._costs = self.program.costs(taken)
        if self._left_out:
            costs = np.delete(costs, sorted(self._left_out))
        finite = surely_finite(costs) or bool(np.isfinite(costs).all())
        return finite and buffers_finite(self.step.net.backend, self.step.state_buffers)

    def _leave_out(self, taken: int) -> int:
        """Go back to before the first step that was not finite; past it if it may be skipped."""
        k = self._first_bad(taken)
        self._return_to(k)
        found = find_non_finite(self.step, self._program_of(k))
        self._return_to(k)
        where = self._where(k, found)
        if self.policy.skipped >= self.policy.skip:
            skipped = f"; {self.policy.skipped} batches were skipped before" if self.policy.skip else ""
            from_start = self.program.begun + k == 0 and not (found and found.operation == "update")
            raise DivergedError(f"{where}{skipped}", from_start, found, self._fix(k, found))
        self.policy.notes.append(f"{SKIPPED}{k + 1} of epoch {self.program.epoch + 1}: {where}")
        self._left_out.add(k)
        self.program.set_position(k + 1, np.nan)
        self._copy(k + 1, np.nan)
        return k + 1

    def _first_bad(self, taken: int) -> int:
        """The first batch whose step leaves something that is not finite."""
        self._return_to(self._finite_until)
        for k in range(self._finite_until, taken):
            self._run(k, 1)
            if not self._is_finite(k + 1):
                return k
        raise DivergedError(
            "the numbers were not finite, and are when the same steps are run again: memory or device may be faulty",
            from_start=False,
        )

    def _return_to(self, k: int) -> None:
        """The state behind the first k batches of the epoch, by running those since the last copy again."""
        self.step.recover()
        self.program.set_position(self._from, self._cost_before)
        full, first = self.program.parts[0][2], self._from
        while first < k:
            times = min(k, full if first < full else k) - first
            self._run(first, times)
            first += times

    def _run(self, k: int, times: int) -> None:
        """So many batches from batch k on once more, of one size."""
        if not self._replays:
            capture = self.step.net.kernels.capture
            self._replays = [(capture(program), buffers, n) for program, buffers, n in self.program.parts]
        replay, buffers, _ = self._replays[self._part_of(k)]
        fill = buffers.filler(k, times)
        replay(times) if fill is None else replay(times, fill)
        self.program.count(k + times)

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
