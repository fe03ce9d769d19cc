"""Excel workbooks, read with openpyxl: the first sheet, whose first row with a value names the columns."""

from __future__ import annotations

import contextlib
import datetime
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ..errors import BackpropError, DataError, MissingDependencyError, shown
from ..safe_files import MAX_COLUMNS, expanded_limit, open_regular
from .column_types import Hints
from .csv_files import distinct_names
from .read_settings import ReadSettings
from .table import Table
from .text_table import Request, as_table, choose, fill, position_of

# What openpyxl and zipfile raise for files that are none; RuntimeError for encrypted ones.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, ParseError, struct.error, OSError, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError, RuntimeError, OverflowError),
)
SUFFIXES = (".xlsx", ".xlsm")


def read_rows(path: Path, request: Request) -> Table:
    """Read a sheet; :func:`backprop_gpu.data.read_table` documents the settings and the errors."""
    s = request.settings
    with _sheet(path) as (sheet, notes):
        header, named = _header(path, sheet, s)
        chosen = choose(str(path), header, request, Hints(s.decimal, s.thousands, s.day_first))
        width = len(header)
        lines, plain = fill(str(path), lambda: _data_rows(path, sheet, s, width), width, chosen)
        return as_table(path, chosen, lines, plain, request, (*notes, *named))


def column_names(path: Path, settings: ReadSettings, labelled: bool = True) -> list[str]:
    """The names of the columns."""
    with _sheet(path) as (sheet, _):
        return _header(path, sheet, settings)[0]


def read_cells(path: Path, names: Sequence[str], settings: ReadSettings) -> list[list[str]]:
    """The cells of the columns of these names, as a CSV would have them."""
    with _sheet(path) as (sheet, _):
        header, _ = _header(path, sheet, settings)
        positions = [position_of(str(path), header, name) for name in names]
        rows = [cells for _, cells in _data_rows(path, sheet, settings, len(header))]
        return [[cells[j] for cells in rows] for j in positions]


@contextlib.contextmanager
def _sheet(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """The first sheet of a workbook, and a note if there are others."""
    try:
        import openpyxl
    except ImportError:
        raise MissingDependencyError(f"{path} is read by the package openpyxl; pip install openpyxl") from None
    with open_regular(path, DataError) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked, most = sum(item.file_size for item in archive.infolist()), expanded_limit(path.stat().st_size)
            if unpacked > most:
                raise DataError(
                    f"{path} unpacks to more than the {most >> 20} MiB that a file of its size may; write it as CSV"
                )
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            if not book.worksheets:
                raise DataError(f"{path} has no sheet of cells")
            sheet, names = book.worksheets[0], book.sheetnames
            sheet.reset_dimensions()  # which may be wrong
            yield sheet, [f"the first of {len(names)} sheets is read, {sheet.title!r}"] if len(names) > 1 else []
            book.close()
        except BackpropError:
            raise
        except _DAMAGED as error:
            problem = shown(str(error) or type(error).__name__, 200, quoted=False)
            raise DataError(f"{path} is not a whole .xlsx file ({problem}); write it again") from None


def _header(path: Path, sheet: Any, settings: ReadSettings) -> tuple[list[str], list[str]]:
    first = next(_rows(path, sheet), None)
    if first is None:
        raise DataError(f"{path} is empty; a row that names the columns and rows of data are needed")
    names = first[1]
    while names and not names[-1]:
        names.pop()
    if settings.header is False:
        return [f"column {position}" for position in range(1, len(names) + 1)], []
    return distinct_names(str(path), names)


def _data_rows(path: Path, sheet: Any, settings: ReadSettings, width: int) -> Iterator[tuple[int, list[str]]]:
    rows = _rows(path, sheet)
    if settings.header is not False:
        next(rows, None)
    for number, cells in rows:
        if any(cells[width:]):
            raise DataError(f"{path}, line {number}: {len(cells)} cells where the header has {width}; correct the row")
        yield number, (cells + [""] * (width - len(cells)))[:width]


def _rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the row, its cells as a CSV would have them), leaving out empty rows."""
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        if len(row) > MAX_COLUMNS:
            raise DataError(f"{path} has a row of more than {MAX_COLUMNS} columns; split the table")
        cells = [_text(value) for value in row]
        if any(cells):
            yield number, cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime):
        return str(value.date()) if value.time() == datetime.time() else str(value)
    if isinstance(value, datetime.timedelta):
        return repr(value.total_seconds() / 86400.0)
    return str(value)
