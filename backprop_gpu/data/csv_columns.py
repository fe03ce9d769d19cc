"""One column of a CSV file while it is read: numbers or text, and warnings about what looks misread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError, shown
from .cells import is_missing, is_number, number
from .column_checks import MOST_NUMBERS, first_code, formatted_number, leave_out, mostly, text_note

_MOST_DISTINCT = 100_000  # texts of a column that are told apart, many more than can be categories
_FIRST_TEXTS = 2000  # that are kept with their lines, to say what is wrong with them
_STRAY_SHARE = 0.1  # fewer texts than this in a column of numbers look like typing errors, not like categories
TEXT = np.dtypes.StringDType()  # one long text does not make room for as long a text in every row


@dataclass
class Column:
    """One column while its blocks are read."""

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
        """Add the cells of some rows; return their numbers, or None if the column holds text."""
        if not self.text:
            try:
                values = _numbers(cells)
                self.code = self.code or first_code(cells)
                self.started = True
                return values
            except ValueError:
                self._turn(path, lines, cells)
        kept = ["" if is_missing(cell) else cell for cell in cells]
        self.parts.append(np.array(kept, dtype=TEXT))
        if self.auto:
            texts = [(line, cell) for line, cell in zip(lines, kept, strict=True) if cell and not is_number(cell)]
            self.n_numbers += sum(map(bool, kept)) - len(texts)
            self.n_texts += len(texts)
            for line, cell in texts if len(self.texts) < _FIRST_TEXTS else ():
                self.texts.setdefault(cell, line)
        return None

    def _turn(self, path: Path, lines: list[int], cells: tuple[str, ...]) -> None:
        """Turn into a column of text, if that is allowed."""
        if not self.auto:
            at = next(i for i, cell in enumerate(cells) if not is_missing(cell) and not is_number(cell))
            where = f"{path}, line {lines[at]}, column {shown(self.name)}: {shown(cells[at])} is not a number"
            if self.trained:
                how = as_read(cells[at]) if formatted_number(cells[at]) else "correct it"
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
            advice = f"is not a number, but {self.n_numbers} other cells of the column are; {as_read(cell)}"
        elif mostly("numbers", list(self.texts)):
            cell, line = next(pair for pair in self.texts.items() if formatted_number(pair[0]))
            advice = f"is not read as a number; {as_read(cell)}"
        else:
            return
        problem = f"{path}, line {line}, column {shown(self.name)}: {shown(cell)} {advice}"
        if len(distinct) <= MOST_NUMBERS:
            raise self._categorical(f"{problem}; if the column names things, list it under categorical", texts)
        # as categories these would be a trap: an input for each number, and for new numbers none
        raise DataError(
            f"{problem}; or {leave_out(self.name, ignore)}; list it under categorical only if its cells are names"
        )

    def _categorical(self, message: str, texts: Sequence[str]) -> DataError:
        """An error that suggests to list this column as categorical too, with the whole list."""
        return DataError(message).with_option("categorical", [*dict.fromkeys([*texts, self.name])])

    def text_note(self, ignored: Sequence[str]) -> str:
        """A warning about a column of text; empty if there is none."""
        if not self.auto:
            return ""  # it was listed
        cells = sum(int(np.count_nonzero(part != "")) for part in self.parts)
        return text_note(self.name, self.distinct(), cells, ignored)


def as_read(cell: str) -> str:
    """How to write a cell that was meant as a number."""
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
