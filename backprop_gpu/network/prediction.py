"""Forward passes for predictions. Those over few rows are recorded, since Python takes longer than their kernels."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Array

if TYPE_CHECKING:
    from .dense_net import DenseNet
    from .memory import Workspace

FEW_ROWS = 256  # at most: with more, kernels take most of the time, and the cached buffers would be large
MAX_RECORDED = 2  # the most recently used passes


class RecordedForward:
    """A recorded forward pass over m rows with all its buffers; it reads the network's parameters without a copy."""

    def __init__(self, net: DenseNet, m: int) -> None:
        self._rows = net.backend.zeros((m, net.sizes[0]), net.dtype)
        self._ws = ws = net.workspace(m, train=False)
        ws.A[0] = self._rows.T
        proxy = weakref.proxy(net)  # the network references this object: no reference cycle, so both are freed at once
        self._replay = net.kernels.capture(lambda: proxy.forward_members(ws))

    def __call__(self, net: DenseNet, rows: np.ndarray) -> list[Array]:
        """Logits (n_L, m) of each member of host rows (m, n_0); valid until the next call."""
        net.backend.upload(rows, self._rows, net.dtype)
        self._replay(1)
        return self._ws.logits


class RecordedForwards:
    """Recorded passes of a network for the numbers of rows that were used last."""

    def __init__(self, net: DenseNet) -> None:
        self._kernels, self._made = net.kernels, dict[int, RecordedForward]()

    def logits(self, net: DenseNet, X: np.ndarray, block: int) -> Iterator[tuple[slice, list[Array]]]:
        """Blocks of rows of X (n, n_0) on the host with each member's logits (n_L, rows).

        They are valid until the next block.
        """
        ws: Workspace | None = None
        for start in range(0, X.shape[0], block):
            if start and net.between_blocks is not None:
                net.between_blocks()
            rows = slice(start, min(start + block, X.shape[0]))
            m = rows.stop - rows.start
            if m <= FEW_ROWS and net.kernels is self._kernels:  # else the kernels are wrapped, to trace them
                yield rows, self._recorded(net, m)(net, X[rows])
                continue
            if ws is None or ws.m != m:
                ws = net.workspace(m, train=False)
            ws.A[0] = net.backend.asarray_read_only(X[rows], net.dtype).T
            yield rows, net.forward_members(ws)

    def _recorded(self, net: DenseNet, m: int) -> RecordedForward:
        found = self._made.pop(m, None) or RecordedForward(net, m)
        self._made[m] = found  # the one used last is last
        if len(self._made) > MAX_RECORDED:
            del self._made[next(iter(self._made))]
        return found
