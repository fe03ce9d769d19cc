"""Large CSV files parsed by pyarrow, where it gives what our own reader gives; else that one reads them.

Our reader (``csv_files``, ``csv_columns``) says what a file means. pyarrow is asked for the columns that its first rows
show to be plain numbers, and for the others as texts. Whatever the two may take differently is looked for in the bytes
while they are read (:class:`PlainLines`) and in the result; if there is any, nothing of it is used.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import IO, TYPE_CHECKING

import numpy as np

from .cells import MISSING, is_missing, is_number, number
from .column_checks import PLAIN_NUMBER
from .csv_columns import Column
from .csv_dialect import Dialect
from .stated_columns import stored_values, texts_of, validity
from .text_table import Block, Chosen, Rows, joined_blocks

if TYPE_CHECKING:
    import pyarrow as pa

FROM_BYTES = 4 << 20
"""The size of a file from which pyarrow's import is worth its time."""
_MOST_COLUMNS = 10_000
_BLOCK = 1 << 20
_LOOKED_AT = 200  # rows that show which columns are numbers
_RESTARTS = 5
_REFUSED = re.compile(r"CSV column #([0-9]+): CSV conversion error to \w+: invalid value '(.*)'", re.DOTALL)
_NEWLINE, _QUOTE, _COMMA, _ZERO = 10, 34, 44, 48


class NotPlain(ValueError):
    """The file may not be read by pyarrow; the text says why."""


def read_plain(
    opened: Callable[[], IO[bytes]], dialect: Dialect, rows: Rows, width: int, chosen: Chosen
) -> tuple[np.ndarray, np.ndarray] | None:
    """Read a file into its columns as ``text_table.fill`` does; None, and the columns as they were, if it is not plain.

    Parameters
    ----------
    opened : callable
        Opens the file for reading its bytes.
    dialect : Dialect
    rows : iterator of (line, cells)
        The same file's rows as our reader reads them, of which the first ones are taken.
    width : int
        Columns of the file.
    chosen : Chosen
    """
    plain = dialect.encoding == "utf-8-sig" and dialect.quote in ('"', "") and dialect.comment is None
    plain = plain and dialect.skip == 0 and dialect.hints.decimal != "," and ord(dialect.delimiter) < 128
    if not plain or width > _MOST_COLUMNS or importlib.util.find_spec("pyarrow") is None:
        return None
    sample = [cells for _, cells in islice(rows, _LOOKED_AT)]
    if not sample:
        return None
    columns, n_features = chosen.features + chosen.answers, len(chosen.features)
    types = _types(columns, n_features, list(zip(*sample, strict=True)), chosen.positions)
    for _ in range(_RESTARTS):
        try:
            with opened() as file:
                found, turned = _read(PlainLines(file, dialect), types, dialect, width, chosen)
        except (NotPlain, OSError, ValueError) as error:  # pyarrow's own errors are such
            found, turned = None, _refused(str(error), chosen, types)
        if not turned:
            break
        _forget(columns)
        for k in turned:
            types[k], columns[k].plain = "text", False
        if "text" in types[n_features:]:  # all targets alike
            types[n_features:] = ["text"] * len(chosen.answers)
    if found is None:
        _forget(columns)
        for column in columns:
            column.plain = column.may_be_plain
    return found


def _forget(columns: Sequence[Column]) -> None:
    for column in columns:
        column.restart()
        column.numbers.clear()


def _types(columns: list[Column], n_features: int, cells: list[tuple[str, ...]], positions: list[int]) -> list[str]:
    """What pyarrow is asked for: double, int64 (a target) or text."""
    types = []
    for column, j in zip(columns[:n_features], positions, strict=False):
        probe = copy.copy(column)
        probe.blocks = []
        types.append("double" if column.plain and probe.add(cells[j]) is not None else "text")
        column.plain = types[-1] == "double"
    targets = [_target_type(c, cells[j]) for c, j in zip(columns[n_features:], positions[n_features:], strict=True)]
    if "text" in targets:
        targets = ["text"] * len(targets)
    return types + targets


def _target_type(column: Column, cells: Sequence[str]) -> str:
    if column.wanted == "category" or column.form is not None or column.gaps or not all(map(is_number, cells)):
        return "text"
    if any(not float(cell).is_integer() for cell in cells):
        return "double"
    return "int64" if all(map(PLAIN_NUMBER.fullmatch, cells)) else "text"


def _read(
    lines: PlainLines, types: list[str], dialect: Dialect, width: int, chosen: Chosen
) -> tuple[tuple[np.ndarray, np.ndarray] | None, set[int]]:
    """Lines and numbers, and the columns that turned out to be texts; NotPlain where our reader has to decide."""
    columns, n_features = chosen.features + chosen.answers, len(chosen.features)
    blocks: list[Block] = []
    for batch in _batches(lines, types, dialect, width, chosen):
        values = [_added(column, array) for column, array in zip(columns, batch.columns, strict=True)]
        _refuse_empty(values, columns)
        for column, numbers in zip(columns[n_features:], values[n_features:], strict=True):
            if numbers is not None:
                column.numbers.append(numbers)
        blocks.append((batch.num_rows, [numbers for numbers in values[:n_features] if numbers is not None]))
    lines.finish()
    coded = {k for k, j in enumerate(chosen.positions) if j in lines.coded and _may_be_codes(columns[k], types[k])}
    if coded:
        return None, coded
    plain = joined_blocks(blocks)
    if plain is None or len(plain) != lines.n_lines:
        raise NotPlain("rows that are not a line each")
    return (np.arange(2, len(plain) + 2), plain), set()


def _may_be_codes(column: Column, type_: str) -> bool:
    return type_ == "int64" or (
        type_ == "double" and column.may_be_plain and column.wanted is None and not column.trained
    )


def _batches(lines: PlainLines, types: list[str], dialect: Dialect, width: int, chosen: Chosen) -> pa.RecordBatchReader:
    import pyarrow as pa
    import pyarrow.csv as pc

    of = {"double": pa.float64(), "int64": pa.int64(), "text": pa.dictionary(pa.int32(), pa.string())}
    names = [str(j) for j in chosen.positions]
    gaps = {word for column in chosen.features for word in (*MISSING, *column.gaps)}
    spelled = {word for gap in gaps for word in (gap, gap.upper(), gap.capitalize())} | {"NaN", "NaT"}
    path = getattr(lines.file, "name", None)
    if path is not None:  # a file that is not unpacked: pyarrow reads it without Python
        lines.look_at_all()
    return pc.open_csv(
        lines if path is None else pa.OSFile(path),
        pc.ReadOptions(
            block_size=_BLOCK, column_names=[str(j) for j in range(width)], skip_rows=0 if path is None else 1
        ),
        pc.ParseOptions(delimiter=dialect.delimiter, quote_char=dialect.quote or False),
        pc.ConvertOptions(
            column_types={name: of[type_] for name, type_ in zip(names, types, strict=True)},
            include_columns=names,
            null_values=sorted(spelled),
        ),
    )


def _added(column: Column, array: pa.Array) -> np.ndarray | None:
    """The numbers of some rows, NaN where missing; None for texts, which the column keeps."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        column.add_block(*texts_of(array, "dictionary"))
        return None
    if array.null_count and column.is_text:
        raise NotPlain("a gap in a target")
    values = stored_values(array)
    if array.null_count:
        values = np.where(validity(array), values, np.nan)
    if values.dtype.kind == "f" and np.count_nonzero(np.isnan(values)) != array.null_count:
        raise NotPlain("a NaN in words that we may not know")
    return values


def _refuse_empty(values: list[np.ndarray | None], columns: list[Column]) -> None:
    """Raise NotPlain if a row may hold nothing at all, which our reader would leave out."""
    empty: np.ndarray | None = None
    for numbers, column in sorted(zip(values, columns, strict=True), key=lambda pair: pair[0] is None):
        if numbers is None:
            words, codes = column.blocks[-1]
            here = (words == "")[codes]
        else:
            here = np.isnan(numbers) if numbers.dtype.kind == "f" else np.zeros(len(numbers), bool)
        empty = here if empty is None else empty & here
        if not np.any(empty):
            return
    raise NotPlain("a row of gaps")


def _refused(message: str, chosen: Chosen, types: list[str]) -> set[int]:
    """The column that holds a text, by what pyarrow says; none where something else is wrong."""
    found = _REFUSED.search(message)
    if found is None:
        return set()
    cell, j = found[2].strip(), int(found[1])
    if is_number(cell) or is_missing(cell) or _is_nan(cell):
        return set()
    return {k for k, at in enumerate(chosen.positions) if at == j and types[k] == "double" and k < len(chosen.features)}


def _is_nan(cell: str) -> bool:
    try:
        return number(cell) != number(cell)
    except ValueError:
        return False


class PlainLines(io.RawIOBase):
    """The bytes under the header of a file of plain lines; NotPlain for what pyarrow and our reader take differently.

    Attributes
    ----------
    n_lines : int
        Lines that have been read.
    coded : set of int
        Columns in which a cell begins with a zero and a digit.
    """

    def __init__(self, file: IO[bytes], dialect: Dialect) -> None:
        self.file, self.delimiter, self.quoted = file, ord(dialect.delimiter), dialect.quote == '"'
        self.rest, self.n_lines, self.coded = b"", 0, set[int]()
        header = file.readline(_BLOCK)
        if not header.endswith(b"\n") or not header.strip() or header.count(b'"') % 2:
            raise NotPlain("a header of several lines")

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, which have been looked at."""
        block = self.file.read(_BLOCK if size < 0 else size)
        lines, newline, rest = (self.rest + block).rpartition(b"\n")
        self.rest = rest
        if len(rest) > 16 * _BLOCK:
            raise NotPlain("a long line")
        if newline:
            self._look(lines + newline)
        return block

    def look_at_all(self) -> None:
        """Read to the end."""
        while self.read():
            pass

    def finish(self) -> None:
        """Look at what follows the last line break."""
        if self.rest:
            self._look(self.rest + b"\n")

    def _look(self, lines: bytes) -> None:
        self.n_lines += lines.count(b"\n")
        if b"\0" in lines or (b"\r" in lines and lines.count(b"\r") != lines.count(b"\r\n")):
            raise NotPlain("an odd byte")
        if not lines.isascii():
            lines.decode("utf-8")
        found = np.frombuffer(lines, np.uint8)
        outside = self._outside(found) if self.quoted and b'"' in lines else None
        zero = found[1:-1] == _ZERO
        if self.delimiter <= _COMMA:  # or what no number begins with
            zero &= found[:-2] <= _COMMA
        else:
            zero &= (found[:-2] <= _COMMA) | (found[:-2] == self.delimiter)
        starts = np.flatnonzero(zero) + 1
        if lines[0] == _ZERO:
            starts = np.concatenate([[0], starts])
        starts = starts[found[starts + 1] - _ZERO < 10]
        if len(starts):
            self._attribute(found, outside, starts)

    def _attribute(self, found: np.ndarray, outside: np.ndarray | None, starts: np.ndarray) -> None:
        """Add the columns of the cells that begin at these places."""
        marks = (found == self.delimiter) | (found == _NEWLINE)
        places = np.flatnonzero(marks if outside is None else marks & outside)
        ends = np.flatnonzero(found[places] == _NEWLINE)
        passed = np.searchsorted(places, starts)  # marks before each
        line = np.searchsorted(ends, passed)  # line breaks among them
        first = np.concatenate([[0], ends + 1])[line]
        self.coded |= set(np.unique(passed - first).tolist())

    def _outside(self, found: np.ndarray) -> np.ndarray:
        """Which bytes stand in no quotes; NotPlain for quotes that the two readers take differently."""
        quotes = found == _QUOTE
        inside = np.logical_xor.accumulate(quotes)  # after each byte
        if np.any(inside & (found == _NEWLINE)):
            raise NotPlain("a line break in quotes")
        places = np.flatnonzero(quotes)
        opening = inside[places]
        ends = np.array([self.delimiter, _NEWLINE, _QUOTE, 13], np.uint8)
        previous = np.where(places > 0, found[places - 1], _NEWLINE)[opening]
        following = found[places[~opening] + 1]
        if not (np.all(np.isin(previous, ends[:3])) and np.all(np.isin(following, ends))):
            raise NotPlain("a quote within a cell")
        return ~inside
