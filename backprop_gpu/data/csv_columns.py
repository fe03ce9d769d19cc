"""One column of a table of text while it is read: plain numbers, or texts that are looked at once all are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from ..errors import DataError, shown
from .cells import MISSING, is_number, number
from .column_types import MOST_NUMBERS, AmbiguousError, Found, Hints, MixedError, StrayError, infer
from .forms import Form
from .number_forms import PLAIN
from .read_settings import AS_FOUND, ReadSettings

_MOST_DISTINCT = 100_000  # texts of a column that are told apart, many more than can be categories
TEXT = np.dtypes.StringDType()  # one long text does not make room for as long a text in every row
_CODE = re.compile(r"^0[0-9]", re.MULTILINE)

Where = Callable[[int], str]
"""Says where the row of a number stands in its file."""


@dataclass
class Column:
    """One column while its blocks are read, and what it turns out to hold.

    Parameters
    ----------
    name : str
    wanted : str or None
        What it is to be read as (``column_types.TYPES``); None: what its cells suggest.
    form : Form or None
        That of the training table, if there was one.
    trained : bool
        It must hold again what it held in the training table.
    is_text : bool
        Its cells are not looked at: a target, or a category.
    only_numbers : bool
        It may not turn into categories, since others were listed as those.
    settings : ReadSettings
        What was asked for: further gaps, and what else is advised beside.
    hints : Hints
        What is known of the file.
    ignored : sequence of str
        Columns that are left out.
    """

    name: str
    wanted: str | None = None
    form: Form | None = None
    trained: bool = False
    is_text: bool = False
    only_numbers: bool = False
    settings: ReadSettings = AS_FOUND
    hints: Hints = field(default_factory=Hints)
    plain: bool = True  # all cells so far are plain numbers
    started: bool = False
    turned_late: bool = False
    blocks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # different texts, and which each cell is
    found: Found | None = None
    stated: Found | None = None  # what the file says that it holds
    numbers: list[np.ndarray] = field(default_factory=list)  # a target's, if the file says that they are
    ignored: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.gaps = frozenset(text.strip().lower() for text in self.settings.na_values)
        self.plain = self.may_be_plain

    @property
    def may_be_plain(self) -> bool:
        """Whether its cells are plain numbers until one of them is something else."""
        return not self.is_text and self.form is None and self.wanted in (None, "number")

    def add(self, cells: Sequence[str]) -> np.ndarray | None:
        """Add the cells of some rows; return their numbers, or None if the column holds texts."""
        if self.plain:
            if self.gaps:
                cells = ["" if cell.lower() in self.gaps else cell for cell in cells]
            values = self._numbers(cells)
            if values is not None:
                self.started = True
                return values
            self.plain, self.turned_late = False, self.started
        words: dict[str, int] = {}
        codes = np.array([words.setdefault(cell, len(words)) for cell in cells], np.int32)
        self.add_block(list(words), codes)
        return None

    def add_block(self, words: list[str], codes: np.ndarray) -> None:
        """Add cells by their different texts, and which of them each cell is."""
        kept = ["" if (low := word.lower()) in MISSING or low in self.gaps else word for word in words]
        small = codes.astype(np.uint16) if len(kept) <= 1 << 16 else codes
        self.blocks.append((np.array(kept, dtype=TEXT), small))

    def _numbers(self, cells: Sequence[str]) -> np.ndarray | None:
        """Plain numbers; None where a cell is none, or may mean another one than it would be read as."""
        joined = "\n".join(cells)
        unsure = self.hints.decimal == "," and "." in joined
        if unsure or (self.wanted is None and not self.trained and _CODE.search(joined)):
            return None
        try:
            if "_" not in joined:
                return np.array(list(map(float, cells)))
        except ValueError:
            pass
        try:
            return np.array([number(cell) for cell in cells])
        except ValueError:
            return None

    def restart(self) -> None:
        """Forget the cells, but not that they are texts."""
        self.blocks, self.turned_late = [], False

    def joined(self) -> np.ndarray:
        """All cells of a column of text."""
        return np.concatenate([words[codes] for words, codes in self.blocks])

    def distinct(self) -> tuple[list[str], np.ndarray]:
        """The different texts, missing ones left out, in the order of their first cells; how many cells hold each.

        Those of the first rows, where there are very many.
        """
        counts: dict[str, int] = {}
        for words, codes in self.blocks:
            for text, count in zip(words.tolist(), np.bincount(codes, minlength=len(words)).tolist(), strict=True):
                counts[text] = counts.get(text, 0) + count
            if len(counts) > _MOST_DISTINCT:
                break
        counts.pop("", None)
        return list(counts), np.array(list(counts.values()), np.int64)

    def n_gaps(self) -> int:
        """How many cells of a column of text are missing."""
        return sum(int(np.count_nonzero((words == "")[codes])) for words, codes in self.blocks)

    def rows_of(self, text: str) -> Iterator[int]:
        """The rows whose cells hold a text."""
        start = 0
        for words, codes in self.blocks:
            for k in np.flatnonzero(words == text):
                yield from (start + np.flatnonzero(codes == k)).tolist()
            start += len(codes)

    @property
    def kind(self) -> str:
        """What the column holds, once it is resolved."""
        return "number" if self.found is None else self.found.kind

    @property
    def is_category(self) -> bool:
        """Whether its cells stay texts, once it is resolved."""
        return not self.plain and self.found is not None and self.found.form is None

    # -- what the cells are ------------------------------------------------------------------------------------------

    def resolve(self, where: Where) -> np.ndarray | None:
        """Decide what a column of text holds: its numbers, or None if they are categories.

        Raises
        ------
        DataError
            One line that says what to write, where cells are mixed, ambiguous or of another kind than in training.
        """
        words, counts = self.distinct()
        if self.trained:
            if self.form is None and not self.is_text:
                bad = next(word for word in words if not is_number(word))
                self.refuse_trained(bad, where, PLAIN)
            kind = "category" if self.form is None else self.form.kind
            self.found = Found(self.form, kind, "" if self.form is None else self.form.said())
        elif self.is_text:
            self.found = Found(None, "category", "")
        elif self.stated is not None:
            self.found = self.stated
        else:
            self.found = self.inferred(words, counts, where)
        return None if self.found.form is None else self._converted(self.found.form, where)

    def inferred(self, words: list[str], counts: np.ndarray, where: Where, wanted: str | None = None) -> Found:
        """What different texts are, ``wanted`` or what the column is to be; DataError says what to write."""
        try:
            found = infer(words, counts, self.hints, wanted or self.wanted)
        except AmbiguousError as error:
            raise self._error(error.text, where, str(error).removeprefix(repr(error.text)).strip()).with_option(
                *error.option
            ) from None
        except (MixedError, StrayError) as error:
            raise self.advice(error, words, where) from None
        if self.only_numbers and found.form is None:
            problem = "is not a number; correct it, or list the column under categorical"
            raise self.as_category(self._error(words[0], where, problem))
        return found

    def advice(self, error: MixedError | StrayError, words: list[str], where: Where) -> DataError:
        """What to write where a cell is not of the kind of the others."""
        if isinstance(error, StrayError):
            problem = f"is not a {error.kind}, but {error.n_others} other cells of the column are"
            fix = f"correct it, or if it stands for no value, set na_values: [{shown(error.text, 40)}]"
            found = self._error(error.text, where, f"{problem}; {fix}")
            if self.wanted is None and len(words) <= MOST_NUMBERS:  # more would be a trap: an input for each number
                return self.as_category(found)
            return found.with_option("na_values", [*self.settings.na_values, error.text])
        problem = f"cannot be read as the others are: {error}; write them alike"
        return self.as_category(self._error(error.text, where, problem))

    def as_category(self, error: DataError) -> DataError:
        """The same error, which also says how the column is read as one of categories."""
        types = {**self.settings.types, self.name: "category"}
        name = shown(self.name, 60, quoted=False)
        also = DataError(f"{error}; if the column names things, set types: {{{name}: category}}")
        return also.with_option("types", types)

    def _converted(self, form: Form, where: Where) -> np.ndarray:
        """The numbers of a column of text, NaN where missing."""
        values = []
        for words, codes in self.blocks:
            numbers = np.empty(len(words))
            for k, word in enumerate(words.tolist()):
                try:
                    numbers[k] = form.parse(word) if word else np.nan
                except ValueError:
                    self.refuse_trained(word, where, form)
            values.append(numbers[codes])
        return np.concatenate(values)

    def refuse_trained(self, word: str, where: Where, form: Form) -> NoReturn:
        """Raise for a cell that is not what the column held."""
        held = {"number": "numbers", "date": "dates", "boolean": "yes and no"}[form.kind]
        how = form.said() or "like 1234.5"
        problem = (
            f"is not a {form.kind}, and in training the column held {held} ({how}); write it so, or leave it empty"
        )
        raise self._error(word, where, problem)

    def _error(self, text: str, where: Where, problem: str) -> DataError:
        row = next(self.rows_of(text), 0)
        return DataError(f"{where(row)}, column {shown(self.name)}: {shown(text)} {problem}")
