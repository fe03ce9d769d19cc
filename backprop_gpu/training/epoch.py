"""One pass over the data as captured programs: the whole epoch without returning to Python where the kernels can."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from .._typing import Before, Program, Replay
from ..errors import ConfigError, DataError, DivergedError
from ..maths.ledger import Denominator
from ..network.step import TrainingStep
from .batches import BatchBuffers, Batches
from .non_finite import FiniteState, OnNonFinite
from .pauses import NO_PAUSES, Pauses, sequence

SLICE_SECONDS = 0.1  # of steps; between two slices callbacks are called, and another thread may predict


class EpochProgram:
    """The programs of one network's epoch and the buffers that they touch; an epoch uploads its order and its scalars.

    Attributes
    ----------
    parts : list of (Program, BatchBuffers, int)
        One for full batches, another for the ragged tail: a step, the buffers of its batch, and how often an epoch
        takes it.
    epoch, begun : int
        The epoch under way, from 0, and the optimizer steps before it.
    finite : FiniteState
        Keeps NaN and infinity out of the network.
    """

    def __init__(
        self, step: TrainingStep, batches: Batches, micro_batch: int | None, policy: OnNonFinite | None = None
    ) -> None:
        self.step, self.batches, self.epoch, self.begun = step, batches, 0, 0
        self.finite = FiniteState(self, policy or OnNonFinite())
        backend, dtype = step.net.backend, step.net.dtype
        with backend.activate():
            self.table = backend.zeros((len(batches), step.n_step_scalars), dtype)
            self.values = backend.zeros((len(batches),), dtype)
            plain = {m: Denominator.of(step.reduction, m) for m in set(batches.sizes)}
            self._plain = [plain[m] for m in batches.sizes]  # where no example has a weight
            self.parts: list[tuple[Program, BatchBuffers, int]] = []
            full = batches.sizes.count(batches.batch_size)
            for m, times in ((batches.batch_size, full), (batches.sizes[-1], len(batches) - full)):
                if times:
                    buffers = batches.buffers(m)
                    step.reserve(buffers.m, micro_batch)
                    self.parts.append((step.program(self.table, self.values, buffers, micro_batch), buffers, times))

    def begin(self, epoch: int, like: EpochProgram | None = None, costs: Sequence[float] | np.ndarray = ()) -> None:
        """Send the order and the scalars of an epoch (from 0) to the device.

        ``like``: a program that has begun its epoch, whose scalars are copied if this one needs the same. ``costs``: J
        of each batch that has been trained on already, where an epoch is resumed.
        """
        step, taken = self.step, len(costs)
        self.epoch, self.begun = epoch, step.t - taken
        self.finite.begin(epoch, self.begun, costs)
        denominators = self._denominators(self.batches.start_epoch(epoch))
        self._begun_with = denominators
        if like is not None and (like.step.scalars_key, like._begun_with) == (step.scalars_key, denominators):
            step.rewind()
            self.table[...] = like.table
        else:
            step.load(self.table, denominators, taken)
        if taken:
            self._set_costs(costs)

    def open(self, epoch: int, begun: int, costs: Sequence[float] | np.ndarray) -> None:
        """An epoch that had begun after so many optimizer steps begins once more, behind the batches of these costs."""
        self.epoch, self.begun = epoch, begun
        self.count(len(costs))
        denominators = self._denominators(self.batches.start_epoch(epoch))
        self.count(0)
        self.step.load(self.table, denominators)
        if len(costs):
            self.set_position(costs)

    def count(self, batches: int) -> None:
        """So many batches of the epoch have been trained on."""
        self.step.t = self.begun + batches
        self.batches.taken(self.epoch, batches)

    def set_position(self, costs: Sequence[float] | np.ndarray) -> None:
        """The next step is that behind the batches that have these costs."""
        self.count(len(costs))
        self.step.rewind(len(costs))
        self._set_costs(costs)

    def _set_costs(self, costs: Sequence[float] | np.ndarray) -> None:
        upload, dtype = self.step.net.backend.upload, self.step.net.dtype
        upload(costs, self.values[: len(costs)], dtype)
        upload(costs[-1:], self.step.value, dtype)

    def costs(self, batches: int) -> np.ndarray:
        """J of the first batches of the epoch, the last of which is the one that was trained on last."""
        to_host = self.step.net.backend.to_host
        costs = to_host(self.values)[:batches]
        if batches:
            costs[-1] = to_host(self.step.value)[0]  # the next step stores it among the others
        return costs

    def end(self) -> np.ndarray:
        """Count the epoch's batches as trained on, look at the state, and give J of each batch.

        Raises
        ------
        DivergedError
            As :meth:`FiniteState.look`.
        """
        self.count(len(self.batches))
        self.finite.look(len(self.batches))
        return self.finite.costs()

    def _denominators(self, totals: Sequence[float | None]) -> Sequence[Denominator]:
        """Of each batch, whose weights sum to ``totals``."""
        if self.batches.rows[2] is None:
            return self._plain
        sizes = zip(self.batches.sizes, totals, strict=True)
        return [Denominator.of(self.step.reduction, m, total) for m, total in sizes]


class JointEpoch:
    """The captured epoch of one network, or of several that know nothing of each other, in turn: a step each.

    Full batches are one replay, the ragged tail another; of batches that stay on the host every step is a replay of its
    own, its batch sent before it. Each network gets the bits that it gets alone, since a program's calls run in order
    and what a kernel set keeps does not outlive an operation.

    Parameters
    ----------
    programs : sequence of EpochProgram
        Of networks that share one kernel set, over batches of the same sizes.

    Raises
    ------
    DataError, ConfigError
        For batches of different sizes, or networks that do not share a kernel set.
    """

    def __init__(self, programs: Sequence[EpochProgram]) -> None:
        self.programs, first = programs, programs[0]
        self._net, self._sizes = first.step.net, first.batches.sizes
        if any(p.step.net.kernels is not self._net.kernels for p in programs):
            raise ConfigError("steps in one program need networks of one kernel set: DenseNet(share_with=...)")
        if any(p.batches.sizes != self._sizes for p in programs):
            raise DataError("steps in one program need batches of the same sizes; give them as many rows each")
        self._slice = 1  # steps of a tenth of a second
        self._ranks = first.step.ranks
        self._streamed = any(p.batches.on == "host" for p in programs)
        self.replays: list[tuple[Replay, int]] = []
        self._buffers: list[list[BatchBuffers]] = []
        with self._net.lock.held(), self._net.backend.activate():
            for parts in zip(*(p.parts for p in programs), strict=True):
                program = sequence([program for program, _, _ in parts])
                self.replays.append((self._net.kernels.capture(program), parts[0][2]))
                self._buffers.append([buffers for _, buffers, _ in parts])

    def train(
        self,
        epoch: int | None = None,
        costs: Sequence[np.ndarray] = (),
        pauses: Pauses = NO_PAUSES,
        *,
        seen: bool = True,
    ) -> list[np.ndarray]:
        """Train one epoch of each; J of each batch, as it was before that batch's update, for each.

        Parameters
        ----------
        epoch : int, optional
            From 0; left out, the one at which the batches of each are.
        costs : sequence of (k,)
            For each, J of the k batches that have been trained on already, where an epoch is resumed.
        seen : bool
            Whether anyone sees the state at the end of the epoch. Else NaN or infinity in it may show some epochs
            later, and is undone then; after the last epoch ``EpochProgram.finite.finish`` has to be called.
        """
        lock, all_batches, full = self._net.lock, len(self._sizes), self.replays[0][1]
        with self._net.backend.activate(), lock.held():
            first = self._begin(epoch, costs)
            begun = time.perf_counter()
            try:
                while first < all_batches:
                    part, end = (0, full) if first < full else (1, all_batches)
                    now = end - first
                    if now > 1:
                        now = min(self._slice, now, pauses.until(self.programs[0].step.t))
                    (replay, several), started = self.replays[part], time.perf_counter()
                    if self._streamed:
                        replay(now, fillers(self._buffers[part], first, now))
                    else:
                        replay(now)
                    if several > 1:
                        self._measure(now, time.perf_counter() - started)
                    first = self._look(first + now, pauses.call is not None, seen)
                    if first == all_batches:
                        break
                    if pauses.call is not None:
                        with lock.released():
                            pauses.call()
                    elif time.perf_counter() - begun >= SLICE_SECONDS:
                        with lock.released():
                            begun = time.perf_counter()
            except KeyboardInterrupt:
                for program in self.programs:
                    program.finite.abort()
                raise
            return [program.finite.costs() for program in self.programs]

    def _begin(self, epoch: int | None, costs: Sequence[np.ndarray]) -> int:
        """Begin an epoch of each; how many batches have been trained on already."""
        first, like = len(costs[0]) if len(costs) else 0, None
        for k, program in enumerate(self.programs):
            program.begin(program.batches.epoch if epoch is None else epoch, like, costs[k] if first else ())
            like = None if first else program
        if first == len(self._sizes):  # no batch is left: the epoch is resumed before its evaluation
            for program in self.programs:
                program.count(first)
        return first

    def _measure(self, steps: int, seconds: float) -> None:
        """So many steps have taken this time: how many of them take a tenth of a second."""
        if self._ranks.size == 1:  # several stop between the same steps, whatever time they took
            self._slice = max(1, int(SLICE_SECONDS * steps / max(seconds, 1e-7 * steps)))

    def _look(self, first: int, everything: bool, seen: bool = True) -> int:
        """Count the batches before ``first``; how many of them stay, when it has been looked whether all is finite.

        Several networks are looked at when the epoch ends: each ends it, also where another has diverged.
        """
        for program in self.programs:
            program.count(first)
        ended = first == len(self._sizes)
        if len(self.programs) == 1:
            finite = self.programs[0].finite
            return finite.look(first, everything, seen) if ended or everything else finite.glance(first)
        diverged = list[DivergedError]()
        for program in self.programs if ended else ():
            try:
                program.finite.look(first, everything, seen)
            except DivergedError as error:
                error.net = program.step.net
                diverged.append(error)
        if diverged:
            raise diverged[0]
        return first


class CapturedEpoch(JointEpoch):
    """The epoch of one step over batches."""

    def __init__(
        self, step: TrainingStep, batches: Batches, micro_batch: int | None, policy: OnNonFinite | None = None
    ) -> None:
        self.program = EpochProgram(step, batches, micro_batch, policy)
        self.step, self.batches, self.parts = step, batches, self.program.parts
        super().__init__([self.program])

    def run(self, epoch: int) -> np.ndarray:
        """Train one epoch (from 0); J of each batch, as it was before that batch's update."""
        return self.train(epoch)[0]


def fillers(buffers: Sequence[BatchBuffers], first: int, times: int) -> Before | None:
    """What fills buffers from the host before each of so many steps; None if all are filled on the device."""
    if len(buffers) == 1:
        return buffers[0].filler(first, times)
    found = [fill for fill in (b.filler(first, times) for b in buffers) if fill is not None]
    return found[0] if len(found) == 1 else sequence(found) if found else None
