"""The nodes of an ONNX graph that read dates: a text becomes days since 1970, and these the parts of a date.

RegexFullMatch says whether a text is a date in the column's form, StringSplit takes it apart, and Cast makes numbers of
the pieces (opset 20). A text that is no date is an error, whose node is named after the column (``Graph.refuse``). The
calendar is Hinnant's ("chrono-Compatible Low-Level Date Algorithms", 2013), in whole numbers that are never negative,
since years have four digits.
"""

from __future__ import annotations

import numpy as np

from ..data.date_text import PARTS
from ..data.dates import DateForm
from .onnx_graph import STRING_OPSET, Graph

_YEAR, _ANY_YEAR = "[1-9][0-9]{3}", "([1-9][0-9]{3}|[0-9]{1,2})"
_MONTH, _DAY = "(0?[1-9]|1[0-2])", "(0?[1-9]|[12][0-9]|3[01])"
_MINUTES = "(:[0-5][0-9](:([0-5][0-9]|60)([.,][0-9]{1,9})?)?)"
_TIME = f"((2[0-4]|[01]?[0-9]){_MINUTES}|(1[0-2]|0?[1-9]){_MINUTES} ?[aApP][mM])"
_ZONE = "( ?([zZ]|[uU][tT][cC]|[gG][mM][tT]|[-+][0-9]{2}(:?[0-9]{2})?))"
_GAP = {  # what is read where a date is missing
    "ymd": "1970-01-01",
    "dmy": "01-01-1970",
    "mdy": "01-01-1970",
    "ym": "1970-01",
    "compact": "19700101",
    "time": "00:00",
}
_SHIFT = 719468  # days from 1 March of the year 0 to 1970


class _Whole:
    """A tensor of whole numbers in a graph, with the operators of Python; what is divided is not negative."""

    def __init__(self, g: Graph, name: str) -> None:
        self.g, self.name = g, name

    def _with(self, operation: str, other: _Whole | int) -> _Whole:
        y = other.name if isinstance(other, _Whole) else self.g.constant([[other]], np.int64)
        return _Whole(self.g, self.g.add(operation, self.name, y))

    def __add__(self, other: _Whole | int) -> _Whole:
        return self._with("Add", other)

    def __sub__(self, other: _Whole | int) -> _Whole:
        return self._with("Sub", other)

    def __mul__(self, other: _Whole | int) -> _Whole:
        return self._with("Mul", other)

    def __floordiv__(self, other: int) -> _Whole:
        return self._with("Div", other)

    def __mod__(self, other: int) -> _Whole:
        return self._with("Mod", other)

    def above(self, limit: int) -> _Whole:
        """1 where it is above the limit, else 0."""
        return _Whole(self.g, self.g.cast(self._with("Greater", limit).name, "INT64"))


def days_of(g: Graph, x: str, form: DateForm, column: str) -> str:
    """Texts (n, 1) as days since 1970 (times: the part of the day), float64; NaN where a text is empty, NaT or nan.

    Names of months are not read: such a column takes year-month-day.
    """
    g.opset = STRING_OPSET
    order = "ymd" if form.order == "name" else form.order
    missing = g.add("RegexFullMatch", x, pattern="|NaT|nan")
    fits = g.add("RegexFullMatch", x, pattern=_pattern(order, form))
    texts = _Texts(g, f"column {column!r}: a text that is no date of the form {order}")
    zero = g.refuse(g.add("Not", g.add("Or", fits, missing)), texts.problem)
    x = g.add("Where", fits, x, texts.text(_GAP[order]))
    if order == "time":
        days = _part_of_day(texts, texts.replaced(x, " ", "", 4))
    elif form.parts == "date":
        days = _day(texts, x, order)
    else:
        date, *clock = texts.split(texts.replaced(x, "tT", " ", 3), " ", 5)
        day = _day(texts, texts.split(date, ",", 2)[0], order)
        days = g.add("Add", day, _part_of_day(texts, texts.joined(*clock)))
    return g.add("Where", missing, g.constant([np.nan], np.float64), g.add("Add", days, zero))


def parts_of(g: Graph, days: str, kind: str) -> list[str]:
    """``PARTS`` of days (n, 1), float64, as ``date_text.expand``; NaN stays NaN."""
    missing = g.add("IsNaN", days)
    days = g.add("Where", missing, g.constant([0.0], np.float64), days)
    floor = g.add("Floor", days)
    found = {}
    if kind != "time":
        whole = _Whole(g, g.cast(floor, "INT64"))
        year, month, _ = _civil(whole)
        found["year"] = g.cast(year.name, "DOUBLE")
        for name, k, number in (("month", 12, month - 1), ("weekday", 7, (whole + 3) % 7)):
            turns = 2.0 * np.pi * (np.arange(k) / k)
            found[f"{name} sin"] = g.add("Gather", g.constant(np.sin(turns), np.float64), number.name)
            found[f"{name} cos"] = g.add("Gather", g.constant(np.cos(turns), np.float64), number.name)
    if kind != "date":
        turn = g.add("Mul", g.add("Sub", days, floor), g.constant([2.0 * np.pi], np.float64))
        found |= {"hour sin": g.add("Sin", turn), "hour cos": g.add("Cos", turn)}
    nan = g.constant([np.nan], np.float64)
    return [g.add("Where", missing, nan, found[name]) for name in PARTS[kind]]


def _pattern(order: str, form: DateForm) -> str:
    """Of all texts in this form, days of months included that these do not have."""
    zone = {None: f"{_ZONE}?", True: _ZONE, False: ""}[form.zoned]
    if order == "time":
        return f"{_TIME}{zone}"
    if order == "compact":
        return f"{_YEAR}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
    pieces = {"y": _YEAR if order[0] == "y" else _ANY_YEAR, "m": _MONTH, "d": _DAY}
    marks = ("-", "/") if order == "ym" else ("-", "/", "[.]")
    date = "|".join(mark.join(pieces[letter] for letter in order) for mark in marks)
    return f"({date})" if form.parts == "date" else f"({date})(([tT]|,? ){_TIME}{zone})?"


class _Texts:
    """Texts (n, 1) of one column; ``problem`` names the nodes that refuse some."""

    def __init__(self, g: Graph, problem: str) -> None:
        self.g, self.problem = g, problem

    def whole(self, x: str) -> _Whole:
        """Digits as numbers."""
        return _Whole(self.g, self.g.cast(x, "INT64"))

    def split(self, x: str, mark: str, k: int) -> list[str]:
        """The first k pieces between marks, empty where there are fewer."""
        pieces = self.g.add_two("StringSplit", self.joined(x, self.text(mark * (k - 1))), delimiter=mark)
        return [self.g.add("Gather", pieces, self.g.constant(i, np.int64), axis=2) for i in range(k)]

    def replaced(self, x: str, marks: str, by: str, k: int) -> str:
        """With ``by`` in place of at most k - 1 of each of these letters, and some more of it at the end."""
        for mark in marks:
            first, *more = self.split(x, mark, k)
            x = self.joined(first, *(part for piece in more for part in ((self.text(by), piece) if by else (piece,))))
        return x

    def text(self, value: str) -> str:
        return self.g.constant([value], str)

    def joined(self, x: str, *more: str) -> str:
        for y in more:
            x = self.g.add("StringConcat", x, y)
        return x


def _day(texts: _Texts, x: str, order: str) -> str:
    """Days since 1970 of dates, float64."""
    if order == "compact":
        number = texts.whole(x)
        year, month, day = number // 10000, number // 100 % 100, number % 100
    else:
        pieces = texts.split(texts.replaced(x, "/.", "-", 3), "-", 3)
        at = {letter: texts.whole(piece) for letter, piece in zip(order, pieces, strict=False)}
        year, month = at["y"], at["m"]
        day = at["d"] if "d" in at else month - month + 1
        short = year.above(-1) - year.above(99)  # of two digits: 69 is 1969, 68 is 2068
        year = year + short * 2000 - short * year.above(68) * 100
    days = _days_from_civil(year, month, day)
    exists = texts.g.add("Equal", _civil(days)[2].name, day.name)  # which 31 February does not
    zero = texts.g.refuse(texts.g.add("Not", exists), texts.problem)
    return texts.g.add("Add", texts.g.cast(days.name, "DOUBLE"), zero)


def _days_from_civil(year: _Whole, month: _Whole, day: _Whole) -> _Whole:
    late = month.above(2)
    year = year - 1 + late  # it begins in March
    of_era = year % 400
    of_year = ((month + 9 - late * 12) * 153 + 2) // 5 + day - 1
    return year // 400 * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _SHIFT


def _civil(days: _Whole) -> tuple[_Whole, _Whole, _Whole]:
    """Year, month, day."""
    days = days + _SHIFT
    of_era = days % 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (year * 365 + year // 4 - year // 100)
    shifted = (of_year * 5 + 2) // 153
    month = shifted + 3 - shifted.above(9) * 12
    day = of_year - (shifted * 153 + 2) // 5 + 1
    return days // 146097 * 400 + year + 1 - month.above(2), month, day


def _part_of_day(texts: _Texts, x: str) -> str:
    """What part of a day a time is, float64; in UTC, so it may be below 0 or above 1.

    ``x`` is without blanks; an empty one is midnight.
    """
    g = texts.g
    x, east = texts.split(x, "+", 2)
    x, west = texts.split(x, "-", 2)
    afternoon, half = (
        _Whole(g, g.cast(g.add("RegexFullMatch", x, pattern=f".*[{letters}].*"), "INT64")) for letters in ("pP", "aApP")
    )
    for mark in "zZuUgGaApP":
        x = texts.split(x, mark, 2)[0]
    hours, minutes, seconds = texts.split(x, ":", 3)
    seconds, fraction = texts.split(texts.replaced(seconds, ".", ",", 2), ",", 2)
    hour, minute, second = (texts.whole(texts.joined(texts.text("0"), x)) for x in (hours, minutes, seconds))
    hour = hour - half * (hour // 12 * 12) + afternoon * 12
    second = hour * 3600 + minute * 60 + second - _offset(texts, east) + _offset(texts, west)
    part = g.cast(texts.joined(texts.text("0."), fraction, texts.text("0")), "DOUBLE")
    total = g.add("Add", g.cast(second.name, "DOUBLE"), part)
    return g.add("Div", total, g.constant([86400.0], np.float64))


def _offset(texts: _Texts, x: str) -> _Whole:
    """Seconds of 01:00, 0100 or 01; 0 of an empty text."""
    number = texts.whole(texts.joined(texts.text("1"), *texts.split(x, ":", 2)))  # 1, 101 or 10100
    both, some = number.above(9999), number.above(9)
    hours = both * (number // 100 - 100) + (some - both) * (number - 100)
    return hours * 3600 + both * (number % 100) * 60
