"""The derivative of a cost along a direction, with an error that can be trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

COMPLEX_STEP = 1e-30
HALVINGS = 16  # of the step at least, and
MOST_HALVINGS = 64  # at most, as long as rounding leaves something to be gained
WITNESS = 1e-3  # differences that are not known to this part of themselves vouch for nothing
EPS = float(np.finfo(float).eps)


class Slope(NamedTuple):
    """dJ/dt and how far it may be off: NaN and infinity where nothing can be told."""

    value: float
    error: float


UNKNOWN = Slope(math.nan, math.inf)


def slope(cost: Callable[[Any], Any], scale: float, size: float) -> Slope:
    """d/dt cost(t) at 0.

    Parameters
    ----------
    cost : callable
        Of a real t; if it takes i h as well and returns a complex number, the complex step sharpens the result. Where
        it raises or is not finite, it is taken to be undefined, and smaller steps decide.
    scale : float
        The largest t that is tried.
    size : float
        The size of the numbers whose rounding is in J: |J|, or that of what J is the difference of.
    """
    found = central(cost, scale, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sharp = complex(cost(1j * COMPLEX_STEP)).imag / COMPLEX_STEP
    except Exception:  # a cost of real numbers may do anything with a complex one
        return found
    # A cost that drops imaginary parts, or is not analytic, returns something else: the differences are the witness.
    if sharp != 0.0 and abs(sharp - found.value) <= 4.0 * found.error <= WITNESS * abs(sharp):
        return Slope(sharp, min(found.error, 1e-13 * abs(sharp)))
    return found


def central(cost: Callable[[float], Any], scale: float, size: float) -> Slope:
    """Central differences over halved steps, extrapolated (Ridders 1982): the entry with the smallest error is taken.

    The error of an entry is how far it is from its two parents, and what the noise of J makes of the step. A step that
    crosses a kink disagrees with its halves, so that a smaller one wins; where it agrees with its parents by chance,
    smaller steps, which do not cross it, bear witness. A kink at 0 itself is noise at every step. Steps are halved
    until rounding alone makes a smaller one worse; those that leave the cost's domain, and larger ones, say nothing.
    """
    here = _value(cost, 0.0)
    if not math.isfinite(here):
        return UNKNOWN
    table = _Table(here, size)
    for i in range(MOST_HALVINGS):
        h = scale / 2.0**i
        if table.rows >= HALVINGS and 2.0 * EPS * table.size / h > (best := table.best()).error:
            return best
        table.add(h, _value(cost, h), _value(cost, -h))
    return table.best()


def _value(cost: Callable[[float], Any], t: float) -> float:
    """cost(t), NaN where it has none."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return float(cost(t))
    except Exception:  # what is outside a function's domain may raise anything
        if t == 0.0:
            raise
        return math.nan


class _Table:
    """J ahead and behind by halved steps, and the extrapolated differences."""

    def __init__(self, here: float, size: float) -> None:
        self.here, self.size = here, max(size, abs(here))
        self.steps: list[float] = []
        self.ahead: list[float] = []
        self.behind: list[float] = []

    @property
    def rows(self) -> int:
        """Steps that are within the cost's domain, as all smaller ones are."""
        return len(self.steps)

    def add(self, h: float, ahead: float, behind: float) -> None:
        """The next step; one outside the domain takes the larger ones with it."""
        if not (math.isfinite(ahead) and math.isfinite(behind)):
            self.steps, self.ahead, self.behind = [], [], []
            return
        self.steps.append(h)
        self.ahead.append(ahead)
        self.behind.append(behind)

    def best(self) -> Slope:
        """The entry with the smallest error."""
        steps, ahead, behind = map(np.array, (self.steps, self.ahead, self.behind))
        # Steps that a cost of lower precision does not notice say nothing.
        seen = int(np.max(np.nonzero((ahead != self.here) | (behind != self.here))[0], initial=-1)) + 1
        if seen == 0:
            return Slope(0.0, 2.0 * EPS * self.size / steps[0]) if self.rows else UNKNOWN
        bends = ahead - 2.0 * self.here + behind
        top = max(float(np.max(np.abs(ahead))), float(np.max(np.abs(behind))), self.size)
        noise = _noise(bends[:seen]) + 2.0 * EPS * top
        found: list[Slope] = []
        row: list[float] = []
        for i in range(seen):
            best = UNKNOWN
            previous, row = row, [float(ahead[i] - behind[i]) / (2.0 * steps[i])]
            for j, old in enumerate(previous):
                row.append(row[j] + (row[j] - old) / (4.0 ** (j + 1) - 1.0))
                error = max(abs(row[-1] - row[j]), abs(row[-1] - old)) + float(noise[i] / steps[i])
                if error < best.error:
                    best = Slope(row[-1], error)
            found.append(best)
        return min(_witnessed(found[1:]), key=lambda s: s.error, default=UNKNOWN)


def _witnessed(found: list[Slope]) -> Iterator[Slope]:
    """Each step's best entry, its error no less than a smaller step's contradicts it."""
    for i, (value, error) in enumerate(found):
        yield Slope(value, max([error, *(abs(value - s.value) - s.error for s in found[i + 1 :])]))


def _noise(bends: np.ndarray) -> np.ndarray:
    """Of each step: how far J is from smooth there or at a smaller one; J(h) - 2 J(0) + J(-h) is h^2 J'' if it is."""
    rough = np.abs(bends[:-1] - 4.0 * bends[1:]) if len(bends) > 1 else np.abs(bends)
    rough = np.append(rough, rough[-1])[: len(bends)]
    return np.maximum.accumulate(rough[::-1])[::-1]
