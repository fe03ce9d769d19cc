"""A note where the cost of one batch is far above what it had been: often the first sign that a run will diverge."""

from __future__ import annotations

import statistics

import numpy as np

from .history import History

FACTOR = 10.0  # times the median before it
EPOCHS, FEWEST = 5, 3  # epochs whose median cost a batch is compared with, and how many there must be
BLOCK = 100  # batches; in a long epoch each block is compared with the median of the block before
MOST = 3  # notes of a fit
SPIKE = "the cost jumped to "


def note_of_spike(history: History, costs: np.ndarray, epoch: int, first_step: int) -> None:
    """Note the first jump among the costs J of an epoch's batches.

    ``history`` has the epochs before it; ``epoch`` counts from 1, ``first_step`` are the steps before the epoch.
    """
    before = [e.cost for e in history.epochs[-EPOCHS:]]
    median = statistics.median(before) if len(before) >= FEWEST else 0.0
    found = _first_above(costs[:BLOCK], median)
    for start in range(BLOCK, len(costs), BLOCK):
        if found is None:
            median = float(np.median(costs[start - BLOCK : start]))
            above = _first_above(costs[start : start + BLOCK], median)
            found = None if above is None else start + above
    if found is not None and sum(note.startswith(SPIKE) for note in history.notes) < MOST:
        history.notes.append(
            f"{SPIKE}{costs[found]:.4g} at step {first_step + found + 1} (batch {found + 1} of epoch {epoch}), "
            f"{costs[found] / median:.0f} times the median before it; if no row is odd, lower the learning rate, or "
            "clip the gradient"
        )


def _first_above(costs: np.ndarray, median: float) -> int | None:
    if median <= 0.0 or not costs.size or not costs.max() > FACTOR * median:
        return None
    return int(np.argmax(costs > FACTOR * median))
