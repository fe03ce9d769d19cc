"""Epochs over rows in scikit-learn's order: its own shuffles, from its RandomState."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy.sparse import issparse

from ..maths.normalization import part_sizes
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..training.batches import Batches
from ..training.passes import Pass

WINDOW_BYTES = 2**26  # of sparse rows made dense at a time


class Course(Protocol):
    """What a fit knows of its passes over one table."""

    sizes: list[int]
    """Of the batches of an epoch."""

    def begin(self, random_state: np.random.RandomState) -> None:
        """Start a fit: rows as they come, shuffles from ``random_state``."""


class Epochs(Course, Protocol):
    """Passes over one table."""

    def refill(self, X: Any, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Take other rows of the same shapes."""

    def run(self, epoch: int) -> np.ndarray:
        """Train one epoch; J of each batch."""


class Order:
    """The rows' order, shuffled again each epoch from where it was: ``sklearn.utils.shuffle`` of the indices.

    Where all rows of a batch have weight 0, at which scikit-learn stops with ZeroDivisionError, one of them is swapped
    for a row of the batch that has the most rows with a weight.
    """

    def __init__(self, n: int, sizes: Sequence[int], shuffle: bool) -> None:
        self.n, self.sizes, self.shuffle = n, sizes, shuffle
        self.random_state: np.random.RandomState | None = None
        self.last = np.arange(n)
        self.counts: np.ndarray | None = None

    def weigh(self, weights: np.ndarray | None) -> None:
        """Take the weights (n, 1) of the rows."""
        counts = None if weights is None else (weights[:, 0] != 0.0).astype(np.intp)
        self.counts = None if counts is None or counts.all() else counts

    def begin(self, random_state: np.random.RandomState) -> None:
        """Rows as they come, shuffles from ``random_state``."""
        self.random_state, self.last = random_state, np.arange(self.n)

    def next(self) -> np.ndarray:
        """The order of the next epoch, int64, which the one after it overwrites."""
        if self.shuffle and self.random_state is not None:
            self.random_state.shuffle(self.last)  # swaps what it would swap in a range of numbers that selects from it
        if self.counts is not None:
            self._share(self.counts)
        return self.last

    def _share(self, counts: np.ndarray) -> None:
        """Swap rows such that every batch has one that counts, if there are as many of them as batches."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        held = np.add.reduceat(counts[self.last], starts)
        for empty in np.flatnonzero(held == 0):
            rich = held.argmax()
            here = starts[empty]
            there = starts[rich] + counts[self.last[starts[rich] :]].argmax()
            self.last[[here, there]] = self.last[[there, here]]
            held[rich], held[empty] = held[rich] - 1, 1


class OrderedBatches(Batches):
    """Batches in an :class:`Order`, whose rows, unless they are lent, can be replaced under a recorded program."""

    def __init__(
        self,
        net: DenseNet,
        X: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray | None,
        *,
        batch_size: int,
        shuffle: bool,
        **which: Any,
    ) -> None:
        super().__init__(net, X, Y, weights, batch_size=batch_size, shuffle=shuffle, seed=0, **which)
        self.ordered = Order(self.n, self.sizes, shuffle)
        self._weigh(weights)
        self.begin = self.ordered.begin

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the rows in the next epoch, int64."""
        return self.ordered.next()

    def _weigh(self, weights: np.ndarray | None) -> None:
        self.ordered.weigh(weights if weights is None or self.chosen is None else weights[self.chosen])

    def refill(self, X: Any, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Take other rows of the same shapes into the buffers that a recorded epoch reads."""
        assert not self.lent, "these are not ours to be written"
        X = X.toarray() if issparse(X) else X
        self.rows = (X, Y, weights)  # a batch's weights are summed on the host
        self._weigh(weights)
        backend = self.net.backend
        with backend.activate():
            for source, host in zip(self.sources, (X, Y, weights), strict=True):
                if source is not None and host is not None:
                    source[...] = backend.asarray(host, "int64" if host.dtype == np.int64 else self.net.dtype)


class DenseEpochs:
    """Epochs over rows that lie on the device."""

    def __init__(
        self,
        step: TrainingStep,
        X: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray | None,
        *,
        batch_size: int,
        shuffle: bool,
        **which: Any,
    ) -> None:
        self.batches = OrderedBatches(step.net, X, Y, weights, batch_size=batch_size, shuffle=shuffle, **which)
        self.sizes = self.batches.sizes
        self.begin, self.refill = self.batches.begin, self.batches.refill
        self.run = Pass(step, self.batches, None).run


class SparseEpochs:
    """Epochs over a CSR matrix, so many batches made dense at a time that memory does not grow with the table.

    The batches are those of :class:`DenseEpochs`, and so are the bits.
    """

    def __init__(
        self, step: TrainingStep, X: Any, Y: np.ndarray, weights: np.ndarray | None, *, batch_size: int, shuffle: bool
    ) -> None:
        n, row = X.shape[0], X.shape[1] * np.dtype(step.net.dtype).itemsize
        self.sizes = part_sizes(n, batch_size, even=any(step.net.batch_norm))
        self.order = Order(n, self.sizes, shuffle)
        self.begin = self.order.begin
        self.refill(X, Y, weights)
        batches, start = max(1, WINDOW_BYTES // (row * self.sizes[0])), 0
        self._windows: list[tuple[slice, DenseEpochs]] = []
        made: dict[tuple[int, ...], DenseEpochs] = {}  # by the sizes of their batches: a program for each
        for sizes in (tuple(self.sizes[k : k + batches]) for k in range(0, len(self.sizes), batches)):
            part = slice(start, start + sum(sizes))
            if sizes not in made:
                rows = self._rows(np.arange(n)[part])
                made[sizes] = DenseEpochs(step, *rows, batch_size=batch_size, shuffle=False, sizes=sizes)
            self._windows.append((part, made[sizes]))
            start = part.stop

    def refill(self, X: Any, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Take other rows of the same shapes."""
        self.X, self.Y, self.weights = X.tocsr(), Y, weights
        self.order.weigh(weights)

    def _rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return self.X[rows].toarray(), self.Y[rows], None if self.weights is None else self.weights[rows]

    def run(self, epoch: int) -> np.ndarray:
        """Train one epoch; J of each batch."""
        order, costs = self.order.next(), []
        for part, window in self._windows:
            window.refill(*self._rows(order[part]))
            costs.append(window.run(epoch))
        return np.concatenate(costs)


def epochs_over(
    step: TrainingStep,
    X: Any,
    Y: np.ndarray,
    weights: np.ndarray | None,
    *,
    batch_size: int,
    shuffle: bool,
    lent: bool = False,
) -> Epochs:
    """Epochs over rows X (n, n_0), dense or sparse: a sparse table that is small is made dense at once.

    ``lent``: dense rows are read where they lie if they can be, and never replaced.
    """
    if not issparse(X):
        return DenseEpochs(step, X, Y, weights, batch_size=batch_size, shuffle=shuffle, lent=lent)
    if X.shape[0] * X.shape[1] * np.dtype(step.net.dtype).itemsize <= WINDOW_BYTES:
        return DenseEpochs(step, X.toarray(), Y, weights, batch_size=batch_size, shuffle=shuffle, lent=lent)
    return SparseEpochs(step, X, Y, weights, batch_size=batch_size, shuffle=shuffle)
