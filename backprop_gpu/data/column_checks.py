"""What a CSV's column seems to hold, where it would be read as something else: none is misread without a word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .cells import is_number

MOST_NUMBERS = 20  # a column of text with more different numbers than this was meant to hold numbers
_MANY = 50  # one-hot columns of one text column that are worth a line
_FEW = 10  # texts below this are categories even if each row has its own
_SHOWN = 2000  # different texts that are looked at

_SIGN = "[-+−–]?"
_MONEY = r"(?:[$€£¥]|EUR|USD|GBP|CHF)"
_DIGITS = r"(?:[0-9]{1,3}(?:[,.'’_\s][0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}|[0-9]+)(?:[.,][0-9]+)?"
_FORMATTED = re.compile(rf"\(?{_SIGN}\s?{_MONEY}?\s?{_SIGN}{_DIGITS}\s?(?:%|‰|{_MONEY})?\)?", re.IGNORECASE)
_DATE = re.compile(
    r"[0-9]{1,4}(?P<mark>[-/.])[0-9]{1,2}(?P=mark)[0-9]{1,4}(?:[T ].*)?"  # 2024-01-05 10:00, 05.01.2024, 1/5/24
    r"|[0-9]{4}[-/][0-9]{1,2}|[0-9]{1,2}:[0-9]{2}(?::[0-9.]+)?"  # 2024-01, 10:30
    r"|[0-9]{1,2}[ -][A-Za-z]{3,9}\.?[ -][0-9]{2,4}|[A-Za-z]{3,9}\.? [0-9]{1,2},? [0-9]{4}"  # 5 Jan 2024
)
_IDENTIFIER = re.compile(r"(?i:(?:.*[_ .-])?(?:id|uuid|guid|index|unnamed: 0))|.*[a-z]I[dD]|[A-Z]*ID")
_MEASURED = re.compile(
    rf"{_SIGN}{_DIGITS}\s?[^\W\d_°/²³]{{0,4}}[°/²³]?[^\W\d_]{{0,4}}[²³]?"
)  # 12 kg, 5.3cm, 20 °C, 90km/h
_CODE = re.compile(r"^[-+]?0[0-9].*$", re.MULTILINE)

PLAIN_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:e[-+]?[0-9]+|E[-+][0-9]+)?|-?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
)
"""A number that is no code: no leading zero, no plus, not 12E4, digits of ASCII."""


def formatted_number(cell: str) -> bool:
    """Whether a text is a number as people write it, which is not how it is read: 1.234,50, 12 %, $5, 1_000."""
    return bool(_FORMATTED.fullmatch(cell)) and not is_number(cell)


def mostly(kind: str, texts: Sequence[str]) -> bool:
    """Whether at least half of different texts are of a kind: ``numbers`` (formatted ones) or ``dates``."""
    texts = texts[:_SHOWN]
    hits = sum(formatted_number(text) if kind == "numbers" else bool(_DATE.fullmatch(text)) for text in texts)
    return 2 * hits >= len(texts) > 0


def first_code(cells: Sequence[str]) -> str | None:
    """The first of these numbers that begins with a zero it does not need, as codes do."""
    found = _CODE.search("\n".join(cells))
    return found[0] if found else None


def leave_out(name: str, ignored: Sequence[str]) -> str:
    """The advice to leave a column out, beside those that are left out already."""
    return f"leave it out (data.ignore=[{', '.join([*ignored, name])}])"


def text_note(name: str, distinct: Sequence[str], n_cells: int, ignored: Sequence[str] = ()) -> str:
    """A warning about a column that becomes categories; empty if these are few and look like categories.

    ``distinct``: its different texts; ``n_cells``: how many cells hold one.
    """
    k = len(distinct)
    out = f"{leave_out(name, ignored)} unless you need it"
    if mostly("dates", distinct):
        return (
            f"column {name!r} holds dates such as {distinct[0]!r}, read as {k} categories, one input each; a later date"
            f" is none of them: write a number instead (days since ..., the month), or {out}"
        )
    if k > MOST_NUMBERS and 2 * sum(bool(_MEASURED.fullmatch(text)) for text in distinct[:_SHOWN]) >= min(k, _SHOWN):
        return (
            f"column {name!r} is read as {k} categories, one input each, and holds numbers with something behind them"
            f" ({distinct[0]!r}, ...): write the number alone, or {out}"
        )
    if k >= _FEW and 2 * k > n_cells:
        return (
            f"column {name!r} looks like names or identifiers: {k} different texts in {n_cells} rows"
            f" ({distinct[0]!r}, ...) become {k} inputs, which new rows will not share; {out}"
        )
    if k > _MANY:
        return f"column {name!r} is read as {k} categories ({distinct[0]!r}, ...), one input each; {out}"
    numbers = sum(map(is_number, distinct))
    if numbers:
        return (
            f"column {name!r} holds {numbers} different numbers and {k - numbers} other texts, and is read as"
            f" {k} categories"
        )
    return ""


def number_note(name: str, values: np.ndarray, code: str | None, ignored: Sequence[str] = ()) -> str:
    """A warning about a column that is read as numbers (NaN: missing) but may hold codes, dates or identifiers."""
    out = leave_out(name, ignored)
    if code is not None:
        return (
            f"column {name!r} is read as numbers, {code!r} as {float(code):g}; if these are codes, list it under"
            " categorical"
        )
    present = values[~np.isnan(values)]
    if len(present) < _FEW or not np.all(np.isfinite(present)) or np.any(present != np.rint(present)):
        return ""
    if np.max(np.abs(present)) > 2.0**53:
        return (
            f"column {name!r} holds whole numbers too large to be told apart in floating point;"
            f" list it under categorical, or {out}"
        )
    different = len(np.unique(present)) == len(present)
    if different and np.ptp(present) == len(present) - 1:
        return f"column {name!r} numbers the rows and is read as a number; {out} unless it means something"
    if different and _IDENTIFIER.fullmatch(name):
        return f"column {name!r} looks like an identifier and is read as a number; {out} unless it means something"
    return _compact_date_note(name, present, out)


def _compact_date_note(name: str, whole: np.ndarray, out: str) -> str:
    if not np.all((whole >= 19000101) & (whole <= 21001231)):
        return ""
    month, day = whole // 100 % 100, whole % 100
    if not np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)):
        return ""
    return (
        f"column {name!r} holds dates such as {whole[0]:.0f}, read as plain numbers; write days since ... instead,"
        f" or {out}"
    )
