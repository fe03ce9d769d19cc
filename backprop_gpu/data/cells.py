"""What a cell of text means: missing, a number, or text."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import shown

MISSING = frozenset(
    {"", "na", "n/a", "#n/a", "#na", "<na>", "n.a.", "nan", "nat", "null", "none", "nil", "?", "-", "--"}
    | {"#value!", "#ref!", "#div/0!", "#num!", "#name?", "#null!"}  # Excel's errors
)
"""Cells that count as missing, after stripping blanks and in any case."""


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, NA, #N/A, NaN, null, None, a dash or ?."""
    return cell.lower() in MISSING


def number(cell: str) -> float:
    """The cell as a float, NaN if it is missing; ValueError if it is text (as is 1_000, which ``float`` would take)."""
    try:
        if "_" not in cell:
            return float(cell)
    except ValueError:
        if is_missing(cell):
            return float("nan")
    raise ValueError(cell)


def is_number(cell: str) -> bool:
    """Whether the cell is a number and not missing."""
    try:
        value = number(cell)
    except ValueError:
        return False
    return value == value


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names for an error message that stays on one line."""
    return ", ".join(shown(name, 60, quoted=False) for name in names[:most]) + (
        f", ... ({len(names)} in all)" if len(names) > most else ""
    )
