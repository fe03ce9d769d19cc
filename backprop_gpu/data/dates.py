"""Dates and times in text: which form a column's have, the days since 1970 that they are, and what a network is given.

A date becomes the days since 1970, its year, and its month, weekday and hour on a circle (sine and cosine), so that
December lies beside January.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .date_text import CLOCK, DATE, EPOCH, PARTS, days_of_text, order_shown
from .number_forms import AmbiguousError, MixedError

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


@dataclass(frozen=True)
class DateForm:
    """How a column writes its dates.

    Parameters
    ----------
    order : str
        ``ymd``, ``dmy``, ``mdy``, ``ym``, ``name`` (of the month), ``compact`` (20240131) or ``time`` (of day).
    parts : str
        ``date``, ``datetime`` or ``time``: which of ``PARTS`` it has.
    zoned : bool or None
        Whether the times name their zones; they are read in UTC. None: each as it likes.
    """

    order: str
    parts: str
    zoned: bool | None = False

    kind = "date"

    def parse(self, text: str) -> float:
        """Days since 1970 (of a time: the part of the day). Raises ValueError for what is no date of this form."""
        return days_of_text(text, self.order, self.parts, self.zoned)

    def said(self) -> str:
        """The form in words."""
        return ORDERS[self.order] + (" in UTC" if self.zoned else "")


def is_date(text: str) -> bool:
    """Whether a text looks like a date, or a time of day."""
    return bool(DATE.fullmatch(text) or CLOCK.fullmatch(text))


def order_of(text: str) -> str:
    """What a text shows of the order of its date: ymd, dmy, mdy, ?, ...; empty if it is none."""
    found = DATE.fullmatch(text)
    return order_shown(found) if found else ""


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
        found = DATE.fullmatch(text)
        orders.setdefault(order_shown(found) if found else "time", text)
        clock = found if found is not None else CLOCK.fullmatch(text)
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
        return moment.toordinal() - EPOCH + days_of_value(moment.time())
    return float(moment.toordinal() - EPOCH)


def part_names(name: str, parts: str) -> list[str]:
    """The names of what a date column gives beside its days."""
    return [f"{name} ({part})" for part in PARTS[parts]]
