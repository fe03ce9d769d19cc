"""Interleaved rounds, and what is read off them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def interleave(
    names: Sequence[str], rounds: int, turn: Callable[[str], float], *, rest: float = 0.0
) -> dict[str, list[float]]:
    """Everybody once a round, each round starting with the next one, so that drift of the machine meets all alike.

    ``rest`` seconds pass before each turn: the thread pool of the one before stops spinning meanwhile.
    """
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            time.sleep(rest)
            results[name].append(turn(name))
    return results


def summary(seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles, and as ``ratio`` the median over rounds of the time over the base's in the same round."""
    q1, median, q3 = (float(q) for q in np.quantile(seconds, [0.25, 0.5, 0.75]))
    ratio = float(np.median(np.divide(seconds, base)))
    return {"median": median, "q1": q1, "q3": q3, "ratio": ratio, "rounds": list(seconds)}
