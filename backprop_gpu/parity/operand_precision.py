"""Whether a difference is what products with rounded operands would leave, far below a bound for long sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .bounded_array import BoundedArray

PRECISIONS = {11: "tf32 or fp16", 8: "bf16"}
MANY = 100  # entries, from which on a correlation of 1/2 is no accident: five standard deviations

Outputs = Mapping[str, tuple[object, int]]


def operands_rounded(
    traced: Callable[[int], Outputs], want: Outputs, got: Mapping[str, np.ndarray], at_least: int
) -> dict[str, str]:
    """Causes by output, for those with sums of ``at_least`` terms that look computed with operands of fewer bits.

    Parameters
    ----------
    traced : callable
        The outputs' references with the operands of products rounded to so many bits; a negative number cuts them off.
    want, got : the references as they should be, and what the device gave
    """
    long = {name: x for name, (x, k) in want.items() if isinstance(x, BoundedArray) and k >= at_least}
    causes: dict[str, str] = {}
    for bits, name in PRECISIONS.items() if long else ():
        for how, sign in (("rounded", 1), ("cut", -1)):
            rounded = traced(sign * bits)
            for output, right in long.items():
                other = rounded[output][0]
                assert isinstance(other, BoundedArray)
                if output not in causes and _explains(got[output], right, other):
                    causes[output] = f"operands of a product {how} to {bits} bits, as by {name}"
    return causes


def _explains(got: np.ndarray, right: BoundedArray, other: BoundedArray) -> bool:
    """Whether got - right is other - right: nearly, or of many entries to a good part."""
    finite = np.isfinite(got) & np.isfinite(right.v) & np.isfinite(other.v)
    r, d = (got[finite] - right.v[finite]).astype(np.float64), other.v[finite] - right.v[finite]
    square, size = float(d @ d), float(r @ r)
    # Honest roundings leave about 1/k of a bound for k terms; what is no larger cannot be told from them.
    honest = float(np.sum(np.square(right.e[finite]))) / right.k**2
    if square <= 16.0 * honest or size == 0.0:
        return False
    c = float(r @ d) / square
    rest = math.sqrt(float(np.sum(np.square(r - c * d))) / size)
    if rest <= 0.3 and 0.8 <= c <= 1.2:
        return True
    return bool(r.size >= MANY and c >= 0.25 and c * math.sqrt(square / size) >= 0.5)
