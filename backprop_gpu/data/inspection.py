"""What a table holds, column by column, before anything is trained: for a first configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .readings import Reading
from .table import Table
from .targets import infer_task

_FEW = 10  # rows below this say nothing of identifiers
_SAME = 0.999999  # a correlation with the target above this is the target itself
_ROWS_OF_A_VALUE = 5  # on average, where a column's values are said to determine the classes


@dataclass(frozen=True)
class Column:
    """A feature.

    Parameters
    ----------
    name, kind, how : str
        As it was read (``Reading``).
    gaps, different : int
        Missing cells, and different values among the others.
    leave_out : str
        Why it tells nothing; empty if it may tell something.
    warning : str
        What may be wrong with it; empty if nothing.
    in_order : bool
        Whether it holds times that the rows follow.
    """

    name: str
    kind: str
    how: str
    gaps: int
    different: int
    leave_out: str = ""
    warning: str = ""
    in_order: bool = False


@dataclass(frozen=True)
class Inspection:
    """A table with a target.

    Parameters
    ----------
    source : str
    rows : int
    columns : tuple of Column
    targets : tuple of str
    task, why_task : str
        What the target suggests, and why (``targets.infer_task``).
    classes : dict of str to int
        Rows of each class; empty for values.
    """

    source: str
    rows: int
    columns: tuple[Column, ...]
    targets: tuple[str, ...]
    task: str
    why_task: str
    classes: dict[str, int]

    @property
    def gaps(self) -> list[str]:
        """Columns with missing cells, of those that are kept."""
        return [column.name for column in self.columns if column.gaps and not column.leave_out]


def inspect(table: Table) -> Inspection:
    """Look at every column of a table that has a target; DataError if it has none."""
    task, why = infer_task(table)
    target = np.asarray(table.target)
    labels = target.reshape(len(target), -1)[:, 0] if task in ("binary", "multiclass") else None
    values, counts = (np.empty(0), np.empty(0)) if labels is None else np.unique(labels, return_counts=True)
    names = table.class_names or tuple(map(str, values.tolist()))
    said = {reading.name: reading for reading in table.readings if reading.role == "feature"}
    there, at = set(table.columns), {name: j for j, name in enumerate(table.numeric_names)}
    readings = [said.get(name) or Reading(name, "feature", "number") for name in said or table.columns if name in there]
    columns = tuple(_column(table, reading, at.get(reading.name), labels) for reading in readings)
    classes = dict(zip(names, map(int, counts), strict=False))
    return Inspection(table.source, table.n_samples, columns, table.target_names, task, why, classes)


def _column(table: Table, reading: Reading, at: int | None, labels: np.ndarray | None) -> Column:
    """``at``: where it is among the numeric columns; None for a column of texts."""
    name = reading.name
    if at is None:
        cells = np.asarray(table.categorical[name])
        missing = cells == ""
    else:
        cells = np.asarray(table.numeric[:, at], np.float64)
        missing = np.isnan(cells)
    found, codes = np.unique(cells[~missing], return_inverse=True)
    leave_out, warning = _useless(reading, len(found), int(np.sum(~missing))), ""
    if not leave_out and _determines(table, cells, missing, codes, len(found), labels):
        warning = "goes with the target without exception: is it known before the target is?"
    times = reading.kind == "date" and len(found) >= _FEW and not missing.any()
    in_order = times and bool(np.all(np.diff(cells) >= 0.0))
    return Column(name, reading.kind, reading.how, int(missing.sum()), len(found), leave_out, warning, in_order)


def _useless(reading: Reading, different: int, n: int) -> str:
    """Why a column tells nothing of new rows; empty if it may."""
    if n == 0:
        return "every cell is missing"
    if different == 1:
        return "every cell is the same"
    if different == n >= _FEW and ("identifier" in reading.note or "numbers the rows" in reading.note):
        return f"an identifier: {different} different values in {n} rows"
    return ""


def _determines(
    table: Table, cells: np.ndarray, missing: np.ndarray, codes: np.ndarray, different: int, labels: np.ndarray | None
) -> bool:
    """Whether the column gives the target away."""
    target = np.asarray(table.target)
    if labels is None:
        if cells.dtype.kind != "f" or target.ndim != 1 or target.dtype.kind not in "biuf" or different < _FEW:
            return False
        pair = np.stack([cells[~missing], target[~missing].astype(np.float64)])
        return bool(np.ptp(pair[1]) > 0 and abs(np.corrcoef(pair)[0, 1]) > _SAME)
    kept = labels[~missing]
    if different * _ROWS_OF_A_VALUE > len(kept) or missing.any():
        return False
    classes = np.unique(kept, return_inverse=True)[1]
    return len(np.unique(codes * (classes.max() + 1) + classes)) == different  # each value goes with one class
