"""Calling a compiled kernel or writing the call down, and what plays that which was written."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np

from ...._typing import Before, Program, Replay
from ...protocol import Device
from ..kernels import HostKernels
from ..memory import CACHE_LINE
from ..openblas import OpenBlas
from .calling import Kernel
from .crew import Score, crew
from .cuts import Prepared
from .products import products
from .recording import Argument, Call, NotRecordableError, Tape

# The largest product of a network that is cut in two has twice so many operations at least, one that is cut in more has
# MORE_OPERATIONS for each part: some microseconds of a core.
PART_OPERATIONS, MORE_OPERATIONS = 130_000, 500_000
LONG_VECTOR = 8_192  # a sum over so many numbers is taken in parts
LARGE_NANOSECONDS = 100_000  # from here on a call by itself is played on all cores

Threads = Callable[[], contextlib.AbstractContextManager[None]]


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
        play, threads = self._player(calls)

        def replay(times: int, before: Before | None = None) -> None:
            with threads():
                if before is None:
                    play(times)
                    return
                for _ in range(times):
                    before()
                    play(1)

        return replay

    def _player(self, calls: list[Call]) -> tuple[Callable[[int], None], Threads]:
        """What plays the calls a number of times, and under how many threads of BLAS: one where all cores play."""
        parts = max((made.parts for made in calls), default=1)
        score = Score([made.cut(parts) if made.free else made for made in calls], self._crew.size)
        if score.cores == 1:
            return Tape(calls).play, functools.partial(self._blas_threads, self._largest_product)
        return lambda times: self._crew.play(score, times, self._limit()), self._one_thread

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
