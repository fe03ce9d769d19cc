"""Batches in scikit-learn's order of the rows: each epoch's is shuffled from that of the epoch before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..network.dense_net import DenseNet
from ..network.state import State, take, take_tensor
from .batches import Batches, StreamedBatches, batch_sizes
from .ranks import sharing

DENSE_BYTES = 2**26  # the largest sparse table that is made dense at once


class ReshufflingSampler:
    """The rows' order, shuffled again each epoch from where it was: ``sklearn.utils.shuffle`` of the indices.

    Where all rows of a batch have weight 0, at which scikit-learn stops with ZeroDivisionError, one of them is swapped
    for a row of the batch that has the most rows with a weight.

    Parameters
    ----------
    n : int
        Rows.
    sizes : sequence of int
        Of the batches.
    shuffle : bool
        False: the rows as they come.
    """

    def __init__(self, n: int, sizes: Sequence[int], shuffle: bool) -> None:
        self.n, self.sizes, self.shuffle = n, sizes, shuffle
        self.random_state: np.random.RandomState | None = None
        self.order = np.arange(n)
        self.counts: np.ndarray | None = None

    def set_weights(self, weights: np.ndarray | None) -> None:
        """Take the weights (n, 1) of the rows."""
        counts = None if weights is None else (weights[:, 0] != 0.0).astype(np.intp)
        self.counts = None if counts is None or counts.all() else counts

    def restart(self, random_state: np.random.RandomState) -> None:
        """A fit begins: rows as they come, shuffles from ``random_state``."""
        self.random_state, self.order = random_state, np.arange(self.n)

    def next_order(self) -> np.ndarray:
        """The order of the next epoch, int64, which the one after it overwrites."""
        if self.shuffle and self.random_state is not None:
            self.random_state.shuffle(self.order)  # swaps what it would swap in a range of numbers that selects from it
        if self.counts is not None:
            self._share(self.counts)
        return self.order

    def current_order(self) -> np.ndarray:
        """The order that was given last."""
        return self.order

    def _share(self, counts: np.ndarray) -> None:
        """Swap rows such that every batch has one that counts, if there are as many of them as batches."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        held = np.add.reduceat(counts[self.order], starts)
        for empty in np.flatnonzero(held == 0):
            rich = held.argmax()
            here = starts[empty]
            there = starts[rich] + counts[self.order[starts[rich] :]].argmax()
            self.order[[here, there]] = self.order[[there, here]]
            held[rich], held[empty] = held[rich] - 1, 1

    def state_dict(self) -> State:
        """The order of the epoch, (n,) int64, and where its generator stands; both are copies."""
        assert self.random_state is not None, "a fit has begun"
        return {"order": self.order.copy(), "random_state": random_state_dict(self.random_state)}

    def load_state_dict(self, state: Any) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        assert self.random_state is not None, "a fit has begun"
        order = take_tensor(state, "sampler.order", (self.n,), "int64")
        if not np.array_equal(np.sort(order), np.arange(self.n)):
            raise CheckpointError(f"sampler.order of the state is no order of {self.n} rows")
        load_random_state(self.random_state, take(state, "sampler.random_state", dict))
        self.order = order.copy()


def random_state_dict(random_state: np.random.RandomState) -> State:
    """Where a generator stands, as plain values."""
    where: Any = random_state.get_state(legacy=False)
    inner = where["state"]
    return {
        "generator": where["bit_generator"],
        "key": inner["key"].copy(),
        "position": int(inner["pos"]),
        "has_gauss": int(where["has_gauss"]),
        "gauss": float(where["gauss"]),
    }


def load_random_state(random_state: np.random.RandomState, state: Any) -> None:
    """Put a generator where :func:`random_state_dict` found one."""
    key = take_tensor(state, "random_state.key", (624,), "uint32")
    name, position = take(state, "random_state.generator", str), take(state, "random_state.position", int)
    has_gauss, gauss = take(state, "random_state.has_gauss", int), take(state, "random_state.gauss", float)
    if name != "MT19937" or position > len(key) or has_gauss > 1:
        raise CheckpointError("random_state of the state is none of NumPy's RandomState")
    random_state.set_state((name, key, position, has_gauss, gauss))


def batches_over(
    net: DenseNet,
    rows: tuple[Any, np.ndarray, np.ndarray | None],
    *,
    batch_size: int,
    shuffle: bool,
    chosen: np.ndarray | None = None,
    share_with: Batches | None = None,
    copy: bool = False,
) -> Batches:
    """Batches in scikit-learn's order. Of a large sparse table, and of one that is too large for the device, each batch
    is brought there by itself.

    ``rows``: X (n, n_0), dense or sparse, Y (n, k) and the weights (n, 1) or None.

    ``chosen``, ``share_with``, ``copy``: see ``Batches``.
    """
    X, Y, weights = rows
    sparse = hasattr(X, "toarray")
    streamed = sparse and X.shape[0] * X.shape[1] * np.dtype(net.dtype).itemsize > DENSE_BYTES
    streamed = streamed or (share_with is not None and share_with.on == "host")
    if sparse:
        X = X.tocsr() if streamed else X.toarray()
    n = len(Y) if chosen is None else len(chosen)
    sampler = ReshufflingSampler(n, batch_sizes(net, n, batch_size), shuffle)
    sampler.set_weights(weights if weights is None or chosen is None else weights[chosen])
    how: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "seed": 0, "sampler": sampler}
    how |= sharing()._asdict()
    if not streamed:
        try:
            return Batches(net, X, Y, weights, chosen=chosen, share_with=share_with, copy=copy, **how)
        except MemoryError:
            pass
        net.backend.free()
    return StreamedBatches(net, X, Y, weights, chosen=chosen, **how)
