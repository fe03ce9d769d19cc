"""Calls of native kernels: the kernel's address and one row of arguments for each chunk that may run by itself.

A call works on units (rows of a result, examples of a batch, parameters) that do not depend on each other, so it may be
split into chunks. The result has the same bits however a call is split and whichever thread runs a chunk: a law of the
kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .memory import CACHE_LINE

PARAMETERS = 4096  # per block of a sum over parameters, as in native/cpu/flat.h
FLOPS_PER_NANOSECOND, ELEMENTS_PER_NANOSECOND = 100, 5  # rough rates of one core: products, passes over memory


class Region(NamedTuple):
    """Bytes that a chunk of a call accesses.

    Attributes
    ----------
    start, end : int
        Addresses of the first and of the one after the last.
    pitch, first, last : int
        If ``pitch`` is not 0: only the bytes ``first`` to ``last`` of every ``pitch`` bytes.
    """

    start: int
    end: int
    pitch: int = 0
    first: int = 0
    last: int = 0

    def overlaps(self, other: Region) -> bool:
        """Whether there may be a byte in both."""
        if self.end <= other.start or other.end <= self.start:
            return False
        side_by_side = self.pitch == other.pitch > 0 and self.start == other.start
        return not side_by_side or (self.first < other.last and other.first < self.last)


@dataclass(frozen=True)
class ArgumentSlice:
    """An array of which each chunk takes a slice: unit i begins ``step`` bytes after unit i - 1.

    ``array`` None is a null pointer; ``step`` 0: every chunk takes all of it; ``written``: the call writes it.
    """

    array: np.ndarray | None
    step: int = 0
    written: bool = False

    def region(self, address: int, units: int, first: int, end: int) -> Region:
        """The bytes of the array, which begins at ``address``, that units ``first`` to ``end`` of ``units`` access."""
        assert self.array is not None
        size = self.array.nbytes
        if not self.step:
            return Region(address, address + size)
        first, end = self.step * first, self.step * end
        if self.step * units >= size:
            return Region(address + first, address + min(end, size))
        pitch = self.array.strides[0]
        if self.step * units == pitch:
            return Region(address, address + size, pitch, first, end)
        return Region(address, address + size)


class Units(int):
    """The number of units of a call; the kernel is given that of the chunk."""

    alignment = 4  # chunks begin at multiples of it, since products are computed in tiles of rows


class Columns(Units):
    """Units that are columns, such as the examples of a batch."""

    alignment = 16  # two cores never write to one cache line


class Blocks(Units):
    """Units that are blocks of parameters."""

    alignment = 1


class FirstUnit(int):
    """A number that is increased by the first unit of the chunk."""


Argument = int | np.ndarray | ArgumentSlice | None


def rows(x: np.ndarray | None, *, written: bool = False) -> ArgumentSlice:
    """Sliced along its first axis."""
    return ArgumentSlice(x, 0 if x is None else x.nbytes // x.shape[0], written)


def columns(x: np.ndarray | None, *, written: bool = False) -> ArgumentSlice:
    """Sliced along its last axis."""
    return ArgumentSlice(x, 0 if x is None else x.itemsize, written)


def by_blocks(x: np.ndarray, *, written: bool = False) -> ArgumentSlice:
    """The flat vector, in units of PARAMETERS numbers."""
    return ArgumentSlice(x, PARAMETERS * x.itemsize, written)


def whole(x: np.ndarray, *, written: bool = False) -> ArgumentSlice:
    """Not sliced."""
    return ArgumentSlice(x, 0, written)


class Call:
    """A kernel with its arguments, whose arrays it keeps alive: its rows hold their addresses, one row for each chunk.

    Parameters
    ----------
    kernel : int
        Its address.
    arguments : sequence of Argument
        In the order of the kernel's struct.
    nanoseconds : float
        About how long it takes on one core.
    examples : int
        The number of examples if it is a layer's operation, else 0. Calls of as many examples are split alike, so
        that one thread runs a chunk of examples through several layers.
    flops : float
        Of its product; decides into how many chunks the call is split.
    """

    def __init__(
        self,
        kernel: int,
        arguments: Sequence[Argument],
        nanoseconds: float = 0.0,
        examples: int = 0,
        flops: float = 0.0,
        chunks: int = 1,
    ) -> None:
        self.kernel, self.arguments, self.nanoseconds = kernel, tuple(arguments), nanoseconds
        self.examples, self.flops = examples, flops
        units = next((a for a in self.arguments if isinstance(a, Units)), None)
        self.units, self._alignment = (1, 1) if units is None else (int(units), units.alignment)
        self.chunks = max(1, min(chunks, self.units // self._alignment))
        arrays = [a.array if isinstance(a, ArgumentSlice) else a for a in self.arguments]
        # Where the arrays among the arguments begin; 0 for anything else.
        self._addresses = [_address(x) if isinstance(x, np.ndarray) else 0 for x in arrays]
        self._rows: np.ndarray | None = None

    @property
    def row_addresses(self) -> list[int]:
        """Where each chunk's row of words begins."""
        if self._rows is None:
            self._rows = np.array([self._row(chunk) for chunk in range(self.chunks)], np.int64)
        start, size = self._rows.ctypes.data, 8 * len(self.arguments)
        return [start + size * chunk for chunk in range(self.chunks)]

    def split(self, chunks: int) -> Call:
        """The same call in so many chunks, or as many as it has units for."""
        if chunks == self.chunks:
            return self
        return Call(self.kernel, self.arguments, self.nanoseconds, self.examples, self.flops, chunks)

    def regions(self, chunk: int) -> tuple[list[Region], list[Region]]:
        """The regions that a chunk reads, and those that it writes."""
        read, written = list[Region](), list[Region]()
        first, end = self._bounds(chunk)
        for a, address in zip(self.arguments, self._addresses, strict=True):
            if not address:
                continue
            if isinstance(a, ArgumentSlice):
                (written if a.written else read).append(a.region(address, self.units, first, end))
            elif isinstance(a, np.ndarray):
                read.append(Region(address, address + a.nbytes))
        return read, written

    def _bounds(self, chunk: int) -> tuple[int, int]:
        """The first unit of a chunk, and the first of the next."""
        if self.chunks == 1:
            return 0, self.units
        first, end = (
            self.units if i == self.chunks else self.units * i // self.chunks // self._alignment * self._alignment
            for i in (chunk, chunk + 1)
        )
        return first, end

    def _row(self, chunk: int) -> list[int]:
        """The kernel's arguments for a chunk."""
        first, end = self._bounds(chunk)
        row = []
        for a, address in zip(self.arguments, self._addresses, strict=True):
            if address:
                row.append(address + a.step * first if isinstance(a, ArgumentSlice) else address)
            elif isinstance(a, Units):
                row.append(end - first)
            elif isinstance(a, FirstUnit):
                row.append(a + first)
            else:
                row.append(int(a) if isinstance(a, int) else 0)
        return row


def product_cost(n: int, k: int, m: int, like: np.ndarray) -> dict[str, Any]:
    """What a layer's product (n, k) times (k, m) costs a core, as keywords of a call."""
    flops = 2.0 * n * k * m  # fewer chunks where two cores would write to the same cache lines
    shared = n < m and m * like.itemsize % CACHE_LINE
    nanoseconds = flops * like.itemsize / 4 / FLOPS_PER_NANOSECOND
    return {"nanoseconds": nanoseconds, "examples": m, "flops": flops / (4 if shared else 1)}


def pass_time(x: np.ndarray) -> float:
    """About how many nanoseconds a core takes to go over an array."""
    return x.nbytes / 4 / ELEMENTS_PER_NANOSECOND


def _address(x: np.ndarray) -> int:
    assert x.flags.c_contiguous, "a row holds an address and no strides"
    if x.flags.writeable and x.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(x.data))  # twice as fast
    return x.ctypes.data
