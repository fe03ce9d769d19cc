"""What a CSV's column seems to hold, where it would be read as something else: none is misread without a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, shown
from .cells import is_number
from .column_types import MOST_NUMBERS
from .dates import is_date

if TYPE_CHECKING:
    from .table import Table

_MANY = 50  # one-hot columns of one text column that are worth a line
_TOO_MANY = 100
_FEW = 10  # texts below this are categories even if each row has its own
_LOOKED_AT = 10_000  # rows that show most columns to be no codes
_MANY_CATEGORIES = 50  # more are likely to be names, of which new rows hold others
_SHOWN = 2000  # different texts that are looked at

_SIGN = "[-+−–]?"
_DIGITS = r"(?:[0-9]{1,3}(?:[,.'’_\s][0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}|[0-9]+)(?:[.,][0-9]+)?"
_IDENTIFIER = re.compile(r"(?i:(?:.*[_ .-])?(?:id|uuid|guid|index|unnamed: 0))|.*[a-z]I[dD]|[A-Z]*ID")
_MEASURED = re.compile(
    rf"{_SIGN}{_DIGITS}\s?[^\W\d_°/²³]{{0,4}}[°/²³]?[^\W\d_]{{0,4}}[²³]?"
)  # 12 kg, 5.3cm, 20 °C, 90km/h

PLAIN_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:e[-+]?[0-9]+|E[-+][0-9]+)?|-?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
)
"""A number that is no code: no leading zero, no plus, not 12E4, digits of ASCII."""


def mostly_dates(texts: Sequence[str]) -> bool:
    """Whether at least half of different texts look like dates."""
    texts = texts[:_SHOWN]
    return 2 * sum(map(is_date, texts)) >= len(texts) > 0


def leave_out(name: str, ignored: Sequence[str]) -> str:
    """The advice to leave a column out, beside those that are left out already."""
    return f"leave it out (data.ignore=[{', '.join([*ignored, name])}])"


def text_note(name: str, distinct: Sequence[str], counts: np.ndarray, ignored: Sequence[str] = ()) -> str:
    """A warning about a column that becomes categories; empty if these are few and look like categories.

    ``distinct``: its different texts; ``counts``: how many cells hold each.
    """
    k, n_cells = len(distinct), int(np.sum(counts))
    out = f"{leave_out(name, ignored)} unless you need it"
    if k > MOST_NUMBERS and 2 * sum(bool(_MEASURED.fullmatch(text)) for text in distinct[:_SHOWN]) >= min(k, _SHOWN):
        return (
            f"column {name!r} is read as {k} categories, one input each, and holds numbers with something behind them"
            f" ({distinct[0]!r}, ...): write the number alone, or {out}"
        )
    if k >= _FEW and 2 * k > n_cells:
        return (
            f"column {name!r} looks like names or identifiers: {k} different texts in {n_cells} rows"
            f" ({distinct[0]!r}, ...) become {k} inputs, which new rows will not share; {out}"
        )
    if _MANY < k <= _TOO_MANY:  # of more, training says what to do
        return f"column {name!r} is read as {k} categories ({distinct[0]!r}, ...), one input each; {out}"
    numbers = sum(map(is_number, distinct))
    if 0 < numbers < k:
        return (
            f"column {name!r} holds {numbers} different numbers and {k - numbers} other texts, and is read as"
            f" {k} categories"
        )
    return ""


def number_note(name: str, values: np.ndarray, ignored: Sequence[str] = ()) -> str:
    """A warning about a column that is read as numbers (NaN: missing) but may hold codes or identifiers."""
    out = leave_out(name, ignored)
    for part in (values[:_LOOKED_AT], values):
        present = part[~np.isnan(part)]
        if len(present) < _FEW or not np.all(np.isfinite(present)) or np.any(present != np.rint(present)):
            return ""
    if np.max(np.abs(present)) > 2.0**53:
        return (
            f"column {name!r} holds whole numbers too large to be told apart in floating point;"
            f" set types: {{{name}: category}}, or {out}"
        )
    first = present[:_LOOKED_AT]
    different = len(np.unique(first)) == len(first) and len(np.unique(present)) == len(present)
    if different and np.ptp(present) == len(present) - 1:
        return f"column {name!r} numbers the rows and is read as a number; {out} unless it means something"
    if different and _IDENTIFIER.fullmatch(name):
        return f"column {name!r} looks like an identifier and is read as a number; {out} unless it means something"
    return ""


def compact_dates(values: np.ndarray) -> np.ndarray | None:
    """Days since 1970 of numbers such as 20240131 (NaN: missing), if all of them are days; else None."""
    sample = values[:_LOOKED_AT]
    sample = sample[~np.isnan(sample)]
    if len(sample) < _FEW or not _compact(sample):
        return None
    seen = ~np.isnan(values)
    if not _compact(values[seen]):
        return None
    whole = values[seen].astype(np.int64)
    months = (whole // 10_000 - 1970) * 12 + whole // 100 % 100 - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    found = first + (whole % 100 - 1)
    if np.any(found.astype("datetime64[M]").astype(np.int64) != months):  # 31 April
        return None
    days = np.full(len(values), np.nan)
    days[seen] = found.astype(np.int64)
    return days


def _compact(whole: np.ndarray) -> bool:
    if not np.all((whole >= 19000101) & (whole <= 21001231) & (whole == np.rint(whole))):
        return False
    month, day = whole // 100 % 100, whole % 100
    return bool(np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)))


def missing_cell(where: str) -> DataError:
    """That a cell of a training row holds no value, where gaps are not filled."""
    problem = f"{where}: the value is missing; fill it in, or set missing: mean | median | indicator for training"
    return DataError(problem).with_option("missing", "indicator")


def unknown_category(problem: str, name: str, known: list[str], ignored: Sequence[str]) -> DataError:
    """That a cell holds a category that training did not see, with what to do about it."""
    if mostly_dates(known) or len(known) > _MANY_CATEGORIES:  # zeros in place of every later date would be a trap
        error = DataError(f"{problem}; from so many little can be learnt: {leave_out(name, ignored)} when you train")
        return error.with_option("ignore", [*ignored, name])
    error = DataError(f"{problem}; correct it, or set unknown: ignore to encode such cells as zeros")
    return error.with_option("unknown", "ignore")


def categories_of(table: Table, name: str, missing: str | None, most: int) -> tuple[str, ...]:
    """The categories of a training table's column of texts, sorted; at most ``most`` of them, or DataError."""
    values = table.categorical[name]
    if missing is None and np.any(gap := values == ""):
        raise missing_cell(f"{table.where(int(np.argmax(gap)))}, column {shown(name)}")
    found = np.unique(values)
    if len(found) > most:
        left_out = ", ".join([*table.ignored, name])
        raise DataError(
            f"{table.source}: column {shown(name)} holds {len(found)} different texts, each of which would be an input;"
            f" leave it out with ignore: [{left_out}], or if they are categories, set max_categories: {len(found)}"
        ).with_option("ignore", [*table.ignored, name])
    return tuple(found.tolist())
