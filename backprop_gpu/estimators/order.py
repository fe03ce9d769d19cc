"""The order of the rows: scikit-learn's shuffles, from its RandomState."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..network.dense_net import DenseNet
from ..training.batches import Batches


class SklearnBatches(Batches):
    """Batches whose order each epoch is the last epoch's, shuffled by a RandomState: scikit-learn's own batches."""

    def __init__(
        self, net: DenseNet, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None, *, batch_size: int, shuffle: bool
    ) -> None:
        super().__init__(net, X, Y, weights, batch_size=batch_size, shuffle=shuffle, seed=0)
        self.begin(None)

    def begin(self, random_state: np.random.RandomState | None) -> None:
        """Start a fit: rows as they come, shuffles from ``random_state``."""
        self.random_state, self.last = random_state, np.arange(self.n)

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the rows in the next epoch, int64."""
        if self.shuffle and self.random_state is not None:
            indices = np.arange(self.n)
            self.random_state.shuffle(indices)
            self.last = self.last[indices]
        return self.last

    def refill(self, *rows: Any) -> None:
        """Take other rows X, Y and weights of the same shapes into the buffers that a recorded epoch reads."""
        self._weights_host = rows[2]
        for source, host in zip(self.sources, rows, strict=True):
            if source is not None:
                source[...] = self.net.backend.asarray(host, "int64" if host.dtype == np.int64 else self.net.dtype)
