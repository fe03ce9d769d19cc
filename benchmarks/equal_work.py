"""Equal work first: from the same weights and in the same order of batches, every peer must have the same losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNIT = 2.0**-24  # unit roundoff of float32
PERTURBED_RUNS = 4  # float32 runs from perturbed starts
MARGIN = 8.0


def bound(reference: np.ndarray, perturbed: Sequence[np.ndarray]) -> np.ndarray:
    """How far a float32 peer may be from the float64 reference at each step (or entry).

    ``8 max_(s<=t) max_k |J_k(s) - J_64(s)| + 8 u max(1, |J_64(t)|)``, where the J_k are plain NumPy in float32 from
    starts whose weights are each moved by up to 16 units in the last place. Roundings in another order are worth a few
    units; but one that turns a ReLU of one example on or off changes a gradient by a finite amount, which Adam passes
    on in full (measured: losses of 784-512-256-10 then differ by 4e-4 after 32 steps), and the disturbance has to be
    large enough that its runs meet such a turn no later than a peer. Measured: equal peers reach 0.2 of the bound, a
    learning rate 1% too large 120 times the bound.
    """
    away = np.max([np.abs(losses - reference) for losses in perturbed], axis=0)
    return MARGIN * (np.maximum.accumulate(away) + UNIT * np.maximum(1.0, np.abs(reference)))


def difference(losses: np.ndarray, reference: np.ndarray, allowed: np.ndarray) -> str | None:
    """None if the losses agree, else where and by how much they do not."""
    if losses.shape != reference.shape:
        return f"{len(losses)} losses, expected {len(reference)}"
    away = np.abs(losses - reference)
    wrong = np.flatnonzero(~(away <= allowed))
    if not len(wrong):
        return None
    t = int(wrong[0])
    return f"loss {t + 1} of {len(losses)} is {losses[t]:.8g}, expected {reference[t]:.8g} within {allowed[t]:.1e}"
