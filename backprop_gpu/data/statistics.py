"""Means, medians and scales of columns, in float64, by blocks of rows.

The data are shifted and corrected as in the two-pass algorithm (Chan, Golub and LeVeque, "Algorithms for computing the
sample variance", The American Statistician 37(3), 1983), so that 1e9 plus noise is standardised by the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .column_checks import leave_out
from .date_text import BINNED, PARTS, expand
from .piecewise_linear import NO_BINS, PiecewiseLinear
from .table import Table
from .tabular_inputs import RobustScale


class Survey(NamedTuple):
    """Statistics of the first pass over the numeric columns, each an array (n_numeric,)."""

    gaps: np.ndarray  # how many values are missing
    mean: np.ndarray  # of the others
    span: np.ndarray  # largest distance of a value from the first one: 0 for a constant column


def survey(table: Table) -> Survey:
    """First pass. Raises DataError at an infinite value and for a column without any value."""
    n_numeric = len(table.numeric_names)
    first = np.full(n_numeric, np.nan)
    count = np.zeros(n_numeric, dtype=np.int64)
    total, span = np.zeros(n_numeric), np.zeros(n_numeric)
    with np.errstate(over="ignore", invalid="ignore"):  # a column that overflows is reported by mean_and_scale
        for part, block in table.blocks():
            if np.any(infinite := np.isinf(block)):
                i, j = np.argwhere(infinite)[0]
                name = table.numeric_names[j]
                raise DataError(f"{table.where(part.start + i)}, column {name!r}: the value is infinite; correct it")
            seen = ~np.isnan(block)
            first = np.where(np.isnan(first), block[np.argmax(seen, axis=0), np.arange(n_numeric)], first)
            distance = np.where(seen, block - first, 0.0)
            total += distance.sum(axis=0)
            span = np.maximum(span, np.abs(distance).max(axis=0))
            count += seen.sum(axis=0)
    if not np.all(count):
        name = table.numeric_names[int(np.argmin(count))]
        raise DataError(
            f"{table.source}: column {name!r} has no value in any training row; {leave_out(name, table.ignored)}"
        )
    return Survey(table.n_samples - count, first + total / count, span)


def scaling(table: Table, found: Survey, missing: str | None, standardize: bool | str) -> tuple[np.ndarray, ...]:
    """What fills gaps, and mean and scale of each number; see ``Preprocessor.fit``."""
    fill = medians(table) if missing == "median" else found.mean
    if standardize == "robust":
        centre, spread = robust_scale(table)
        return fill if missing == "mean" else centre, centre, spread
    if standardize:
        return fill, *mean_and_scale(table, found, fill)
    return fill, np.zeros_like(fill), np.ones_like(fill)


def medians(table: Table) -> np.ndarray:
    """The median of each numeric column, missing values left out, (n_numeric,); holds one column at a time."""
    return np.array([np.nanmedian(column) for column in _columns(table)])


def robust_scale(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Median and distance of the quartiles of each numeric column (``RobustScale``); holds one column at a time."""
    with np.errstate(over="ignore"):
        found = [RobustScale.fit(column[:, None]) for column in _columns(table)]
    centre, spread = (np.array([getattr(one, name)[0] for one in found]) for name in ("centre", "spread"))
    _check_usable(table, np.isfinite(centre) & np.isfinite(spread))
    return centre, spread


def bins(table: Table, most: int) -> PiecewiseLinear:
    """The piecewise-linear encoding of the numbers, and of the hours of times; holds one column at a time."""
    if not most:
        return NO_BINS
    parts = [name for form in table.dates.values() for name in PARTS[form.parts]]
    binned = [True] * table.stored.shape[1] + [name in BINNED for name in parts]
    columns = zip(_columns(table), binned, strict=True)
    edges = (PiecewiseLinear.fit(column[:, None], most if wanted else 0).edges[0] for column, wanted in columns)
    return PiecewiseLinear(tuple(edges))


def _check_usable(table: Table, usable: np.ndarray) -> None:
    if not np.all(usable):
        name = table.numeric_names[int(np.argmin(usable))]
        raise DataError(f"{table.source}: column {name!r} is too large or too small to standardize; change its unit")


def _columns(table: Table) -> Iterator[np.ndarray]:
    """The columns of ``Table.blocks``, (n_samples,) each."""

    def stored(j: int) -> np.ndarray:
        column = table.stored[:, j]
        return (column if table.rows is None else column[table.rows]).astype(np.float64)

    yield from map(stored, range(table.stored.shape[1]))
    for j, form in table.dates.items():
        yield from expand(stored(j), form.parts).T


def mean_and_scale(table: Table, found: Survey, fill: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second pass: mean and standard deviation (divisor n) after missing values became ``fill``; scale 1 if constant.

    Deviations are divided by the span before they are squared, so that neither tiny nor huge units lose the variance.
    """
    n = table.n_samples
    # a few units in the last place are rounding, not information, and would be amplified to the size of 1
    varies = found.span > 8 * np.finfo(np.float64).eps * np.abs(found.mean)
    unit = np.where(varies, found.span, 1.0)
    s1, s2 = np.zeros_like(unit), np.zeros_like(unit)
    with np.errstate(over="ignore", invalid="ignore"):
        for _, block in table.blocks():
            deviation = (np.where(np.isnan(block), fill, block) - found.mean) / unit
            s1 += deviation.sum(axis=0)
            s2 += (deviation * deviation).sum(axis=0)
        mean = found.mean + unit * (s1 / n)
        scale = np.where(varies, unit * np.sqrt((s2 - s1 * s1 / n) / n), 1.0)
    _check_usable(table, np.isfinite(mean) & np.isfinite(scale) & (scale > 0.0))
    return mean, scale
