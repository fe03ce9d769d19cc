"""Columns of Arrow arrays, whose types their file states: as numbers, or as different texts and which each cell is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, shown
from .column_types import Found
from .csv_columns import Column
from .dates import DateForm, days_of
from .forms import BooleanForm, Form
from .number_forms import PLAIN

if TYPE_CHECKING:
    import pyarrow as pa

_DAY_US = 86_400e6
_DIGITS = re.compile("[0-9]+")


def kind_of(type_: pa.DataType) -> str:
    """number, boolean, date, time, text, dictionary or gap; empty for what is no column of single values."""
    from pyarrow import types as t

    kinds = (
        ("gap", (t.is_null,)),
        ("boolean", (t.is_boolean,)),
        ("number", (t.is_integer, t.is_floating, t.is_decimal, t.is_duration)),
        ("date", (t.is_date, t.is_timestamp)),
        ("time", (t.is_time,)),
        ("text", (t.is_string, t.is_large_string, t.is_string_view, t.is_binary, t.is_large_binary, t.is_binary_view)),
    )
    if t.is_dictionary(type_):
        return "dictionary" if kind_of(type_.value_type) not in ("", "dictionary") else ""
    return next((kind for kind, checks in kinds if any(check(type_) for check in checks)), "")


class StatedColumn:
    """A column while it is read of a file that states its type.

    Parameters
    ----------
    column : Column
        Whose cells they become: of ``column.plain``, numbers.
    type_ : DataType
    source : str
        What messages call the file.

    Raises
    ------
    DataError
        For lists, structures and the like.
    """

    def __init__(self, column: Column, type_: pa.DataType, source: str, is_target: bool = False) -> None:
        self.column, self.type, self.kind, self.is_target = column, type_, kind_of(type_), is_target
        if not self.kind:
            name = shown(column.name, 60, quoted=False)
            raise DataError(
                f"{source}: column {shown(column.name)} holds {type_}, and each cell must be one value; leave it out"
                f" (data.ignore=[{name}]), or write its parts as columns of their own"
            ).with_option("ignore", [*column.ignored, column.name])
        column.plain = self._as_numbers(is_target)
        how = f"{f'dictionary of {type_.value_type}' if self.kind == 'dictionary' else type_} in the file"
        free = not column.trained and column.wanted is None and not is_target
        if free and self.kind == "dictionary" and not column.only_numbers:
            column.stated = Found(None, "category", how)
        elif column.plain and not is_target:
            form: Form | None = BooleanForm() if self.kind == "boolean" and column.wanted is None else None
            if self.kind in ("date", "time"):
                form = DateForm("time", "time") if self.kind == "time" else DateForm("ymd", "date", None)
            column.stated = Found(form, "number" if form is None else form.kind, how)
        elif column.trained and not column.is_text and column.form is None:
            column.form = PLAIN  # numbers in text
        self.free_text = free and self.kind == "text"

    def _as_numbers(self, is_target: bool) -> bool:
        c, kind = self.column, self.kind
        if is_target:
            return kind == "number" and c.wanted != "category" and c.form is None
        if c.is_text or kind in ("text", "dictionary"):
            return False
        if kind == "gap":
            return True
        held = c.wanted
        if c.trained:
            held = "number" if c.form is None else c.form.kind
        if isinstance(c.form, DateForm):
            return kind == ("time" if c.form.order == "time" else "date")
        if held == "number":
            return kind in ("number", "boolean")
        return held in (None, kind) or (held == "date" and kind == "time")

    def add(self, array: pa.Array) -> np.ndarray | None:
        """Add the cells of some rows; return their numbers, or None if the column holds texts."""
        from pyarrow import types

        if self.column.plain:
            if self.is_target and types.is_integer(self.type) and not array.null_count:
                return array.cast("int64").to_numpy(zero_copy_only=False)
            values = numbers_of(array, self.kind)
            stated = self.column.stated
            if self.kind == "date" and stated is not None and np.any(np.nan_to_num(values) % 1.0):
                self.column.stated = Found(DateForm("ymd", "datetime", None), "date", stated.how)
            return values
        self.column.add_block(*texts_of(array, self.kind))
        return None

    def finish(self) -> None:
        """Once all rows are there: digits that the file calls text are no numbers."""
        if self.free_text and not self.column.only_numbers:
            words, _ = self.column.distinct()
            if words and all(map(_DIGITS.fullmatch, words)):
                self.column.stated = Found(None, "text code", f"{self.type} in the file")


def alike(targets: Sequence[StatedColumn]) -> None:
    """Read all targets as texts where one of them is no number."""
    if not all(target.column.plain for target in targets):
        for target in targets:
            target.column.plain = False


def numbers_of(array: pa.Array, kind: str) -> np.ndarray:
    """float64, NaN where missing: dates as days since 1970, times as parts of the day, spans of time in days."""
    import pyarrow as pa
    from pyarrow import types as t

    if kind == "gap":
        return np.full(len(array), np.nan)
    if kind == "date":
        return days_of(array.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False))
    if kind == "time":
        array = array.cast(pa.time64("us"), safe=False).cast(pa.int64())
    elif kind == "boolean":
        array = array.cast(pa.uint8())
    elif span := t.is_duration(array.type):
        array = array.cast(pa.duration("us"), safe=False).cast(pa.int64())
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values / _DAY_US if kind == "time" or (kind == "number" and span) else values


def stored_values(array: pa.Array) -> np.ndarray:
    """The numbers of an array, anything where they are missing; ``to_numpy`` would load pandas for it."""
    start = array.offset
    return np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype(), start + len(array))[start:]


def validity(array: pa.Array) -> np.ndarray:
    """Which cells of an array with gaps are there."""
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(bool)


def texts_of(array: pa.Array, kind: str) -> tuple[list[str], np.ndarray]:
    """Different texts, an empty one where missing, and which of them each cell is; as a CSV would have them."""
    import pyarrow as pa
    from pyarrow import types as t

    if kind == "gap":
        return [""], np.zeros(len(array), np.int32)
    if not t.is_dictionary(array.type):
        array = (array.cast(pa.string()) if kind == "text" else array).dictionary_encode()
    values = array.dictionary
    if t.is_floating(values.type):
        words: list[Any] = [str(int(v)) if v.is_integer() else repr(v) for v in values.cast(pa.float64()).to_pylist()]
    elif t.is_boolean(values.type):
        words = list(map(str, values.to_pylist()))
    else:
        words = (values if t.is_string(values.type) else values.cast(pa.string())).to_pylist()
    number: dict[str, int] = {}
    of_word = np.array([number.setdefault((word or "").strip(), len(number)) for word in words] or [0], np.int32)
    gap = number.setdefault("", len(number)) if array.null_count else 0
    indices = array.indices.fill_null(0) if array.null_count else array.indices  # which loads pyarrow.compute
    found = of_word[stored_values(indices)]
    if array.null_count:
        found[~validity(array)] = gap
    return list(number), found
