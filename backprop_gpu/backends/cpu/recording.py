"""Runs kernel calls directly, or records them and replays the recording."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._typing import Before, Program, Replay
from ..collective import Collective, Cost
from ..protocol import Device
from ..reference import ReferenceKernels
from .calls import Argument, Call
from .library import Library
from .openblas import thread_limit
from .schedule import Schedule, split
from .thread_pool import Program as NativeProgram
from .thread_pool import checked, thread_pool

LARGE_NANOSECONDS = 100_000  # a single call that takes longer runs on all cores

Recorded = Call | Callable[[], object]


class _Recording(threading.local):
    """The calls recorded so far by this thread; None while it is not recording."""

    calls: list[Recorded] | None = None


class RecordingKernels(ReferenceKernels):
    """Runs or records the calls of ``NativeKernels``."""

    def __init__(self, backend: Device, library: Library) -> None:
        super().__init__(backend)
        self.library, self._pool, self._recording = library, thread_pool(), _Recording()
        self._cost: Cost = None  # of the batch, before it is rounded: sum w L in float64, and 1/D

    def _run(
        self, kernel: str, *arguments: Argument, nanoseconds: float = 0.0, examples: int = 0, flops: float = 0.0
    ) -> None:
        """Run a kernel, or record the call."""
        call = Call(self.library.kernel(kernel), arguments, nanoseconds, examples, flops)
        if self._recording.calls is not None:
            self._recording.calls.append(call)
        elif nanoseconds > LARGE_NANOSECONDS and self._pool.size > 1:
            self._pool.run(Schedule(split([call], self._pool.size), self._pool.size), 1, thread_limit())
        else:
            kernels, rows = ctypes.c_int64(call.kernel), ctypes.c_int64(call.row_addresses[0])
            checked(self.library.run(ctypes.addressof(kernels), ctypes.addressof(rows), 1, 1))

    def _python(self, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call a Python function, or record it between the native calls: for operations without a native kernel."""
        if self._recording.calls is None:
            function(*arguments, **named)
        else:
            self._recording.calls.append(functools.partial(function, *arguments, **named))

    def all_reduce(self, ranks: Collective, grad: np.ndarray, *, value: np.ndarray, empty: bool) -> None:
        """grad, value <- their sums over the ranks, a call of Python between two native programs."""
        self._python(ranks.all_reduce, self.backend, grad, value, empty, self._cost)

    def _contiguous(self, x: np.ndarray) -> np.ndarray:
        """A copy in C order, updated each time the operation runs."""
        copy = np.empty(x.shape, x.dtype)
        self._python(np.copyto, copy, x)
        return copy

    def capture(self, program: Program) -> Replay:
        """The program's calls as native programs, with the Python calls between them, if there are any."""
        pieces = [
            NativeProgram(piece, self._pool) if isinstance(piece, list) else piece
            for piece in _pieces(self._recorded(program))
        ]
        if len(pieces) == 1 and isinstance(pieces[0], NativeProgram):
            return pieces[0]

        @np.errstate(all="ignore")  # as ReferenceKernels.capture
        def replay(times: int, before: Before | None = None) -> None:
            for _ in range(times):
                if before is not None:
                    before()
                for piece in pieces:
                    if isinstance(piece, NativeProgram):
                        piece(1)
                    else:
                        piece()

        return replay

    def _recorded(self, program: Program) -> list[Recorded]:
        outer, calls = self._recording.calls, list[Recorded]()
        self._recording.calls = calls
        try:
            program()
        finally:
            self._recording.calls = outer
        return calls


def _pieces(calls: list[Recorded]) -> list[list[Call] | Callable[[], object]]:
    """Runs of native calls, each as a list, and the Python calls between them."""
    pieces: list[list[Call] | Callable[[], object]] = []
    for call in calls:
        if not isinstance(call, Call):
            pieces.append(call)
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(call)
        else:
            pieces.append([call])
    return pieces
