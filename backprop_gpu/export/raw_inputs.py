"""How the raw columns of a table become inputs, as plain data: of a ``Model`` and of ``preset="tabular"`` alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.date_text import PARTS
from ..data.dates import DateForm
from ..data.forms import Form
from ..data.frame_columns import FrameColumns
from ..data.preprocessing import Preprocessor
from ..data.readings import dates_of
from ..data.tabular_inputs import CLIP, TabularInputs

ITSELF = -1  # in ``numbers``: the column's own value, and no part of a date


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Parameters
    ----------
    name : str
    kind : str
        number, category, or of dates: date, datetime, time.
    form : Form or None
        How its cells are written, where they are texts that become numbers.
    categories : tuple of str
        Those that training saw; an empty text stands for missing.
    """

    name: str
    kind: str
    form: Form | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawInputs:
    """Inputs are, in this order: scaled numbers, 0/1 where one is missing, bins of numbers, categories one-hot.

    Parameters
    ----------
    columns : tuple of Column
        In the table's order.
    named : bool
        Whether rows come as columns with names; else as one array (n, n_columns).
    numbers : tuple of (str, int)
        What each number is: a column, and ``ITSELF`` or the index of a part in ``PARTS``.
    fill : ndarray, shape (n_numbers,), or None
        What stands in for a missing number; None: it is an error.
    centre, spread : ndarray, shape (n_numbers,)
        z = (x - centre) / spread.
    clip : float or None
        The input is z / sqrt(1 + (z / clip)^2), or z.
    marked : tuple of int
        Numbers whose gaps are marked.
    edges : tuple of ndarray
        Of the bins of the first numbers (``data.piecewise_linear``); empty for one without.
    unknown : str
        What becomes of a category that training did not see: error, ignore or missing (see ``Preprocessor``).
    """

    columns: tuple[Column, ...]
    named: bool
    numbers: tuple[tuple[str, int], ...]
    fill: np.ndarray | None
    centre: np.ndarray
    spread: np.ndarray
    clip: float | None
    marked: tuple[int, ...]
    edges: tuple[np.ndarray, ...]
    unknown: str


def of_preprocessor(p: Preprocessor) -> RawInputs:
    """Those of a model of a table."""
    forms = {reading.name: reading.form for reading in p.readings if reading.role == "feature"}
    dates = dates_of(p.readings)

    def column(name: str) -> Column:
        if name in p.categories:
            return Column(name, "category", categories=p.categories[name])
        return Column(name, dates[name].parts if name in dates else "number", forms.get(name))

    columns = tuple(map(column, p.columns))
    marked = tuple(j for j, name in enumerate(p.numeric) if name in p.indicators)
    clip, edges = CLIP if p.robust else None, p.bins.edges
    return RawInputs(columns, True, _numbers(columns), p.fill, p.mean, p.scale, clip, marked, edges, p.unknown)


def of_preset(inputs: TabularInputs, frame: FrameColumns | None) -> RawInputs:
    """Those of an estimator with ``preset="tabular"``, which was fitted to a data frame or to an array."""
    if frame is None:
        columns = tuple(Column(f"x{j}", kind) for j, kind in enumerate(inputs.kinds))
    else:
        known = zip(frame.names, frame.kinds, frame.categories, strict=True)
        columns = tuple(
            Column(name, kind, DateForm("ymd", kind, None) if kind in PARTS else None, categories)
            for name, kind, categories in known
        )
    scale, marked = inputs.scale, tuple(np.flatnonzero(inputs.gaps).tolist())
    numbers, edges = _numbers(columns), inputs.bins.edges
    return RawInputs(
        columns, frame is not None, numbers, scale.centre, scale.centre, scale.spread, CLIP, marked, edges, "ignore"
    )


def _numbers(columns: tuple[Column, ...]) -> tuple[tuple[str, int], ...]:
    """All columns that are no categories, and behind them the parts of each date."""
    own = tuple((column.name, ITSELF) for column in columns if column.kind != "category")
    dates = (column for column in columns if column.kind in PARTS)
    return (*own, *((column.name, part) for column in dates for part in range(len(PARTS[column.kind]))))
