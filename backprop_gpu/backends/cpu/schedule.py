"""The parallel schedule of a recorded program: calls split into chunks, and the chunks grouped into tasks and stages.

Chunks with the same number form a task. In a stage, no task accesses what another one writes, so tasks may run in any
order on any core with the same bits. A task does a layer's product and the pass over its result one after the other,
while the result is in the core's cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .autotuner import Autotuner
from .calls import Call, Region

# A product is split in two if each half has at least CHUNK_FLOPS operations, and into more chunks if each of them has
# MORE_FLOPS, which take one core some microseconds.
CHUNK_FLOPS, MORE_FLOPS = 130_000, 500_000
CHUNK_NANOSECONDS = 2_000  # of an operation on the flat vector
MAX_TASKS = 32  # per stage, as in native/cpu/thread_pool.h


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
class _NumberedCall:
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

    def must_precede(self, numbered: _NumberedCall) -> bool:
        """Whether the call conflicts with a chunk of this stage."""
        return any(self.members & conflicts for conflicts in numbered.conflicts)

    def add(self, numbered: _NumberedCall, cores: int) -> bool:
        """Add a call, each of its chunks to another task; False if it has to go into a later stage."""
        call, numbers = numbered.call, self._tasks_for(numbered, cores)
        for chunk, number in enumerate(numbers):
            while number >= len(self.tasks):
                self.tasks.append(Task())
            task, bit = self.tasks[number], 1 << numbered.first + chunk
            task.chunks.append((call, chunk))
            task.nanoseconds += call.nanoseconds / call.chunks
            task.members |= bit
            self.members |= bit
        return bool(numbers)

    def _tasks_for(self, numbered: _NumberedCall, cores: int) -> list[int]:
        """The number of a task for each chunk, that of least work for a call in one; empty if there are none."""
        if numbered.call.chunks > 1:
            numbers = list(range(numbered.call.chunks))
            return numbers if all(self._free(numbered.conflicts[chunk], chunk) for chunk in numbers) else []
        work = [task.nanoseconds for task in self.tasks]
        work += [0.0] if len(work) < cores else []
        by_work = sorted(range(len(work)), key=lambda number: work[number])
        return next(([number] for number in by_work if self._free(numbered.conflicts[0], number)), [])

    def _free(self, conflicts: int, number: int) -> bool:
        """Whether a chunk with these conflicts has none with the tasks other than ``number``."""
        own = self.tasks[number].members if number < len(self.tasks) else 0
        return not self.members & ~own & conflicts


def _conflicts(calls: list[Call]) -> list[int]:
    """For each chunk of each call: the bits of the chunks that write what it touches, or touch what it writes.

    Regions are sorted by address, so that only those that overlap are compared.
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
    """Group the calls into stages: each goes into the earliest stage after all calls that it conflicts with.

    Several networks in one program therefore run in parallel; a small one stays in one task from first call to last.
    """
    stages: list[Stage] = []
    conflicts, end = _conflicts(calls), 0
    for call in calls:
        first, end = end, end + call.chunks
        numbered = _NumberedCall(call, first, conflicts[first:end])
        position = len(stages)
        while position and not stages[position - 1].must_precede(numbered):
            position -= 1
        if not any(stage.add(numbered, cores) for stage in stages[max(position - 1, 0) :]):
            stages.append(Stage([Task() for _ in range(call.chunks)]))
            stages[-1].add(numbered, cores)
    return stages


def split(calls: list[Call], cores: int) -> list[Call]:
    """Split the calls into as many chunks as pay off; calls of the same number of examples all into as many."""
    largest: dict[int, float] = {}
    for call in calls:
        largest[call.examples] = max(largest.get(call.examples, 0.0), call.flops)

    def chunks(call: Call) -> int:
        if not call.examples:
            return int(min(cores, call.nanoseconds // CHUNK_NANOSECONDS))
        flops = largest[call.examples]
        return int(min(cores, max(1 if flops < 2 * CHUNK_FLOPS else 2, flops // MORE_FLOPS)))

    return [call.split(chunks(call)) for call in calls]


class Schedule:
    """A program as the thread pool reads it (``native/cpu/program.h``); keeps the calls, since it points to their rows.

    Attributes
    ----------
    cores : int
        The largest number of tasks in a stage.
    seconds : float
        About how long it takes on one core.
    autotuner : Autotuner or None
        Chooses between serial and parallel execution; None before the first run.
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
