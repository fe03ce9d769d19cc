"""What to do with columns and categories that a table to predict lacks, or has beyond those of the training table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError, DataError, did_you_mean, shown
from .cells import listed
from .table import Schema

CHOICES = {
    "missing": ("mean", "median", "indicator"),
    "unknown": ("error", "ignore", "missing"),
    "missing_columns": ("error", "fill"),
    "extra_columns": ("ignore", "error"),
}


def check_choice(setting: str, value: str) -> str:
    """The value, which a setting of ``CHOICES`` may have; else ConfigError."""
    choices = CHOICES[setting]
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise ConfigError(f"{setting}: {value!r}{hint} is not one of {', '.join(choices)}")
    return value


def columns_to_read(found: Iterable[str], like: Schema, source: str, also: Sequence[str] = ()) -> list[str]:
    """Which of the training table's columns a table with the columns ``found`` has.

    ``also``: columns that are no surprise there, beside those that the training file had.

    Raises
    ------
    DataError
        Names a column that is missing, or one too many, where the policy of ``like`` calls it an error.
    """
    there = dict.fromkeys(found)
    for name in like.columns if like.missing_columns == "error" else ():
        if name not in there:
            hint = did_you_mean(name, there)
            problem = f"{source} lacks the column {shown(name)}, which the training data had{hint}"
            raise DataError(
                f"{problem}; add it, or set missing_columns: fill to take its cells as missing"
            ).with_option("missing_columns", "fill")
    expected = {*like.columns, *like.target_names, *like.others, *also}
    extra = [name for name in there if name not in expected]
    if extra and like.extra_columns == "error":
        raise DataError(
            f"{source} has columns that the training data did not have: {listed(extra)}; leave them out, or set"
            " extra_columns: ignore"
        ).with_option("extra_columns", "ignore")
    kept = [name for name in like.columns if name in there]
    if not kept:
        raise DataError(f"{source} has none of the training data's columns, which are {listed(like.columns)}")
    return kept
