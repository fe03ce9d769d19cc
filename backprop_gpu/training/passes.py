"""One pass over the data as captured programs: the whole epoch without returning to Python where the kernels can."""

from __future__ import annotations

import numpy as np

from .._typing import Replay
from ..maths.ledger import Denominator
from ..network.step import TrainingStep
from .batches import BatchBuffers, Batches


class Pass:
    """The epoch of a step over batches: full batches in one replay, the ragged tail in another.

    Everything that the programs touch is made here once; an epoch uploads its order and its table of numbers. With
    ``StreamedBatches`` every step is a replay of its own, its batch sent from the host before it.
    """

    def __init__(self, step: TrainingStep, batches: Batches, micro_batch: int | None) -> None:
        self.step, self.batches = step, batches
        backend, dtype = step.net.backend, step.net.dtype
        with backend.activate():
            self.table = backend.zeros((len(batches), step.n_numbers), dtype)
            self.values = backend.zeros((len(batches),), dtype)
            self.replays: list[tuple[Replay, int]] = []
            self._buffers: list[BatchBuffers] = []
            full = batches.sizes.count(batches.batch_size)
            for m, times in ((batches.batch_size, full), (batches.sizes[-1], len(batches) - full)):
                if times:
                    buffers = batches.buffers(m)
                    step.reserve(m, micro_batch)
                    program = step.program(self.table, self.values, buffers, micro_batch)
                    self.replays.append((step.net.kernels.capture(program), times))
                    self._buffers.append(buffers)

    def run(self, epoch: int) -> np.ndarray:
        """Train one epoch (from 0); returns J of each batch, as it was before that batch's update."""
        step, backend = self.step, self.step.net.backend
        with backend.activate():
            sums = self.batches.start_epoch(epoch)
            sizes = zip(self.batches.sizes, sums, strict=True)
            step.load(self.table, [Denominator.of(step.reduction, m, total) for m, total in sizes])
            with np.errstate(all="ignore"):  # a run that diverges is told by its cost
                first = 0
                for (replay, times), buffers in zip(self.replays, self._buffers, strict=True):
                    buffers.play(replay, first, times)
                    first += times
            step.t += len(self.batches)
            costs = backend.to_host(self.values)
            costs[-1] = backend.to_host(step.value)[0]  # the last one has not been put away yet
        return costs
