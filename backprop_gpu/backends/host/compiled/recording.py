"""A recorded step: calls of compiled kernels, each an address and a row of numbers, and the loop that plays them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from .calling import Kernel, call, compiled

CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this


class NotRecordableError(Exception):
    """An operation has no compiled form, so the program that holds it is played by Python."""


@dataclass(frozen=True)
class Along:
    """An array whose columns (examples), or whose elements, begin ``step`` bytes apart: it can be taken in parts."""

    array: np.ndarray | None
    step: int


@dataclass(frozen=True)
class Summed:
    """An array to which every example adds: a gradient, the cost."""

    array: np.ndarray


class Columns(int):
    """How many examples a call works on."""


class Elements(int):
    """How many elements of vectors a call works on, each by itself."""


class First(int):
    """The first of those examples."""


Argument = int | np.ndarray | Along | Summed | None


@dataclass(frozen=True)
class Part:
    """Some of a call's examples or elements, and where it adds to arrays instead of in place."""

    first: int
    size: int
    moved: Callable[[np.ndarray], int]


class Call:
    """A kernel with its arguments, whose arrays it keeps alive: its row holds their addresses."""

    def __init__(self, kernel: Kernel, arguments: tuple[Argument, ...], part: Part | None = None) -> None:
        self.kernel, self.arguments = kernel, arguments
        self.row = np.array([_number(a, part) for a in arguments], np.int64)

    def run(self) -> None:
        """Outright."""
        self.kernel(self.row.ctypes.data)

    def size(self, kind: type[int]) -> int:
        """How many columns or elements it works on; 0 if it does not work on such."""
        return next((int(a) for a in self.arguments if isinstance(a, kind)), 0)

    def of(self, part: Part) -> Call:
        """The same for a part of its columns or elements."""
        return Call(self.kernel, self.arguments, part)


def _number(argument: Argument, part: Part | None) -> int:
    if argument is None:
        return 0
    if isinstance(argument, int):
        if part is None or type(argument) is int:
            return argument
        return part.first if isinstance(argument, First) else part.size
    if isinstance(argument, Along):
        skipped = 0 if part is None else part.first * argument.step
        return 0 if argument.array is None else address_of(argument.array) + skipped
    if isinstance(argument, Summed):
        return address_of(argument.array) if part is None else part.moved(argument.array)
    return address_of(argument)


def address_of(x: np.ndarray) -> int:
    """Where a contiguous array begins."""
    assert x.flags.c_contiguous, "a row holds an address and no strides"
    return x.ctypes.data


def play(kernels: Any, rows: Any, times: Any) -> None:
    """Call each kernel with its row, in order, ``times`` times over."""
    for _ in range(times):
        for i in range(kernels.size):
            call(kernels[i], rows[i])


@functools.cache
def _player() -> Any:
    return compiled(nb.njit, play)


class Tape:
    """The calls of a program, in order."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.kernels = np.array([c.kernel.address for c in calls], np.int64)
        self.rows = np.array([c.row.ctypes.data for c in calls], np.int64)

    def play(self, times: int) -> None:
        """Without Python, and without a look at signals."""
        _player()(self.kernels, self.rows, times)


def in_chunks(play: Callable[[int], None], times: int) -> None:
    """Play a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
    chunk = 1
    while times > 0:
        now = min(chunk, times)
        start = time.perf_counter()
        play(now)
        seconds = (time.perf_counter() - start) / now
        times -= now
        chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
