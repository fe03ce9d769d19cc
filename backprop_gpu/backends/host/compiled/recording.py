"""Calls of compiled kernels: an address and rows of numbers, one row for each part that may be played by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calling import Kernel, call, integers
from .native import Native

CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this
PRODUCT_RATE, PASS_RATE = 100, 5  # about: operations of a product, elements of a pass over memory, in a nanosecond


class NotRecordableError(Exception):
    """An operation has no compiled form, so the program that holds it is played by Python."""


@dataclass(frozen=True)
class Region:
    """Bytes that a part of a call touches.

    Attributes
    ----------
    start, end : int
        Addresses of the first and of the one after the last.
    pitch, first, last : int
        0, or only the bytes ``first`` to ``last`` of every ``pitch`` bytes are meant.
    """

    start: int
    end: int
    pitch: int = 0
    first: int = 0
    last: int = 0

    def meets(self, other: Region) -> bool:
        """Whether there may be a byte in both."""
        if self.end <= other.start or other.end <= self.start:
            return False
        side_by_side = self.pitch == other.pitch > 0 and self.start == other.start
        return not side_by_side or (self.first < other.last and other.first < self.last)


@dataclass(frozen=True)
class Cut:
    """An array of which a part of a call takes a part: its unit i begins ``step`` bytes after unit i - 1.

    Attributes
    ----------
    array : ndarray or None
        None: argument 0.
    step : int
        0: every part takes all of it.
    written : bool
        Whether the call writes it.
    by_part : bool
        Unit i is for the i-th part, whatever units the call has.
    """

    array: np.ndarray | None
    step: int = 0
    written: bool = False
    by_part: bool = False

    def region(self, units: int, first: int, end: int) -> Region:
        """What a part of ``units`` touches."""
        assert self.array is not None
        start, size = _address(self.array), self.array.nbytes
        if not self.step:
            return Region(start, start + size)
        first, end = self.step * first, self.step * end
        if self.by_part or self.step * units == size:
            return Region(start + first, start + end)
        pitch = self.array.strides[0]
        if self.step * units == pitch:
            return Region(start, start + size, pitch, first, end)
        return Region(start, start + size)


class Units(int):
    """How many units a call works on, each independently of the others: rows of a result, or parameters."""

    aligned = 4  # a part begins at a multiple: BLAS makes products of so many rows at a time


class Columns(Units):
    """Units that are columns, such as the examples of a batch."""

    aligned = 16  # two cores never write to one cache line


class First(int):
    """A number to which a part adds its first unit."""


Argument = int | np.ndarray | Cut | None


def rows(x: np.ndarray | None, *, written: bool = False) -> Cut:
    """Cut along its first axis."""
    return Cut(x, 0 if x is None else x.nbytes // x.shape[0], written)


def columns(x: np.ndarray | None, *, written: bool = False) -> Cut:
    """Cut along its last axis."""
    return Cut(x, 0 if x is None else x.itemsize, written)


def shares(x: np.ndarray) -> Cut:
    """Row i is written by the i-th part."""
    return Cut(x, x.strides[0], written=True, by_part=True)


class Call:
    """A kernel with its arguments, whose arrays it keeps alive: its rows hold their addresses, one row for each part.

    Attributes
    ----------
    parts : int
        In how many parts it can be played, in any order or at once, with the same bits.
    nanoseconds : float
        About how long it takes on one core.
    free : bool
        Its bits do not depend on how it is cut.
    solo : bool
        It has no units, and what it writes is not declared: nothing may be played beside it.
    """

    def __init__(
        self,
        kernel: Kernel,
        arguments: Sequence[Argument],
        nanoseconds: float = 0.0,
        parts: int = 1,
        *,
        free: bool = False,
    ) -> None:
        self.kernel, self.arguments, self.nanoseconds, self.free = kernel, tuple(arguments), nanoseconds, free
        units = next((a for a in self.arguments if isinstance(a, Units)), None)
        self._units, self._aligned = (0, 1) if units is None else (int(units), units.aligned)
        self.solo = units is None
        self._regions: dict[int, tuple[list[Region], list[Region]]] = {}
        self.parts = max(1, min(parts, self._units // self._aligned))
        self.rows = [np.array([self._number(a, i) for a in self.arguments], np.int64) for i in range(self.parts)]

    def cut(self, parts: int) -> Call:
        """The same call in so many parts, or as many as it has units for."""
        if self.solo or parts == self.parts:
            return self
        return Call(self.kernel, self.arguments, self.nanoseconds, parts, free=self.free)

    def run(self) -> None:
        """Outright, part after part."""
        for row in self.rows:
            self.kernel(row.ctypes.data)

    def regions(self, part: int) -> tuple[list[Region], list[Region]]:
        """What a part reads, and what it writes."""
        if part not in self._regions:
            self._regions[part] = self._find_regions(part)
        return self._regions[part]

    def _find_regions(self, part: int) -> tuple[list[Region], list[Region]]:
        read, written = list[Region](), list[Region]()
        for argument in self.arguments:
            if isinstance(argument, np.ndarray):
                argument = Cut(argument)
            if isinstance(argument, Cut) and argument.array is not None:
                first, end = (part, part + 1) if argument.by_part else self._bounds(part)
                (written if argument.written else read).append(argument.region(self._units, first, end))
        return read, written

    def _bounds(self, part: int) -> tuple[int, int]:
        """The first unit of a part, and the first of the next."""
        first, end = (
            self._units if i == self.parts else self._units * i // self.parts // self._aligned * self._aligned
            for i in (part, part + 1)
        )
        return first, end

    def _number(self, argument: Argument, part: int) -> int:
        """What a part's row holds for an argument."""
        first, end = self._bounds(part)
        if isinstance(argument, Units):
            return end - first
        if isinstance(argument, First):
            return argument + first
        if argument is None or isinstance(argument, int):
            return argument or 0
        if isinstance(argument, np.ndarray):
            return _address(argument)
        unit = part if argument.by_part else first
        return 0 if argument.array is None else _address(argument.array) + argument.step * unit


def product_time(n: int, k: int, m: int, like: np.ndarray) -> float:
    """About how many nanoseconds a core takes for (n, k) times (k, m)."""
    return 2 * n * k * m * like.itemsize / 4 / PRODUCT_RATE


def pass_time(x: np.ndarray) -> float:
    """About how many nanoseconds a core takes to go over an array."""
    return x.nbytes / 4 / PASS_RATE


def _address(x: np.ndarray) -> int:
    assert x.flags.c_contiguous, "a row holds an address and no strides"
    return x.ctypes.data


def play(kernels: Any, rows: Any, n: Any, times: Any) -> None:
    """Call each of n kernels with its row, in order, ``times`` times over."""
    kernel, row = integers(kernels, n), integers(rows, n)
    for _ in range(times):
        for i in range(n):
            call(kernel[i], row[i])


_player = Native("play", 4, lambda: play)


class Tape:
    """The calls of a program, in order, on one core."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self._kernels = np.array([c.kernel.address for c in calls for _ in c.rows], np.int64)
        self._rows = np.array([row.ctypes.data for c in calls for row in c.rows], np.int64)

    def play(self, times: int) -> None:
        """Play, a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
        chunk, program = 1, (self._kernels.ctypes.data, self._rows.ctypes.data, self._rows.size)
        while times > 0:
            now = min(chunk, times)
            start = time.perf_counter()
            _player(*program, now)
            seconds = (time.perf_counter() - start) / now
            times -= now
            chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
