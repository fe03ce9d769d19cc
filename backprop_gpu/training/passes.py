"""One pass over the data as captured programs: the whole epoch without returning to Python where the kernels can."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._typing import Program, Replay
from ..errors import ConfigError, DataError, DivergedError
from ..maths.ledger import Denominator
from ..network.memory import all_finite, surely_finite
from ..network.step import TrainingStep
from .batches import BatchBuffers, Batches

SLICE_SECONDS = 0.1  # of steps, after which a prediction of another thread has its turn


@dataclass(frozen=True)
class Pauses:
    """Who is told between the steps of an epoch: after a tenth of a second of them, or ``every`` so many (0: any)."""

    tell: Callable[[], None] | None = None
    every: int = 0

    def until(self, t: int) -> int:
        """The most steps from optimizer step ``t`` to the next pause."""
        return self.every - t % self.every if self.every else sys.maxsize


NO_PAUSES = Pauses()


class Lap:
    """What the epoch of a step over batches touches, made once; an epoch uploads its order and its table of numbers.

    Attributes
    ----------
    parts : list of (Program, BatchBuffers, int)
        One for full batches, another for the ragged tail: a step, the buffers of its batch, and how often an epoch
        takes it.
    """

    def __init__(self, step: TrainingStep, batches: Batches, micro_batch: int | None) -> None:
        self.step, self.batches = step, batches
        backend, dtype = step.net.backend, step.net.dtype
        with backend.activate():
            self.table = backend.zeros((len(batches), step.n_numbers), dtype)
            self.values = backend.zeros((len(batches),), dtype)
            plain = {m: Denominator.of(step.reduction, m) for m in set(batches.sizes)}
            self._plain = [plain[m] for m in batches.sizes]  # where no example has a weight
            self.parts: list[tuple[Program, BatchBuffers, int]] = []
            full = batches.sizes.count(batches.batch_size)
            for m, times in ((batches.batch_size, full), (batches.sizes[-1], len(batches) - full)):
                if times:
                    buffers = batches.buffers(m)
                    step.reserve(m, micro_batch)
                    self.parts.append((step.program(self.table, self.values, buffers, micro_batch), buffers, times))

    def begin(self, epoch: int, like: Lap | None = None, costs: Sequence[float] | np.ndarray = ()) -> None:
        """The order and the numbers of an epoch (from 0), on their way to the device.

        ``like``: one that has begun the epoch, whose numbers are taken if they are the same. ``costs``: J of each batch
        that has been trained on already, where an epoch is taken up again.
        """
        self.step.remember()
        self._epoch, self._begun, taken = epoch, self.step.t - len(costs), len(costs)
        step, denominators = self.step, self._denominators(self.batches.start_epoch(epoch))
        self._begun_with = denominators
        if like is not None and (like.step.terms, like._begun_with) == (step.terms, denominators):
            step.rewind()
            self.table[...] = like.table
        else:
            step.load(self.table, denominators, taken)
        if taken:
            upload, dtype = step.net.backend.upload, step.net.dtype
            upload(costs, self.values[:taken], dtype)
            upload(costs[-1:], step.value, dtype)

    def count(self, batches: int) -> None:
        """So many batches of the epoch have been trained on."""
        self.step.t = self._begun + batches
        self.batches.taken(self._epoch, batches)

    def costs(self, batches: int) -> np.ndarray:
        """J of the first batches of the epoch, the last of which is the one that was trained on last."""
        backend = self.step.net.backend
        costs = backend.to_host(self.values)[:batches]
        costs[-1:] = backend.to_host(self.step.value)  # it has not been put away yet
        return costs

    def _denominators(self, totals: Sequence[float | None]) -> Sequence[Denominator]:
        """Of each batch, whose weights sum to ``totals``."""
        if self.batches.rows[2] is None:
            return self._plain
        sizes = zip(self.batches.sizes, totals, strict=True)
        return [Denominator.of(self.step.reduction, m, total) for m, total in sizes]

    def end(self) -> np.ndarray:
        """Count the steps that were taken; J of each batch, as it was before that batch's update.

        Raises
        ------
        DivergedError
            If a cost or a parameter is not finite; the parameters are those of before the epoch then.
        """
        self.count(len(self.batches))
        costs = self.costs(len(self.batches))
        if not (surely_finite(costs) and all_finite(self.step.net)):
            self._check(costs)
        return costs

    def _check(self, costs: np.ndarray) -> None:
        """Whether what looked as if it were not finite is so; the square of a large number looks so too."""
        wrong = np.flatnonzero(~np.isfinite(costs))
        if wrong.size or not all_finite(self.step.net):
            self.step.recover()
            what = f"the cost became {costs[wrong[0]]}" if wrong.size else "the parameters became infinite or NaN"
            raise DivergedError(what, from_start=self._begun == 0 and wrong[:1].tolist() == [0])

    def give_up(self) -> None:
        """An epoch ends before its time: no parameters are left that are not finite."""
        if not all_finite(self.step.net):
            self.step.recover()


class Pass(Lap):
    """The epoch of a step over batches: full batches in one replay, the ragged tail in another.

    With ``StreamedBatches`` every step is a replay of its own, its batch sent from the host before it.
    """

    def __init__(self, step: TrainingStep, batches: Batches, micro_batch: int | None) -> None:
        super().__init__(step, batches, micro_batch)
        self._steps = 1  # of a slice
        with step.turns.taken(), step.net.backend.activate():
            self.replays: list[tuple[Replay, int]] = [
                (step.net.kernels.capture(program), times) for program, _, times in self.parts
            ]

    def run(self, epoch: int, costs: Sequence[float] | np.ndarray = (), pauses: Pauses = NO_PAUSES) -> np.ndarray:
        """Train one epoch (from 0); returns J of each batch, as it was before that batch's update.

        ``costs``: of the batches that have been trained on already, where an epoch is taken up again.
        """
        first, end, all_batches = len(costs), 0, len(self.batches)
        with self.step.net.backend.activate(), np.errstate(all="ignore"):  # a run that diverges is told by an error
            self.begin(epoch, None, costs)
            try:
                for (replay, times), (_, buffers, _) in zip(self.replays, self.parts, strict=True):
                    play, end = functools.partial(buffers.play, replay), end + times
                    while first < end:
                        now = min(self._steps, end - first, pauses.until(self.step.t))
                        with self.step.turns.taken():
                            self._steps = played(play, first, now)
                            first += now
                            if first == all_batches:
                                return self.end()
                            self.count(first)
                        if pauses.tell is not None:
                            pauses.tell()
            except KeyboardInterrupt:
                self.give_up()
                raise
            with self.step.turns.taken():  # no batch was left
                return self.end()


class JointPass:
    """The epoch of several steps that know nothing of each other, in one program: each takes a step, in turn.

    Each gets the bits of a :class:`Pass` of its own, since a program's calls are played in order and what a kernel set
    keeps does not outlive an operation.

    Parameters
    ----------
    laps : sequence of Lap
        Of networks that share one kernel set, which records the program; over batches that lie on the device, of the
        same sizes for all.

    Raises
    ------
    DataError, ConfigError
        For batches of different sizes, or networks that do not share a kernel set.
    """

    def __init__(self, laps: Sequence[Lap]) -> None:
        self.laps, self._net = laps, laps[0].step.net
        if any(lap.step.net.kernels is not self._net.kernels for lap in laps):
            raise ConfigError("steps in one program need networks of one kernel set: DenseNet(beside=...)")
        if any(lap.batches.sizes != laps[0].batches.sizes for lap in laps):
            raise DataError("steps in one program need batches of the same sizes; give them as many rows each")
        self._steps = 1  # of a slice
        with self._net.turns.taken(), self._net.backend.activate():
            self.replays: list[tuple[Replay, int]] = []
            for parts in zip(*(lap.parts for lap in laps), strict=True):
                program = in_turn([program for program, _, _ in parts])
                self.replays.append((self._net.kernels.capture(program), parts[0][2]))

    def run(self, epoch: int) -> list[np.ndarray]:
        """Train one epoch (from 0); J of each batch, for each step."""
        with self._net.backend.activate(), np.errstate(all="ignore"):
            for before, lap in zip((None, *self.laps), self.laps, strict=False):
                lap.begin(epoch, before)
            try:
                for replay, times in self.replays:
                    play, first = functools.partial(_replayed, replay), 0
                    while first < times:
                        now = min(self._steps, times - first)
                        with self._net.turns.taken():
                            self._steps = played(play, first, now)
                        first += now
            except KeyboardInterrupt:
                for lap in self.laps:
                    lap.give_up()
                raise
            with self._net.turns.taken():
                return self._end()

    def _end(self) -> list[np.ndarray]:
        """The end of each lap, also where an earlier one has diverged."""
        costs, diverged = list[np.ndarray](), list[DivergedError]()
        for lap in self.laps:
            try:
                costs.append(lap.end())
            except DivergedError as error:
                diverged.append(error)
        if diverged:
            raise diverged[0]
        return costs


def _replayed(replay: Replay, first: int, times: int) -> None:
    replay(times)


def played(play: Callable[[int, int], None], first: int, times: int) -> int:
    """Play so many steps from the ``first`` on; returns how many would take a tenth of a second."""
    start = time.perf_counter()
    play(first, times)
    seconds = (time.perf_counter() - start) / times
    return max(1, int(SLICE_SECONDS / max(seconds, 1e-7)))


def in_turn(programs: Sequence[Program]) -> Program:
    """One program of several."""

    def program() -> None:
        for each in programs:
            each()

    return program
