"""What a column of text holds, decided on all its cells: numbers in some form, dates, yes and no, codes, categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import dates, number_forms
from .cells import is_number
from .forms import FALSE, TRUE, BooleanForm, Form
from .number_forms import AmbiguousError, MixedError

MOST_NUMBERS = 20  # a column of text with more different numbers than this was meant to hold numbers
_STRAY_SHARE = 0.1  # fewer texts than this in a column of numbers look like typing errors, not like categories
_MANY_CODES = re.compile(r"[0-9]+")
TYPES = ("number", "category", "date", "boolean")


@dataclass(frozen=True)
class Hints:
    """What is known of the file when a column is looked at: its marks, and whether dates have their day first."""

    decimal: str | None = None
    thousands: str | None = None
    day_first: bool | None = None


@dataclass(frozen=True)
class Found:
    """What a column holds: numbers in a form, or categories (``form`` None); ``how`` says so in words."""

    form: Form | None
    kind: str
    how: str


class StrayError(ValueError):
    """A text among cells of another kind: at most a tenth, or many different numbers beside it.

    ``text`` is the first of them, ``kind`` what ``n_others`` other cells are.
    """

    def __init__(self, text: str, kind: str, n_others: int) -> None:
        super().__init__(f"{text!r} is not a {kind}, but {n_others} other cells of the column are")
        self.text, self.kind, self.n_others = text, kind, n_others


def is_code(text: str) -> bool:
    """Whether a text is digits with a leading zero, as codes are and numbers are not: 007, 00, 01234."""
    return len(text) > 1 and text[0] == "0" and bool(_MANY_CODES.fullmatch(text))


def infer(texts: Sequence[str], counts: np.ndarray, hints: Hints, wanted: str | None = None) -> Found:
    """What the different texts of a column are, missing ones left out.

    Parameters
    ----------
    texts : sequence of str
    counts : ndarray of int, shape (len(texts),)
        How many cells hold each.
    hints : Hints
    wanted : str, optional
        One of ``TYPES``: what the column is to be read as.

    Raises
    ------
    AmbiguousError, MixedError, StrayError
        If the texts have two meanings or several forms, or do not hold what is wanted.
    """
    if wanted == "category":
        return Found(None, "category", "")
    if wanted in (None, "boolean") and (found := _boolean(texts, wanted)):
        return found
    if wanted is None and texts and all(map(_MANY_CODES.fullmatch, texts)) and any(map(is_code, texts)):
        example = next(text for text in texts if is_code(text))
        return Found(None, "text code", f"digits with leading zeros, such as {example}")
    for kind, is_of, detect in (
        ("number", number_forms.is_shaped, lambda t: number_forms.detect(t, hints.decimal, hints.thousands)),
        ("date", dates.is_date, lambda t: dates.detect(t, hints.day_first)),
    ):
        if wanted in (None, kind) and (found := _of_kind(kind, texts, counts, is_of, detect, wanted)):
            return found
    return Found(None, "category", "")


def _boolean(texts: Sequence[str], wanted: str | None) -> Found | None:
    words = {text.lower() for text in texts}
    other = next((text for text in texts if text.lower() not in TRUE | FALSE), None)
    if wanted and other is not None:
        raise StrayError(other, "word for yes or no", len(texts) - 1)
    if other is None and (wanted or (words & TRUE and words & FALSE and not all(map(is_number, words)))):
        return Found(BooleanForm(), "boolean", BooleanForm().said())
    return None


def _of_kind(
    kind: str,
    texts: Sequence[str],
    counts: np.ndarray,
    is_of: Callable[[str], bool],
    detect: Callable[[Sequence[str]], Form],
    wanted: str | None,
) -> Found | None:
    """Numbers or dates, if the texts are; None if they are something else."""
    if not texts:
        return None
    fits = np.fromiter(map(is_of, texts), bool, len(texts))
    cells, total = int(counts[fits].sum()), int(counts.sum())
    if not fits.all():
        several = kind == "number" and sum(map(is_number, texts)) > MOST_NUMBERS
        if wanted or total - cells < _STRAY_SHARE * total or several:
            raise StrayError(texts[int(np.argmin(fits))], kind, cells)
        return None
    form = detect(texts)
    for text in texts:
        try:
            form.parse(text)
        except ValueError:
            raise MixedError(text, f"{text!r} is no {kind} as the others are ({form.said()})") from None
    return Found(form, kind, form.said())


__all__ = ["MOST_NUMBERS", "TYPES", "AmbiguousError", "Found", "Hints", "MixedError", "StrayError", "infer", "is_code"]
