"""The days since 1970 of a text, and what a network is given of them.

This module imports nothing of the package: its text is a part of the files that ``export.to_numpy_file`` writes.
"""

from __future__ import annotations

import datetime
import re

import numpy as np

EPOCH = datetime.date(1970, 1, 1).toordinal()
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
_NAME = rf"(?P<name>{'|'.join(MONTHS)})[a-z]{{0,6}}\.?"
_TIME = (
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>[.,][0-9]{1,9})?)?"
    r"(?: ?(?P<half>[ap]m))?(?: ?(?P<zone>z|utc|gmt|[-+][0-9]{2}(?::?[0-9]{2})?))?"
)
_NUMBERS = r"(?P<a>[0-9]{4}|[0-9]{1,2})(?P<mark>[-/.])(?P<b>[0-9]{1,2})(?P=mark)(?P<c>[0-9]{4}|[0-9]{1,2})"
DATE = re.compile(
    rf"{_WEEKDAY}(?:{_NUMBERS}|(?P<y>[0-9]{{4}})[-/](?P<m>[0-9]{{1,2}})"
    rf"|(?P<d1>[0-9]{{1,2}})[ .-]{{1,2}}{_NAME}[ ,-]{{1,2}}(?P<y1>[0-9]{{2}}|[0-9]{{4}})"
    rf"|{_NAME.replace('name', 'name2')} (?P<d2>[0-9]{{1,2}}),? (?P<y2>[0-9]{{4}}))(?:(?:t|,? ){_TIME})?",
    re.IGNORECASE,
)
CLOCK = re.compile(_TIME, re.IGNORECASE)
PARTS = {
    "date": ("year", "month sin", "month cos", "weekday sin", "weekday cos"),
    "datetime": ("year", "month sin", "month cos", "weekday sin", "weekday cos", "hour sin", "hour cos"),
    "time": ("hour sin", "hour cos"),
}
"""What a date gives beside the days since 1970, which stand under its own name (a time: the part of the day)."""


BINNED = ("hour sin", "hour cos")
"""Parts with a piecewise-linear encoding, where numbers have one: days and seasons bend less than hours."""


def days_of_text(text: str, order: str, parts: str, zoned: bool | None = None) -> float:
    """Days since 1970 (of a time: the part of the day) of a text in a form (``DateForm``).

    ``zoned``: whether times name their zones; None: each as it likes, without one in UTC.

    Raises
    ------
    ValueError
        For what is no date of this form.
    """
    if order == "compact":
        if len(text) != 8:
            raise ValueError(text)
        day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
        return float(day.toordinal() - EPOCH)
    if order == "time":
        found = CLOCK.fullmatch(text)
        if found is None or zoned not in (None, found["zone"] is not None):
            raise ValueError(text)
        return _part_of_day(found)
    found = DATE.fullmatch(text)
    if found is None or (parts == "date" and found["hour"] is not None):
        raise ValueError(text)
    if found["hour"] is not None and zoned not in (None, found["zone"] is not None):
        raise ValueError(text)
    return _day(found, order) + (0.0 if found["hour"] is None else _part_of_day(found))


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
    if order_shown(found) != order and (order not in ("dmy", "mdy") or order_shown(found) not in ("dmy", "mdy", "?")):
        raise ValueError(found[0])
    if order == "ym":
        year, month, day = int(found["y"]), int(found["m"]), 1
    elif order == "name":
        year, day = _year(found["y1"] or found["y2"]), int(found["d1"] or found["d2"])
        month = 1 + MONTHS.index((found["name"] or found["name2"])[:3].lower())
    else:
        at = {letter: found[group] for letter, group in zip(order, "abc", strict=True)}
        year, month, day = _year(at["y"]), int(at["m"]), int(at["d"])
    return float(datetime.date(year, month, day).toordinal() - EPOCH)


def order_shown(found: re.Match[str]) -> str:
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
