"""Dates and times in text: which form a column's have, the days since 1970 that they are, and what a network is given.

A date becomes the days since 1970, its year, and its month, weekday and hour on a circle (sine and cosine), so that
December lies beside January.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .number_forms import AmbiguousError, MixedError

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
_NAME = rf"(?P<name>{'|'.join(_MONTHS)})[a-z]{{0,6}}\.?"
_TIME = (
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>[.,][0-9]{1,9})?)?"
    r"(?: ?(?P<half>[ap]m))?(?: ?(?P<zone>z|utc|gmt|[-+][0-9]{2}(?::?[0-9]{2})?))?"
)
_NUMBERS = r"(?P<a>[0-9]{4}|[0-9]{1,2})(?P<mark>[-/.])(?P<b>[0-9]{1,2})(?P=mark)(?P<c>[0-9]{4}|[0-9]{1,2})"
_DATE = re.compile(
    rf"{_WEEKDAY}(?:{_NUMBERS}|(?P<y>[0-9]{{4}})[-/](?P<m>[0-9]{{1,2}})"
    rf"|(?P<d1>[0-9]{{1,2}})[ .-]{{1,2}}{_NAME}[ ,-]{{1,2}}(?P<y1>[0-9]{{2}}|[0-9]{{4}})"
    rf"|{_NAME.replace('name', 'name2')} (?P<d2>[0-9]{{1,2}}),? (?P<y2>[0-9]{{4}}))(?:(?:t|,? ){_TIME})?",
    re.IGNORECASE,
)
_CLOCK = re.compile(_TIME, re.IGNORECASE)
ORDERS = {
    "ymd": "year-month-day",
    "dmy": "day first",
    "mdy": "month first",
    "ym": "year-month",
    "name": "the month's name",
    "time": "a time of day",
    "compact": "yyyymmdd",
}
"""The orders of :class:`DateForm`, in words."""

PARTS = {
    "date": ("year", "month sin", "month cos", "weekday sin", "weekday cos"),
    "datetime": ("year", "month sin", "month cos", "weekday sin", "weekday cos", "hour sin", "hour cos"),
    "time": ("hour sin", "hour cos"),
}
"""What a date gives beside the days since 1970, which stand under its own name (a time: the part of the day)."""


@dataclass(frozen=True)
class DateForm:
    """How a column writes its dates.

    Parameters
    ----------
    order : str
        ``ymd``, ``dmy``, ``mdy``, ``ym``, ``name`` (of the month), ``compact`` (20240131) or ``time`` (of day).
    parts : str
        ``date``, ``datetime`` or ``time``: which of ``PARTS`` it has.
    zoned : bool
        Whether the times name their zones; they are read in UTC.
    """

    order: str
    parts: str
    zoned: bool = False

    kind = "date"

    def parse(self, text: str) -> float:
        """Days since 1970 (of a time: the part of the day). Raises ValueError for what is no date of this form."""
        if self.order == "compact":
            day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
            return float(day.toordinal() - _EPOCH)
        if self.order == "time":
            found = _CLOCK.fullmatch(text)
            if found is None:
                raise ValueError(text)
            return _part_of_day(found)
        found = _DATE.fullmatch(text)
        if found is None or (self.parts == "date" and found["hour"] is not None):
            raise ValueError(text)
        if found["hour"] is not None and self.zoned != (found["zone"] is not None):
            raise ValueError(text)
        return _day(found, self.order) + (0.0 if found["hour"] is None else _part_of_day(found))

    def said(self) -> str:
        """The form in words."""
        return ORDERS[self.order] + (" in UTC" if self.zoned else "")


def is_date(text: str) -> bool:
    """Whether a text looks like a date, or a time of day."""
    return bool(_DATE.fullmatch(text) or _CLOCK.fullmatch(text))


def _part_of_day(found: re.Match[str]) -> float:
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(found[0])
        hour = hour % 12 + (12 if found["half"].lower() == "pm" else 0)
    if hour > 24 or minute > 59 or second > 60:
        raise ValueError(found[0])
    seconds = 3600 * hour + 60 * minute + second + float((found["fraction"] or ".0").replace(",", "."))
    zone = found["zone"] or ""
    if zone[:1] in ("+", "-") and zone:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        seconds -= (1 if zone[0] == "+" else -1) * (3600 * int(digits[:2]) + 60 * int(digits[2:]))
    return seconds / 86400.0


def _year(text: str) -> int:
    year = int(text)
    return year if len(text) > 2 else year + (1900 if year > 68 else 2000)  # as POSIX has it


def _day(found: re.Match[str], order: str) -> float:
    if _order(found) != order and (order not in ("dmy", "mdy") or _order(found) not in ("dmy", "mdy", "?")):
        raise ValueError(found[0])
    if order == "ym":
        year, month, day = int(found["y"]), int(found["m"]), 1
    elif order == "name":
        year, day = _year(found["y1"] or found["y2"]), int(found["d1"] or found["d2"])
        month = 1 + _MONTHS.index((found["name"] or found["name2"])[:3].lower())
    else:
        at = {letter: found[group] for letter, group in zip(order, "abc", strict=True)}
        year, month, day = _year(at["y"]), int(at["m"]), int(at["d"])
    return float(datetime.date(year, month, day).toordinal() - _EPOCH)


def _order(found: re.Match[str]) -> str:
    """What one date shows of its order; ``?`` if day and month could be exchanged."""
    if found["y"]:
        return "ym"
    if found["a"] is None:
        return "name"
    if len(found["a"]) == 4:
        return "ymd"
    if int(found["a"]) > 12:
        return "dmy"
    if int(found["b"]) > 12:
        return "mdy"
    return "dmy" if found["mark"] == "." else "?"  # 05.01.2024 has its day first wherever it is written


def order_of(text: str) -> str:
    """What a text shows of the order of its date: ymd, dmy, mdy, ?, ...; empty if it is none."""
    found = _DATE.fullmatch(text)
    return _order(found) if found else ""


def detect(texts: Iterable[str], day_first: bool | None = None) -> DateForm:
    """The one form of these texts, each of which looks like a date (:func:`is_date`).

    Raises
    ------
    AmbiguousError
        If day and month may be exchanged; ``day_first`` decides.
    MixedError
        If they have several forms.
    """
    orders: dict[str, str] = {}
    zones: dict[bool, str] = {}
    for text in texts:
        found = _DATE.fullmatch(text)
        orders.setdefault(_order(found) if found else "time", text)
        clock = found if found is not None else _CLOCK.fullmatch(text)
        if clock is not None and clock["hour"] is not None:
            zones.setdefault(clock["zone"] is not None, text)
    unclear = orders.pop("?", None)
    if len(orders) > 1:
        first, second = list(orders.values())[:2]
        raise MixedError(second, f"{first!r} and {second!r} are dates in two forms")
    if len(zones) > 1:
        raise MixedError(zones[False], f"{zones[True]!r} has a zone and {zones[False]!r} has none")
    if unclear is not None and not orders:
        if day_first is None:
            raise AmbiguousError(
                unclear, "may have the day or the month first: set day_first: true or false", "day_first", True
            )
        orders = {"dmy" if day_first else "mdy": unclear}
    elif unclear is not None and next(iter(orders)) not in ("dmy", "mdy"):
        raise MixedError(unclear, f"{next(iter(orders.values()))!r} and {unclear!r} are dates in two forms")
    order = next(iter(orders))
    return DateForm(order, "time" if order == "time" else "datetime" if zones else "date", True in zones)


def days_of(moments: np.ndarray) -> np.ndarray:
    """Days since 1970 of an array of datetime64, NaN for NaT."""
    days = moments.astype("datetime64[us]").astype(np.int64) / 86_400e6
    return np.where(np.isnat(moments), np.nan, days)


def days_of_value(moment: datetime.date | datetime.time | np.datetime64) -> float:
    """Days since 1970 of one moment, in UTC if it has a zone; of a time, the part of the day."""
    if isinstance(moment, np.datetime64):
        return float(days_of(np.array([moment]))[0])
    if isinstance(moment, datetime.time):
        return (moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6) / 86400.0
    if isinstance(moment, datetime.datetime):
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC)
        return moment.toordinal() - _EPOCH + days_of_value(moment.time())
    return float(moment.toordinal() - _EPOCH)


def part_names(name: str, parts: str) -> list[str]:
    """The names of what a date column gives beside its days."""
    return [f"{name} ({part})" for part in PARTS[parts]]


def expand(days: np.ndarray, parts: str) -> np.ndarray:
    """``PARTS`` of days since 1970, (n, number of parts); NaN stays NaN."""
    seen = np.isfinite(days)
    whole = np.floor(np.where(seen, days, 0.0))
    circle = {"hour": (np.where(seen, days, 0.0) - whole)}
    columns = []
    if parts != "time":
        date = np.clip(whole, -719162, 2932896).astype(np.int64).astype("datetime64[D]")  # years 1 to 9999
        months = date.astype("datetime64[M]").astype(np.int64)
        columns.append(np.floor_divide(months, 12) + 1970.0)
        circle |= {"month": months % 12 / 12.0, "weekday": (whole + 3) % 7 / 7.0}
    for name in PARTS[parts]:
        if name != "year":
            turn = 2.0 * np.pi * circle[name.split()[0]]
            columns.append(np.sin(turn) if name.endswith("sin") else np.cos(turn))
    return np.where(seen[:, None], np.stack(columns, axis=1), np.nan)
