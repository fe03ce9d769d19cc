"""Where within an epoch callbacks are called, between two steps."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._typing import Program
from ..errors import ConfigError
from .callbacks import Callback
from .early_stopping import whole

if TYPE_CHECKING:
    from .loop import FitState


@dataclass(frozen=True)
class Pauses:
    """Whom to call between two steps of an epoch: after a tenth of a second of them, or ``every`` so many (0: any)."""

    call: Callable[[], None] | None = None
    every: int = 0

    def until(self, t: int) -> int:
        """The most steps from optimizer step ``t`` to the next pause."""
        return self.every - t % self.every if self.every else sys.maxsize


NO_PAUSES = Pauses()


def pauses_of(fits: Sequence[FitState]) -> Pauses:
    """Where within an epoch those callbacks are called that define ``on_steps``."""
    default, asking, every = Callback.on_steps, list[Callable[[], None]](), list[int]()
    for fit in fits:
        callbacks = [c for c in fit.callbacks if getattr(type(c), "on_steps", default) is not default]
        for c in callbacks:
            if not whole(c.every, 0):
                raise ConfigError(f"{type(c).__name__}.every must be a whole number of steps from 0, got {c.every!r}")
        every += [c.every for c in callbacks]
        if callbacks:
            asking.append(functools.partial(_call_on_steps, fit, callbacks))
    return Pauses(sequence(asking), math.gcd(*every)) if asking else NO_PAUSES


def _call_on_steps(fit: FitState, callbacks: Sequence[Callback]) -> None:
    fit.call(callbacks, lambda c: c.on_steps(fit.step.t))


def sequence(programs: Sequence[Program]) -> Program:
    """One program of several."""
    if len(programs) == 1:
        return programs[0]

    def program() -> None:
        for each in programs:
            each()

    return program
