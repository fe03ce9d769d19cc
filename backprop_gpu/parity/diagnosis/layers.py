"""Hypotheses about activations, masks, targets, weights and single entries; each is said only where its numbers fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..claims import bounds_of
from ..comparator import Comparison
from ..findings import Finding
from ..oracle import layers, losses
from ..trace import StepTrace
from .evidence import FITS, PRECISIONS, explains, forward_of, layer_of, wrong_entries

FEW = 3  # entries that are named one by one
NEAR_0 = 1e-4  # of the largest |Z|: as near to a kink as rounding could have crossed it
OTHERS = ("relu", "tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh")


def _activation(trace: StepTrace, l: int) -> tuple[str, dict[str, float]]:
    hidden = trace.spec.activations
    return hidden[l - 1] if 0 < l <= len(hidden) else ("identity", {})


def other_activation(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """G as another function of Z."""
    call = forward_of(trace, layer_of(finding))
    if finding.tensor[0] not in "GA" or call is None or ("Z" not in call.revealed and comparison.entering is None):
        return ""
    own = _activation(trace, layer_of(finding))[0]
    if comparison.entering is None:
        z = call.revealed["Z"].astype(np.float64)
    else:
        p = comparison.entering[0]
        z = p.v + (0.0 if p.plus is None else p.plus)
    if z.shape != comparison.got.shape or own == "identity":
        return ""
    if explains(comparison, z):
        return "g is missing: it is Z"
    B = bounds_of("numpy", "fp64")
    for name in OTHERS:
        if name != own and explains(comparison, layers.activation(B, name, {}, B.given(z)).v):
            return f"it is {name} of Z, not {own}"
    return ""


def clamped(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """G or g' with a limit: all wrong entries are at it, and no other is beyond it."""
    wrong = comparison.ratio() > 1.0
    if finding.operation == "dense_vjp_input" and comparison.product is not None:
        dA, what = comparison.product.v, "g' is clamped"
        if dA.shape != comparison.got.shape or finding.tensor.startswith("db"):
            return ""
        there = np.abs(dA) > 64.0 * comparison.bound
        got, want = (np.divide(x, dA, out=np.zeros_like(dA), where=there) for x in (comparison.got, comparison.want))
        spread = 64.0 * float(np.max(comparison.bound[there] / np.abs(dA[there]), initial=0.0)) if there.any() else 0.0
        wrong, spread = wrong & there, min(spread, 1e-3)
    elif finding.tensor[0] in "GA" and finding.tensor[1:].isdigit():
        got, want, what, there, spread = comparison.got, comparison.want, "clamped", np.ones_like(wrong), 0.0
    else:
        return ""
    if np.count_nonzero(wrong) < 2:
        return ""
    limit = float(np.median(got[wrong]))
    room = spread * abs(limit) + 1e-6 * abs(limit)
    if limit == 0.0 or np.any(np.abs(got[wrong] - limit) > room):
        return ""
    if np.all(want[wrong] > limit - room) and np.all(got[there] <= limit + room):
        return f"{what} to at most {limit:.4g}"
    if np.all(want[wrong] < limit + room) and np.all(got[there] >= limit - room):
        return f"{what} to at least {limit:.4g}"
    return ""


def masks(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Dropout inverted, forgotten, or not scaled."""
    l, name = layer_of(finding), finding.tensor.rstrip("0123456789")
    call, r = forward_of(trace, l), trace.spec
    rate = r.dropout[l - 1] if 0 < l <= len(r.dropout) else 0.0
    if name not in ("A", "dZ", "dU") or not rate or call is None:
        return ""
    mask = layers.philox_mask(r.sizes[l], rate, r.seed, l, trace.t, np.arange(comparison.got.shape[1]))
    scale = 1.0 / (1.0 - rate)
    if name == "A":
        whole = call.revealed["G"].astype(np.float64) if "G" in call.revealed else None
    else:
        whole = None if comparison.product is None else comparison.product.v
    if whole is None or whole.shape != comparison.got.shape:
        return ""
    if name == "A":
        others = {
            "the mask is inverted": np.where(mask, 0.0, scale * whole),
            "the dropout mask is not applied": whole,
            f"the mask is applied without its scale 1/(1 - {rate:g})": np.where(mask, whole, 0.0),
        }
        return next((text for text, x in others.items() if explains(comparison, x)), "")
    # Where the mask should be, dZ is 0 whatever g' is: elsewhere it is right.
    gone = ~mask
    right = explains(replace(comparison, got=np.where(gone, comparison.want, comparison.got)), comparison.want)
    if right and np.any(comparison.got[gone]):
        return "the dropout mask is not applied"
    return ""


# -- derivatives and masks ---------------------------------------------------------------------------------------------


def other_derivative(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """dZ with another factor than g'."""
    p, call = comparison.product, None
    if finding.operation != "dense_vjp_input" or not finding.tensor.startswith(("dZ", "dU")) or p is None:
        return ""
    call = forward_of(trace, layer_of(finding))
    if call is None or p.v.shape != comparison.got.shape:
        return ""
    a = call.revealed.get("G", call.wrote["A"]).astype(np.float64)
    z = call.revealed["Z"].astype(np.float64) if "Z" in call.revealed else None
    dA = p.v
    factors = {"g' is missing: dZ is dA": np.ones_like(a), "g' is taken as a": a, "g' is taken as 1 - a": 1.0 - a}
    factors |= {"g' is taken as 1 - a^2": 1.0 - a * a, "g' is taken as a (1 - a)": a * (1.0 - a)}
    own = np.divide(comparison.want, dA, out=np.zeros_like(dA), where=dA != 0.0)
    if not np.all((own == 0.0) | (own == 1.0)):
        factors["g' is applied twice"] = own * own
    factors["the mask is that of dA > 0, not of Z > 0"] = np.where(dA > 0.0, 1.0, 0.0)
    if z is not None:
        factors |= {"g' is taken as 1 - z^2": 1.0 - z * z, "g' is taken as z": z}
    # The bound is that of the right factor; another one may be larger, and dA has a bound of its own.
    own_bound = np.broadcast_to(np.asarray(p[slice(None)].error()), dA.shape) + comparison.bound
    for text, factor in factors.items():
        room = FITS * own_bound * np.maximum(1.0, np.abs(factor)) * 4.0 + 1e-6 * np.abs(dA * factor)
        if not np.array_equal(dA * factor, comparison.want) and np.all(np.abs(comparison.got - dA * factor) <= room):
            return text
    return ""


def _sides(comparison: Comparison) -> np.ndarray | None:
    """Wrong entries, if every one is 0 on one side and not on the other."""
    wrong = wrong_entries(comparison)
    sides = wrong & ((comparison.got == 0.0) != (comparison.want == 0.0))
    return sides if wrong.any() and not (wrong & ~sides).any() else None


def kink(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """A few entries on the other side of a kink: of an activation that has one, and where Z is as good as 0."""
    sides, side = _sides(comparison), _kinked(finding, trace)
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
    hidden = trace.spec.activations
    if call is None or not 0 < l <= len(hidden) or hidden[l - 1][0] not in ("relu", "leaky_relu"):
        return None
    side = call.revealed.get("Z", call.wrote["A"])
    return np.asarray(side, np.float64)


def mask_of(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Many of them, in a layer that has a mask: ReLU's, or dropout's."""
    sides, name = _sides(comparison), finding.tensor.rstrip("0123456789")
    if finding.tensor.startswith("mask"):
        sides = wrong_entries(comparison)
    elif name not in ("A", "G", "dZ", "dU", "Z") or not finding.tensor[len(name) :]:
        return ""
    if sides is None or not sides.any():
        return ""
    extra = int((sides & (comparison.want == 0.0)).sum())
    missing = int(sides.sum()) - extra
    return f"another mask: {extra} of {sides.size} entries should be 0 and are not, {missing} are 0 and should not be"


# -- the loss ---------------------------------------------------------------------------------------------------------


def _output(trace: StepTrace) -> tuple[np.ndarray, np.ndarray] | None:
    """Z[L] and targets (n_L, m) in float64, where the batch is in one piece."""
    call, r = forward_of(trace, len(trace.spec.sizes) - 1), trace.spec
    if call is None or not trace.Y.shape[0]:  # a prediction has no targets
        return None
    labels = trace.Y.shape[0] != r.sizes[-1]
    Y = losses.one_hot(trace.Y, r.sizes[-1]) if labels else trace.Y.astype(np.float64)
    return call.wrote["A"].astype(np.float64), Y


def _scale(trace: StepTrace) -> float:
    """1/D where it is in dZ[L]."""
    r = trace.spec
    if r.one_over_m == "late" or r.reduction == "sum":
        return 1.0
    return 1.0 / float(trace.X.shape[1] if trace.weights is None else trace.weights.sum(dtype=np.float64))


def output(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """dZ[L] of other targets or weights."""
    L, found = len(trace.spec.sizes) - 1, _output(trace)
    if finding.tensor != f"dZ{L}" or found is None or found[0].shape != comparison.got.shape:
        return ""
    (Z, Y), r, B = found, trace.spec, bounds_of("numpy", "fp64")
    w = None if trace.weights is None else trace.weights.astype(np.float64)

    def delta(y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        d = losses.loss_delta(B, r.loss, r.loss_parameters, B.given(Z), B.given(y)).v * _scale(trace)
        return d if weights is None else weights * d

    others = {"the labels are those of class + 1": (np.roll(Y, 1, axis=0), w)}
    others["the labels are those of class - 1"] = np.roll(Y, -1, axis=0), w
    for shift in (1, -1):
        others[f"the labels are those of the examples rolled by {shift}"] = np.roll(Y, shift, axis=1), w
    if w is not None:
        others["the weights of the examples are not applied"] = Y, None
        others["the weights of the examples are applied twice"] = Y, w * w
        others["the weights are those of the examples rolled by 1"] = Y, np.roll(w, 1, axis=1)
    for text, (y, weights) in others.items():
        if explains(comparison, delta(y, weights), 1e-5) and not explains(comparison, comparison.want, 0.0):
            return text
    link = layers.activation(B, losses.LINKS.get(r.loss, "identity"), {}, B.given(Z)).v * _scale(trace)
    link = link if w is None else w * link
    return "the targets are not subtracted: it is AL" if explains(comparison, link, 1e-5) else ""


def one_loss(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """J without the loss of one example, or with it twice."""
    found, r = _output(trace), trace.spec
    if finding.tensor != "value" or found is None:
        return ""
    (Z, Y), B = found, bounds_of("numpy", "fp64")
    w = None if trace.weights is None else trace.weights.astype(np.float64)
    each = losses.weighted_loss(B, r.loss, r.loss_parameters, B.given(Z), B.given(Y), w).v.reshape(-1)
    D = float(Z.shape[1] if w is None else w.sum()) if r.reduction == "mean" else 1.0
    off = float(comparison.got.reshape(-1)[0] - comparison.want.reshape(-1)[0]) * D
    room = 1.1 * float(comparison.bound.reshape(-1)[0]) * D
    near = [int(k) for k in np.flatnonzero(np.abs(np.abs(off) - each) <= room) if each[k] > 4.0 * room]
    if not 1 <= len(near) <= FEW:  # of many that would fit none is named
        return ""
    which = " or ".join(map(str, near))
    return f"the loss of example {which} of {len(each)} is {'counted twice' if off > 0.0 else 'missing'}"


# -- single entries ---------------------------------------------------------------------------------------------------


def copies(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """One row or column that is a copy of another, all others right."""
    wrong = comparison.ratio() > 1.0
    if wrong.ndim != 2 or min(wrong.shape) < 2:
        return ""
    for axis, what in ((1, "column"), (0, "row")):
        lines = np.flatnonzero(wrong.any(axis=1 - axis))
        if len(lines) != 1 or wrong.shape[axis] < 3:
            continue
        k, got = int(lines[0]), np.moveaxis(comparison.got, axis, 0)
        same = [j for j in range(len(got)) if j != k and np.array_equal(got[j], got[k]) and np.any(got[k])]
        if same:
            return f"{what} {k} is a copy of {what} {same[0]}"
    return ""


def few(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """At most three entries wrong among many: written to by something else, or left out."""
    wrong = comparison.ratio() > 1.0
    count = int(wrong.sum())
    if not 0 < count <= FEW or wrong.size < 4 * count:
        return ""
    parts = []
    for at in np.argwhere(wrong):
        here = tuple(int(i) for i in at)
        parts.append(f"{list(here)} is {comparison.got[here]:.6g} for {comparison.want[here]:.6g}")
    if count == 1:
        return f"entry {parts[0].replace(' is ', ' alone is wrong: ')}"
    return f"{count} entries alone are wrong: {', '.join(parts)}"


def stored(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """What is right, kept with fewer bits."""
    if trace.spec.dtype != "float32" or np.count_nonzero(comparison.want) < 4:
        return ""
    for bits, name in PRECISIONS.items():
        unit = np.ldexp(1.0, np.frexp(comparison.got)[1] - bits)
        held = comparison.got == np.rint(comparison.got / unit) * unit
        near = np.abs(comparison.got - comparison.want) <= 0.51 * unit + 4.0 * comparison.bound
        if held.all() and near.all():
            return f"rounded to {bits} bits, as by {name}"
    return ""


def not_0(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Something where there should be nothing."""
    if comparison.want.any() or comparison.want.size < 2:
        return ""
    return f"all should be 0, and {int(np.count_nonzero(comparison.got))} of {comparison.got.size} entries are not"
