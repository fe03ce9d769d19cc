"""Rows that are in memory (a data frame, a mapping of columns, an array), read as the training table was read."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .cells import is_missing, listed
from .dates import DateForm, days_of, days_of_value
from .forms import BooleanForm, Form
from .policies import columns_to_read
from .readings import Reading
from .table import Schema, Table, table_from_arrays

_SOURCE = "X"  # the name of the rows in errors
_MISSING = ("NAType", "NaTType")  # pandas' own, which cannot be compared


def table_of(rows: Any, like: Schema, *, named: bool, labelled: bool = False) -> Table:
    """A table of rows in memory.

    Parameters
    ----------
    rows : DataFrame, mapping of columns, list of mappings, or array (n_samples, n_features)
        Columns are found by their names where the training table had names and these have, else by position. None, NaN
        and pandas' NA are missing values.
    like : Schema
        That of the training table, with the policies for columns that are missing, or that it did not have.
    named : bool
        Whether the training table had names.
    labelled : bool
        Whether the target columns are read too.

    Raises
    ------
    DataError
        For a column that is missing, a number that is none, or another shape.
    """
    if isinstance(rows, list | tuple) and rows and all(isinstance(row, Mapping) for row in rows):
        rows = {name: [row.get(name) for row in rows] for name in dict.fromkeys(itertools.chain(*rows))}
    names = names_of(rows)
    plain = names is None and not like.categorical and not like.forms
    if plain and not labelled and getattr(rows, "dtype", None) != np.dtype(object):
        return table_from_arrays(_matrix(rows, len(like.columns)), source=_SOURCE)
    columns = _by_name(rows, names, like, named) if names is not None else _by_position(rows, like)
    present = tuple(columns)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise DataError(f"{_SOURCE}: its columns differ in length")
    n = lengths.pop()
    if n == 0:
        raise DataError(f"{_SOURCE} has no rows")
    forms = like.forms
    numeric = [numbers_of(columns[name], name, forms.get(name)) for name in present if name not in like.categorical]
    texts = {name: texts_of(columns[name]) for name in like.categorical if name in columns}
    stored = np.stack(numeric, axis=1) if numeric else np.empty((n, 0))
    target = _target(rows, names, like) if labelled else None
    target_names = like.target_names if labelled else ()
    readings = tuple(Reading(name, "feature", form.kind, form=form) for name, form in forms.items() if name in present)
    return Table(_SOURCE, present, stored, texts, target, target_names, named=named, readings=readings)


def names_of(rows: Any) -> list[Any] | None:
    """The names of the columns; None for an array, and for a data frame whose columns are only numbered."""
    if isinstance(rows, Mapping):
        return list(rows)
    names = list(rows.columns) if hasattr(rows, "columns") else []
    return names if any(isinstance(name, str) for name in names) else None


def _matrix(rows: Any, width: int) -> np.ndarray:
    X = np.asanyarray(rows)
    if X.ndim == 0:
        raise DataError(f"{_SOURCE} is no rows; give a data frame, a mapping, a path, or an array (n, {width})")
    if X.shape == (width,) and width > 1:
        raise DataError(f"{_SOURCE} has shape {X.shape}; one example is X.reshape(1, -1)")
    return X


def _by_name(rows: Any, names: Sequence[Any], like: Schema, named: bool) -> dict[str, np.ndarray]:
    if not named:  # the names were made up
        if len(names) != len(like.columns):
            raise DataError(f"{_SOURCE} has {len(names)} columns, the training data had {len(like.columns)} features")
        return {wanted: column_of(rows[name], wanted) for wanted, name in zip(like.columns, names, strict=True)}
    found = {str(name): name for name in names}
    return {name: column_of(rows[found[name]], name) for name in columns_to_read(found, like, _SOURCE)}


def _by_position(rows: Any, like: Schema) -> dict[str, np.ndarray]:
    X = _matrix(np.asarray(rows, dtype=object), len(like.columns))
    if X.ndim != 2 or X.shape[1] != len(like.columns):
        raise DataError(
            f"{_SOURCE} has shape {X.shape}; it must be (n_samples, {len(like.columns)}), with the columns "
            f"{listed(like.columns)}"
        )
    return {name: X[:, j] for j, name in enumerate(like.columns)}


def _target(rows: Any, names: Sequence[Any] | None, like: Schema) -> np.ndarray:
    found = {str(name): name for name in names or ()}
    for name in like.target_names:
        if name not in found:
            raise DataError(f"{_SOURCE} has no column {name!r}, the target; give a data frame that has it")
    given = {name: column_of(rows[found[name]], name) for name in like.target_names}
    columns = [_labels(x, name, like) for name, x in given.items()]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _labels(column: np.ndarray, name: str, like: Schema) -> np.ndarray:
    form = like.forms.get(name)
    if not like.text_target:
        return numbers_of(column, name, form)
    if isinstance(form, BooleanForm):  # of several spellings, which the training labels were not
        return np.where(numbers_of(column, name, form) == 1.0, "yes", "no")
    return texts_of(column)


def column_of(values: Any, name: str) -> np.ndarray:
    """One column (n_samples,) of rows in memory."""
    # as objects, else NumPy makes texts of the numbers and the NaN that stand beside a text
    column = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    if column.ndim == 2:
        raise DataError(f"{_SOURCE} has several columns {name!r}; each name must be there once")
    if column.ndim != 1:
        raise DataError(f"{_SOURCE}: column {name!r} has shape {column.shape}; it must be (n_samples,)")
    return column


def is_gap(value: Any) -> bool:
    """Whether a value is None, NaN or pandas' NA."""
    nan = isinstance(value, float | np.floating) and np.isnan(value)
    return value is None or bool(nan) or type(value).__name__ in _MISSING


def texts_of(column: np.ndarray) -> np.ndarray:
    """As a CSV would have them: an empty text where missing, 7 for 7.0."""

    def text(value: Any) -> str:
        if is_gap(value):
            return ""
        whole = isinstance(value, float | np.floating) and float(value).is_integer()
        return str(int(value)) if whole else str(value)

    return np.array([text(value) for value in column], dtype=str)


def numbers_of(column: np.ndarray, name: str, form: Form | None = None) -> np.ndarray:
    """Numbers; texts, dates and words for yes and no as the training file would have them."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    if column.dtype.kind == "M" and isinstance(form, DateForm):
        return days_of(column)
    values = np.empty(len(column))
    for i, value in enumerate(column):
        try:
            values[i] = _number(value, form)
        except (TypeError, ValueError):
            kind = "number" if form is None else form.kind
            problem = f"{_SOURCE}, row {i}, column {name!r}: {value!r} is not a {kind}"
            raise DataError(f"{problem}{f' ({form.said()})' if form else ''}; correct it") from None
    return values


def _number(value: Any, form: Form | None) -> float:
    if is_gap(value):
        return float("nan")
    if isinstance(value, str) and form is not None:
        return float("nan") if is_missing(value.strip()) else form.parse(value.strip())
    if isinstance(value, datetime.date | datetime.time | np.datetime64) and isinstance(form, DateForm):
        return days_of_value(value)
    return float(value)
