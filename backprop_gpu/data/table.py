"""A table as it was read: numbers, texts and targets, before anything is encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..safe_files import LONGEST_NAME, MAX_COLUMNS
from .date_text import expand
from .dates import DateForm
from .forms import Form
from .read_settings import AS_FOUND, ReadSettings
from .readings import Reading, dates_of, with_parts

_BLOCK_VALUES = 1 << 20  # 8 MiB of float64: large enough to amortise a call, small beside any table worth blocking


@dataclass(frozen=True)
class Schema:
    """How the training table was read, to read other files alike (``read_table(..., like=schema)``)."""

    columns: tuple[str, ...]
    categorical: tuple[str, ...]
    target_names: tuple[str, ...]
    settings: ReadSettings = AS_FOUND
    text_target: bool = False  # whether the target is read as text, whatever it looks like
    others: tuple[str, ...] = ()  # columns that the training file had beside features and target
    missing_columns: str = "error"  # what to do with a file that lacks columns, and with one that has more
    extra_columns: str = "ignore"
    forms: Mapping[str, Form] = field(default_factory=dict)  # how numbers that are not plain, and dates, are written


@dataclass(frozen=True)
class Table:
    """Columns as read from a source, one row per sample.

    Parameters
    ----------
    source : str
        File or data set name, for error messages.
    columns : tuple of str
        Names of all feature columns, in the source's order.
    stored : ndarray, shape (n_stored, n_stored_columns)
        The numeric columns in ``columns`` order, NaN where missing, dates as days since 1970; any real dtype, possibly
        memory-mapped.
    categorical : mapping of str to ndarray of str or StringDType, shape (n_samples,)
        The other columns; an empty string where missing.
    target : ndarray, shape (n_samples,) or (n_samples, n_outputs), or None
        Targets as read: integers, floats or strings.
    target_names, class_names : tuple of str
        Names of the target columns; names of the classes 0 .. K-1, if the source has them (else empty).
    named : bool
        Whether the source names its columns, so that order does not matter.
    lines : ndarray of int, shape (n_samples,), or None
        The line of the file on which each row starts.
    rows : ndarray of int, shape (n_samples,), or None
        Which of the stored rows this table holds (None: all), so that taking rows copies nothing.
    weights : ndarray of float64, shape (n_samples,), or None
        How much each row counts.
    settings : ReadSettings
        CSV: what was asked for.
    ignored : tuple of str
        CSV: the columns that were left out by ``ignore``.
    others : tuple of str
        CSV: all columns of the file that are neither features nor targets.
    notes : tuple of str
        Columns that were read in a way that may not be meant, a line for each.
    readings : tuple of Reading
        How each column, then each target was read; empty where the source says so itself.
    """

    source: str
    columns: tuple[str, ...]
    stored: np.ndarray
    categorical: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    named: bool = False
    lines: np.ndarray | None = None
    rows: np.ndarray | None = None
    weights: np.ndarray | None = None
    settings: ReadSettings = AS_FOUND
    ignored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()

    @property
    def n_samples(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def n_outputs(self) -> int:
        """Number of target columns; 0 without a target."""
        return 0 if self.target is None else 1 if self.target.ndim == 1 else self.target.shape[1]

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The names that go with the columns of ``stored``."""
        return tuple(name for name in self.columns if name not in self.categorical)

    @property
    def dates(self) -> dict[int, DateForm]:
        """Which columns of ``stored`` are dates."""
        forms = dates_of(self.readings)
        return {j: forms[name] for j, name in enumerate(self.stored_names) if name in forms} if forms else {}

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The names of the columns of :meth:`blocks`: those of ``stored``, then what each date is besides its day."""
        return with_parts(self.stored_names, self.readings)

    @property
    def numeric(self) -> np.ndarray:
        """The stored columns, (n_samples, n_stored_columns), in the dtype of the source; copied if rows were taken."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (slice of samples, float64 copy of their numeric columns), so that no pass copies the whole table."""
        dates = self.dates
        step = max(1, _BLOCK_VALUES // max(1, self.stored.shape[1]))
        for start in range(0, self.n_samples, step):
            part = slice(start, min(start + step, self.n_samples))
            raw = self.stored[part] if self.rows is None else self.stored[self.rows[part]]
            block = raw.astype(np.float64)
            if dates:
                block = np.concatenate([block, *(expand(block[:, j], f.parts) for j, f in dates.items())], axis=1)
            yield part, block

    def take(self, rows: np.ndarray) -> Table:
        """The table of the given samples, in that order; the numeric columns are not copied."""
        return replace(
            self,
            categorical={name: values[rows] for name, values in self.categorical.items()},
            target=None if self.target is None else self.target[rows],
            lines=None if self.lines is None else self.lines[rows],
            weights=None if self.weights is None else self.weights[rows],
            rows=np.arange(len(self.stored))[rows] if self.rows is None else self.rows[rows],
        )

    def fingerprint(self) -> str:
        """A digest of the rows: every value of every column, and the target, in this order."""
        digest = hashlib.sha256(repr((self.n_samples, self.numeric_names, sorted(self.categorical))).encode())
        for _, block in self.blocks():
            digest.update(np.where(np.isnan(block), np.nan, block).tobytes())
        for name in sorted(self.categorical):
            digest.update(repr(self.categorical[name].tolist()).encode())
        if self.target is not None:
            digest.update(repr(self.target.tolist()).encode())
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    def where(self, sample: int) -> str:
        """Say where a sample stands in its source: ``data.csv, line 7`` or, without lines, ``data.npz, row 5``."""
        if self.lines is not None:
            return f"{self.source}, line {self.lines[sample]}"
        return f"{self.source}, row {sample if self.rows is None else self.rows[sample]}"


def table_from_arrays(
    X: Any,
    y: Any = None,
    *,
    source: str = "X",
    feature_names: Any = None,
    class_names: Any = None,
) -> Table:
    """Make a table of arrays that are in memory or memory-mapped.

    Parameters
    ----------
    X : array, shape (n_samples, n_features)
        Real numbers; NaN is a missing value.
    y : array, shape (n_samples,) or (n_samples, n_outputs), optional
        Integers, booleans, floats or strings.
    feature_names, class_names : sequence of str, optional
        Names of the columns of X, and of the classes 0 .. K-1 that y then holds.

    Raises
    ------
    DataError
        For a wrong number of dimensions, no rows, no columns, lengths that differ, or a dtype that is not listed above.
    """
    X = np.asanyarray(X)
    if X.dtype.kind not in "biuf":
        raise DataError(f"{source}: X has dtype {X.dtype}; it must hold real numbers")
    if X.ndim != 2:
        fix = "X.reshape(-1, 1)" if X.ndim == 1 else "X.reshape(len(X), -1)"
        raise DataError(f"{source}: X has shape {X.shape}; it must be (n_samples, n_features): {fix}")
    if 0 in X.shape:
        raise DataError(f"{source}: X has shape {X.shape}: there is nothing in it")
    if X.shape[1] > MAX_COLUMNS:
        raise DataError(f"{source}: X has {X.shape[1]} columns; a table has at most {MAX_COLUMNS}: transpose it?")
    columns = tuple(f"x{j}" for j in range(X.shape[1]))
    if feature_names is not None:
        columns = _names(feature_names, f"{source}: feature_names")
        if len(columns) != X.shape[1]:
            raise DataError(f"{source}: {len(columns)} feature names for {X.shape[1]} columns of X")
        if len(set(columns)) != len(columns):
            raise DataError(f"{source}: feature names must differ from each other")
    names = () if class_names is None else _names(class_names, f"{source}: classes")
    target = None if y is None else _checked_target(np.asanyarray(y), X.shape[0], source, len(names))
    table = Table(source, columns, X, {}, target, class_names=names, named=feature_names is not None)
    k = table.n_outputs
    return replace(table, target_names=("y",) if k == 1 else tuple(f"y{j}" for j in range(k)))


def _names(given: Any, what: str) -> tuple[str, ...]:
    """Names that a source gives, of its columns or classes."""
    found = np.asarray(given)
    if found.ndim != 1 or found.dtype.kind not in "biufUO" or len(found) > MAX_COLUMNS:
        raise DataError(f"{what} has shape {found.shape} and dtype {found.dtype}; it must be a list of names")
    names = tuple(str(name) for name in given)
    longest = max(map(len, names), default=0)
    if longest > LONGEST_NAME:
        raise DataError(f"{what} has a name of {longest} letters; shorten it")
    return names


def _checked_target(y: np.ndarray, n_samples: int, source: str, n_classes: int) -> np.ndarray:
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)
    if y.dtype.kind not in "biufU":
        raise DataError(f"{source}: y has dtype {y.dtype}; it must hold integers, floats or strings")
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise DataError(f"{source}: y has shape {y.shape}; it must be (n_samples,) or (n_samples, n_outputs)")
    if len(y) != n_samples:
        raise DataError(f"{source}: X has {n_samples} rows and y has {len(y)}; they must agree")
    if n_classes and (y.dtype.kind not in "biu" or y.min() < 0 or y.max() >= n_classes):
        raise DataError(
            f"{source}: there are {n_classes} class names, so y must hold integers from 0 to {n_classes - 1}"
        )
    return y
