"""What each column of a data frame holds, learnt on the training frame, and frames as numbers: codes of categories,
days of dates, NaN where missing.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError, did_you_mean, shown
from .frames import column_of, is_gap, names_of, numbers_of, texts_of

MOST_CATEGORIES = 100  # of a column; of more, the most frequent ones
_DAY = 86_400.0


@dataclass(frozen=True)
class FrameColumns:
    """The columns of a training frame.

    Attributes
    ----------
    names : tuple of str
    kinds : tuple of str
        "number", "date", "datetime" or "category", as ``TabularInputs`` takes them.
    categories : tuple of tuple of str
        Of each column, sorted; empty for numbers and dates. An empty text stands for missing.
    notes : tuple of str
        A line for each column whose categories were not all kept.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, frame: Any) -> FrameColumns:
        """Learn from a data frame: numbers, truth values and what holds nothing else are numbers; dates and times are
        dates; everything else is categories, at most ``MOST_CATEGORIES``.

        Raises
        ------
        DataError
            If names repeat.
        """
        names = tuple(map(str, frame.columns))
        if len(set(names)) < len(names):
            raise DataError("X has several columns of one name; each name must be there once")
        columns = _by_name(frame, names)
        kinds = tuple(_kind(columns[name]) for name in names)
        categories, notes = [], []
        for name, kind in zip(names, kinds, strict=True):
            found = Counter(texts_of(columns[name]).tolist()) if kind == "category" else Counter[str]()
            kept = [text for text, _ in found.most_common(MOST_CATEGORIES)]
            if len(kept) < len(found):
                notes.append(
                    f"column {name!r} holds {len(found)} different texts: the {len(kept)} most frequent are inputs; "
                    "leave the column out if it names the rows"
                )
            categories.append(tuple(sorted(kept)))
        return cls(names, kinds, tuple(categories), tuple(notes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of categories of each column."""
        return tuple(map(len, self.categories))

    def codes(self, rows: Any) -> np.ndarray:
        """Rows as numbers (n, n_columns), float64.

        Numbers as they are, dates as days since 1970, categories as their index, -1 for one that training did not see;
        NaN for a missing number or date.

        Parameters
        ----------
        rows : DataFrame, mapping of columns, or array (n, n_columns)
            Columns are found by their names if these have some, else by position; further ones are left out.

        Raises
        ------
        DataError
            For a column that is missing, or one that holds something else than in training.
        """
        columns = _by_position(rows, self.names) if names_of(rows) is None else _by_name(rows, self.names)
        coded = []
        for name, kind, categories in zip(self.names, self.kinds, self.categories, strict=True):
            if kind == "number":
                coded.append(_numbers(columns[name], name))
            elif kind == "category":
                number = {text: float(k) for k, text in enumerate(categories)}
                coded.append(np.array([number.get(text, -1.0) for text in texts_of(columns[name]).tolist()]))
            else:
                coded.append(_days(columns[name], name))
        return np.stack(coded, axis=1) if coded else np.empty((0, 0))

    def state(self) -> dict[str, Any]:
        """A JSON-able dict from which :meth:`from_state` makes the same."""
        return {"names": list(self.names), "kinds": list(self.kinds), "categories": [list(c) for c in self.categories]}

    @classmethod
    def from_state(cls, kept: Mapping[str, Any]) -> FrameColumns:
        """Undo :meth:`state`. Raises CheckpointError if it is damaged."""
        names, kinds, categories = kept["names"], kept["kinds"], kept["categories"]
        texts = [*names, *kinds, *(text for one in categories for text in one)]
        if not len(names) == len(kinds) == len(categories) or not all(isinstance(text, str) for text in texts):
            raise CheckpointError("the columns of the preset's data frame are damaged; make the file again")
        return cls(tuple(names), tuple(kinds), tuple(map(tuple, categories)))


def holds_more_than_numbers(rows: Any) -> bool:
    """Whether rows are a data frame with names, some column of which is not simply an array of numbers."""
    if isinstance(rows, np.ndarray) or not hasattr(rows, "columns") or names_of(rows) is None:
        return False
    return any(np.asarray(rows[name]).dtype.kind not in "biuf" for name in rows.columns)


def _by_name(rows: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    found = {str(name): name for name in names_of(rows) or rows.columns}
    for name in names:
        if name not in found:
            raise DataError(f"X lacks the column {shown(name)}, which the training data had{did_you_mean(name, found)}")
    return {name: column_of(rows[found[name]], name) for name in names}


def _by_position(rows: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    X = np.asarray(rows, dtype=object)
    if X.ndim != 2 or X.shape[1] != len(names):
        raise DataError(f"X has shape {X.shape}; the data frame of the fit had {len(names)} columns")
    return {name: X[:, j] for j, name in enumerate(names)}


def _numbers(column: np.ndarray, name: str) -> np.ndarray:
    """float64, NaN where missing; a span of time in days."""
    if column.dtype.kind == "m":
        days = column.astype("m8[us]").astype(np.int64) / (1e6 * _DAY)
        return np.where(np.isnat(column), np.nan, days)
    return numbers_of(column, name)


def _kind(column: np.ndarray) -> str:
    if column.dtype.kind in "biufm":
        return "number"
    if column.dtype.kind == "M":
        return _date_kind(column)
    present = [value for value in column if not is_gap(value)]
    if present and all(isinstance(value, datetime.date) for value in present):
        return _date_kind(column)
    numeric = all(isinstance(value, int | float | np.number | np.bool_) for value in present)
    return "number" if numeric else "category"


def _date_kind(column: np.ndarray) -> str:
    days = _days(column, "")
    return "datetime" if np.any(np.nan_to_num(days) % 1.0) else "date"


def _days(column: np.ndarray, name: str) -> np.ndarray:
    """Days since 1970, NaN where missing; of times with a zone, in UTC."""
    if column.dtype.kind != "M":
        found = np.full(len(column), "NaT", "M8[us]")
        for i, value in enumerate(column):
            if is_gap(value):
                continue
            if not isinstance(value, datetime.date):
                raise DataError(f"X, row {i}, column {name!r}: {value!r} is no date, as it was in training; correct it")
            if isinstance(value, datetime.datetime) and value.tzinfo is not None:
                value = value.astimezone(datetime.UTC).replace(tzinfo=None)
            found[i] = np.datetime64(value, "us")
        column = found
    seconds = column.astype("M8[us]").astype(np.int64) / 1e6
    return np.where(np.isnat(column), np.nan, seconds / _DAY)
