"""The derivative of a cost along a direction, with an error that can be trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

COMPLEX_STEP = 1e-30
HALVINGS = 16
WITNESS = 1e-3  # differences that are not known to this part of themselves vouch for nothing
EPS = float(np.finfo(float).eps)


class Slope(NamedTuple):
    """dJ/dt and how far it may be off."""

    value: float
    error: float


def slope(cost: Callable[[Any], Any], scale: float, size: float) -> Slope:
    """d/dt cost(t) at 0.

    Parameters
    ----------
    cost : callable
        Of a real t; if it takes i h as well and returns a complex number, the complex step sharpens the result.
    scale : float
        The largest t that is tried.
    size : float
        The size of the numbers whose rounding is in J: |J|, or that of what J is the difference of.
    """
    found = _central(cost, scale, size)
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


def _central(cost: Callable[[Any], Any], scale: float, size: float) -> Slope:
    """Central differences over halved steps, extrapolated (Ridders 1982): the entry with the smallest error is taken.

    The error of an entry is how far it is from its two parents, and what the noise of J makes of the step. A step that
    crosses a kink disagrees with its halves, so that a smaller one wins; where it agrees with its parents by chance,
    smaller steps, which do not cross it, bear witness. A kink at 0 itself is noise at every step.
    """
    here = float(cost(0.0))
    steps = scale / 2.0 ** np.arange(HALVINGS)
    ahead, behind = (np.array([float(cost(side * h)) for h in steps]) for side in (1.0, -1.0))
    # Steps that a cost of lower precision does not notice say nothing.
    seen = int(np.max(np.nonzero((ahead != here) | (behind != here))[0], initial=-1)) + 1
    if seen == 0:
        return Slope(0.0, 2.0 * EPS * size / scale)
    bends = ahead - 2.0 * here + behind
    noise = _noise(bends[:seen]) + 2.0 * EPS * max(float(np.max(np.abs(ahead))), float(np.max(np.abs(behind))), size)
    found: list[Slope] = []
    row: list[float] = []
    for i in range(seen):
        best = Slope(math.nan, math.inf)
        previous, row = row, [float(ahead[i] - behind[i]) / (2.0 * steps[i])]
        for j, old in enumerate(previous):
            row.append(row[j] + (row[j] - old) / (4.0 ** (j + 1) - 1.0))
            error = max(abs(row[-1] - row[j]), abs(row[-1] - old)) + float(noise[i] / steps[i])
            if error < best.error:
                best = Slope(row[-1], error)
        found.append(best)
    return min(_witnessed(found[1:]), key=lambda s: s.error, default=Slope(math.nan, math.inf))


def _witnessed(found: list[Slope]) -> Iterator[Slope]:
    """Each step's best entry, its error no less than a smaller step's contradicts it."""
    for i, (value, error) in enumerate(found):
        yield Slope(value, max([error, *(abs(value - s.value) - s.error for s in found[i + 1 :])]))


def _noise(bends: np.ndarray) -> np.ndarray:
    """Of each step: how far J is from smooth there or at a smaller one; J(h) - 2 J(0) + J(-h) is h^2 J'' if it is."""
    rough = np.abs(bends[:-1] - 4.0 * bends[1:]) if len(bends) > 1 else np.abs(bends)
    rough = np.append(rough, rough[-1])[: len(bends)]
    return np.maximum.accumulate(rough[::-1])[::-1]
