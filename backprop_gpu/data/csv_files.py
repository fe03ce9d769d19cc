"""CSV files with a header, read in blocks of rows into a :class:`Table`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean, shown
from ..safe_files import MAX_COLUMNS, memory_limit, open_regular
from .cells import is_missing, is_number, listed, number
from .column_checks import (
    MOST_NUMBERS,
    PLAIN_NUMBER,
    first_code,
    formatted_number,
    leave_out,
    mostly,
    number_note,
    text_note,
)
from .table import Table

_BLOCK_ROWS, _BLOCK_CELLS = 8192, 1 << 18  # of a block: a cell takes 60 bytes and more until it is a number
_MAX_LINE = 16 << 20  # letters
_MOST_DISTINCT = 100_000  # texts of a column that are told apart, many more than can be categories
_FIRST_TEXTS = 2000  # that are kept with their lines, to say what is wrong with them
_TEXT = np.dtypes.StringDType()  # one long text does not make room for as long a text in every row
_STRAY_SHARE = 0.1  # fewer texts than this in a column of numbers look like typing errors, not like categories


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
        read = [_Column(header[j], header[j] in listed_names, auto, trained, listed_names) for j in features]
        answers = [_Column(header[j], True, False, trained, listed_names) for j in targets]
        lines, stored = _read(path, delimiter, len(header), read + answers, features + targets)
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from None
    texts = [column.name for column in read if column.text]
    for column in read:
        column.refuse_numbers(path, texts, ignore)
    answer, of_target = _target_values(path, answers, lines)
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
        notes=tuple(f"{path}: {note}" for note in notes),
    )


def column_names(path: Path, delimiter: str) -> list[str]:
    """The header of a CSV file; DataError where :func:`read_csv` would raise it."""
    try:
        return _header(path, delimiter, labelled=True)
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
    path: Path, delimiter: str, width: int, columns: list[_Column], positions: list[int]
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
    while blocks:  # each is let go of once it is copied
        block = blocks.pop()
        stored[end - len(block) : end] = block
        end -= len(block)
    return lines, stored


def _notes(columns: list[_Column], stored: np.ndarray, ignored: Sequence[str]) -> Iterator[str]:
    """What is surprising about how each column was read."""
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
        cure = f"; set delimiter: {other!r}" if other else ""
        if labelled or other:
            error = DataError(f"{path} has one column only ({shown(header[0])}){cure}")
            raise error.with_option("delimiter", other) if other else error
    # pandas heads unnamed columns 0, 1, 2 ...; any other row of numbers is data, and would be lost without a word
    if all(is_number(name) for name in header) and header != [str(j) for j in range(len(header))]:
        raise DataError(f"{path}: line 1 holds numbers only; add a header line that names the columns")
    seen = set()
    for position, name in enumerate(header, start=1):
        if not name:
            raise DataError(f"{path}: column {position} has no name in the header; name it")
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
    path: Path, delimiter: str, width: int, columns: list[_Column], positions: list[int]
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
                raise DataError(f"{path}, line {line}: {len(cells)} cells where the header has {width}")
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
        raise DataError(f"{path} has no column {shown(column)}{hint}; its columns: {listed(header)}") from None


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


@dataclass
class _Column:
    """One column while its blocks come in."""

    name: str
    text: bool
    auto: bool = False  # its cells may turn it into text
    trained: bool = False  # it must hold what it held in the training table
    listed: Sequence[str] = ()  # the columns that are listed as categorical
    turned_late: bool = False
    parts: list[np.ndarray] = field(default_factory=list)
    code: str | None = None  # a number with a leading zero
    started: bool = False
    n_numbers: int = 0
    n_texts: int = 0
    texts: dict[str, int] = field(default_factory=dict)  # the first ones, and the line of each

    def add(self, path: Path, lines: list[int], cells: tuple[str, ...]) -> np.ndarray | None:
        """Take the cells of some rows; the numbers that they are, or None if the column holds text."""
        if not self.text:
            try:
                values = _numbers(cells)
                self.code = self.code or first_code(cells)
                self.started = True
                return values
            except ValueError:
                self._turn(path, lines, cells)
        kept = ["" if is_missing(cell) else cell for cell in cells]
        self.parts.append(np.array(kept, dtype=_TEXT))
        if self.auto:
            texts = [(line, cell) for line, cell in zip(lines, kept, strict=True) if cell and not is_number(cell)]
            self.n_numbers += sum(map(bool, kept)) - len(texts)
            self.n_texts += len(texts)
            for line, cell in texts if len(self.texts) < _FIRST_TEXTS else ():
                self.texts.setdefault(cell, line)
        return None

    def _turn(self, path: Path, lines: list[int], cells: tuple[str, ...]) -> None:
        """Become a column of text if that is allowed."""
        if not self.auto:
            at = next(i for i, cell in enumerate(cells) if not is_missing(cell) and not is_number(cell))
            where = f"{path}, line {lines[at]}, column {shown(self.name)}: {shown(cells[at])} is not a number"
            if self.trained:
                how = _as_read(cells[at]) if formatted_number(cells[at]) else "correct it"
                raise DataError(f"{where}, and in training the column held numbers; {how}")
            raise self._categorical(f"{where}; correct it, or list the column under categorical", self.listed)
        self.turned_late, self.text = self.started, True

    def restart(self) -> None:
        """Forget the cells, but not that they are text."""
        self.parts, self.texts, self.n_texts, self.n_numbers, self.turned_late = [], {}, 0, 0, False

    def joined(self) -> np.ndarray:
        """All cells of a column of text."""
        return np.concatenate(self.parts)

    def distinct(self) -> list[str]:
        """The different texts of a column of text, in the order of their first cells; missing ones left out."""
        found: dict[str, None] = {}
        for part in self.parts:
            found |= dict.fromkeys(part.tolist())
            if len(found) > _MOST_DISTINCT:
                break
        return [text for text in found if text]

    def refuse_numbers(self, path: Path, texts: Sequence[str], ignore: Sequence[str]) -> None:
        """Neither a typing error nor a way of writing numbers may quietly turn numbers into categories.

        ``texts``: the columns that hold text; ``ignore``: those that are left out.
        """
        if not self.texts:
            return
        cell, line = next(iter(self.texts.items()))
        strays = self.n_texts < _STRAY_SHARE * (self.n_texts + self.n_numbers)
        distinct = self.distinct()
        if strays or sum(map(is_number, distinct)) > MOST_NUMBERS:
            cure = f"is not a number, but {self.n_numbers} other cells of the column are; {_as_read(cell)}"
        elif mostly("numbers", list(self.texts)):
            cell, line = next(pair for pair in self.texts.items() if formatted_number(pair[0]))
            cure = f"is not read as a number; {_as_read(cell)}"
        else:
            return
        problem = f"{path}, line {line}, column {shown(self.name)}: {shown(cell)} {cure}"
        if len(distinct) <= MOST_NUMBERS:
            raise self._categorical(f"{problem}; if the column names things, list it under categorical", texts)
        # as categories these would be a trap: an input for each number, and for new numbers none
        raise DataError(
            f"{problem}; or {leave_out(self.name, ignore)}; list it under categorical only if its cells are names"
        )

    def _categorical(self, message: str, texts: Sequence[str]) -> DataError:
        """An error with the option to list this column, too; the list is the whole list."""
        return DataError(message).with_option("categorical", [*dict.fromkeys([*texts, self.name])])

    def text_note(self, ignored: Sequence[str]) -> str:
        """What is surprising about a column of text, if anything is."""
        if not self.auto:
            return ""  # it was listed
        cells = sum(int(np.count_nonzero(part != "")) for part in self.parts)
        return text_note(self.name, self.distinct(), cells, ignored)


def _as_read(cell: str) -> str:
    if formatted_number(cell):
        return "write numbers like 1234.5: a point, no thousands mark, no % or currency"
    return "correct it, or leave the cell empty if the value is missing"


def _numbers(cells: tuple[str, ...]) -> np.ndarray:
    """:func:`number` of each cell; by ``float`` alone if that will do, which is three times as fast."""
    if "_" not in "".join(cells):
        try:
            return np.array(list(map(float, cells)))
        except ValueError:
            pass
    return np.array([number(cell) for cell in cells])


def _target_values(path: Path, answers: list[_Column], lines: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The targets, (n,) for one column, and what is surprising about them.

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
    if values.dtype == _TEXT:
        values = _of_one_width(path, values, lines)
    return (values[:, 0] if len(answers) == 1 else values), note


def _as_numbers(cells: np.ndarray) -> np.ndarray:
    """Texts as int64 or float64 if that loses nothing that may be the name of a class; else as they are."""
    flat, values, plain = cells.ravel(), np.empty(cells.size), True
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, cells.size, _BLOCK_ROWS)]
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


def _target_note(path: Path, answers: list[_Column], lines: np.ndarray, cells: np.ndarray, values: np.ndarray) -> str:
    """Refuse a target whose numbers are written in a way that is not read; say which labels became one number."""
    for j, column in enumerate(answers):
        if values.dtype == _TEXT:
            texts = [text for text in column.distinct() if not is_number(text)]
            if mostly("numbers", texts):
                row = next(i for i, text in enumerate(cells[:, j]) if formatted_number(text))
                raise DataError(
                    f"{path}, line {lines[row]}, target {shown(column.name)}: {shown(cells[row, j])} is not read as a"
                    f" number; {_as_read(str(cells[row, j]))}; if it names a class, list the column under categorical"
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
