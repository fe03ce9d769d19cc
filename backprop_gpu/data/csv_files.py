"""CSV files with a header, read in blocks of rows into a :class:`Table`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import DataError, shown
from ..safe_files import LONGEST_NAME, MAX_COLUMNS
from . import plain_csv
from .cells import is_number
from .csv_dialect import Dialect, sniff
from .read_settings import ReadSettings
from .table import Table
from .text_files import open_bytes, open_text, said, size_of
from .text_table import Chosen, Request, Rows, as_table, choose, fill, position_of

_MAX_LINE = 16 << 20  # letters
_TABS = (".tsv", ".tab")
Result = TypeVar("Result")


def read_rows(path: Path, request: Request) -> Table:
    """Read a CSV file; :func:`backprop_gpu.data.read_table` documents the settings and the errors."""

    def read(dialect: Dialect) -> Table:
        header, notes = _header(path, dialect, request.settings, labelled=bool(request.target))
        chosen = choose(said(path), header, request, dialect.hints)
        width = len(header)

        def rows() -> Iterator[tuple[int, list[str]]]:
            return _data_rows(path, dialect, request.settings, width)

        if (found := _read_plain(path, dialect, request.settings, rows(), width, chosen)) is None:
            found = fill(said(path), rows, width, chosen)
        lines, plain = found
        return as_table(path, chosen, lines, plain, request, (*notes, *_notes(dialect, request.settings)))

    return _decoded(path, request.settings, read)


def _read_plain(
    path: Path, dialect: Dialect, settings: ReadSettings, rows: Rows, width: int, chosen: Chosen
) -> tuple[np.ndarray, np.ndarray] | None:
    """What pyarrow reads of a large file, where that is what we would read; else None."""
    if settings.header is False or size_of(path) < plain_csv.FROM_BYTES:
        return None
    return plain_csv.read_plain(lambda: open_bytes(path), dialect, rows, width, chosen)


def column_names(path: Path, settings: ReadSettings, labelled: bool = True) -> list[str]:
    """The header of a CSV file; DataError where :func:`read_rows` would raise it."""
    return _decoded(path, settings, lambda dialect: _header(path, dialect, settings, labelled)[0])


def read_cells(path: Path, names: Sequence[str], settings: ReadSettings) -> list[list[str]]:
    """The cells of the columns of these names, as text; DataError as for :func:`read_rows`."""

    def read(dialect: Dialect) -> list[list[str]]:
        header, _ = _header(path, dialect, settings, labelled=False)
        positions = [position_of(said(path), header, name) for name in names]
        rows = [cells for _, cells in _data_rows(path, dialect, settings, len(header))]
        return [[cells[j] for cells in rows] for j in positions]

    return _decoded(path, settings, read)


def _decoded(path: Path, settings: ReadSettings, read: Callable[[Dialect], Result]) -> Result:
    """Read in the encoding that the file turns out to have: that of Windows where it is not UTF-8."""
    usual = "\t" if path.with_suffix("" if path.suffix.lower() == ".gz" else path.suffix).suffix in _TABS else ","
    encoding = None
    try:
        for encoding in (None, "cp1252"):
            try:
                return read(sniff(path, settings, usual, encoding))
            except UnicodeDecodeError as error:
                if settings.encoding is not None or encoding is not None or not error.encoding.startswith("utf-8"):
                    raise
    except UnicodeError as error:
        name = getattr(error, "encoding", settings.encoding)
        raise DataError(f"{said(path)} is not text in {name}; set encoding: utf-8, utf-16, latin-1, ...") from None
    except OSError as error:
        raise DataError(f"{said(path)}: {error.strerror or error}") from None
    raise AssertionError("read or refused")


def _notes(dialect: Dialect, settings: ReadSettings) -> Iterator[str]:
    """What was found out about the file that is not usual."""
    if settings.encoding is None and dialect.encoding == "cp1252":
        yield "it is not UTF-8 and is read as cp1252 (Windows, Western Europe); else set encoding"


def _header(path: Path, dialect: Dialect, settings: ReadSettings, labelled: bool) -> tuple[list[str], list[str]]:
    """The names of the columns, and notes about those that were given or changed."""
    line, header = next(_rows(path, dialect), (0, []))
    source = said(path)
    if not header:
        raise DataError(f"{source} is empty; a header line and rows of data are needed")
    if header and not header[-1] and len(header) > 1:
        header = header[:-1]  # a delimiter at the end of each line
    if len(header) == 1 and labelled:
        raise DataError(f"{source} has one column only ({shown(header[0])}); set delimiter, or add columns")
    if settings.header is False:
        return [f"column {position}" for position in range(1, len(header) + 1)], []
    # pandas heads unnamed columns 0, 1, 2 ...; any other row of numbers is data, and would be lost without a word
    numbered = header == [str(j) for j in range(len(header))]
    if settings.header is None and not numbered and all(map(is_number, filter(None, header))):
        raise DataError(
            f"{source}: line {line} holds numbers only; add a header line that names the columns, or set header: false"
        ).with_option("header", False)
    return distinct_names(source, header)


def distinct_names(source: str, header: list[str]) -> tuple[list[str], list[str]]:
    """Names for the columns that have none, or that of another."""
    taken = {name for name in header if name}
    named, notes, seen = [], [], set()
    for position, given in enumerate(header, start=1):
        name = given
        if len(name) > LONGEST_NAME:
            raise DataError(f"{source}: the name of column {position} has {len(name)} letters; shorten it")
        if not name or name in seen:
            stem = f"{name}." if name else "column "
            number = 1 if name else position
            while (name := f"{stem}{number}") in taken:
                number += 1
            what = f"the header names {shown(given)} again" if given else "has no name in the header"
            notes.append(f"column {position}: {what}; it is called {shown(name)}")
            taken.add(name)
        seen.add(name)
        named.append(name)
    return named, notes if len(notes) <= 3 else [*notes[:3], f"and {len(notes) - 3} more columns were named so"]


class _Lines:
    """The lines of a file, none longer than a row may be; ``marks``: how many delimiters the current row has so far.

    csv.reader makes a list of a whole row before anyone can look at it.
    """

    def __init__(self, source: str, file: io.TextIOBase, dialect: Dialect) -> None:
        self.source, self.file, self.delimiter, self.marks = source, file, dialect.delimiter, 0
        self.comment, self.skipped = dialect.comment, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(_MAX_LINE)
        while self.comment and self.marks == 0 and line.startswith(self.comment):
            self.skipped += 1
            line = self.file.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        self.marks += line.count(self.delimiter)
        if len(line) >= _MAX_LINE or self.marks >= MAX_COLUMNS:
            raise DataError(
                f"{self.source} has a row of more than {MAX_COLUMNS} columns or {_MAX_LINE} letters; check the quotes,"
                " or split the table"
            )
        return line


def _rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the row starts, stripped cells), leaving out blank lines."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_LINE))
    with open_text(path, dialect.encoding) as file:
        for _ in range(dialect.skip):
            file.readline(_MAX_LINE)
        lines = _Lines(said(path), file, dialect)
        reader = csv.reader(lines, strict=True, **dialect.reader_options())  # type: ignore[arg-type]
        while True:
            before, lines.marks = reader.line_num + lines.skipped + dialect.skip, 0
            comments = lines.skipped
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{said(path)}, line {before + 1}: {error}; check the quotes on and after that line"
                ) from None
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield before + 1 + lines.skipped - comments, [cell.strip() for cell in cells]


def _data_rows(path: Path, dialect: Dialect, settings: ReadSettings, width: int) -> Iterator[tuple[int, list[str]]]:
    """The rows under the header, each as wide as that is; rows without any value are left out."""
    rows = _rows(path, dialect)
    for line, cells in islice(rows, 0 if settings.header is False else 1, None):
        if len(cells) != width:
            if len(cells) == width + 1 and not cells[-1]:
                cells.pop()
            elif not any(cells):
                continue
            else:
                n, fix = len(cells), "correct the row"
                if dialect.comment is None and cells[0][:1] in ("#", "%", "/"):
                    fix = f"if it is a comment, set comment: {cells[0][:1]!r}"
                elif n == width + 1:
                    fix = "correct the row, or name every column in the header"
                raise DataError(f"{said(path)}, line {line}: {n} cells where the header has {width}; {fix}")
        elif not any(cells) and width > 1:
            continue
        yield line, cells
