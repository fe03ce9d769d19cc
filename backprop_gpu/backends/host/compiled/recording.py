"""A recorded step: calls of compiled kernels, each an address and a row of numbers, and the loop that plays them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .calling import Kernel, call, integers
from .native import Native

CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this


class NotRecordableError(Exception):
    """An operation has no compiled form, so the program that holds it is played by Python."""


class Call:
    """A kernel with its arguments, whose arrays it keeps alive: its row holds their addresses."""

    def __init__(self, kernel: Kernel, arguments: tuple[int | np.ndarray | None, ...]) -> None:
        self.kernel, self.arguments = kernel, arguments
        self.row = np.array([_number(a) for a in arguments], np.int64)

    def run(self) -> None:
        """Outright."""
        self.kernel(self.row.ctypes.data)


def _number(argument: int | np.ndarray | None) -> int:
    if argument is None or isinstance(argument, int):
        return argument or 0
    assert argument.flags.c_contiguous, "a row holds an address and no strides"
    return argument.ctypes.data


def play(kernels: Any, rows: Any, n: Any, times: Any) -> None:
    """Call each of n kernels with its row, in order, ``times`` times over."""
    kernel, row = integers(kernels, n), integers(rows, n)
    for _ in range(times):
        for i in range(n):
            call(kernel[i], row[i])


_player = Native("play", 4, lambda: play)


class Tape:
    """The calls of a program, in order."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self._kernels = np.array([c.kernel.address for c in calls], np.int64)
        self._rows = np.array([c.row.ctypes.data for c in calls], np.int64)

    def play(self, times: int) -> None:
        """Play, a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
        chunk = 1
        kernels, rows, n = self._kernels.ctypes.data, self._rows.ctypes.data, len(self.calls)
        while times > 0:
            now = min(chunk, times)
            start = time.perf_counter()
            _player(kernels, rows, n, now)
            seconds = (time.perf_counter() - start) / now
            times -= now
            chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
