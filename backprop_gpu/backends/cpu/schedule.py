"""What of a recorded program may run at once: calls in chunks, and the chunks of several calls in stages.

Chunks with the same number make a task. A stage is a run of calls whose tasks touch nothing that another task of the
stage writes, so that tasks may run in any order, on any core, with the same bits; a core that runs a task takes a
layer's product and the pass over its result together, while it is in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .autotuner import Autotuner
from .calls import Call, Region

# The largest product of a network that is split in two has twice so many operations at least, one that is split in more
# has MORE_FLOPS for each chunk: some microseconds of a core.
CHUNK_FLOPS, MORE_FLOPS = 130_000, 500_000
CHUNK_PARAMETERS = 8_192  # of an operation on the flat vector
MAX_TASKS = 32  # of a stage, as in native/cpu/thread_pool.h


@dataclass
class Task:
    """Chunks of calls that run one after the other.

    Attributes
    ----------
    nanoseconds : float
        About how long they take on one core.
    members : int
        A bit for each of the chunks: see :func:`_conflicts`.
    """

    chunks: list[tuple[Call, int]] = field(default_factory=list)
    nanoseconds: float = 0.0
    members: int = 0


@dataclass
class _Placed:
    """A call and, for each of its chunks, the chunks it conflicts with.

    Attributes
    ----------
    first : int
        The bit of its first chunk in the numbers below; its other chunks have the next ones.
    conflicts : list of int
        For each chunk, the bits of those that write what it touches or touch what it writes.
    """

    call: Call
    first: int
    conflicts: list[int]


@dataclass
class Stage:
    """Tasks that may run at once; the next stage begins when all have ended."""

    tasks: list[Task]
    members: int = 0

    def must_precede(self, placed: _Placed) -> bool:
        """Whether anything here has to have ended, or begun, before the call."""
        return any(self.members & conflicts for conflicts in placed.conflicts)

    def add(self, placed: _Placed, cores: int) -> bool:
        """Take a call in, each chunk on a task of its own; False if it has to wait for the next stage."""
        call, numbers = placed.call, self._tasks_for(placed, cores)
        for chunk, number in enumerate(numbers):
            while number >= len(self.tasks):
                self.tasks.append(Task())
            task, bit = self.tasks[number], 1 << placed.first + chunk
            task.chunks.append((call, chunk))
            task.nanoseconds += call.nanoseconds / call.chunks
            task.members |= bit
            self.members |= bit
        return bool(numbers)

    def _tasks_for(self, placed: _Placed, cores: int) -> list[int]:
        """The number of a task for each chunk, that of least work for a call in one; empty if there are none."""
        if placed.call.chunks > 1:
            numbers = list(range(placed.call.chunks))
            return numbers if all(self._free(placed.conflicts[chunk], chunk) for chunk in numbers) else []
        work = [task.nanoseconds for task in self.tasks]
        work += [0.0] if len(work) < cores else []
        by_work = sorted(range(len(work)), key=lambda number: work[number])
        return next(([number] for number in by_work if self._free(placed.conflicts[0], number)), [])

    def _free(self, conflicts: int, number: int) -> bool:
        """Whether a chunk may be in a task, as far as the other tasks are concerned."""
        own = self.tasks[number].members if number < len(self.tasks) else 0
        return not self.members & ~own & conflicts


def _conflicts(calls: list[Call]) -> list[int]:
    """For each chunk of each call: the bits of the chunks that write what it touches, or touch what it writes.

    Regions are gone through by address, each once, so that only those are compared that have addresses in common.
    """
    numbers: dict[Region, int] = {}
    readers, writers = list[int](), list[int]()  # bits of the chunks, for each region

    def note(regions: list[Region], bit: int, members: list[int]) -> list[int]:
        found = [numbers.setdefault(region, len(numbers)) for region in regions]
        for number in found:
            if number >= len(readers):
                readers.extend([0] * (number + 1 - len(readers)))
                writers.extend([0] * (number + 1 - len(writers)))
            members[number] |= bit
        return found

    chunks = [call.regions(chunk) for call in calls for chunk in range(call.chunks)]
    noted = [(note(reads, 1 << i, readers), note(writes, 1 << i, writers)) for i, (reads, writes) in enumerate(chunks)]
    writing = writers.copy()  # bits of the chunks that write something of a region
    touching = [r | w for r, w in zip(readers, writers, strict=True)]
    begun: list[tuple[Region, int]] = []
    for region, number in sorted(numbers.items()):
        begun = [each for each in begun if each[0].end > region.start]
        for other, its in begun:
            if region.overlaps(other):
                writing[number] |= writers[its]
                writing[its] |= writers[number]
                touching[number] |= readers[its] | writers[its]
                touching[its] |= readers[number] | writers[number]
        begun.append((region, number))
    conflicts = []
    for reads, writes in noted:
        bits = 0
        for number in reads:
            bits |= writing[number]
        for number in writes:
            bits |= touching[number]
        conflicts.append(bits)
    return conflicts


def stages_of(calls: list[Call], cores: int) -> list[Stage]:
    """The calls in few stages: each in the first one after all that it has to wait for.

    So networks that advance in one program go side by side, small ones in a task each, from first call to last.
    """
    stages: list[Stage] = []
    conflicts, end = _conflicts(calls), 0
    for call in calls:
        first, end = end, end + call.chunks
        placed = _Placed(call, first, conflicts[first:end])
        position = len(stages)
        while position and not stages[position - 1].must_precede(placed):
            position -= 1
        if not any(stage.add(placed, cores) for stage in stages[max(position - 1, 0) :]):
            stages.append(Stage([Task() for _ in range(call.chunks)]))
            stages[-1].add(placed, cores)
    return stages


def split(calls: list[Call], cores: int) -> list[Call]:
    """The calls in as many chunks as are worth it: a layer's by the largest product among those of as many examples."""
    largest: dict[int, float] = {}
    for call in calls:
        largest[call.examples] = max(largest.get(call.examples, 0.0), call.flops)

    def chunks(call: Call) -> int:
        if not call.examples:
            return int(min(cores, call.units // CHUNK_PARAMETERS))
        flops = largest[call.examples]
        return int(min(cores, max(1 if flops < 2 * CHUNK_FLOPS else 2, flops // MORE_FLOPS)))

    return [call.split(chunks(call)) for call in calls]


class Schedule:
    """A program as the thread pool reads it (``native/cpu/program.h``); it keeps the calls, whose rows it points to.

    Attributes
    ----------
    cores : int
        How many can take part.
    seconds : float
        About how long it takes on one core.
    autotuner : Autotuner or None
        How fast it was, serial and parallel; None before it has run.
    address : int
        Where its words begin.
    """

    def __init__(self, calls: list[Call], cores: int) -> None:
        self.calls, stages = calls, stages_of(calls, cores)
        tasks = [task for stage in stages for task in stage.tasks]
        first_tasks = np.cumsum([0, *(len(stage.tasks) for stage in stages)])
        first_calls = np.cumsum([0, *(len(task.chunks) for task in tasks)])
        words = [len(stages), *first_tasks.tolist(), *first_calls.tolist()]
        addresses = {id(call): call.row_addresses for call in calls}
        for call, chunk in (each for task in tasks for each in task.chunks):
            words += [call.kernel, addresses[id(call)][chunk]]
        self.words = np.array(words, np.int64)
        self.cores = max((len(stage.tasks) for stage in stages), default=1)
        self.seconds = 1e-9 * sum(task.nanoseconds for task in tasks)
        self.autotuner: Autotuner | None = None
        self.address = int(self.words.ctypes.data)
