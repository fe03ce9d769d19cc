"""A table whose rows stay in files: divided without lists of rows, surveyed in one pass, encoded as it is read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..maths.permutation import KeyedPermutation
from ..network.row_source import RowSource
from .column_checks import leave_out
from .moments import MergedMoments, Moments
from .preprocessing import Preprocessor
from .splits import sizes_of_parts
from .table import Table, table_from_arrays
from .targets import TargetCodec

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SPLIT_STREAM = 6  # the part of the seed's randomness that divides rows
MOST_HELD_OUT = 2**20
"""Rows of the validation part, and of the test part: they estimate a share to 0.05%; the rest is trained on."""
MOST_IN_MEMORY = 2**17
"""Rows of a part that reports, and scores of training rows, look at."""
MOST_LABELS = 10_000  # different targets; more are no classes
_PART_VALUES = 2**18  # of the parts of the pass; fixed, so that bits depend on neither threads nor the cut into files
_THREADS = 2


class Survey(NamedTuple):
    """What one pass over the training rows finds.

    ``labels``: the different targets of a single column (sorted, at most ``MOST_LABELS`` + 1), else the least and the
    largest of each column, and a half where one is neither 0 nor 1.
    """

    inputs: Moments
    targets: Moments
    labels: np.ndarray
    gap: tuple[int, int] | None  # row and column of the first value that is missing


@dataclass(frozen=True)
class StreamedTable:
    """Rows of files that belong to one part, in a random order that is computed and not stored.

    Parameters
    ----------
    like : Table
        Names: a table of a few of the rows.
    X, y : RowSource
        All rows, as they are in the files.
    order : KeyedPermutation
        Of all rows.
    start, n_samples : int
        Where in this order the part begins, and how many rows it has.
    notes : tuple of str
    classes : tuple of str
        What the numbers in y stand for, if they stand for text.
    """

    like: Table
    X: RowSource
    y: RowSource
    order: KeyedPermutation
    start: int
    n_samples: int
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The name of the file or folder."""
        return self.like.source

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The numbers in the files of the rows at these positions of the part."""
        return self.order[self.start + np.asarray(positions)]

    def inputs(self, positions: np.ndarray) -> Table:
        """The rows at these positions without their targets."""
        rows = self.rows(positions)
        return _Gathered(**_fields(self.like) | {"stored": self.X[rows], "target": None}, numbers=rows)

    def targets(self, positions: np.ndarray) -> Table:
        """The targets of the rows at these positions, with a column of nothing."""
        rows = self.rows(positions)
        return _Gathered(**_fields(self.like) | {"stored": rows[:, None], "target": self._target(rows)}, numbers=rows)

    def take(self, positions: np.ndarray) -> Table:
        """The rows at these positions, in memory."""
        return replace(self.inputs(positions), target=self._target(self.rows(positions)))

    def _target(self, rows: np.ndarray) -> np.ndarray:
        values = self.y[rows]
        return self.named(values[:, 0]) if values.shape[1] == 1 else values

    def named(self, values: np.ndarray) -> np.ndarray:
        """Targets as they were in the source."""
        return np.array(self.classes)[values.astype(np.int64)] if self.classes else values

    def sample(self, most: int = MOST_IN_MEMORY) -> Table:
        """At most so many of the rows, in memory; since the order is random, the first ones."""
        return self.take(np.arange(min(self.n_samples, most)))

    def fingerprint(self) -> str:
        """A digest of the values of a thousand rows, evenly spread."""
        return self.take(np.linspace(0, self.n_samples - 1, min(self.n_samples, 1000)).astype(np.int64)).fingerprint()

    @functools.cached_property
    def survey(self) -> Survey:
        """Statistics of the rows of this part: one pass over the files, by two threads.

        Raises
        ------
        DataError
            For an infinite value, a target that is missing, and a column without any value.
        """
        from concurrent.futures import ThreadPoolExecutor  # heavy, and few tables need it

        merged, targets, labels, gap = MergedMoments(), MergedMoments(), np.zeros(0), None
        with ThreadPoolExecutor(_THREADS) as threads:
            for part in _in_order(threads, self._surveyed, self._parts()):
                merged.add(part.inputs)
                targets.add(part.targets)
                gap = gap or part.gap
                if len(labels) <= MOST_LABELS:
                    labels = np.unique(np.concatenate([labels.astype(part.labels.dtype), part.labels]), axis=0)
                    labels = labels[: MOST_LABELS + 1]
        found = Survey(merged.total(), targets.total(), labels, gap)
        if not np.all(found.inputs.count):
            name = self.like.columns[int(np.argmin(found.inputs.count))]
            raise DataError(f"{self.source}: column {name!r} has no value in any training row; {leave_out(name, ())}")
        return found

    def _parts(self) -> Iterator[slice]:
        step = max(1, _PART_VALUES // self.X.shape[1])
        return (slice(start, min(start + step, len(self.X))) for start in range(0, len(self.X), step))

    def _surveyed(self, part: slice) -> Survey:
        """Of the rows of this table that are among consecutive rows of the files."""
        position = self.order.inverse(part)
        mine = np.flatnonzero((position >= self.start) & (position < self.start + self.n_samples))
        X, y = self.X[part][mine].astype(np.float64), self.y[part][mine]
        values = y.astype(np.float64)
        for name, wrong in (
            ("an input is infinite", np.isinf(X)),
            ("a target is missing or infinite", ~np.isfinite(values)),
        ):
            if np.any(wrong):
                i, j = np.argwhere(wrong)[0]
                raise DataError(f"{self.source}, row {part.start + mine[i]}, column {j}: {name}; correct it")
        gap = None
        if np.any(gaps := np.isnan(X)):
            i, j = np.argwhere(gaps)[0]
            gap = (int(part.start + mine[i]), int(j))
        return Survey(Moments.of(X), Moments.of(values), _labels(y), gap)


@dataclass(frozen=True)
class _Gathered(Table):
    """Some rows of files, which errors call by their numbers there."""

    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def where(self, sample: int) -> str:
        """See :class:`Table`."""
        return f"{self.source}, row {self.numbers[sample]}"


def _fields(table: Table) -> dict[str, Any]:
    return dict(vars(table))


def _labels(y: np.ndarray) -> np.ndarray:
    """See :class:`Survey`."""
    if y.shape[1] == 1:
        return np.unique(y)
    flags = bool(np.all((y == 0) | (y == 1)))
    return np.stack([y.min(axis=0), y.max(axis=0), *([] if flags else [np.full(y.shape[1], 0.5)])]) if len(y) else y


def _in_order(threads: ThreadPoolExecutor, work: Any, items: Iterator[Any]) -> Iterator[Any]:
    """What threads make of the items, in their order; few wait at a time."""
    waiting = [threads.submit(work, item) for _, item in zip(range(2 * _THREADS), items, strict=False)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [threads.submit(work, item) for _, item in zip(range(1), items, strict=False)]


def divided(
    X: RowSource,
    y: RowSource,
    source: str,
    *,
    validation: float,
    test: float,
    seed: int,
    columns: Sequence[str] | None = None,
    target: str | None = None,
    classes: Sequence[str] = (),
) -> tuple[StreamedTable, StreamedTable | None, StreamedTable | None]:
    """Training, validation and test rows, drawn at random.

    ``columns``, ``target``, ``classes``: names of the columns of X, of y, and of what numbers in y stand for.

    Raises
    ------
    DataError
        If X and y have different numbers of rows, or a part would be empty.
    """
    n = len(X)
    if len(y) != n:
        raise DataError(f"{source}: X has {n} rows and y has {len(y)}; they must agree")
    like = table_from_arrays(X[:1], y[:1][:, 0] if y.shape[1] == 1 else y[:1], source=source, feature_names=columns)
    like = like if target is None else replace(like, target_names=(target,))
    asked = sizes_of_parts(n, validation, test)
    sizes = [0, *(min(int(size), MOST_HELD_OUT) for size in asked[1:])]
    sizes[0] = n - sum(sizes)
    for name, share, size in zip(("validation", "test"), (validation, test), sizes[1:], strict=True):
        if share > 0.0 and size == 0:
            raise DataError(f"{n} rows are too few: a share of {share:g} leaves none for {name}; change the shares")
    order, ends = KeyedPermutation(n, seed, SPLIT_STREAM), np.cumsum([0, *sizes])
    note = f"of {n:,} rows {sizes[1]:,} are validated and {sizes[2]:,} tested on, the other {sizes[0]:,} trained on"
    notes = (note,) if sum(sizes[1:]) < asked[1:].sum() else ()
    train, *held_out = (
        StreamedTable(like, X, y, order, int(start), size, notes, tuple(classes))
        for start, size in zip(ends, sizes, strict=False)
    )
    return train, *(part if part.n_samples else None for part in held_out)  # type: ignore[return-value]


class Inputs(RowSource):
    """The network's inputs, encoded when they are read."""

    def __init__(self, table: StreamedTable, preprocessor: Preprocessor, dtype: str) -> None:
        self._table, self._preprocessor, self.dtype = table, preprocessor, np.dtype(dtype)
        self.shape = (table.n_samples, len(preprocessor.feature_names))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`RowSource`."""
        return self._preprocessor.transform(self._table.inputs(rows), self.dtype)


class Targets(RowSource):
    """Its targets likewise."""

    def __init__(self, table: StreamedTable, codec: TargetCodec, dtype: str) -> None:
        self._table, self._codec = table, codec
        self.dtype = np.dtype(np.int64 if codec.task == "multiclass" else dtype)
        self.shape = (table.n_samples, 1 if codec.labels else len(codec.names))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`RowSource`."""
        return self._codec.encode(self._table.targets(rows), self.dtype).reshape(len(rows), -1)
