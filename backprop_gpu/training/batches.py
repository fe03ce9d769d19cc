"""Mini-batches from a data set that lives on the device, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import numpy as np

from .._typing import Array
from ..maths.random import host_generator
from ..network.dense_net import DenseNet

SHUFFLE_STREAM = 2  # the part of the seed's randomness that shuffles use; initial weights have their own


class BatchBuffers:
    """Buffers for batches of m examples, filled on the device with the batch that the counters name.

    ``X`` (n_0, m); ``Y`` (n_L, m) or (1, m) labels; ``weights`` (1, m) or None: columns, as the network takes them.
    """

    def __init__(self, batches: Batches, m: int) -> None:
        self.batches, self.m = batches, m
        self._rows = [None if source is None else batches.buffer(source, m) for source in batches.sources]
        self.X, self.Y, self.weights = (None if rows is None else rows.T for rows in self._rows)

    def gather(self, counters: Array) -> None:
        """Batch k = counters[0] of the batches' current order."""
        b = self.batches
        for source, rows in zip(b.sources, self._rows, strict=True):
            if source is not None:
                b.net.kernels.gather(source, b.order, counters, b.batch_size, out=rows)


class Batches:
    """A data set uploaded once; each epoch is one order of its rows, cut into batches of fixed shape and a ragged tail.

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
            self.sources = [
                None if rows is None else backend.asarray(rows, "int64" if rows.dtype == np.int64 else net.dtype)
                for rows in (X, Y, weights)
            ]
            self.order = backend.zeros((self.n,), "int64")
        self.sizes = [min(self.batch_size, self.n - start) for start in range(0, self.n, self.batch_size)]

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sizes)

    def buffer(self, source: Array, m: int) -> Array:
        """Rows for m examples of a source."""
        dtype = self.net.dtype if source.dtype == self.net.backend.dtype(self.net.dtype) else "int64"
        return self.net.backend.zeros((m, source.shape[1]), dtype)

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the rows in this epoch (from 0), int64."""
        if not self.shuffle:
            return np.arange(self.n)
        return host_generator(self.seed, SHUFFLE_STREAM, epoch).permutation(self.n)

    def start_epoch(self, epoch: int) -> list[float | None]:
        """Upload the epoch's order; returns each batch's sum of weights (None without weights)."""
        order = self.permutation(epoch)
        self.order[...] = self.net.backend.asarray(order, "int64")
        if self._weights_host is None:
            return [None] * len(self)
        starts = range(0, self.n, self.batch_size)
        return [float(self._weights_host[order[s : s + self.batch_size]].sum()) for s in starts]
