"""A preprocessor of the statistics that one pass over a streamed table finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import ConfigError, DataError
from .policies import check_choice
from .preprocessing import Preprocessor
from .streamed_table import MOST_LABELS, StreamedTable
from .table import Table
from .targets import TargetCodec, infer_task

_ROWS_OF_A_LABEL = 5  # with which few whole numbers are taken for classes (targets.infer_task)


def inferred_task(table: StreamedTable, labels: str | None) -> tuple[str, str]:
    """See ``targets.infer_task``."""
    return infer_task(_representative(table), labels)


def fit_preprocessor(
    table: StreamedTable,
    *,
    task: str,
    standardize: bool = True,
    missing: str | None = None,
    standardize_target: bool = False,
    positive: str | int | None = None,
    unknown: str = "error",
    missing_columns: str = "error",
    extra_columns: str = "ignore",
) -> Preprocessor:
    """What ``Preprocessor.fit`` learns, of numbers that are not in memory; its arguments and errors.

    ``missing: median`` is refused, since a median takes all values at once.
    """
    policies = {"unknown": unknown, "missing_columns": missing_columns, "extra_columns": extra_columns}
    for setting, value in (*policies.items(), *([("missing", missing)] if missing is not None else [])):
        check_choice(setting, value)
    if missing == "median":
        raise ConfigError("missing: median needs all rows in memory; set missing to mean or indicator")
    found, columns = table.survey.inputs, table.like.columns
    if missing is None and table.survey.gap is not None:
        row, column = table.survey.gap
        raise DataError(
            f"{table.source}, row {row}, column {columns[column]!r}: the value is missing;"
            " fill it in, or set missing: mean | indicator for training"
        ).with_option("missing", "indicator")
    mean, scale = np.zeros_like(found.mean), np.ones_like(found.mean)
    if standardize:
        mean, scale = _standard(table, found.mean, found.m2, found.low, found.high, table.n_samples, columns)
    gaps = found.count < table.n_samples
    return Preprocessor(
        columns=columns,
        numeric=columns,
        categories={},
        indicators=tuple(name for name, gap in zip(columns, gaps, strict=True) if gap and missing == "indicator"),
        fill=None if missing is None else found.mean,
        mean=mean,
        scale=scale,
        named=table.like.named,
        target=_codec(table, task, standardize_target, positive),
        unknown=unknown,
        missing_columns=missing_columns,
        extra_columns=extra_columns,
    )


def _codec(table: StreamedTable, task: str, standardize: bool, positive: str | int | None) -> TargetCodec:
    """See ``TargetCodec.fit``."""
    if task in ("binary", "multiclass") and len(table.survey.labels) > MOST_LABELS:
        raise DataError(
            f"{table.source}: the target has more than {MOST_LABELS:,} different values, which are no classes;"
            " set data.task: regression"
        ).with_option("task", "regression")
    codec = TargetCodec.fit(_representative(table), task, False, positive)
    if not standardize:
        return codec
    if task != "regression":
        raise ConfigError(f"standardize_target is for regression; the task is {task}")
    y = table.survey.targets
    mean, scale = _standard(table, y.mean, y.m2, y.low, y.high, table.n_samples, codec.names)
    return replace(codec, mean=mean, scale=scale)


def _representative(table: StreamedTable) -> Table:
    """A table in memory that has the targets' different values, often enough to be taken for classes if they are."""
    labels = table.survey.labels
    often = _ROWS_OF_A_LABEL if table.n_samples >= _ROWS_OF_A_LABEL * len(labels) else 1
    target = np.repeat(labels if labels.ndim > 1 else table.named(labels), often, axis=0)
    return replace(table.like, stored=np.zeros((len(target), len(table.like.columns))), target=target)


def _standard(
    table: StreamedTable,
    mean: np.ndarray,
    m2: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    n: int,
    names: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (divisor n: a gap that is filled with the mean counts); 1 for a constant column."""
    with np.errstate(over="ignore", invalid="ignore"):
        span = high - low
        # a few units in the last place are rounding, not information, and would be amplified to the size of 1
        varies = span > 8 * np.finfo(np.float64).eps * np.abs(mean)
        scale = np.where(varies, np.sqrt(m2 / n), 1.0)
    if not np.all(usable := np.isfinite(mean) & np.isfinite(scale) & (scale > 0.0)):
        name = names[int(np.argmin(usable))]
        raise DataError(f"{table.source}: column {name!r} is too large or too small to standardize; change its unit")
    return mean, scale
