"""How the cells of a column are written, where they become numbers: as numbers, dates, or words for yes and no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .date_text import PARTS
from .dates import ORDERS, DateForm
from .number_forms import THOUSANDS, NumberForm

TRUE = frozenset({"yes", "y", "true", "t", "on", "1", "1.0", "ja", "oui", "wahr", "vrai"})
FALSE = frozenset({"no", "n", "false", "f", "off", "0", "0.0", "nein", "non", "falsch", "faux"})


@dataclass(frozen=True)
class BooleanForm:
    """Words for yes and no, in any case: 1 and 0."""

    kind = "boolean"

    def parse(self, text: str) -> float:
        """1.0 or 0.0. Raises ValueError for another word."""
        word = text.lower()
        if word in TRUE:
            return 1.0
        if word in FALSE:
            return 0.0
        raise ValueError(text)

    def said(self) -> str:
        """The form in words."""
        return "yes is 1, no is 0"


Form = NumberForm | DateForm | BooleanForm
_KINDS: dict[str, type[Any]] = {"number": NumberForm, "date": DateForm, "boolean": BooleanForm}


def to_state(form: Form) -> dict[str, Any]:
    """A form as JSON has it."""
    return {"kind": form.kind, **asdict(form)}


def from_state(state: Mapping[str, Any]) -> Form:
    """Undo :func:`to_state`. Raises ValueError for what it cannot have made."""
    made: Form = _KINDS[state["kind"]](**{key: value for key, value in state.items() if key != "kind"})
    if isinstance(made, NumberForm):
        fits = made.decimal in (".", ",") and made.thousands in ("", *THOUSANDS) and isinstance(made.unit, str)
    elif isinstance(made, DateForm):
        fits = made.order in ORDERS and made.parts in PARTS and isinstance(made.zoned, bool | None)
    else:
        fits = True
    if not fits:
        raise ValueError(f"a column's form is {state}")
    return made
