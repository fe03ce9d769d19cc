"""One pass over the data as captured programs: the whole epoch without returning to Python where the kernels can."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from .._typing import Program, Replay
from ..backends.locks import Turns
from ..errors import ConfigError, DataError
from ..maths.ledger import Denominator
from ..network.step import TrainingStep
from .batches import BatchBuffers, Batches

SLICE_SECONDS = 0.1  # of steps, after which a prediction of another thread has its turn


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

    def begin(self, epoch: int, like: Lap | None = None) -> None:
        """The order and the numbers of an epoch (from 0), on their way to the device.

        ``like``: one that has begun the epoch, whose numbers are taken if they are the same.
        """
        step, denominators = self.step, self._denominators(self.batches.start_epoch(epoch))
        self._begun_with = denominators
        if like is not None and (like.step.terms, like._begun_with) == (step.terms, denominators):
            step.rewind()
            self.table[...] = like.table
        else:
            step.load(self.table, denominators)

    def _denominators(self, totals: Sequence[float | None]) -> Sequence[Denominator]:
        """Of each batch, whose weights sum to ``totals``."""
        if self.batches.rows[2] is None:
            return self._plain
        sizes = zip(self.batches.sizes, totals, strict=True)
        return [Denominator.of(self.step.reduction, m, total) for m, total in sizes]

    def end(self) -> np.ndarray:
        """Count the steps that were taken; J of each batch, as it was before that batch's update."""
        step, backend = self.step, self.step.net.backend
        step.t += len(self.batches)
        costs = backend.to_host(self.values)
        costs[-1:] = backend.to_host(step.value)  # the last one has not been put away yet
        return costs


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

    def run(self, epoch: int) -> np.ndarray:
        """Train one epoch (from 0); returns J of each batch, as it was before that batch's update."""
        turns, first = self.step.turns, 0
        with self.step.net.backend.activate():
            self.begin(epoch)
            with np.errstate(all="ignore"):  # a run that diverges is told by its cost
                for (replay, times), (_, buffers, _) in zip(self.replays, self.parts, strict=True):
                    play = functools.partial(buffers.play, replay)
                    self._steps = in_slices(turns, play, first, times, self._steps)
                    first += times
            with turns.taken():
                return self.end()


class JointPass:
    """The epoch of several steps that know nothing of each other, in one program: each takes a step, in turn.

    Each gets the bits of a :class:`Pass` of its own, since a program's calls are played in order and what a kernel set
    keeps does not outlive an operation. (Compiled kernels cut products by the largest of all networks that share them:
    that holds for networks of the same sizes.)

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
        with self._net.backend.activate():
            for before, lap in zip((None, *self.laps), self.laps, strict=False):
                lap.begin(epoch, before)
            with np.errstate(all="ignore"):
                for replay, times in self.replays:
                    play = functools.partial(_replayed, replay)
                    self._steps = in_slices(self._net.turns, play, 0, times, self._steps)
            with self._net.turns.taken():
                return [lap.end() for lap in self.laps]


def _replayed(replay: Replay, first: int, times: int) -> None:
    replay(times)


def in_slices(turns: Turns, play: Callable[[int, int], None], first: int, times: int, steps: int) -> int:
    """Play so many steps from the ``first`` on, a tenth of a second at a time: in between, others have their turn.

    ``steps``: of the first slice; returns those that the next should have.
    """
    end = first + times
    while first < end:
        with turns.taken():
            start, now = time.perf_counter(), min(steps, end - first)
            play(first, now)
            seconds = (time.perf_counter() - start) / now
        first, steps = first + now, max(1, int(SLICE_SECONDS / max(seconds, 1e-7)))
    return steps


def in_turn(programs: Sequence[Program]) -> Program:
    """One program of several."""

    def program() -> None:
        for each in programs:
            each()

    return program
