"""What ``diagnose`` returns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .._notebook import html_table
from .mistakes import Mistake


@dataclass(frozen=True)
class TensorRatio:
    """One gradient beside the right one.

    Attributes
    ----------
    name : str
        ``"dW1"``
    ratio : float or None
        Yours divided by the right one, where that is one number everywhere.
    error : float
        The largest difference, relative to the largest right entry.
    ok : bool
    """

    name: str
    ratio: float | None
    error: float
    ok: bool


@dataclass(frozen=True)
class Diagnosis:
    """``ok``; the ``mistakes``, the likeliest first; and the ratio of each tensor, from the last layer to the first."""

    tensors: tuple[TensorRatio, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def ok(self) -> bool:
        """Whether the gradient is right."""
        return all(t.ok for t in self.tensors)

    @property
    def first(self) -> Mistake | None:
        """The likeliest mistake."""
        return self.mistakes[0] if self.mistakes else None

    def summary(self) -> str:
        """The answer in lines of text."""
        if self.ok:
            return "The gradient is right."
        lines = []
        for mistake in self.mistakes:
            every = len(mistake.tensors) == len(self.tensors) > 2
            lines.append(f"{'every gradient' if every else ', '.join(mistake.tensors)}: {mistake.words}")
            lines += [f"  meant: {mistake.formula}"] * bool(mistake.formula)
            lines += [f"  the same with these numbers: {words}" for words in mistake.also]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them: an error that is no finite number is None."""
        tensors = [asdict(t) | {"error": t.error if math.isfinite(t.error) else None} for t in self.tensors]
        return {
            "ok": self.ok,
            "mistakes": [asdict(m) for m in self.mistakes],
            "tensors": tensors,
        }

    def __repr__(self) -> str:
        return f"<Diagnosis: {self.summary().splitlines()[0]}>"

    def _repr_html_(self) -> str:
        rows = ((t.name, "right" if t.ok else "wrong", t.ratio, t.error) for t in self.tensors)
        return html_table(self.summary(), ("gradient", "", "yours / right", "relative error"), rows)
