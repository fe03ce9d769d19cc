"""Batches of rows that are not in memory: threads read the next ones while this one is trained on."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import Before
from ..errors import DataError
from ..maths.permutation import Permutation, permutation
from ..network.row_source import RowSource
from .batches import SHUFFLE_STREAM, StreamedBatches, StreamedBuffers

if TYPE_CHECKING:
    from concurrent.futures import Future

AHEAD_BYTES = 64 * 2**20  # of batches that have been read and wait
MOST_AHEAD = 16  # batches; each is read by a thread of its own, since a disk answers many at once sooner


class Prefetch:
    """Batches that are read ahead by threads, given in order.

    Parameters
    ----------
    read : callable
        The arrays of batch k.
    ahead : int
        Batches that are read beyond the one that is asked for: as many are in memory at most.

    Attributes
    ----------
    waited : float
        Seconds for which training waited for rows.
    """

    def __init__(self, read: Callable[[int], list[np.ndarray]], ahead: int) -> None:
        from concurrent.futures import ThreadPoolExecutor  # heavy, and few fits need it

        self._read, self._ahead, self.waited = read, ahead, 0.0
        self._threads = ThreadPoolExecutor(ahead, "backprop_gpu-rows")  # they end with this object
        self._waiting: deque[tuple[int, Future[list[np.ndarray]]]] = deque()

    def restart(self) -> None:
        """Forget what has been read: another order begins."""
        while self._waiting:
            self._waiting.pop()[1].cancel()

    def take(self, k: int, end: int) -> list[np.ndarray]:
        """Batch k; those behind it are read from now on, as far as batch ``end`` - 1."""
        if self._waiting and self._waiting[0][0] != k:  # steps are run once more
            self.restart()
        following = k + len(self._waiting)
        for number in range(following, min(k + 1 + self._ahead, end)):
            self._waiting.append((number, self._threads.submit(self._read, number)))
        start = time.perf_counter()
        found = self._waiting.popleft()[1].result()
        self.waited += time.perf_counter() - start
        return found


class SourceBatches(StreamedBatches):
    """The same batches, in the same order, of rows that are read as they are needed (``RowSource``).

    No order is stored of more rows than ``maths.permutation.MOST_STORED``; weights are in memory, if there are any.
    """

    def __init__(self, net: Any, X: Any, Y: Any, weights: np.ndarray | None, **settings: Any) -> None:
        super().__init__(net, X, Y, weights, **settings)
        if weights is not None and not weights.all():
            row = int(np.argmin(weights[:, 0]))
            raise DataError(f"row {row} has weight 0, so it is no row to train on: leave such rows out of the file")
        row_bytes = sum(x.shape[1] * 8 for x in self.rows if x is not None)
        ahead = AHEAD_BYTES // (row_bytes * self.batch_size)
        here = weakref.proxy(self)  # no circle, so that the threads end with the fit
        self.prefetch = Prefetch(lambda k: here._read(k), int(min(max(ahead, 1), MOST_AHEAD)))
        self._ends = np.cumsum(self.sizes)
        self._drawn: Permutation | None = None

    def buffers(self, m: int) -> SourceBuffers:
        """Buffers for batches of m examples."""
        return SourceBuffers(self, m)

    def start_epoch(self, epoch: int) -> list[float | None]:
        """See :class:`Batches`."""
        self.prefetch.restart()
        self._drawn = permutation(self.n, self.seed, SHUFFLE_STREAM, epoch) if self.shuffle else None
        weights = self.rows[2]
        if weights is None:
            return [None] * len(self)
        return [
            float(weights[self._part(int(end) - m, m)].sum()) for m, end in zip(self.sizes, self._ends, strict=True)
        ]

    def order_of(self, k: int) -> np.ndarray:
        """The rows of batch k of the epoch, of a rank those that are its own."""
        first, size = self.spans[k]
        return self._part(int(self._ends[k]) - self.sizes[k] + first, size)

    def _part(self, start: int, size: int) -> np.ndarray:
        """So many rows of the epoch's order."""
        return np.arange(start, start + size) if self._drawn is None else self._drawn[start : start + size]

    def _read(self, k: int) -> list[np.ndarray]:
        order = self.order_of(k)
        return [source[order] for source in self.rows if source is not None]


class SourceBuffers(StreamedBuffers):
    """Filled with what the threads have read."""

    def __init__(self, batches: SourceBatches, m: int) -> None:
        super().__init__(batches, m)
        self._prefetch = batches.prefetch

    def filler(self, first: int, times: int) -> Before | None:
        """Sends the next batch."""
        numbers, end = iter(range(first, first + times)), len(self.batches)

        def send() -> None:
            for found, out in zip(self._prefetch.take(next(numbers), end), self._transfers.host(), strict=True):
                out[...] = found
            self._transfers.send()

        return send


def is_source(rows: Any) -> bool:
    """Whether X or y is a ``RowSource``."""
    return isinstance(rows[0], RowSource) or isinstance(rows[1], RowSource)
