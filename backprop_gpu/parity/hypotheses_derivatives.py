"""Hypotheses about derivatives and masks: another factor than g', a kink, a mask that is another."""

from __future__ import annotations

import numpy as np

from .findings import Finding
from .hypotheses import FITS, wrong_entries
from .hypotheses_layers import forward_of, layer_of
from .judge import Kept
from .trace import StepTrace

NEAR_0 = 1e-4  # of the largest |Z|: as near to a kink as rounding could have crossed it


def other_derivative(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """dZ with another factor than g'."""
    p, call = kept.product, None
    if finding.operation != "dense_vjp_input" or not finding.tensor.startswith(("dZ", "dU")) or p is None:
        return ""
    call = forward_of(trace, layer_of(finding))
    if call is None or p.v.shape != kept.got.shape:
        return ""
    a = call.revealed.get("G", call.wrote["A"]).astype(np.float64)
    z = call.revealed["Z"].astype(np.float64) if "Z" in call.revealed else None
    dA = p.v
    factors = {"g' is missing: dZ is dA": np.ones_like(a), "g' is taken as a": a, "g' is taken as 1 - a": 1.0 - a}
    factors |= {"g' is taken as 1 - a^2": 1.0 - a * a, "g' is taken as a (1 - a)": a * (1.0 - a)}
    own = np.divide(kept.want, dA, out=np.zeros_like(dA), where=dA != 0.0)
    if not np.all((own == 0.0) | (own == 1.0)):
        factors["g' is applied twice"] = own * own
    factors["the mask is that of dA > 0, not of Z > 0"] = np.where(dA > 0.0, 1.0, 0.0)
    if z is not None:
        factors |= {"g' is taken as 1 - z^2": 1.0 - z * z, "g' is taken as z": z}
    # The bound is that of the right factor; another one may be larger, and dA has a bound of its own.
    own_bound = np.broadcast_to(np.asarray(p[slice(None)].error()), dA.shape) + kept.bound
    for text, factor in factors.items():
        room = FITS * own_bound * np.maximum(1.0, np.abs(factor)) * 4.0 + 1e-6 * np.abs(dA * factor)
        if not np.array_equal(dA * factor, kept.want) and np.all(np.abs(kept.got - dA * factor) <= room):
            return text
    return ""


def _sides(kept: Kept) -> np.ndarray | None:
    """Wrong entries, if every one is 0 on one side and not on the other."""
    wrong = wrong_entries(kept)
    sides = wrong & ((kept.got == 0.0) != (kept.want == 0.0))
    return sides if wrong.any() and not (wrong & ~sides).any() else None


def kink(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """A few entries on the other side of a kink: of an activation that has one, and where Z is as good as 0."""
    sides, side = _sides(kept), _kinked(finding, trace)
    if sides is None or side is None or not (sides.sum() <= 3 or sides.mean() <= 0.02):
        return ""
    at = np.abs(side[sides])
    if at.max() > NEAR_0 * float(np.abs(side).max()):
        return ""
    where = ", all where Z is exactly 0" if not at.any() else ""
    return f"{int(sides.sum())} of {sides.size} entries are on the other side of a kink{where}; all others are right"


def _kinked(finding: Finding, trace: StepTrace) -> np.ndarray | None:
    """Z (or A where Z is not kept) of the layer, if its activation has a kink at 0."""
    name = finding.tensor.rstrip("0123456789")
    if name not in ("A", "G", "dZ", "dU") or not finding.tensor[len(name) :]:
        return None
    l = layer_of(finding)
    call = forward_of(trace, l)
    hidden = trace.recipe.activations
    if call is None or not 0 < l <= len(hidden) or hidden[l - 1][0] not in ("relu", "leaky_relu"):
        return None
    side = call.revealed.get("Z", call.wrote["A"])
    return np.asarray(side, np.float64)


def mask(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Many of them, in a layer that has a mask: ReLU's, or dropout's."""
    sides, name = _sides(kept), finding.tensor.rstrip("0123456789")
    if finding.tensor.startswith("mask"):
        sides = wrong_entries(kept)
    elif name not in ("A", "G", "dZ", "dU", "Z") or not finding.tensor[len(name) :]:
        return ""
    if sides is None or not sides.any():
        return ""
    extra = int((sides & (kept.want == 0.0)).sum())
    missing = int(sides.sum()) - extra
    return f"another mask: {extra} of {sides.size} entries should be 0 and are not, {missing} are 0 and should not be"
