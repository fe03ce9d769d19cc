"""What a comparison found: one line per tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One tensor of one operation, compared with its reference.

    Attributes
    ----------
    operation : str
        The kernel or probe: ``"dense"``, ``"output_delta"``, ``"probe one-hot"``, ...
    tensor : str
        What was checked: ``"A1"``, ``"dW2"``, ``"theta"``, ...
    shape : tuple of int
    k : int
        Terms in its longest sum; 1 for elementwise operations.
    ratio : float
        ``max |device - reference| / bound``: at most 1 if the device computed what it should. Infinite where an exact
        operation differs in any bit, or where NaN and infinities differ.
    rms : float or None
        Root mean square of the difference over what random rounding would give; above 1 warns. None: not checked.
    worst : tuple of int or None
        Index of the largest ratio, with ``got`` and ``want`` there.
    cause : str
        The likely kind of fault, with the number that gave it away; empty where there is none.
    """

    operation: str
    tensor: str
    shape: tuple[int, ...]
    k: int
    ratio: float
    rms: float | None = None
    worst: tuple[int, ...] | None = None
    got: float = 0.0
    want: float = 0.0
    status: Status = "ok"
    cause: str = ""

    @property
    def verdict(self) -> Status:
        """``status``, by its earlier name."""
        return self.status

    @property
    def distance(self) -> str:
        """How far off it is, in words."""
        if math.isfinite(self.ratio):
            return f"{self.ratio:.3g} of the bound"
        return "where no difference is allowed" if math.isfinite(self.got) else "not finite"
