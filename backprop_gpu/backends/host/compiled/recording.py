"""Calls of compiled kernels: an address and rows of numbers, one row for each part that may be played by itself."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ....errors import ShapeError
from .calling import Kernel, call, integers
from .native import Native

CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this
PRODUCT_RATE, PASS_RATE = 100, 5  # about: operations of a product, elements of a pass over memory, in a nanosecond


class NotRecordableError(Exception):
    """An operation has no compiled form, so the program that holds it is played by Python."""


class Region(NamedTuple):
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

    def region(self, address: int, units: int, first: int, end: int) -> Region:
        """What a part of ``units`` touches of the array, which lies at ``address``."""
        assert self.array is not None
        size = self.array.nbytes
        if not self.step:
            return Region(address, address + size)
        first, end = self.step * first, self.step * end
        if self.by_part or self.step * units == size:
            return Region(address + first, address + end)
        pitch = self.array.strides[0]
        if self.step * units == pitch:
            return Region(address, address + size, pitch, first, end)
        return Region(address, address + size)


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
        self.parts = max(1, min(parts, self._units // self._aligned))
        arrays = [a.array if isinstance(a, Cut) else a for a in self.arguments]
        # Where the arrays among the arguments begin; 0 for anything else.
        self._addresses = [_address(x) if isinstance(x, np.ndarray) else 0 for x in arrays]
        self._rows: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """Row i is what the kernel is given for the i-th part, (parts, number of arguments) int64."""
        if self._rows is None:
            self._rows = np.array([self._row(part) for part in range(self.parts)], np.int64)
        return self._rows

    @property
    def row_addresses(self) -> list[int]:
        """Where the rows begin."""
        start, size = self.rows.ctypes.data, 8 * len(self.arguments)
        return [start + size * part for part in range(self.parts)]

    def cut(self, parts: int) -> Call:
        """The same call in so many parts, or as many as it has units for."""
        if self.solo or parts == self.parts:
            return self
        return Call(self.kernel, self.arguments, self.nanoseconds, parts, free=self.free)

    def run(self) -> None:
        """Outright, part after part."""
        for address in self.row_addresses:
            self.kernel(address)

    def regions(self, part: int) -> tuple[list[Region], list[Region]]:
        """What a part reads, and what it writes."""
        read, written = list[Region](), list[Region]()
        first, end = self._bounds(part)
        for a, address in zip(self.arguments, self._addresses, strict=True):
            if not address:
                continue
            if isinstance(a, Cut):
                bounds = (part, part + 1) if a.by_part else (first, end)
                (written if a.written else read).append(a.region(address, self._units, *bounds))
            elif isinstance(a, np.ndarray):
                read.append(Region(address, address + a.nbytes))
        return read, written

    def _bounds(self, part: int) -> tuple[int, int]:
        """The first unit of a part, and the first of the next."""
        if self.parts == 1:
            return 0, self._units
        first, end = (
            self._units if i == self.parts else self._units * i // self.parts // self._aligned * self._aligned
            for i in (part, part + 1)
        )
        return first, end

    def _row(self, part: int) -> list[int]:
        """What the kernel is given for a part."""
        first, end = self._bounds(part)
        row = []
        for a, address in zip(self.arguments, self._addresses, strict=True):
            if address:
                row.append(address + a.step * (part if a.by_part else first) if isinstance(a, Cut) else address)
            elif isinstance(a, Units):
                row.append(end - first)
            elif isinstance(a, First):
                row.append(a + first)
            else:
                row.append(a if isinstance(a, int) else 0)
        return row


def product_time(n: int, k: int, m: int, like: np.ndarray) -> float:
    """About how many nanoseconds a core takes for (n, k) times (k, m)."""
    return 2 * n * k * m * like.itemsize / 4 / PRODUCT_RATE


def pass_time(x: np.ndarray) -> float:
    """About how many nanoseconds a core takes to go over an array."""
    return x.nbytes / 4 / PASS_RATE


def _address(x: np.ndarray) -> int:
    if not x.flags.c_contiguous:  # a row holds an address and no strides
        raise ShapeError(f"compiled kernels take arrays in C order; one of {x.shape} is not")
    if x.flags.writeable and x.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(x.data))  # takes half of the time
    return x.ctypes.data


def play(kernels: Any, rows: Any, n: Any, times: Any) -> None:
    """Call each of n kernels with its row, in order, ``times`` times over."""
    kernel, row = integers(kernels, n), integers(rows, n)
    for _ in range(times):
        for i in range(n):
            call(kernel[i], row[i])


play_alone = Native("play", 4, lambda: play)


class Tape:
    """The calls of a program, in order, on one core."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self._kernels = np.array([c.kernel.address for c in calls for _ in range(c.parts)], np.int64)
        self._rows = np.array([address for c in calls for address in c.row_addresses], np.int64)
        self._program = self._kernels.ctypes.data, self._rows.ctypes.data, self._rows.size

    def play(self, times: int) -> None:
        """Play, a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
        chunk = 1
        while times > 0:
            now = min(chunk, times)
            start = time.perf_counter()
            play_alone(*self._program, now)
            seconds = (time.perf_counter() - start) / now
            times -= now
            chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
