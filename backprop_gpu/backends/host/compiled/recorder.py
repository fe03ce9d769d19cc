"""Calling a compiled kernel or writing the call down, and what plays that which was written."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from ...._typing import Before, Program, Replay
from ...cpu.memory import CACHE_LINE
from ...protocol import Device
from ..kernels import HostKernels
from ..openblas import OpenBlas
from .calling import Kernel
from .crew import Crew, Score, crew
from .cuts import Prepared
from .products import products
from .recording import Argument, Call, NotRecordableError, Tape

# The largest product of a network that is cut in two has twice so many operations at least, one that is cut in more has
# MORE_OPERATIONS for each part: some microseconds of a core.
PART_OPERATIONS, MORE_OPERATIONS = 130_000, 500_000
LONG_VECTOR = 8_192  # a sum over so many numbers is taken in parts
LARGE_NANOSECONDS = 100_000  # from here on a call by itself is played on all cores
# Of a recorded program, on one core, before it is looked for what can be played at once: that takes about half as long.
ALONE_NANOSECONDS = 1_000_000


class RecordingKernels(HostKernels):
    """Where the operations of ``CompiledKernels`` take their calls."""

    def __init__(self, backend: Device, blas: OpenBlas) -> None:
        super().__init__(backend, blas)
        self._gemm = products(blas).gemm
        self._recording: list[Call] | None = None
        self._crew = crew()
        self._expected: dict[int, int] = {}

    def _run(self, kernel: Kernel, *arguments: Argument, nanoseconds: float = 0.0, parts: int | None = None) -> None:
        """Call, or write the call down. ``parts`` where its bits depend on how it is cut; None: as it fits."""
        large = self._crew.size if nanoseconds > LARGE_NANOSECONDS else 1
        made = Call(kernel, arguments, nanoseconds, large if parts is None else parts, free=parts is None)
        if self._recording is None:
            self._do(self._outright, made)
        else:
            self._recording.append(made)

    def _run_prepared(self, m: int, *all_prepared: Prepared) -> None:
        for kernel, arguments, nanoseconds in all_prepared:
            self._run(kernel, *arguments, nanoseconds=nanoseconds, parts=self._parts(m))

    def _expect(self, n: int, k: int, m: int, dtype: str) -> None:
        """A product (n, k) times (k, m) is going to be asked for: the largest of m examples says how all are cut."""
        # Two cores would write to one line where their examples meet.
        shared = n < m and m * np.dtype(dtype).itemsize % CACHE_LINE
        self._expected[m] = max(self._expected.get(m, 0), 2 * n * k * m // (4 if shared else 1))

    def _parts(self, m: int) -> int:
        """In how many parts operations on m examples are cut."""
        work = self._expected.get(m, 0)
        return min(self._crew.size, max(1 if work < 2 * PART_OPERATIONS else 2, work // MORE_OPERATIONS))

    def _outright(self, made: Call) -> None:
        """Play one call, on all cores if it is large."""
        if made.parts == 1:
            made.run()
            return
        limit = self._limit()
        with self._one_thread():  # threads of BLAS would go on looking for work, on cores that the crew needs
            if made.nanoseconds > LARGE_NANOSECONDS:
                self._crew.play(Score([made], made.parts), 1, limit)
            else:
                made.run()

    def _limit(self) -> int:
        """Cores that this process is allowed at the moment."""
        return 1 if self.blas is None else self.blas.threads

    def _contiguous(self, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """A copy that is made anew whenever the operation is."""
        copy = np.empty(x.shape, dtype)
        self._do(np.copyto, copy, x)
        return copy

    def _fall_back(self) -> None:
        """Called before NumPy's kernel is used: fine outright, the end of a recording."""
        if self._recording is not None:
            raise NotRecordableError

    def capture(self, program: Program) -> Replay:
        """One compiled loop over the program's kernels, in chunks; the Python itself if something is not compiled."""
        calls = self._record(program)
        if calls is None:
            return super().capture(program)
        recorded, one_core = Recorded(calls, self._crew), self._crew.size == 1
        threads = functools.partial(self._blas_threads, self._largest_product) if one_core else self._one_thread

        def replay(times: int, before: Before | None = None) -> None:
            with threads():
                if before is None:
                    recorded.play(times, self._limit)
                    return
                for _ in range(times):
                    before()
                    recorded.play(1, self._limit)

        return replay

    def _record(self, program: Program) -> list[Call] | None:
        """The program's calls; None if something has no compiled form."""
        calls: list[Call] = []
        self._recording, self._largest_product = calls, 0
        try:
            program()
        except NotRecordableError:
            return None
        finally:
            self._recording = None
        return calls

    def _parts_of(self, vector: np.ndarray) -> int:
        """In how many parts a sum over a vector is taken."""
        return self._crew.size if vector.shape[0] >= LONG_VECTOR else 1


class Recorded:
    """The calls of a program: in order on one core, and on all once it has been played for so long that it pays.

    Both have the same bits.
    """

    def __init__(self, calls: list[Call], crew: Crew) -> None:
        self.calls, self._crew = calls, crew
        self._alone = ALONE_NANOSECONDS / max(1.0, sum(made.nanoseconds for made in calls))  # so many steps
        if crew.size == 1:
            self._alone = math.inf
        for made in calls:
            made.kernel.prepare()  # compiled now if it has to be, not while the program is being played
        self._tape: Tape | None = None
        self._score: Score | None = None

    def play(self, times: int, limit: Callable[[], int]) -> None:
        """Play so many times, on ``limit()`` cores at most."""
        if self._score is None and times > self._alone:
            self._score = self._scored()
            self._alone = math.inf if self._score.cores == 1 else 0.0
        if self._score is not None and times > self._alone:
            self._crew.play(self._score, times, limit())
            return
        self._tape = self._tape or Tape(self.calls)
        self._tape.play(times)
        self._alone -= times

    def _scored(self) -> Score:
        parts = max((made.parts for made in self.calls), default=1)
        return Score([made.cut(parts) if made.free else made for made in self.calls], self._crew.size)
