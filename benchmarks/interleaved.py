"""Interleaved repeats and their statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def interleave(
    names: Sequence[str], repeats: int, measure: Callable[[str], float], *, rest: float = 0.0
) -> dict[str, list[float]]:
    """Measure every peer once per repeat, each repeat starting with another one, so that drift affects all alike.

    ``rest`` seconds pass before each measurement: the thread pool of the one before stops spinning meanwhile.
    """
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            time.sleep(rest)
            results[name].append(measure(name))
    return results


def summary(seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles, and as ``ratio`` the median over repeats of the time over the base's in the same repeat."""
    q1, median, q3 = (float(q) for q in np.quantile(seconds, [0.25, 0.5, 0.75]))
    ratio = float(np.median(np.divide(seconds, base)))
    return {"median": median, "q1": q1, "q3": q3, "ratio": ratio, "repeats": list(seconds)}
