"""CSV files with a header, read in blocks of rows into a :class:`Table`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean
from .cells import is_missing, is_number, listed, number
from .table import Table

_BLOCK_ROWS = 8192
_STRAY_SHARE = 0.1  # fewer texts than this in a column of numbers look like typing errors, not like categories


def read_csv(
    path: Path,
    target: Sequence[str | int],
    columns: Sequence[str] | None,
    ignore: Sequence[str],
    categorical: Sequence[str] | Literal["auto"],
    delimiter: str,
) -> Table:
    """Read a CSV file; :func:`backprop_gpu.data.read_table` documents the parameters and the errors."""
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise ConfigError(f"delimiter must be one character and no quote or line end, got {delimiter!r}")
    try:
        header = _header(path, delimiter, labelled=bool(target))
        targets = [_position(path, header, column) for column in target]
        if len(set(targets)) < len(targets):
            raise ConfigError(f"{path}: target names a column twice; take one out")
        features = _feature_positions(path, header, targets, columns, ignore)
        auto = categorical == "auto"
        texts = set() if categorical == "auto" else _text_columns(path, [header[j] for j in features], categorical)
        lines, read, answers = _read(path, delimiter, header, features, targets, texts, auto)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    for column in read:
        column.refuse_strays(path)
    numbers = [column.joined() for column in read if not column.text]
    stored = np.stack(numbers, axis=1) if numbers else np.empty((len(lines), 0))
    return Table(
        source=str(path),
        columns=tuple(column.name for column in read),
        stored=stored,
        categorical={column.name: column.joined() for column in read if column.text},
        target=_target_values(path, answers, lines),
        target_names=tuple(column.name for column in answers),
        named=True,
        lines=lines,
    )


def _read(
    path: Path,
    delimiter: str,
    header: list[str],
    features: list[int],
    targets: list[int],
    texts: set[str],
    auto: bool,
) -> tuple[np.ndarray, list[_Column], list[_Column]]:
    """Return the line on which each row starts, the features and the targets; ``texts`` are known to hold text."""
    while True:
        read = [_Column(header[j], header[j] in texts, auto) for j in features]
        answers = [_Column(header[j], text=True) for j in targets]
        lines = _fill(path, delimiter, len(header), read + answers, features + targets)
        late = {column.name for column in read if column.turned_late}
        if not late:
            return lines, read, answers
        texts = texts | late  # read again, once: what came before their first text was kept as numbers


def _header(path: Path, delimiter: str, labelled: bool) -> list[str]:
    _, header = next(_rows(path, delimiter), (0, []))
    if not header:
        raise DataError(f"{path} is empty; a header line and rows of data are needed")
    if len(header) == 1:
        other = next((mark for mark in ";\t|," if mark in header[0]), None)
        cure = f"; set delimiter: {other!r}" if other else ""
        if labelled or other:
            raise DataError(f"{path} has one column only ({header[0]!r}){cure}")
    for position, name in enumerate(header, start=1):
        if not name:
            raise DataError(f"{path}: column {position} has no name in the header; name it")
        if name in header[: position - 1]:
            raise DataError(f"{path}: the header names column {name!r} twice; rename one")
    # pandas heads unnamed columns 0, 1, 2 ...; any other row of numbers is data, and would be lost without a word
    if all(is_number(name) for name in header) and header != [str(j) for j in range(len(header))]:
        raise DataError(f"{path}: line 1 holds numbers only; add a header line that names the columns")
    return header


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the row starts, stripped cells), leaving out blank lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{path}, line {line}: {error}; check the quotes on and after that line") from None
            if cells:
                yield line, [cell.strip() for cell in cells]


def _fill(path: Path, delimiter: str, width: int, columns: list[_Column], positions: list[int]) -> np.ndarray:
    """Add the file's cells to the columns, block by block; return the line on which each row starts."""
    rows = _rows(path, delimiter)
    next(rows)
    all_lines: list[int] = []
    while block := list(islice(rows, _BLOCK_ROWS)):
        for line, cells in block:
            if len(cells) != width:
                raise DataError(f"{path}, line {line}: {len(cells)} cells where the header has {width}")
        lines = [line for line, _ in block]
        by_column = list(zip(*(cells for _, cells in block), strict=True))
        for column, j in zip(columns, positions, strict=True):
            column.add(path, lines, by_column[j])
        all_lines += lines
    if not all_lines:
        raise DataError(f"{path} has a header but no rows")
    return np.array(all_lines)


def _position(path: Path, header: list[str], column: str | int) -> int:
    if isinstance(column, int):
        if not -len(header) <= column < len(header):
            raise DataError(f"{path} has {len(header)} columns; there is no column at position {column}")
        return column % len(header)
    if column not in header:
        hint = did_you_mean(column, header)
        raise DataError(f"{path} has no column {column!r}{hint}; its columns: {listed(header)}")
    return header.index(column)


def _feature_positions(
    path: Path, header: list[str], targets: list[int], columns: Sequence[str] | None, ignore: Sequence[str]
) -> list[int]:
    ignored = {_position(path, header, name) for name in ignore}
    if columns is None:
        found = [j for j in range(len(header)) if j not in targets and j not in ignored]
    else:
        found = [_position(path, header, name) for name in columns]
        for name, j in zip(columns, found, strict=True):
            if j in targets or j in ignored or found.count(j) > 1:
                other = "the target" if j in targets else "ignored" if j in ignored else "named twice"
                raise DataError(f"{path}: column {name!r} is listed under columns and is {other}; take one out")
    if not found:
        raise DataError(f"{path}: no feature columns are left beside the target")
    return found


def _text_columns(path: Path, names: list[str], categorical: Sequence[str]) -> set[str]:
    for name in categorical:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DataError(f"{path}: categorical column {name!r} is not a feature{hint}; they are {listed(names)}")
    return set(categorical)


@dataclass
class _Column:
    """One column while its blocks come in."""

    name: str
    text: bool
    auto: bool = False  # its cells may turn it into text
    turned_late: bool = False
    parts: list[np.ndarray] = field(default_factory=list)
    n_numbers: int = 0
    texts: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: Path, lines: list[int], cells: tuple[str, ...]) -> None:
        if not self.text:
            try:
                self.parts.append(_numbers(cells))
                return
            except ValueError:
                self._turn(path, lines, cells)
        kept = ["" if is_missing(cell) else cell for cell in cells]
        self.parts.append(np.array(kept))
        if self.auto:
            texts = [(line, cell) for line, cell in zip(lines, kept, strict=True) if cell and not is_number(cell)]
            self.n_numbers += sum(map(bool, kept)) - len(texts)
            self.texts += texts

    def _turn(self, path: Path, lines: list[int], cells: tuple[str, ...]) -> None:
        """Become a column of text if that is allowed."""
        if not self.auto:
            at = next(i for i, cell in enumerate(cells) if not is_missing(cell) and not is_number(cell))
            raise DataError(
                f"{path}, line {lines[at]}, column {self.name!r}: {cells[at]!r} is not a number;"
                " correct it, or list the column under categorical"
            )
        self.turned_late = bool(self.parts)
        self.text = True

    def joined(self) -> np.ndarray:
        return np.concatenate(self.parts)

    def refuse_strays(self, path: Path) -> None:
        """A typing error in a column of numbers must not quietly turn it into categories."""
        if 0 < len(self.texts) < _STRAY_SHARE * (len(self.texts) + self.n_numbers):
            line, cell = self.texts[0]
            raise DataError(
                f"{path}, line {line}, column {self.name!r}: {cell!r} is not a number, but {self.n_numbers} other cells"
                " of the column are; correct it, or list the column under categorical"
            )


def _numbers(cells: tuple[str, ...]) -> np.ndarray:
    """:func:`number` of each cell; by ``float`` alone if that will do, which is three times as fast."""
    if "_" not in "".join(cells):
        try:
            return np.array(list(map(float, cells)))
        except ValueError:
            pass
    return np.array([number(cell) for cell in cells])


def _target_values(path: Path, answers: list[_Column], lines: np.ndarray) -> np.ndarray | None:
    """The targets as integers if all cells are, else as floats, else as text; (n,) for one column."""
    if not answers:
        return None
    cells = np.stack([column.joined() for column in answers], axis=1)
    if not np.all(present := cells != ""):
        row, j = np.argwhere(~present)[0]
        raise DataError(
            f"{path}, line {lines[row]}: the target {answers[j].name!r} is missing; fill it in or delete the row"
        )
    values = cells
    if not any("_" in cell for cell in cells.flat):
        for kind in (np.int64, np.float64):
            try:
                values = cells.astype(kind)
                break
            except (ValueError, OverflowError):
                continue
    return values[:, 0] if len(answers) == 1 else values
