"""The targets of a CSV file: integers, floats or text, and which of them its cells are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError, shown
from ..safe_files import memory_limit
from .cells import is_number
from .column_checks import PLAIN_NUMBER, formatted_number, mostly
from .csv_columns import TEXT, Column, as_read

_BLOCK = 8192  # cells that are Python texts at the same time


def target_values(path: Path, answers: list[Column], lines: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The targets, (n,) for one column, and warnings about them.

    Integers if all cells are, else floats, else text; as text, too, what is listed as categorical, and whole numbers
    that are written as codes are (007, +1), which may be the names of classes. Text that holds numbers is a target of
    a regression all the same.
    """
    if not answers:
        return None, ""
    cells = np.stack([column.joined() for column in answers], axis=1)
    if not np.all(present := cells != ""):
        row, j = np.argwhere(~present)[0]
        raise DataError(
            f"{path}, line {lines[row]}: the target {shown(answers[j].name)} is missing; fill it in or delete the row"
        )
    if any(column.name in column.listed for column in answers):
        values, note = cells, ""
    else:
        values = _as_numbers(cells)
        note = _target_note(path, answers, lines, cells, values)
    if values.dtype == TEXT:
        values = _of_one_width(path, values, lines)
    return (values[:, 0] if len(answers) == 1 else values), note


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


def _of_one_width(path: Path, cells: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Texts as an array of texts of one width, which takes as much for each row as for the longest."""
    lengths = np.strings.str_len(cells)
    longest = int(lengths.max())
    if 4 * longest * cells.size > memory_limit(path.stat().st_size):
        row = int(np.argmax(lengths)) // cells.shape[1]
        raise DataError(
            f"{path}, line {lines[row]}: a target of {longest} letters is too long for the name of a class; shorten it,"
            " or is another column the target?"
        )
    return cells.astype(f"U{max(1, longest)}")


def _target_note(path: Path, answers: list[Column], lines: np.ndarray, cells: np.ndarray, values: np.ndarray) -> str:
    """Refuse a target whose numbers are written in a way that is not read; say which labels became one number."""
    for j, column in enumerate(answers):
        if values.dtype == TEXT:
            texts = [text for text in column.distinct() if not is_number(text)]
            if mostly("numbers", texts):
                row = next(i for i, text in enumerate(cells[:, j]) if formatted_number(text))
                raise DataError(
                    f"{path}, line {lines[row]}, target {shown(column.name)}: {shown(cells[row, j])} is not read as a"
                    f" number; {as_read(str(cells[row, j]))}; if it names a class, list the column under categorical"
                ).with_option("categorical", [*dict.fromkeys([*column.listed, column.name])])
        elif values.dtype.kind == "f" and np.all(values[:, j] == np.rint(values[:, j])):
            first: dict[float, str] = {}
            for text, value in zip(cells[:, j].tolist(), values[:, j].tolist(), strict=True):
                if first.setdefault(value, text) != text:
                    return (
                        f"the target {column.name!r} holds {first[value]!r} and {text!r}, which are one number;"
                        " list the column under categorical if they are two classes"
                    )
    return ""
