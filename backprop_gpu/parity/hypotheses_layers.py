"""Hypotheses about activations, masks, targets, weights and single entries; each is said only where its numbers fit."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from .claims import bounds_of
from .findings import Finding
from .judge import Kept
from .oracle import layers, losses
from .trace import Call, StepTrace, layer_calls

PRECISIONS = {11: "tf32 or fp16", 8: "bf16"}
FEW = 3  # entries that are told one by one
OTHERS = ("relu", "tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh")


def explains(kept: Kept, hypothesis: np.ndarray, room: float = 1e-6) -> bool:
    """Whether a hypothesis gives what the device has, to within the bound and a rounding of its own."""
    gap = np.abs(kept.got - hypothesis)
    return bool(np.all(gap <= 4.0 * kept.bound + room * np.abs(hypothesis)))


def layer_of(finding: Finding) -> int:
    """The layer of a tensor such as "dZ2"; 0 where there is none."""
    found = re.search(r"\d+$", finding.tensor)
    return int(found.group()) if found else 0


def forward_of(trace: StepTrace, l: int) -> Call | None:
    """A layer's forward, where the batch is in one piece."""
    found, L = layer_calls(trace.calls), len(trace.recipe.sizes) - 1
    return found[l - 1] if len(found) == L and 0 < l <= L else None


def _activation(trace: StepTrace, l: int) -> tuple[str, dict[str, float]]:
    hidden = trace.recipe.activations
    return hidden[l - 1] if 0 < l <= len(hidden) else ("identity", {})


def other_activation(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """G as another function of Z."""
    call = forward_of(trace, layer_of(finding))
    if finding.tensor[0] not in "GA" or call is None or ("Z" not in call.revealed and kept.entering is None):
        return ""
    own = _activation(trace, layer_of(finding))[0]
    if kept.entering is None:
        z = call.revealed["Z"].astype(np.float64)
    else:
        p = kept.entering[0]
        z = p.v + (0.0 if p.plus is None else p.plus)
    if z.shape != kept.got.shape or own == "identity":
        return ""
    if explains(kept, z):
        return "g is missing: it is Z"
    B = bounds_of("numpy", "fp64")
    for name in OTHERS:
        if name != own and explains(kept, layers.activation(B, name, {}, B.given(z)).v):
            return f"it is {name} of Z, not {own}"
    return ""


def clamped(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """G or g' with a limit: all wrong entries are at it, and no other is beyond it."""
    wrong = kept.ratio() > 1.0
    if finding.operation == "dense_vjp_input" and kept.product is not None:
        dA, what = kept.product.v, "g' is clamped"
        if dA.shape != kept.got.shape or finding.tensor.startswith("db"):
            return ""
        there = np.abs(dA) > 64.0 * kept.bound
        got, want = (np.divide(x, dA, out=np.zeros_like(dA), where=there) for x in (kept.got, kept.want))
        spread = 64.0 * float(np.max(kept.bound[there] / np.abs(dA[there]), initial=0.0)) if there.any() else 0.0
        wrong, spread = wrong & there, min(spread, 1e-3)
    elif finding.tensor[0] in "GA" and finding.tensor[1:].isdigit():
        got, want, what, there, spread = kept.got, kept.want, "clamped", np.ones_like(wrong), 0.0
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


def masks(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Dropout inverted, forgotten, or not scaled."""
    l, name = layer_of(finding), finding.tensor.rstrip("0123456789")
    call, r = forward_of(trace, l), trace.recipe
    rate = r.dropout[l - 1] if 0 < l <= len(r.dropout) else 0.0
    if name not in ("A", "dZ", "dU") or not rate or call is None:
        return ""
    mask = layers.philox_mask(r.sizes[l], rate, r.seed, l, trace.t, np.arange(kept.got.shape[1]))
    scale = 1.0 / (1.0 - rate)
    if name == "A":
        whole = call.revealed["G"].astype(np.float64) if "G" in call.revealed else None
    else:
        whole = None if kept.product is None else kept.product.v
    if whole is None or whole.shape != kept.got.shape:
        return ""
    if name == "A":
        others = {
            "the mask is inverted": np.where(mask, 0.0, scale * whole),
            "the dropout mask is not applied": whole,
            f"the mask is applied without its scale 1/(1 - {rate:g})": np.where(mask, whole, 0.0),
        }
        return next((text for text, x in others.items() if explains(kept, x)), "")
    # Where the mask should be, dZ is 0 whatever g' is: elsewhere it is right.
    gone = ~mask
    right = explains(replace(kept, got=np.where(gone, kept.want, kept.got)), kept.want)
    if right and np.any(kept.got[gone]):
        return "the dropout mask is not applied"
    return ""


# -- the loss ---------------------------------------------------------------------------------------------------------


def _output(trace: StepTrace) -> tuple[np.ndarray, np.ndarray] | None:
    """Z[L] and targets (n_L, m) in float64, where the batch is in one piece."""
    call, r = forward_of(trace, len(trace.recipe.sizes) - 1), trace.recipe
    if call is None or not trace.Y.shape[0]:  # a prediction has no targets
        return None
    labels = trace.Y.shape[0] != r.sizes[-1]
    Y = losses.one_hot(trace.Y, r.sizes[-1]) if labels else trace.Y.astype(np.float64)
    return call.wrote["A"].astype(np.float64), Y


def _scale(trace: StepTrace) -> float:
    """1/D where it is in dZ[L]."""
    r = trace.recipe
    if r.one_over_m == "late" or r.reduction == "sum":
        return 1.0
    return 1.0 / float(trace.X.shape[1] if trace.weights is None else trace.weights.sum(dtype=np.float64))


def output(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """dZ[L] of other targets or weights."""
    L, found = len(trace.recipe.sizes) - 1, _output(trace)
    if finding.tensor != f"dZ{L}" or found is None or found[0].shape != kept.got.shape:
        return ""
    (Z, Y), r, B = found, trace.recipe, bounds_of("numpy", "fp64")
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
        if explains(kept, delta(y, weights), 1e-5) and not explains(kept, kept.want, 0.0):
            return text
    link = layers.activation(B, losses.LINKS.get(r.loss, "identity"), {}, B.given(Z)).v * _scale(trace)
    link = link if w is None else w * link
    return "the targets are not subtracted: it is AL" if explains(kept, link, 1e-5) else ""


def one_loss(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """J without the loss of one example, or with it twice."""
    found, r = _output(trace), trace.recipe
    if finding.tensor != "value" or found is None:
        return ""
    (Z, Y), B = found, bounds_of("numpy", "fp64")
    w = None if trace.weights is None else trace.weights.astype(np.float64)
    each = losses.weighted_loss(B, r.loss, r.loss_parameters, B.given(Z), B.given(Y), w).v.reshape(-1)
    D = float(Z.shape[1] if w is None else w.sum()) if r.reduction == "mean" else 1.0
    off = float(kept.got.reshape(-1)[0] - kept.want.reshape(-1)[0]) * D
    room = 1.1 * float(kept.bound.reshape(-1)[0]) * D
    near = [int(k) for k in np.flatnonzero(np.abs(np.abs(off) - each) <= room) if each[k] > 4.0 * room]
    if not 1 <= len(near) <= FEW:  # of many that would fit none is named
        return ""
    which = " or ".join(map(str, near))
    return f"the loss of example {which} of {len(each)} is {'counted twice' if off > 0.0 else 'missing'}"


# -- single entries ---------------------------------------------------------------------------------------------------


def copies(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """One row or column that is a copy of another, all others right."""
    wrong = kept.ratio() > 1.0
    if wrong.ndim != 2 or min(wrong.shape) < 2:
        return ""
    for axis, what in ((1, "column"), (0, "row")):
        lines = np.flatnonzero(wrong.any(axis=1 - axis))
        if len(lines) != 1 or wrong.shape[axis] < 3:
            continue
        k, got = int(lines[0]), np.moveaxis(kept.got, axis, 0)
        same = [j for j in range(len(got)) if j != k and np.array_equal(got[j], got[k]) and np.any(got[k])]
        if same:
            return f"{what} {k} is a copy of {what} {same[0]}"
    return ""


def few(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """At most three entries wrong among many: written to by something else, or left out."""
    wrong = kept.ratio() > 1.0
    count = int(wrong.sum())
    if not 0 < count <= FEW or wrong.size < 4 * count:
        return ""
    parts = []
    for at in np.argwhere(wrong):
        here = tuple(int(i) for i in at)
        parts.append(f"{list(here)} is {kept.got[here]:.6g} for {kept.want[here]:.6g}")
    if count == 1:
        return f"entry {parts[0].replace(' is ', ' alone is wrong: ')}"
    return f"{count} entries alone are wrong: {', '.join(parts)}"


def stored(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """What is right, kept with fewer bits."""
    if trace.recipe.dtype != "float32" or np.count_nonzero(kept.want) < 4:
        return ""
    for bits, name in PRECISIONS.items():
        unit = np.ldexp(1.0, np.frexp(kept.got)[1] - bits)
        held = kept.got == np.rint(kept.got / unit) * unit
        near = np.abs(kept.got - kept.want) <= 0.51 * unit + 4.0 * kept.bound
        if held.all() and near.all():
            return f"rounded to {bits} bits, as by {name}"
    return ""


def not_0(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Something where there should be nothing."""
    if kept.want.any() or kept.want.size < 2:
        return ""
    return f"all should be 0, and {int(np.count_nonzero(kept.got))} of {kept.got.size} entries are not"
