"""Interleaved rounds, and what is read off them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Summary:
    """Seconds of one participant over the rounds; ``ratio`` is the median over rounds of its time over the base's."""

    median: float
    q1: float
    q3: float
    ratio: float
    rounds: list[float]


def summaries(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, Summary]:
    """Median, quartiles and the paired ratio to ``base`` of everybody."""
    found = {}
    for name, own in seconds.items():
        q1, median, q3 = (float(q) for q in np.quantile(own, [0.25, 0.5, 0.75]))
        ratio = float(np.median(np.divide(own, seconds[base])))
        found[name] = Summary(median, q1, q3, ratio, list(own))
    return found
