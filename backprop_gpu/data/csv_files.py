"""CSV files with a header, read in blocks of rows into a :class:`Table`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean, shown
from ..safe_files import LONGEST_NAME, MAX_COLUMNS, open_regular
from .cells import is_number, listed
from .column_checks import number_note
from .csv_columns import Column
from .csv_targets import target_values
from .table import Table

_BLOCK_ROWS, _BLOCK_CELLS = 8192, 1 << 18  # of a block: a cell takes 60 bytes and more until it is a number
_MAX_LINE = 16 << 20  # letters


def read_csv(
    path: Path,
    target: Sequence[str | int],
    columns: Sequence[str] | None,
    ignore: Sequence[str],
    categorical: Sequence[str] | Literal["auto"],
    delimiter: str,
    trained: bool = False,
) -> Table:
    """Read a CSV file; :func:`backprop_gpu.data.read_table` documents the parameters and the errors.

    ``trained``: the columns are those of a training table, and each must hold again what it held there.
    """
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise ConfigError(f"delimiter must be one character and no quote or line end, got {delimiter!r}")
    try:
        header = _header(path, delimiter, labelled=bool(target))
        targets = [_position(path, header, column) for column in target]
        if len(set(targets)) < len(targets):
            raise ConfigError(f"{path}: target names a column twice; take one out")
        features = _feature_positions(path, header, targets, columns, ignore)
        auto = categorical == "auto"

        def of(positions: list[int]) -> list[str]:
            return [header[j] for j in positions]

        listed_names = () if categorical == "auto" else _text_columns(path, of(features), of(targets), categorical)
        read = [Column(header[j], header[j] in listed_names, auto, trained, listed_names) for j in features]
        answers = [Column(header[j], True, False, trained, listed_names) for j in targets]
        lines, stored = _read(path, delimiter, len(header), read + answers, features + targets)
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from None
    texts = [column.name for column in read if column.text]
    for column in read:
        column.refuse_numbers(path, texts, ignore)
    answer, of_target = target_values(path, answers, lines)
    notes = [] if trained else [note for note in (*_notes(read, stored, ignore), of_target) if note]
    return Table(
        source=str(path),
        columns=tuple(column.name for column in read),
        stored=stored,
        categorical={column.name: column.joined() for column in read if column.text},
        target=answer,
        target_names=tuple(column.name for column in answers),
        named=True,
        lines=lines,
        ignored=tuple(ignore),
        others=tuple(name for j, name in enumerate(header) if j not in {*features, *targets}),
        notes=tuple(f"{path}: {note}" for note in notes),
    )


def column_names(path: Path, delimiter: str, labelled: bool = True) -> list[str]:
    """The header of a CSV file; DataError where :func:`read_csv` would raise it."""
    try:
        return _header(path, delimiter, labelled=labelled)
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from None


def read_cells(path: Path, names: Sequence[str], delimiter: str) -> list[list[str]]:
    """The cells of the columns of these names, as text; DataError as for :func:`read_csv`."""
    try:
        header = _header(path, delimiter, labelled=False)
        positions = [_position(path, header, name) for name in names]
        rows = [cells for _, cells in islice(_rows(path, delimiter), 1, None)]
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from None
    return [[cells[j] for cells in rows] for j in positions]


def _unreadable(path: Path, error: UnicodeDecodeError | OSError) -> DataError:
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"{path} is not UTF-8 text; save it as UTF-8")
    return DataError(f"{path}: {error.strerror or error}")


def _read(
    path: Path, delimiter: str, width: int, columns: list[Column], positions: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Fill the columns from the file; return the line on which each row starts, and the columns that hold numbers."""
    lines, blocks = _fill(path, delimiter, width, columns, positions)
    if any(column.turned_late for column in columns):  # what came before their first text was kept as numbers
        for column in columns:
            column.restart()
        del blocks
        lines, blocks = _fill(path, delimiter, width, columns, positions)
    stored = np.empty((len(lines), blocks[0].shape[1]))
    end = len(lines)
    while blocks:  # each is freed once it is copied
        block = blocks.pop()
        stored[end - len(block) : end] = block
        end -= len(block)
    return lines, stored


def _notes(columns: list[Column], stored: np.ndarray, ignored: Sequence[str]) -> Iterator[str]:
    """Warnings about how columns were read."""
    numbers = iter(stored.T)
    for column in columns:
        yield (
            column.text_note(ignored) if column.text else number_note(column.name, next(numbers), column.code, ignored)
        )


def _header(path: Path, delimiter: str, labelled: bool) -> list[str]:
    _, header = next(_rows(path, delimiter), (0, []))
    if not header:
        raise DataError(f"{path} is empty; a header line and rows of data are needed")
    if len(header) == 1:
        other = next((mark for mark in ";\t|," if mark in header[0]), None)
        advice = f"; set delimiter: {other!r}" if other else ""
        if labelled or other:
            error = DataError(f"{path} has one column only ({shown(header[0])}){advice}")
            raise error.with_option("delimiter", other) if other else error
    # pandas heads unnamed columns 0, 1, 2 ...; any other row of numbers is data, and would be lost without a word
    if all(is_number(name) for name in header) and header != [str(j) for j in range(len(header))]:
        raise DataError(f"{path}: line 1 holds numbers only; add a header line that names the columns")
    seen = set()
    for position, name in enumerate(header, start=1):
        if not name:
            raise DataError(f"{path}: column {position} has no name in the header; name it")
        if len(name) > LONGEST_NAME:
            raise DataError(f"{path}: the name of column {position} has {len(name)} letters; shorten it")
        if name in seen:
            raise DataError(f"{path}: the header names column {shown(name)} twice; rename one")
        seen.add(name)
    return header


class _Lines:
    """The lines of a file, none longer than a row may be; ``marks``: how many delimiters the current row has so far.

    csv.reader makes a list of a whole row before anyone can look at it.
    """

    def __init__(self, path: Path, file: io.TextIOBase, delimiter: str) -> None:
        self.path, self.file, self.delimiter, self.marks = path, file, delimiter, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        self.marks += line.count(self.delimiter)
        if len(line) >= _MAX_LINE or self.marks >= MAX_COLUMNS:
            raise DataError(
                f"{self.path} has a row of more than {MAX_COLUMNS} columns or {_MAX_LINE} letters; check the quotes,"
                " or split the table"
            )
        return line


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the row starts, stripped cells), leaving out blank lines."""
    with io.TextIOWrapper(open_regular(path, DataError), encoding="utf-8-sig", newline="") as file:
        lines = _Lines(path, file, delimiter)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line, lines.marks = reader.line_num + 1, 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{path}, line {line}: {error}; check the quotes on and after that line") from None
            if cells:
                yield line, [cell.strip() for cell in cells]


def _fill(
    path: Path, delimiter: str, width: int, columns: list[Column], positions: list[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Add the file's cells to the columns, block by block.

    Returns
    -------
    lines : ndarray, shape (n_rows,)
        The line on which each row starts.
    blocks : list of ndarray, shape (rows of a block, n_numeric)
        The columns that hold numbers; of no use where a column has turned late.
    """
    rows = _rows(path, delimiter)
    next(rows)
    all_lines: list[np.ndarray] = []
    blocks: list[np.ndarray] = []
    while block := list(islice(rows, max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // width)))):
        for line, cells in block:
            if len(cells) != width:
                raise DataError(
                    f"{path}, line {line}: {len(cells)} cells where the header has {width}; correct the row"
                )
        lines = [line for line, _ in block]
        by_column = list(zip(*(cells for _, cells in block), strict=True))
        found = [column.add(path, lines, by_column[j]) for column, j in zip(columns, positions, strict=True)]
        numbers = [values for values in found if values is not None]
        blocks.append(np.stack(numbers, axis=1) if numbers else np.empty((len(block), 0)))
        all_lines.append(np.array(lines))
    if not all_lines:
        raise DataError(f"{path} has a header but no rows; add rows of data")
    return np.concatenate(all_lines), blocks


def _position(path: Path, header: list[str], column: str | int) -> int:
    if isinstance(column, int):
        if not -len(header) <= column < len(header):
            raise DataError(f"{path} has {len(header)} columns; there is no column at position {column}")
        return column % len(header)
    try:
        return header.index(column)
    except ValueError:
        hint = did_you_mean(column, header)
        raise DataError(
            f"{path} has no column {shown(column)}{hint}; name one of its columns: {listed(header)}"
        ) from None


def _feature_positions(
    path: Path, header: list[str], targets: list[int], columns: Sequence[str] | None, ignore: Sequence[str]
) -> list[int]:
    at = {name: j for j, name in enumerate(header)}

    def positions(names: Sequence[str]) -> list[int]:
        return [at[name] if name in at else _position(path, header, name) for name in names]

    ignored = set(positions(ignore))
    if columns is None:
        found = [j for j in range(len(header)) if j not in targets and j not in ignored]
    else:
        found, seen = positions(columns), set()
        for name, j in zip(columns, found, strict=True):
            if j in targets or j in ignored or j in seen:
                other = "the target" if j in targets else "ignored" if j in ignored else "named twice"
                raise DataError(f"{path}: column {shown(name)} is listed under columns and is {other}; take one out")
            seen.add(j)
    if not found:
        raise DataError(f"{path}: no feature columns are left beside the target; ignore fewer, or add columns")
    return found


def _text_columns(path: Path, features: list[str], targets: list[str], categorical: Sequence[str]) -> tuple[str, ...]:
    names = dict.fromkeys([*features, *targets])
    for name in categorical:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DataError(
                f"{path}: categorical column {shown(name)} is not a feature{hint}; they are {listed(features)}"
            )
    return tuple(categorical)
