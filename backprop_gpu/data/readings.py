"""How each column of a table was read, in a form that is shown, written to the run folder and kept in the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .dates import DateForm, part_names
from .forms import Form, from_state, to_state


@dataclass(frozen=True)
class Reading:
    """How one column was read.

    Parameters
    ----------
    name : str
    role : str
        ``feature`` or ``target``.
    kind : str
        number, boolean, date, category or text code.
    how : str
        Why, or in which form: ``decimal comma``, ``day first``, ...; empty where it needs no words.
    note : str
        What may not be meant; empty if nothing.
    form : Form or None
        How its cells become numbers; None: they are categories, or numbers already.
    """

    name: str
    role: str
    kind: str
    how: str = ""
    note: str = ""
    form: Form | None = None

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = {key: value for key, value in vars(self).items() if key != "form" and (value or key == "name")}
        return plain if self.form is None else plain | {"form": to_state(self.form)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reading:
        """Undo :meth:`state`. Raises ValueError, TypeError or KeyError for what it cannot have made."""
        form = state.get("form")
        made = cls(**{**state, "form": None if form is None else from_state(form)})
        if not all(isinstance(getattr(made, key), str) for key in ("name", "role", "kind", "how", "note")):
            raise ValueError("the reading of a column is not text")
        return made


def dates_of(readings: Iterable[Reading]) -> dict[str, DateForm]:
    """The features that are dates."""
    return {r.name: r.form for r in readings if isinstance(r.form, DateForm) and r.role == "feature"}


def with_parts(stored: Sequence[str], readings: Iterable[Reading]) -> tuple[str, ...]:
    """Names of numeric columns, with those of what each date among them is besides its day behind them all."""
    dates = dates_of(readings)
    return (*stored, *(part for name in stored if name in dates for part in part_names(name, dates[name].parts)))
