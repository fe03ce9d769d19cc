"""What every test of a diagnosis asks: does a hypothesis explain the difference, and which calls made the tensor."""

from __future__ import annotations

import re

import numpy as np

from ..comparator import Comparison
from ..findings import Finding
from ..trace import Call, StepTrace, layer_calls

FITS = 4.0  # bounds by which a hypothesis may miss, since its own numbers are rounded as well
PRECISIONS = {11: "tf32 or fp16", 8: "bf16"}


def fits(comparison: Comparison, hypothesis: np.ndarray, factor: float = 1.0) -> bool:
    """Whether a hypothesis explains what the device has, to within the bound (``factor`` of it)."""
    gap, size = np.abs(comparison.got - hypothesis), np.abs(hypothesis)
    # What is exact where it is right may be rounded where it is wrong.
    own = np.where(comparison.bound == 0.0, 2.0**-22, 1e-15) * size
    return bool(np.all(gap <= FITS * max(abs(factor), 1.0) * comparison.bound + own))


def wrong_entries(comparison: Comparison) -> np.ndarray:
    """Where the device is out of its bound."""
    return np.asarray(comparison.ratio() > 1.0)


def explains(comparison: Comparison, hypothesis: np.ndarray, room: float = 1e-6) -> bool:
    """Whether a hypothesis gives what the device has, to within the bound and a rounding of its own."""
    gap = np.abs(comparison.got - hypothesis)
    return bool(np.all(gap <= 4.0 * comparison.bound + room * np.abs(hypothesis)))


def layer_of(finding: Finding) -> int:
    """The layer of a tensor such as "dZ2"; 0 where there is none."""
    found = re.search(r"\d+$", finding.tensor)
    return int(found.group()) if found else 0


def forward_of(trace: StepTrace, l: int) -> Call | None:
    """A layer's forward, where the batch is in one piece."""
    found, L = layer_calls(trace.calls), len(trace.spec.sizes) - 1
    return found[l - 1] if len(found) == L and 0 < l <= L else None
