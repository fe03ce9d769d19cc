"""Running recorded programs: serially, or by the library's thread pool (``native/cpu/thread_pool.h``)."""

from __future__ import annotations

import functools
import math
import os
import time

import numpy as np

from ..._typing import Before
from .autotuner import Autotuner
from .blas import usable_cores
from .calls import Call
from .library import Library, native_library
from .openblas import thread_limit
from .schedule import MAX_TASKS, Schedule, split

CHUNK_SECONDS = 0.1  # between chunks Python handles signals, so this bounds the delay of Ctrl-C
# Run a program serially until it has cost this; only then build the parallel schedule, which costs about half as much.
SERIAL_NANOSECONDS = 1_000_000
SHORT_SECONDS = 100e-6  # shorter work wakes no sleeping thread, unless the last work ended less than this ago
_LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # in OpenBLAS's order


class ThreadPool:
    """Python's view of the thread pool of this process.

    Attributes
    ----------
    size : int
        Threads that may take part, the main thread included.
    """

    def __init__(self, library: Library, size: int) -> None:
        self.library, self.size = library, size
        self._last_ended = -math.inf
        self._autotuners: dict[int, Autotuner] = {}

    def run(self, schedule: Schedule, times: int, limit: int) -> None:
        """Run a schedule in chunks of some hundredths of a second, in parallel if that is faster.

        ``limit``: the largest number of cores. While another thread uses the workers, it runs serially.
        """
        alike = round(math.log2(schedule.seconds + 1e-9))
        tuner = schedule.autotuner = schedule.autotuner or Autotuner(schedule.seconds, self._autotuners.get(alike))
        self._autotuners[alike] = tuner
        while times > 0:
            parallel, steps = tuner.next(times)
            threads = min(limit, self.size) if parallel else 1
            start = time.perf_counter()
            follows = start - self._last_ended < SHORT_SECONDS  # as in short epochs, whose steps come one at a time
            if threads > 1:
                wake = follows or steps * schedule.seconds > SHORT_SECONDS
                parallel = bool(self.library.call_workers(threads, wake))
                threads = threads if parallel else 1
            checked(self.library.run_schedule(schedule.address, steps, threads))
            self._last_ended = time.perf_counter()
            tuner.record(parallel, steps, self._last_ended - start)
            times -= steps


def checked(status: int) -> None:
    """Raise what a library call's status says."""
    if status:
        raise MemoryError("there is no memory for the kernels' workspace")


@functools.cache
def thread_pool() -> ThreadPool:
    """The pool of this process: a thread for each core it may use, or as many as the environment allows BLAS.

    A limit set later, by ``threadpoolctl``, is respected as well: the same chunks then run on fewer cores.
    """
    given = (os.environ.get(name, "") for name in _LIMITS)
    limit = next((int(n) for n in given if n.isdecimal() and int(n) > 0), MAX_TASKS)
    return ThreadPool(native_library(), min(limit, usable_cores(), MAX_TASKS))


class Program:
    """A recorded program without Python calls: runs serially at first, and in parallel once that pays.

    The results have the same bits. See ``_typing.Replay``.
    """

    def __init__(self, calls: list[Call], pool: ThreadPool) -> None:
        self.calls, self._pool = calls, pool
        self._serial_steps = SERIAL_NANOSECONDS / max(1.0, sum(call.nanoseconds for call in calls))
        if pool.size == 1:
            self._serial_steps = math.inf
        kernels = np.array([call.kernel for call in calls], np.int64)
        rows = np.array([call.row_addresses[0] for call in calls], np.int64)
        self._words = kernels, rows  # which the library reads: it is given their addresses
        self._serial = int(kernels.ctypes.data), int(rows.ctypes.data), len(calls)
        self._schedule: Schedule | None = None

    def __call__(self, times: int, before: Before | None = None) -> None:
        """Run so many times, each after ``before``, on as many cores as the process is allowed at the moment."""
        if before is not None:
            for _ in range(times):
                before()
                self(1)
            return
        if self._schedule is None and times > self._serial_steps:
            self._schedule = Schedule(split(self.calls, self._pool.size), self._pool.size)
            self._serial_steps = math.inf if self._schedule.cores == 1 else 0.0
        if self._schedule is not None and times > self._serial_steps:
            self._pool.run(self._schedule, times, thread_limit())
            return
        self._serial_steps -= times
        chunk = 1  # the first chunk shows how long a step takes
        while times > 0:
            now = min(chunk, times)
            start = time.perf_counter()
            checked(self._pool.library.run(*self._serial, now))
            seconds = (time.perf_counter() - start) / now
            times -= now
            chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
