"""How a CSV file is written, found out from its first rows: delimiter, quotes, comments, encoding, decimal mark."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from . import dates
from .column_types import Hints
from .number_forms import SHAPE, decimal_of, is_shaped, normalized
from .read_settings import ReadSettings
from .text_files import find_encoding, open_text

_SAMPLE = 1 << 18  # letters that are looked at
_ROWS = 200
_MARKS = (",", ";", "\t", "|")
_SEPARATOR = re.compile(r"sep=(.)\s*")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes", " ": "blanks"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    ``skip``: lines before the header; ``quote`` is empty where there are none; ``hints``: what its numbers and dates
    show of its marks.
    """

    delimiter: str
    quote: str
    encoding: str
    comment: str | None
    skip: int
    hints: Hints

    def said(self) -> str:
        """The dialect in words."""
        encoding = {"utf-8-sig": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}.get(
            self.encoding, self.encoding
        )
        parts = [_NAMES.get(self.delimiter, repr(self.delimiter)) + " between cells", encoding.replace("utf-", "UTF-")]
        if self.hints.decimal == ",":
            parts.append("decimal comma")
        if self.quote == "'":
            parts.append("quotes '")
        if self.comment:
            parts.append(f"lines after {self.comment} left out")
        return ", ".join(parts)

    def reader_options(self) -> dict[str, object]:
        """What ``csv.reader`` takes."""
        if not self.quote:
            return {"delimiter": self.delimiter, "quoting": csv.QUOTE_NONE}
        return {"delimiter": self.delimiter, "quotechar": self.quote}


def sniff(path: Path, settings: ReadSettings, usual: str, encoding: str | None = None) -> Dialect:
    """The dialect of a file, by what is set and by its first rows.

    ``usual``: the delimiter of the file's suffix, which wins where another fits no better; ``encoding``: one that is
    known to be right.

    Raises
    ------
    DataError
        If the file cannot be opened or is no text.
    UnicodeDecodeError
        If its first bytes are not in the encoding.
    """
    encoding = encoding or find_encoding(path, settings.encoding)
    with open_text(path, encoding) as file:
        sample = file.read(_SAMPLE)
    lines = sample.splitlines(keepends=True)
    if len(sample) == _SAMPLE and len(lines) > 1:
        lines.pop()  # which may be cut
    separator = _SEPARATOR.fullmatch(lines[0]) if lines else None
    skip = 1 if separator else 0
    comment = settings.comment or _comment(lines[skip:])
    kept = [line for line in lines[skip:] if line.strip() and not (comment and line.startswith(comment))]
    quote = settings.quote if settings.quote is not None else _quote(kept)
    given = settings.delimiter or (separator[1] if separator else None)
    rows = {mark: _rows(kept, mark, quote) for mark in ([given] if given else dict.fromkeys([usual, *_MARKS]))}
    delimiter = max(rows, key=lambda mark: _fit(rows[mark]))
    hints = _hints(rows[delimiter], settings)
    return Dialect(delimiter, quote, encoding, comment, skip, hints)


def _comment(lines: list[str]) -> str | None:
    """``#`` if the file begins with such lines, and the last of them is no header."""
    first = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if first == 0 or first == len(lines):
        return None
    header, row = lines[first - 1], lines[first]
    same = [mark for mark in _MARKS if header.count(mark) == row.count(mark) > 0]
    return None if same else "#"


def _quote(lines: list[str]) -> str:
    text = "".join(lines[:_ROWS])
    single = re.findall(r"(?:^|[,;\t|])'[^'\n]*'(?=$|[,;\t|\r\n])", text, re.MULTILINE)
    return "'" if '"' not in text and len(single) > len(lines[:_ROWS]) // 2 else '"'


def _rows(lines: list[str], delimiter: str, quote: str) -> list[list[str]]:
    rows = []
    options = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        for row in csv.reader(lines, delimiter=delimiter, **options):
            rows.append([cell.strip() for cell in row])
            if len(rows) > _ROWS:
                break
    except csv.Error:  # said where the file is read
        pass
    return rows


def _fit(rows: list[list[str]]) -> tuple[float, int]:
    """How well a delimiter cuts the first rows: the share that is as wide as the header, and how wide that is."""
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, 0
    fitting = sum(len(row) == width or (len(row) == width + 1 and not row[-1]) for row in rows)
    return round(fitting / len(rows), 1), min(width, 3)


def _hints(rows: list[list[str]], settings: ReadSettings) -> Hints:
    decimals: set[str] = set()
    orders: set[str] = set()
    for row in rows[1:]:
        for cell in row:
            if ("," in cell or "." in cell) and is_shaped(cell):
                found = SHAPE.fullmatch(normalized(cell))
                point, group, _ = decimal_of(found["core"]) if found else ("", "", "")
                decimals |= {point} if point else {"," if group == "." else "."} if group in (",", ".") else set()
            elif "/" in cell or "-" in cell:
                orders.add(dates.order_of(cell))
    decimal = settings.decimal or (decimals.pop() if len(decimals) == 1 else None)
    day_first = settings.day_first
    if day_first is None and len(shown := orders & {"dmy", "mdy"}) == 1:
        day_first = "dmy" in shown
    return Hints(decimal, settings.thousands, day_first)
