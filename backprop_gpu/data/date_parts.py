"""The parts of dates that a network is given: the year, and month, weekday and hour on a circle (sine and cosine)."""

from __future__ import annotations

import numpy as np

PARTS = {
    "date": ("year", "month sin", "month cos", "weekday sin", "weekday cos"),
    "datetime": ("year", "month sin", "month cos", "weekday sin", "weekday cos", "hour sin", "hour cos"),
    "time": ("hour sin", "hour cos"),
}
"""What a date gives beside the days since 1970 (a time: the part of the day)."""


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
