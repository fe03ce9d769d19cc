"""Mini-batches from a data set that lives on the device, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._typing import Array
from ..maths.random import host_generator
from ..network.dense_net import DenseNet

SHUFFLE_STREAM = 2  # the part of the seed's randomness that shuffles use; initial weights have their own


@dataclass(frozen=True)
class Batch:
    """Columns on the device, valid until the next batch is made.

    ``X`` (n_0, m); ``Y`` (n_L, m) or (1, m) labels; ``weights`` (1, m) or None, with ``weights_sum`` known on the host.
    """

    X: Array
    Y: Array
    weights: Array | None
    weights_sum: float | None
    m: int


class Batches:
    """A data set uploaded once, gathered batch by batch into buffers of fixed shape (one set for the ragged tail).

    Parameters
    ----------
    net : DenseNet
        Gives device, dtype and kernels.
    X, Y, weights : (n_samples, n_0), (n_samples, k), (n_samples, 1) or None
        Checked host rows (see ``network.targets``).
    batch_size : int
        Larger than the data set means the whole data set.
    shuffle : bool
        A fresh order each epoch, or the rows as they come.
    seed : int
    """

    def __init__(
        self,
        net: DenseNet,
        X: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray | None,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
    ) -> None:
        self.net, self.n = net, X.shape[0]
        self.batch_size = min(batch_size, self.n)
        self.shuffle, self.seed = shuffle, seed
        self._weights_host = weights
        backend = net.backend
        with backend.activate():
            self._sources = [
                None if rows is None else backend.asarray(rows, "int64" if rows.dtype == np.int64 else net.dtype)
                for rows in (X, Y, weights)
            ]
        self._buffers: dict[int, list[Array | None]] = {}

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.n // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of the rows in this epoch (from 0), int64."""
        if not self.shuffle:
            return np.arange(self.n)
        return host_generator(self.seed, SHUFFLE_STREAM, epoch).permutation(self.n)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        order = self.order(epoch)
        with self.net.backend.activate():
            on_device = self.net.backend.asarray(order, "int64")
            for start in range(0, self.n, self.batch_size):
                part = slice(start, min(start + self.batch_size, self.n))
                yield self._gather(on_device[part], order[part])

    def _gather(self, indices: Array, host_indices: np.ndarray) -> Batch:
        m = len(host_indices)
        if m not in self._buffers:
            self._buffers[m] = [self._buffer(source, m) for source in self._sources]
        for source, buffer in zip(self._sources, self._buffers[m], strict=True):
            if source is not None:
                self.net.kernels.gather(source, indices, out=buffer)
        X, Y, weights = (None if buffer is None else buffer.T for buffer in self._buffers[m])
        total = None if self._weights_host is None else float(self._weights_host[host_indices].sum())
        return Batch(X, Y, weights, total, m)

    def _buffer(self, source: Array | None, m: int) -> Array | None:
        if source is None:
            return None
        dtype = self.net.dtype if source.dtype == self.net.backend.dtype(self.net.dtype) else "int64"
        return self.net.backend.zeros((m, source.shape[1]), dtype)
