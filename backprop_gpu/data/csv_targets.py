"""The targets of a table of text: integers, floats or text, and which of them its cells are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError, shown
from ..safe_files import memory_limit
from . import dates
from .cells import is_number
from .column_checks import PLAIN_NUMBER
from .column_types import MOST_NUMBERS, Found, StrayError
from .csv_columns import TEXT, Column, Where
from .forms import FALSE, TRUE, BooleanForm, Form
from .number_forms import is_shaped
from .read_settings import ReadSettings
from .readings import Reading
from .text_files import size_of

_BLOCK = 8192  # cells that are Python texts at the same time
_FEW_STRAYS = 0.1
AS_TEXT = Found(None, "category", "")


def target_values(
    path: Path, answers: list[Column], where: Where, settings: ReadSettings
) -> tuple[np.ndarray | None, str, list[Reading]]:
    """The targets, (n,) for one column, a warning about them, and how each was read.

    Integers if all cells are, else floats, else text; as text, too, what is to be read as a category, and whole numbers
    that are written as codes are (007, +1), which may be the names of classes. Text that holds numbers is a target of
    a regression all the same.
    """
    if not answers:
        return None, "", []
    if all(column.numbers for column in answers):
        return _stated(answers, where)
    found = [_found(column, where, settings) for column in answers]
    cells = np.stack([_cells(column, f.form, where) for column, f in zip(answers, found, strict=True)], axis=1)
    if not np.all(present := cells != ""):
        row, j = np.argwhere(~present)[0]
        raise _missing(where(int(row)), answers[j])
    note = ""
    if any(column.wanted == "category" for column in answers):
        values = cells
    else:
        values = _as_numbers(cells)
        note = _merged_labels(answers, cells, values)
    readings = [
        Reading(column.name, "target", "category" if values.dtype == TEXT else "number", f.how, "", f.form)
        for column, f in zip(answers, found, strict=True)
    ]
    if values.dtype == TEXT:
        values = _of_one_width(path, values, where)
    return (values[:, 0] if len(answers) == 1 else values), note, readings


def _stated(answers: list[Column], where: Where) -> tuple[np.ndarray, str, list[Reading]]:
    """Targets whose file says that they are numbers; NaN where missing."""
    columns = [np.concatenate(column.numbers) for column in answers]
    for column, values in zip(answers, columns, strict=True):
        if np.any(gaps := np.isnan(values)):
            raise _missing(where(int(np.argmax(gaps))), column)
    values = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return values, "", [Reading(column.name, "target", "number") for column in answers]


def _missing(place: str, column: Column) -> DataError:
    return DataError(f"{place}: the target {shown(column.name)} is missing; fill it in or delete the row")


def _found(column: Column, where: Where, settings: ReadSettings) -> Found:
    """In which form a target is written; a form of None leaves its cells as they are."""
    if column.trained or column.wanted == "category":
        return Found(column.form, "", "")
    words, counts = column.distinct()
    if column.wanted is not None:
        return column.inferred(words, counts, where)
    lower = {word.lower() for word in words}
    if len(words) > 2 and lower <= TRUE | FALSE and lower & TRUE and lower & FALSE and not all(map(is_number, words)):
        return Found(BooleanForm(), "boolean", "spellings of yes and no")
    shaped = [is_shaped(word) for word in words]
    if words and all(shaped):
        unsure = column.hints.decimal == "," and any("." in word for word in words)
        if not unsure and all(map(is_number, words)):
            return AS_TEXT
        return column.inferred(words, counts, where, "number")
    strays = int(counts.sum()) - int(counts[shaped].sum())
    if sum(shaped) > MOST_NUMBERS and strays < _FEW_STRAYS * counts.sum():
        raise column.advice(StrayError(words[shaped.index(False)], "number", int(counts[shaped].sum())), words, where)
    if len(words) > MOST_NUMBERS and all(map(dates.is_date, words)):
        raise column.as_category(
            DataError(
                f"{where(0)}, target {shown(column.name)}: {shown(words[0])} is a date, which is not predicted as such;"
                " name another target, or write a number in its place, such as days since a day"
            )
        )
    return AS_TEXT


def _cells(column: Column, form: Form | None, where: Where) -> np.ndarray:
    """The cells of a target; those of a form as plain numbers, or as yes and no."""
    if form is None:
        return column.joined()
    parts = []
    for words, codes in column.blocks:
        plain = [_plain(column, form, word, where) if word else "" for word in words.tolist()]
        parts.append(np.array(plain, dtype=TEXT)[codes])
    return np.concatenate(parts)


def _plain(column: Column, form: Form, word: str, where: Where) -> str:
    try:
        value = form.parse(word)
    except ValueError:
        column.refuse_trained(word, where, form)
    if isinstance(form, BooleanForm):
        return "yes" if value else "no"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _as_numbers(cells: np.ndarray) -> np.ndarray:
    """Texts as int64 or float64 if that loses nothing that may be the name of a class; else as they are."""
    flat, values, plain = cells.ravel(), np.empty(cells.size), True
    blocks = [slice(start, start + _BLOCK) for start in range(0, cells.size, _BLOCK)]
    for block in blocks:
        texts = flat[block].tolist()
        if any("_" in text for text in texts):
            return cells
        try:
            values[block] = list(map(float, texts))
        except ValueError:
            return cells
        plain = plain and all(map(PLAIN_NUMBER.fullmatch, texts))
    if not np.all(values == np.rint(values)):
        return values.reshape(cells.shape)
    if not plain:
        return cells if np.all(np.isfinite(values)) else values.reshape(cells.shape)
    whole = np.empty(cells.size, np.int64)
    try:
        for block in blocks:
            whole[block] = list(map(int, flat[block].tolist()))
    except ValueError:
        return values.reshape(cells.shape)
    except OverflowError:
        return cells
    return whole.reshape(cells.shape)


def _of_one_width(path: Path, cells: np.ndarray, where: Where) -> np.ndarray:
    """Texts as an array of texts of one width, which takes as much for each row as for the longest."""
    lengths = np.strings.str_len(cells)
    longest = int(lengths.max())
    if 4 * longest * cells.size > memory_limit(size_of(path)):
        row = int(np.argmax(lengths)) // cells.shape[1]
        raise DataError(
            f"{where(row)}: a target of {longest} letters is too long for the name of a class; shorten it,"
            " or is another column the target?"
        )
    return cells.astype(f"U{max(1, longest)}")


def _merged_labels(answers: list[Column], cells: np.ndarray, values: np.ndarray) -> str:
    """Which labels became one number."""
    for j, column in enumerate(answers):
        if values.dtype.kind == "f" and np.all(values[:, j] == np.rint(values[:, j])):
            first: dict[float, str] = {}
            for text, value in zip(cells[:, j].tolist(), values[:, j].tolist(), strict=True):
                if first.setdefault(value, text) != text:
                    return (
                        f"the target {column.name!r} holds {first[value]!r} and {text!r}, which are one number;"
                        f" set types: {{{column.name}: category}} if they are two classes"
                    )
    return ""
