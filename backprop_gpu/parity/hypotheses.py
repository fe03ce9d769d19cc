"""Hypotheses about a wrong tensor that need to know the operation: biases, products, derivatives, masks, precision."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from .findings import Finding
from .hypotheses_layers import forward_of
from .judge import Kept
from .oracle import layers
from .oracle.products import Product
from .trace import StepTrace

MOST_TERMS = 256  # that are tried one by one
OVERWRITTEN = "what the micro-batches before it left is missing"
FITS = 4.0  # bounds by which a hypothesis may miss, since its own numbers are rounded as well


def fits(kept: Kept, hypothesis: np.ndarray, factor: float = 1.0) -> bool:
    """Whether a hypothesis explains what the device has, to within the bound (``factor`` of it)."""
    gap, size = np.abs(kept.got - hypothesis), np.abs(hypothesis)
    # What is exact where it is right may be rounded where it is wrong.
    own = np.where(kept.bound == 0.0, 2.0**-22, 1e-15) * size
    return bool(np.all(gap <= FITS * max(abs(factor), 1.0) * kept.bound + own))


def wrong_entries(kept: Kept) -> np.ndarray:
    """Where the device is out of its bound."""
    return np.asarray(kept.ratio() > 1.0)


def _whole(p: Product) -> np.ndarray:
    v = p.v * p.scale
    return v if p.plus is None else v + p.plus


def _itself(kept: Kept) -> Product | None:
    """The product that the tensor is, if nothing follows it."""
    p = kept.product
    return p if p is not None and np.array_equal(_whole(p), kept.want) else None


def _layer(finding: Finding) -> int:
    return int(re.sub(r"\D", "", finding.tensor))


# -- biases and products ----------------------------------------------------------------------------------------------


def bias(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Z off by its bias."""
    p = _itself(kept)
    if p is None or p.plus is None or p.plus.shape[1:] != (1,) or not np.any(p.plus):
        return ""
    b = p.plus.astype(np.float64)
    others = {"is missing": -b, "is added twice": b, "is subtracted": -2.0 * b}
    for shift in (1, -1):
        others[f"is that of another unit: rolled by {shift}"] = np.roll(b, shift, axis=0) - b
    return next((f"the bias {text}" for text, off in others.items() if fits(kept, kept.want + off)), "")


def product_transposed(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """A matrix taken the other way round, before anything that follows the product."""
    p = kept.product
    if p is None:
        return ""
    others = {}
    if p.P.x.shape[0] == p.P.x.shape[1]:
        others["the matrix is transposed in the product"] = p.P.wide.T, p.Q.wide
    others["the right operand is read in the other memory order"] = p.P.wide, _misread(p.Q.wide)
    others["the left operand is read in the other memory order"] = _misread(p.P.wide), p.Q.wide
    return next((text for text, (P, Q) in others.items() if _explains(kept, p, P @ Q)), "")


def _misread(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T).reshape(x.shape)


def _follows(kept: Kept, p: Product) -> np.ndarray:
    """What each entry of the product is multiplied with afterwards: 1, ReLU's 0 or 1, or a derivative."""
    whole = _whole(p)
    return np.divide(kept.want, whole, out=np.zeros_like(whole), where=whole != 0.0)


def _explains(kept: Kept, p: Product, product: np.ndarray) -> bool:
    """Whether another product explains nine entries in ten to three digits; ReLU may have decided otherwise on some."""
    hypothesis = product * p.scale + (0.0 if p.plus is None else p.plus)
    hypothesis = hypothesis * _follows(kept, p)
    gap, off = np.abs(kept.got - hypothesis), np.abs(kept.got - kept.want)
    differs = off > 0.0
    room = min(1e-3 * float(np.quantile(np.abs(hypothesis)[differs], 0.9)), 0.1 * float(np.quantile(off[differs], 0.9)))
    return bool(np.quantile(gap[differs], 0.9) <= room and np.quantile(gap, 0.9) <= room)


def overwritten(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """dW or db without what the micro-batches before this one added up."""
    p = kept.product
    if finding.tensor.startswith("dW") and p is not None and p.plus is not None and np.any(p.plus):
        before = p.plus.astype(np.float64)
    elif finding.tensor.startswith("db") and kept.want.shape[1:] == (1,):
        l, L = _layer(finding), len(trace.recipe.sizes) - 1
        name, key = ("output_delta", "db") if l == L else ("dense_vjp_input", "db_prev")
        found = [c.wrote[key] for c in trace.calls if c.name == name and c.wrote[key].shape == kept.want.shape]
        previous = [x.astype(np.float64) for x in found]
        return next((OVERWRITTEN for x in previous if np.any(x) and fits(kept, kept.want - x)), "")
    else:
        return ""
    return OVERWRITTEN if fits(kept, kept.want - before) else ""


def lost_term(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """One term missing or taken twice in every sum, or in one entry alone."""
    p, wrong = _itself(kept), wrong_entries(kept)
    if p is None:
        return ""
    rest = kept.want - kept.got
    P, Q, what = p.P.wide * p.scale, p.Q.wide, "example" if finding.operation == "dense_vjp_params" else "term"
    if wrong.sum() == 1:
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        terms = P[at[0]] * Q[:, at[1]]
        k = int(np.argmin(np.abs(terms - rest[at])))
        lost = abs(terms[k] - rest[at]) <= FITS * kept.bound[at]
        return f"entry {list(at)} alone lacks {what} {k} of its sum: a lost addition" if lost else ""
    row = int(np.argmax(np.abs(rest).max(axis=1)))
    for sign, how in ((1.0, "missing"), (-1.0, "counted twice")):
        k = int(np.argmin(np.sum((P[row][:, None] * Q - sign * rest[row]) ** 2, axis=1)))
        term = np.outer(P[:, k], Q[k])
        if np.any(np.abs(term) > kept.bound) and fits(kept, kept.want - sign * term):
            return f"{what} {k} of {p.k}{' (the last)' if k == p.k - 1 else ''} is {how} in every sum"
    return ""


def one_operand(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """One row wrong by a multiple of one row of the right operand: one entry of the left one was another."""
    p, wrong = _itself(kept), wrong_entries(kept)
    if p is None or p.k < 2 or p.Q.x.shape[1] < 4:
        return ""
    rows = np.flatnonzero(wrong.any(axis=1))
    if len(rows) != 1:
        return ""
    row, Q = int(rows[0]), p.Q.wide
    rest = kept.got[row] - kept.want[row]
    multiples = (Q @ rest) / np.maximum(np.einsum("km,km->k", Q, Q), 1e-300)
    k = int(np.argmin(np.sum((multiples[:, None] * Q - rest) ** 2, axis=1)))
    left = np.abs(rest - multiples[k] * Q[k])
    if not np.all(left <= FITS * kept.bound[row]):
        return ""
    return f"entry [{row}, {k}] of the left operand is off by {multiples[k]:.3g} (it is {p.P.wide[row, k]:.6g})"


def part_of_the_examples(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """db as a sum over fewer examples."""
    if not re.fullmatch(r"db\d+", finding.tensor):
        return ""
    dZ = _written(trace, _layer(finding))
    if dZ is None or dZ.shape[1] < 2:
        return ""
    scale = 1.0 if trace.recipe.one_over_m == "early" else 1.0 / _denominator(trace)
    half = dZ.shape[1] // 2
    parts = {
        "every second example": dZ[:, ::2],
        "the first half": dZ[:, :half],
        "all examples but the last": dZ[:, :-1],
    }
    for text, part in parts.items():
        if fits(kept, scale * part.sum(axis=1, keepdims=True, dtype=np.float64)):
            return f"the sum is over {text} alone"
    off, m = kept.got - kept.want, dZ.shape[1]
    for k in range(m):
        one = scale * dZ[:, k : k + 1].astype(np.float64)
        for sign, how in ((1.0, "counted twice"), (-1.0, "missing")):
            if np.any(np.abs(one) > kept.bound) and np.all(np.abs(off - sign * one) <= FITS * kept.bound):
                return f"example {k} of {m} is {how} in the sum"
    return ""


def _denominator(trace: StepTrace) -> float:
    if trace.recipe.reduction == "sum":
        return 1.0
    return float(trace.X.shape[1] if trace.weights is None else trace.weights.sum(dtype=np.float64))


def _written(trace: StepTrace, l: int) -> np.ndarray | None:
    """dZ of a layer, where the batch is in one piece."""
    L = len(trace.recipe.sizes) - 1
    if l == L:
        found = [c.wrote["dZ"] for c in trace.calls if c.name == "output_delta"]
        return found[0] if len(found) == 1 else None
    found = [c.wrote["dZ_prev"] for c in trace.calls if c.name == "dense_vjp_input"]
    return found[L - 1 - l] if len(found) == L - 1 else None


def entering(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """The same of a product that only its activation is left of: every hypothesis goes through the activation."""
    if kept.entering is None:
        return ""
    p, g = kept.entering
    l, r = _layer(finding), trace.recipe
    if g(p.v).shape != kept.got.shape:
        return ""
    rate = r.dropout[l - 1] if 0 < l <= len(r.dropout) else 0.0
    mask = layers.philox_mask(r.sizes[l], rate, r.seed, l, trace.t, np.arange(p.v.shape[1])) if rate else True
    b = 0.0 if p.plus is None else p.plus.astype(np.float64)
    for text, z in _products(p, b):
        a = np.where(mask, g(z) / (1.0 - rate), 0.0)
        off, gap = np.abs(kept.got - kept.want), np.abs(kept.got - a)
        # Wrong operands are rounded as well: what is left must be small beside what is explained.
        if np.all(gap <= FITS * kept.bound + 1e-2 * off + 1e-7 * np.abs(a)) and np.any(off > 16.0 * kept.bound):
            return text
    whole = {"g is missing: it is Z": _whole(p)} if not rate else {}
    if rate:
        whole["the mask is inverted"] = np.where(mask, 0.0, g(_whole(p)) / (1.0 - rate))
        whole[f"the mask is applied without its scale 1/(1 - {rate:g})"] = np.where(mask, g(_whole(p)), 0.0)
    for text, a in whole.items():  # where it should be 0, its bound is 0 too
        if np.all(np.abs(kept.got - a) <= FITS * kept.bound + 1e-5 * float(np.abs(a).max())):
            return text
    return ""


def _products(p: Product, b: np.ndarray | float) -> Iterator[tuple[str, np.ndarray]]:
    """P Q + b with one thing wrong."""
    P, Q, v = p.P.wide, p.Q.wide, p.v
    if np.any(b):
        yield "the bias is missing", v
        yield "the bias is added twice", v + 2.0 * b
        yield "the bias is subtracted", v - b
        for shift in (1, -1):
            yield f"the bias is that of another unit: rolled by {shift}", v + np.roll(b, shift, axis=0)
    if P.shape[0] == P.shape[1]:
        yield "the matrix is transposed in the product", P.T @ Q + b
    yield "the right operand is read in the other memory order", P @ _misread(Q) + b
    yield "the left operand is read in the other memory order", _misread(P) @ Q + b
    for bits, name in PRECISIONS.items():
        for rounded, how in ((_nearest, "rounded"), (_cut, "cut")):
            yield f"operands {how} to {bits} bits, as by {name}", rounded(P, bits) @ rounded(Q, bits) + b
    for k in range(min(p.k, MOST_TERMS)):
        term = np.outer(P[:, k], Q[k])
        last = " (the last)" if k == p.k - 1 else ""
        yield f"term {k} of {p.k}{last} is missing in every sum", v - term + b
        yield f"term {k} of {p.k}{last} is counted twice in every sum", v + term + b


# -- precision --------------------------------------------------------------------------------------------------------

PRECISIONS = {11: "tf32 or fp16", 8: "bf16"}


def operands(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """The residual of a product as a rounding of its operands: rms = u_in q sqrt(2/3), q^2 = P^2 Q^2."""
    p = kept.product
    if p is None or p.bounds.u > 2.0**-20:
        return ""
    n, m = p.v.shape
    q2 = float(np.sum(p.P.column_squares * p.Q.row_squares)) / (n * m)
    square = q2 * float(np.mean(_follows(kept, p) ** 2))
    q, rms = math.sqrt(square) * abs(p.scale), math.sqrt(float(np.mean(np.square(kept.got - kept.want))))
    if q == 0.0 or rms == 0.0:
        return ""
    bits = -math.log2(rms / (q * math.sqrt(2.0 / 3.0)))
    for kept_bits, name in PRECISIONS.items():
        for rounded, how in ((_nearest, "rounded"), (_cut, "cut")):
            if _explains(kept, p, rounded(p.P.wide, kept_bits) @ rounded(p.Q.wide, kept_bits)):
                return f"operands {how} to {kept_bits} bits, as by {name} (residual 2^-{bits:.1f} of them)"
    return _of_the_step_before(finding, kept, p, trace) or _other_operand(kept, p) or _low_sum(kept, p, bits)


def _low_sum(kept: Kept, p: Product, bits: float) -> str:
    """Small differences all over, as sums of fewer bits leave."""
    off, size = np.abs(kept.got - kept.want), np.abs(p.P.wide) @ np.abs(p.Q.wide) * abs(p.scale)
    follows = np.abs(_follows(kept, p))
    wrong = wrong_entries(kept)
    if wrong.mean() < 0.3 or np.any(off > 2.0**-7 * (size * follows + kept.bound)):
        return ""
    return f"a sum of lower precision: all within 2^-7 of the sizes of their terms (residual 2^-{bits:.1f})"


def _of_the_step_before(finding: Finding, kept: Kept, p: Product, trace: StepTrace) -> str:
    """An operand as it was one step earlier."""
    before, l = trace.previous, _layer(finding)
    if before is None:
        return ""
    transposed = {"dense": False, "dense_vjp_params": True}.get(finding.operation)
    if finding.operation == "dense_vjp_input":
        pairs = {"left": _theta(before, f"W{l + 1}"), "right": _written(before, l + 1)}
    elif transposed is None:
        return ""
    else:
        A = before.X if l == 1 else None if (call := forward_of(before, l - 1)) is None else call.wrote["A"]
        right = None if A is None else A.T if transposed else A
        pairs = {"left": _written(before, l) if transposed else _theta(before, f"W{l}"), "right": right}
    if finding.operation == "dense_vjp_input" and pairs["left"] is not None:
        pairs["left"] = pairs["left"].T
    for side, other in pairs.items():
        own = p.P.wide if side == "left" else p.Q.wide
        if other is None or other.shape != own.shape or np.array_equal(other, own):
            continue
        wide = other.astype(np.float64)
        if _explains(kept, p, wide @ p.Q.wide if side == "left" else p.P.wide @ wide):
            return f"the {side} operand is that of the step before: stale"
    return ""


def _theta(trace: StepTrace, name: str) -> np.ndarray | None:
    at, shape = trace.recipe.layout.get(name, (0, (0, 0)))
    return trace.theta[at : at + shape[0] * shape[1]].reshape(shape) if name in trace.recipe.layout else None


def _other_operand(kept: Kept, p: Product) -> str:
    """One operand right and the other not: the difference then lies in the space of the right one's rows or columns."""
    follows = _follows(kept, p)
    if not np.all(np.abs(follows[np.abs(_whole(p)) > 0.0]) > 1e-3):
        return ""  # what a mask has taken away cannot be looked at
    rest = (kept.got - kept.want) / np.where(follows == 0.0, 1.0, follows) / (p.scale or 1.0)
    for side, basis, r, own in (("left", p.Q.wide, rest, p.P.wide), ("right", p.P.wide.T, rest.T, p.Q.wide.T)):
        k, m = basis.shape
        if k >= m:
            continue
        change, *_ = np.linalg.lstsq(basis.T, r.T, rcond=None)
        left = r - change.T @ basis
        if float(np.linalg.norm(left)) <= 1e-3 * float(np.linalg.norm(r)):
            by = float(np.linalg.norm(change)) / max(float(np.linalg.norm(own)), 1e-300)
            return f"the {side} operand is another than was recorded (off by {by:.2g} of it): stale, or moved too early"
    return ""


def _nearest(x: np.ndarray, bits: int) -> np.ndarray:
    """x with so many bits of mantissa."""
    unit = np.ldexp(1.0, np.frexp(x)[1] - bits)
    return np.asarray(np.rint(x / unit) * unit)


def _cut(x: np.ndarray, bits: int) -> np.ndarray:
    """x with its last bits cut off."""
    unit = np.ldexp(1.0, np.frexp(x)[1] - bits)
    return np.asarray(np.trunc(x / unit) * unit)
