"""Forward passes for predictions. Over few rows they are recorded: there Python costs more than the kernels."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Array

if TYPE_CHECKING:
    from .dense_net import DenseNet
    from .memory import Workspace

FEW_ROWS = 256  # at most: of more, the kernels are what takes the time, and buffers that are kept would be large
KEPT = 2  # passes, those that were used last


class RecordedForward:
    """A forward pass over m rows, with its input's buffer and every other; the parameters are read where they lie."""

    def __init__(self, net: DenseNet, m: int) -> None:
        self._rows = net.backend.zeros((m, net.sizes[0]), net.dtype)
        self._ws = ws = net.workspace(m, train=False)
        ws.A[0] = self._rows.T
        of = weakref.proxy(net)  # which keeps this: without a cycle both go at once
        self._replay = net.kernels.capture(lambda: of.forward(ws))

    def __call__(self, net: DenseNet, rows: np.ndarray) -> Array:
        """Logits (n_L, m) of host rows (m, n_0); they live until the next call."""
        net.backend.upload(rows, self._rows, net.dtype)
        self._replay(1)
        return self._ws.A[net.L]


class RecordedForwards:
    """The passes of a network for the numbers of rows that were asked about last."""

    def __init__(self, net: DenseNet) -> None:
        self._kernels, self._made = net.kernels, dict[int, RecordedForward]()

    def logits(self, net: DenseNet, X: np.ndarray, block: int) -> Iterator[tuple[slice, Array]]:
        """Blocks of rows of X (n, n_0) on the host with their logits (n_L, rows), which live until the next block."""
        ws: Workspace | None = None
        for start in range(0, X.shape[0], block):
            rows = slice(start, min(start + block, X.shape[0]))
            m = rows.stop - rows.start
            if m <= FEW_ROWS and net.kernels is self._kernels:  # else something stands in their place, to look on
                yield rows, self._recorded(net, m)(net, X[rows])
                continue
            if ws is None or ws.m != m:
                ws = net.workspace(m, train=False)
            ws.A[0] = net.backend.asarray_read_only(X[rows], net.dtype).T
            yield rows, net.forward(ws)

    def _recorded(self, net: DenseNet, m: int) -> RecordedForward:
        found = self._made.pop(m, None) or RecordedForward(net, m)
        self._made[m] = found  # the one used last is last
        if len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return found
