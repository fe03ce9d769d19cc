"""Mini-batches of a data set on the device or on the host, by default in an order of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .._typing import Array, Before
from ..backends.collective import SINGLE, Collective, spans
from ..errors import CheckpointError, ConfigError, DataError, ShapeError
from ..maths.normalization import part_sizes
from ..maths.permutation import permutation
from ..network.dense_net import DenseNet
from ..network.state import State, check_same, take

SHUFFLE_STREAM = 2  # the part of the seed's randomness that shuffles use; initial weights have their own
DATA_ON = ("auto", "device", "host")


class Sampler(Protocol):
    """Orders of the rows, one for each epoch, other than those of seed and epoch."""

    def set_weights(self, weights: np.ndarray | None) -> None:
        """Take the weights (n, 1) of the rows."""

    def restart(self, random_state: np.random.RandomState) -> None:
        """A fit begins: rows as they come, shuffles from ``random_state``."""

    def next_order(self) -> np.ndarray:
        """The order of the rows in the next epoch, int64."""

    def current_order(self) -> np.ndarray:
        """The order that was given last."""

    def state_dict(self) -> State:
        """What an exact resume needs."""

    def load_state_dict(self, state: Any) -> None:
        """Go on from what :meth:`state_dict` gave."""


class BatchBuffers:
    """Buffers for batches of m examples, filled on the device with the batch that the counters name.

    ``X`` (n_0, m); ``Y`` (n_L, m) or (1, m) labels; ``weights`` (1, m) or None: columns, as the network takes them. Of
    several ranks each has its own examples of a batch, from ``first`` on.
    """

    def __init__(self, batches: Batches, m: int) -> None:
        at = batches.sizes.index(m)
        self.batches, (self.first, self.m) = batches, batches.spans[at]
        self._from = batches.starts[at] - self.m * at  # batch k of these is at m k of the order from here on
        self._rows = [
            None if rows is None else batches.net.backend.zeros((self.m, rows.shape[1]), dtype)
            for rows, dtype in zip(batches.rows, batches.dtypes, strict=True)
        ]
        self.X, self.Y, self.weights = (None if rows is None else rows.T for rows in self._rows)

    def gather(self, counters: Array) -> None:
        """Batch k = counters[0] of the batches' current order."""
        b = self.batches
        for source, rows in zip(b.sources, self._rows, strict=True):
            if source is not None:
                b.net.kernels.gather(source, b.order[self._from :], counters, self.m, out=rows)

    def filler(self, first: int, times: int) -> Before | None:
        """What has to run before each of so many steps from batch ``first`` of the epoch on; None: nothing."""
        return None


class StreamedBuffers(BatchBuffers):
    """Filled from the host, batch by batch, before the step that uses them."""

    def __init__(self, batches: Batches, m: int) -> None:
        super().__init__(batches, m)
        pairs = [(out, dtype) for out, dtype in zip(self._rows, batches.dtypes, strict=True) if out is not None]
        self._transfers = batches.net.backend.transfers(*zip(*pairs, strict=True))

    def gather(self, counters: Array) -> None:
        """The batch is there."""

    def filler(self, first: int, times: int) -> Before | None:
        """Sends the next batch: it is gathered on the host while the device is at the step before."""
        orders = (self.batches.order_of(k) for k in range(first, first + times))
        sources = [source for source in self.batches.rows if source is not None]

        def send() -> None:
            order = next(orders)
            for source, out in zip(sources, self._transfers.host(), strict=True):
                _take(source, order, out)
            self._transfers.send()

        return send


def _take(source: Any, order: np.ndarray, out: np.ndarray) -> None:
    """out[i] <- source[order[i]], rounded to out's dtype; of a memory-mapped source, only these rows are read."""
    if hasattr(source, "toarray"):
        out[...] = source[order].toarray()
    elif source.dtype == out.dtype and source.flags.c_contiguous:
        np.take(source, order, axis=0, out=out, mode="clip")  # nothing is out of range; "clip" writes straight into out
    else:
        out[...] = source[order]


class Batches:
    """A data set uploaded once; each epoch is one order of its rows, cut into batches of fixed shape and a ragged tail.

    Parameters
    ----------
    net : DenseNet
        Gives device, dtype and kernels.
    X, Y, weights : (n_samples, n_0), (n_samples, k), (n_samples, 1) or None
        Checked host rows (see ``network.targets``).
    batch_size : int
        Larger than the data set means the whole data set. With a normalized layer it is the most that a batch may
        have: batches are then as equal as they can be (1001 rows with 200: five of 167 and one of 166).
    shuffle : bool
        A fresh order each epoch, or the rows as they come.
    seed : int
    chosen : (k,) int, optional
        The rows that take part; left out, all do.
    share_with : Batches, optional
        Of the same rows on the same device, in the same dtype, which are stored once for both.
    copy : bool, default True
        False: rows that are on the device already, in its dtype, are read where they lie and must not change meanwhile.
    sampler : Sampler, optional
        Gives the orders in place of ``shuffle`` and ``seed``.
    ranks, exact
        Who shares each batch, and how it is cut (``backends.collective.spans``).

    Attributes
    ----------
    epoch, batch : int
        Which batch is the next to be trained on; both from 0.

    Raises
    ------
    ShapeError, DataError
        For rows that are not of one table, or ``chosen`` that are not among them.
    """

    on = "device"
    epoch, batch = 0, 0  # of the next batch, both from 0

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
        chosen: np.ndarray | None = None,
        share_with: Batches | None = None,
        copy: bool = True,
        sampler: Sampler | None = None,
        ranks: Collective = SINGLE,
        exact: bool = False,
    ) -> None:
        _check_table((X, Y, weights), share_with)
        if chosen is not None:
            chosen = _check_chosen(chosen, X.shape[0])
        self.net, self.chosen, self.share_with, self.copy = net, chosen, share_with, copy
        self.n = X.shape[0] if chosen is None else len(chosen)
        self.sizes = batch_sizes(net, self.n, batch_size)
        self.batch_size = self.sizes[0]
        self.shuffle, self.seed, self.sampler = shuffle, seed, sampler
        self.rows: Sequence[np.ndarray | None] = (X, Y, weights)
        self.dtypes = [
            "int64" if rows is not None and rows.dtype == np.int64 else net.dtype for rows in (X, Y, weights)
        ]
        self._cut, self.exact = ranks.size > 1, exact
        self.spans = [spans(m, ranks.size, exact)[ranks.rank] for m in self.sizes]
        # Where each batch begins in the order on the device. The ragged tail may be more for a rank than a full batch.
        local = np.cumsum([0, *(size for _, size in self.spans)])
        tail = len(self.sizes) - 1
        self.starts = local + max(0, self.spans[tail][1] * tail - int(local[tail]))
        with net.backend.activate():
            self._place()

    def _place(self) -> None:
        """Put the rows where batches are gathered from."""
        backend = self.net.backend
        if self.share_with is None:
            place = backend.asarray if self.copy else backend.asarray_read_only
            self.sources = [
                None if rows is None else place(rows, dtype) for rows, dtype in zip(self.rows, self.dtypes, strict=True)
            ]
        else:
            self.sources = self.share_with.sources
        self.order = backend.zeros((int(self.starts[-1]),), "int64")

    def refill(self, X: Any, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Take other rows of the same shapes into the buffers that a captured epoch reads, for a fit that begins."""
        assert self.copy, "these are not ours to be written"
        self.rows, self.epoch, self.batch = (X, Y, weights), 0, 0  # a batch's weights are summed on the host
        if self.on == "host":
            return
        backend = self.net.backend
        with backend.activate():
            for source, host in zip(self.sources, self.rows, strict=True):
                if source is not None and host is not None:
                    source[...] = backend.asarray(host, "int64" if host.dtype == np.int64 else self.net.dtype)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sizes)

    def buffers(self, m: int) -> BatchBuffers:
        """Buffers for batches of m examples."""
        return BatchBuffers(self, m)

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the rows that take part, counted among themselves, in this epoch (from 0), int64."""
        if self.sampler is not None:  # whose orders follow each other; that of a resumed epoch is already there
            resumed = self.batch > 0
            return self.sampler.current_order() if resumed else self.sampler.next_order()
        if not self.shuffle:
            return np.arange(self.n)
        return permutation(self.n, self.seed, SHUFFLE_STREAM, epoch)[:]

    def state_dict(self) -> State:
        """The place of the next batch as plain values: rows and sizes of batches, the seed of the orders, an index.

        Never an order itself, which seed and epoch give again; the rows are the caller's to keep.
        """
        sampler = {} if self.sampler is None else {"sampler": self.sampler.state_dict()}
        return self._settings() | {"epoch": self.epoch, "batch": self.batch} | sampler

    def load_state_dict(self, state: State) -> None:
        """Go on from what :meth:`state_dict` gave, of batches in the same order; where they lie does not matter.

        Raises
        ------
        ConfigError
            Names what differs: the number of rows, the sizes of batches, shuffle or seed.
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        given = {key: take(state, f"batches.{key}", type(here)) for key, here in self._settings().items()}
        check_same(given, self._settings(), "batches")
        epoch, batch = take(state, "batches.epoch", int), take(state, "batches.batch", int)
        if batch > len(self):  # all of them: the epoch has not been evaluated yet
            raise CheckpointError(f"batches.batch of the state is {batch}, of an epoch of {len(self)}")
        if self.sampler is not None:
            self.sampler.load_state_dict(take(state, "batches.sampler", dict))
        self.epoch, self.batch = epoch, batch

    def _settings(self) -> State:
        """What the order of the examples depends on: so many batches of the one size, so many of the other."""
        sizes = [[m, self.sizes.count(m)] for m in dict.fromkeys(self.sizes)]
        return {"rows": self.n, "sizes": sizes, "shuffle": bool(self.shuffle), "seed": int(self.seed)}

    def taken(self, epoch: int, batches: int) -> None:
        """So many batches of an epoch have been trained on."""
        self.epoch, self.batch = (epoch, batches) if batches < len(self) else (epoch + 1, 0)

    def start_epoch(self, epoch: int) -> list[float | None]:
        """Take the epoch's order; returns each batch's sum of weights (None without weights)."""
        order = self.permutation(epoch)
        order = order if self.chosen is None else self.chosen[order]
        weights, whole = self.rows[2], list[np.ndarray]()
        if self._cut or weights is not None:
            whole = [order[end - m : end] for m, end in zip(self.sizes, np.cumsum(self.sizes), strict=True)]
        if self._cut:  # each rank has a part of every batch
            parts = zip(whole, self.spans, strict=True)
            order = np.concatenate([batch[first : first + size] for batch, (first, size) in parts])
        self._order = order
        self._upload(order)
        return [None] * len(self) if weights is None else [float(weights[batch].sum()) for batch in whole]

    def _upload(self, order: np.ndarray) -> None:
        self.net.backend.upload(order, self.order[int(self.starts[0]) :], "int64")

    def first_rows(self, n: int) -> np.ndarray:
        """At most n rows (., n_0) of those that take part, on the host."""
        rows: Any = self.rows[0]
        rows = rows[:n] if self.chosen is None else rows[self.chosen[:n]]
        return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)

    def order_of(self, k: int) -> np.ndarray:
        """The rows of batch k of the epoch."""
        return self._order[self.starts[k] - self.starts[0] : self.starts[k + 1] - self.starts[0]]


def batch_sizes(net: DenseNet, n: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches over n rows.

    Raises
    ------
    DataError, ConfigError
        For batches of one row, which batch normalization cannot take.
    """
    normalized = any(net.batch_norm)
    if normalized and n < 2:
        raise DataError(
            f"batch normalization needs at least 2 rows to train on, got {n}: pass more rows at a time, or "
            "leave batch_norm out"
        )
    if normalized and min(batch_size, n) < 2:
        raise ConfigError("batch_size must be at least 2 with batch_norm, which normalizes one row to 0")
    return part_sizes(n, min(batch_size, n), even=normalized)


def _check_table(rows: Sequence[np.ndarray | None], share_with: Batches | None) -> None:
    """That rows are one table: what gathers them knows addresses alone. Their widths are the network's affair."""
    shapes = [x.shape for x in rows if x is not None]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ShapeError(f"X, Y and weights must be rows of one table, got {', '.join(map(str, shapes))}")
    if not shapes[0][0]:
        raise DataError("a data set needs at least one example")
    if share_with is not None and any(
        (x is None) != (other is None) or (x is not None and other is not None and x.shape != other.shape)
        for x, other in zip(rows, share_with.rows, strict=True)
    ):
        raise ShapeError("batches that share rows are of the same rows")


def _check_chosen(chosen: np.ndarray, n: int) -> np.ndarray:
    """Numbers of rows, int64."""
    chosen = np.asarray(chosen)
    whole = chosen.ndim == 1 and chosen.dtype.kind in "iu" and chosen.size > 0
    if not whole or chosen.min() < 0 or chosen.max() >= n:
        raise DataError(f"the rows that take part must be a list of numbers from 0 to {n - 1}")
    return chosen.astype(np.int64, copy=False)


class StreamedBatches(Batches):
    """The same batches of a data set that stays on the host, where it may be larger than memory (``numpy.memmap``).

    X may be a sparse matrix in CSR form, whose batches are made dense one by one.
    """

    on = "host"

    def _place(self) -> None:
        """Leave them where they are."""

    def buffers(self, m: int) -> StreamedBuffers:
        """Buffers for batches of m examples."""
        return StreamedBuffers(self, m)

    def _upload(self, order: np.ndarray) -> None:
        """The host alone reads it."""
