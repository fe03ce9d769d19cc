"""Numbers as people write them: decimal comma, thousands marks, percent, currencies, a negative in parentheses."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .cells import is_number

SPACES = " \u00a0\u2009\u202f"
THOUSANDS = (",", ".", "'", " ", "_")
_MINUS = str.maketrans({"−": "-", "–": "-", "’": "'"} | dict.fromkeys(SPACES, " "))
_MONEY = r"(?:[$€£¥₹]|EUR|USD|GBP|CHF|JPY|INR)"
SHAPE = re.compile(
    rf"(?P<open>\()?(?P<sign>[-+]?) ?(?P<before>{_MONEY}?) ?(?P<inner>[-+]?)"
    rf"(?P<core>[0-9](?:[0-9.,'_ ]*[0-9])?[.,]?|[.,][0-9]+)(?P<exponent>(?:[eE][-+]?[0-9]+)?)"
    rf" ?(?P<unit>%|‰|{_MONEY}|)(?(open)\))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NumberForm:
    """How a column writes its numbers.

    Parameters
    ----------
    decimal : str
        ``.`` or ``,``.
    thousands : str
        What stands between groups of digits: one of ``, . ' _``, a blank (of any width), or nothing.
    unit : str
        A percent sign or a currency, which is left out: 12 % is 12.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    kind = "number"

    def parse(self, text: str) -> float:
        """The number that a text writes in this form.

        Raises
        ------
        ValueError
            If it is none.
        """
        if is_number(text) and (self.decimal == "." or "." not in text):
            return float(text)
        found = SHAPE.fullmatch(normalized(text))
        if found is None or (found["sign"] and found["inner"]) or not self._fits(found):
            raise ValueError(text)
        core = found["core"].replace(self.thousands, "") if self.thousands else found["core"]
        value = float(core.replace(self.decimal, ".") + found["exponent"])
        return -value if found["open"] or "-" in (found["sign"], found["inner"]) else value

    def _fits(self, found: re.Match[str]) -> bool:
        unit = _unit(found)
        return unit in ("", self.unit) and bool(_core(self.decimal, self.thousands).fullmatch(found["core"]))

    def said(self) -> str:
        """The form in words; empty for plain numbers."""
        parts = ["decimal comma"] if self.decimal == "," else []
        if self.thousands:
            parts.append(f"{'a blank' if self.thousands == ' ' else self.thousands} between thousands")
        if self.unit:
            parts.append(f"{self.unit} left out")
        return ", ".join(parts)


PLAIN = NumberForm()


class AmbiguousError(ValueError):
    """Texts that may mean two things; the message says what to set: ``option`` is the setting and its value."""

    def __init__(self, text: str, meanings: str, key: str, value: object) -> None:
        super().__init__(f"{text!r} {meanings}")
        self.text, self.option = text, (key, value)


class MixedError(ValueError):
    """Texts that are numbers each, but not in one form; the message says why, ``text`` is one of them."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(why)
        self.text = text


@functools.cache
def _core(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = "[0-9]+"
    if thousands:
        t = re.escape(thousands)  # in threes, or as in India: 12,34,567
        whole = rf"(?:[1-9][0-9]{{0,2}}(?:{t}[0-9]{{3}})+|[1-9][0-9]?(?:{t}[0-9]{{2}})+{t}[0-9]{{3}}|[0-9]+)"
    d = re.escape(decimal)
    return re.compile(rf"{whole}(?:{d}[0-9]*)?|{d}[0-9]+")


def normalized(text: str) -> str:
    """With one kind of blank, apostrophe and minus."""
    return text.translate(_MINUS)


def _unit(found: re.Match[str]) -> str:
    return (found["before"] or found["unit"]).upper()


def is_shaped(text: str) -> bool:
    """Whether a text is a number in some form (1.234,50, 12 %, $5, 1_000), plain ones included."""
    if is_number(text):
        return True
    found = SHAPE.fullmatch(normalized(text))
    return found is not None and any(
        _core(d, t).fullmatch(found["core"]) for d in ".," for t in ("", *THOUSANDS) if d != t
    )


def decimal_of(core: str) -> tuple[str, str, str]:
    """What the digits and marks of one number show: (decimal mark, thousands mark, mark that may be either)."""
    thousands = next((mark for mark in "'_ " if mark in core), "")
    points, commas = core.count("."), core.count(",")
    if points and commas:
        decimal, other = (".", ",") if core.rfind(".") > core.rfind(",") else (",", ".")
        return decimal, thousands or other, ""
    if not points and not commas:
        return "", thousands, ""
    mark, times = (".", points) if points else (",", commas)
    if times > 1:
        return "", thousands or mark, ""
    before, after = core.split(mark)
    if thousands or len(after) != 3 or len(before) > 3 or before in ("", "0"):
        return mark, thousands, ""
    return "", thousands, mark


def detect(texts: Iterable[str], decimal: str | None = None, thousands: str | None = None) -> NumberForm:
    """The one form in which all these texts are numbers.

    Parameters
    ----------
    texts : iterable of str
        Different cells of a column, each a number in some form (:func:`is_shaped`).
    decimal, thousands : str, optional
        The marks of the file, if known: they decide where the column's own cells could mean two numbers.

    Raises
    ------
    AmbiguousError
        If the cells may mean two things, such as 1,234.
    MixedError
        If no one form fits them all.
    """
    decimals: dict[str, str] = {}
    groups: dict[str, str] = {}
    unclear: dict[str, str] = {}
    units: dict[str, str] = {}
    for text in texts:
        found = SHAPE.fullmatch(normalized(text))
        if found is None:  # inf
            continue
        for seen, mark in zip((decimals, groups, unclear), decimal_of(found["core"]), strict=True):
            if mark:
                seen.setdefault(mark, text)
        units.setdefault(_unit(found), text)
    for seen, what in ((decimals, "decimal marks"), (groups, "thousands marks")):
        if len(seen) > 1:
            raise MixedError(list(seen.values())[1], f"{' and '.join(map(repr, seen.values()))} use two {what}")
    signs = [unit for unit in units if unit]
    if len(signs) > 1 or (signs and signs[0] in "%‰" and "" in units):
        first, second = list(units.values())[:2]
        raise MixedError(second, f"{first!r} and {second!r} differ in their units")
    point, group = _settled(decimals, groups, unclear, decimal, thousands)
    return NumberForm(point, group, signs[0] if signs else "")


def _settled(
    decimals: dict[str, str],
    groups: dict[str, str],
    unclear: dict[str, str],
    decimal: str | None,
    thousands: str | None,
) -> tuple[str, str]:
    """The decimal and the thousands mark, once what the cells show is joined with what the file shows."""
    point, group = next(iter(decimals), ""), next(iter(groups), "")
    for mark, text in unclear.items():
        other = "," if mark == "." else "."
        if mark in (point, group):
            continue
        if point == other:
            group = group or mark
        elif group:  # another mark stands between thousands
            point = mark
        elif thousands == mark or decimal == other:
            group = mark
        elif decimal == mark or mark == ".":
            point = mark
        else:
            whole, part = text.split(mark)[0], text.split(mark)[1]
            raise AmbiguousError(
                text, f"may mean {whole}{part} or {whole}.{part}: set decimal: '.' or decimal: ','", "decimal", "."
            )
    return point or ("," if group == "." else "."), group
