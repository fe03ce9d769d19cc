"""Hypotheses about a wrong tensor that need to know the operation: biases, products, derivatives, masks, precision."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from ..comparator import Comparison
from ..findings import Finding
from ..oracle import layers
from ..oracle.products import Product
from ..trace import StepTrace
from .evidence import FITS, PRECISIONS, fits, forward_of, layer_of, wrong_entries

MOST_TERMS = 256  # that are tried one by one
OVERWRITTEN = "what the micro-batches before it left is missing"


def _whole(p: Product) -> np.ndarray:
    v = p.v * p.scale
    return v if p.plus is None else v + p.plus


def _itself(comparison: Comparison) -> Product | None:
    """The product that the tensor is, if nothing follows it."""
    p = comparison.product
    return p if p is not None and np.array_equal(_whole(p), comparison.want) else None


# -- biases and products ----------------------------------------------------------------------------------------------


def bias(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Z off by its bias."""
    p = _itself(comparison)
    if p is None or p.plus is None or p.plus.shape[1:] != (1,) or not np.any(p.plus):
        return ""
    b = p.plus.astype(np.float64)
    others = {"is missing": -b, "is added twice": b, "is subtracted": -2.0 * b}
    for shift in (1, -1):
        others[f"is that of another unit: rolled by {shift}"] = np.roll(b, shift, axis=0) - b
    return next((f"the bias {text}" for text, off in others.items() if fits(comparison, comparison.want + off)), "")


def product_transposed(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """A matrix taken the other way round, before anything that follows the product."""
    p = comparison.product
    if p is None:
        return ""
    others = {}
    if p.P.x.shape[0] == p.P.x.shape[1]:
        others["the matrix is transposed in the product"] = p.P.wide.T, p.Q.wide
    others["the right operand is read in the other memory order"] = p.P.wide, _misread(p.Q.wide)
    others["the left operand is read in the other memory order"] = _misread(p.P.wide), p.Q.wide
    return next((text for text, (P, Q) in others.items() if _explains(comparison, p, P @ Q)), "")


def _misread(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T).reshape(x.shape)


def _follows(comparison: Comparison, p: Product) -> np.ndarray:
    """What each entry of the product is multiplied with afterwards: 1, ReLU's 0 or 1, or a derivative."""
    whole = _whole(p)
    return np.divide(comparison.want, whole, out=np.zeros_like(whole), where=whole != 0.0)


def _explains(comparison: Comparison, p: Product, product: np.ndarray) -> bool:
    """Whether another product explains nine entries in ten to three digits; ReLU may have decided otherwise on some."""
    hypothesis = product * p.scale + (0.0 if p.plus is None else p.plus)
    hypothesis = hypothesis * _follows(comparison, p)
    gap, off = np.abs(comparison.got - hypothesis), np.abs(comparison.got - comparison.want)
    differs = off > 0.0
    room = min(1e-3 * float(np.quantile(np.abs(hypothesis)[differs], 0.9)), 0.1 * float(np.quantile(off[differs], 0.9)))
    return bool(np.quantile(gap[differs], 0.9) <= room and np.quantile(gap, 0.9) <= room)


def overwritten(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """dW or db without what the micro-batches before this one added up."""
    p = comparison.product
    if finding.tensor.startswith("dW") and p is not None and p.plus is not None and np.any(p.plus):
        before = p.plus.astype(np.float64)
    elif finding.tensor.startswith("db") and comparison.want.shape[1:] == (1,):
        l, L = layer_of(finding), len(trace.spec.sizes) - 1
        name, key = ("output_delta", "db") if l == L else ("dense_vjp_input", "db_prev")
        found = [c.wrote[key] for c in trace.calls if c.name == name and c.wrote[key].shape == comparison.want.shape]
        previous = [x.astype(np.float64) for x in found]
        return next((OVERWRITTEN for x in previous if np.any(x) and fits(comparison, comparison.want - x)), "")
    else:
        return ""
    return OVERWRITTEN if fits(comparison, comparison.want - before) else ""


def lost_term(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """One term missing or taken twice in every sum, or in one entry alone."""
    p, wrong = _itself(comparison), wrong_entries(comparison)
    if p is None:
        return ""
    rest = comparison.want - comparison.got
    P, Q, what = p.P.wide * p.scale, p.Q.wide, "example" if finding.operation == "dense_vjp_params" else "term"
    if wrong.sum() == 1:
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        terms = P[at[0]] * Q[:, at[1]]
        k = int(np.argmin(np.abs(terms - rest[at])))
        lost = abs(terms[k] - rest[at]) <= FITS * comparison.bound[at]
        return f"entry {list(at)} alone lacks {what} {k} of its sum: a lost addition" if lost else ""
    row = int(np.argmax(np.abs(rest).max(axis=1)))
    for sign, how in ((1.0, "missing"), (-1.0, "counted twice")):
        k = int(np.argmin(np.sum((P[row][:, None] * Q - sign * rest[row]) ** 2, axis=1)))
        term = np.outer(P[:, k], Q[k])
        if np.any(np.abs(term) > comparison.bound) and fits(comparison, comparison.want - sign * term):
            return f"{what} {k} of {p.k}{' (the last)' if k == p.k - 1 else ''} is {how} in every sum"
    return ""


def one_operand(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """One row wrong by a multiple of one row of the right operand: one entry of the left one was another."""
    p, wrong = _itself(comparison), wrong_entries(comparison)
    if p is None or p.k < 2 or p.Q.x.shape[1] < 4:
        return ""
    rows = np.flatnonzero(wrong.any(axis=1))
    if len(rows) != 1:
        return ""
    row, Q = int(rows[0]), p.Q.wide
    rest = comparison.got[row] - comparison.want[row]
    multiples = (Q @ rest) / np.maximum(np.einsum("km,km->k", Q, Q), 1e-300)
    k = int(np.argmin(np.sum((multiples[:, None] * Q - rest) ** 2, axis=1)))
    left = np.abs(rest - multiples[k] * Q[k])
    if not np.all(left <= FITS * comparison.bound[row]):
        return ""
    return f"entry [{row}, {k}] of the left operand is off by {multiples[k]:.3g} (it is {p.P.wide[row, k]:.6g})"


def part_of_the_examples(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """db as a sum over fewer examples."""
    if not re.fullmatch(r"db\d+", finding.tensor):
        return ""
    dZ = _written(trace, layer_of(finding))
    if dZ is None or dZ.shape[1] < 2:
        return ""
    scale = 1.0 if trace.spec.one_over_m == "early" else 1.0 / _denominator(trace)
    half = dZ.shape[1] // 2
    parts = {
        "every second example": dZ[:, ::2],
        "the first half": dZ[:, :half],
        "all examples but the last": dZ[:, :-1],
    }
    for text, part in parts.items():
        if fits(comparison, scale * part.sum(axis=1, keepdims=True, dtype=np.float64)):
            return f"the sum is over {text} alone"
    off, m = comparison.got - comparison.want, dZ.shape[1]
    for k in range(m):
        one = scale * dZ[:, k : k + 1].astype(np.float64)
        for sign, how in ((1.0, "counted twice"), (-1.0, "missing")):
            if np.any(np.abs(one) > comparison.bound) and np.all(np.abs(off - sign * one) <= FITS * comparison.bound):
                return f"example {k} of {m} is {how} in the sum"
    return ""


def _denominator(trace: StepTrace) -> float:
    if trace.spec.reduction == "sum":
        return 1.0
    return float(trace.X.shape[1] if trace.weights is None else trace.weights.sum(dtype=np.float64))


def _written(trace: StepTrace, l: int) -> np.ndarray | None:
    """dZ of a layer, where the batch is in one piece."""
    L = len(trace.spec.sizes) - 1
    if l == L:
        found = [c.wrote["dZ"] for c in trace.calls if c.name == "output_delta"]
        return found[0] if len(found) == 1 else None
    found = [c.wrote["dZ_prev"] for c in trace.calls if c.name == "dense_vjp_input"]
    return found[L - 1 - l] if len(found) == L - 1 else None


def entering(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The same of a product that only its activation is left of: every hypothesis goes through the activation."""
    if comparison.entering is None:
        return ""
    p, g = comparison.entering
    l, r = layer_of(finding), trace.spec
    if g(p.v).shape != comparison.got.shape:
        return ""
    rate = r.dropout[l - 1] if 0 < l <= len(r.dropout) else 0.0
    mask = layers.philox_mask(r.sizes[l], rate, r.seed, l, trace.t, np.arange(p.v.shape[1])) if rate else True
    b = 0.0 if p.plus is None else p.plus.astype(np.float64)
    for text, z in _products(p, b):
        a = np.where(mask, g(z) / (1.0 - rate), 0.0)
        off, gap = np.abs(comparison.got - comparison.want), np.abs(comparison.got - a)
        # Wrong operands are rounded as well: what is left must be small beside what is explained.
        if np.all(gap <= FITS * comparison.bound + 1e-2 * off + 1e-7 * np.abs(a)) and np.any(
            off > 16.0 * comparison.bound
        ):
            return text
    whole = {"g is missing: it is Z": _whole(p)} if not rate else {}
    if rate:
        whole["the mask is inverted"] = np.where(mask, 0.0, g(_whole(p)) / (1.0 - rate))
        whole[f"the mask is applied without its scale 1/(1 - {rate:g})"] = np.where(mask, g(_whole(p)), 0.0)
    for text, a in whole.items():  # where it should be 0, its bound is 0 too
        if np.all(np.abs(comparison.got - a) <= FITS * comparison.bound + 1e-5 * float(np.abs(a).max())):
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


def operands(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The residual of a product as a rounding of its operands: rms = u_in q sqrt(2/3), q^2 = P^2 Q^2."""
    p = comparison.product
    if p is None or p.bounds.u > 2.0**-20:
        return ""
    n, m = p.v.shape
    q2 = float(np.sum(p.P.column_squares * p.Q.row_squares)) / (n * m)
    square = q2 * float(np.mean(_follows(comparison, p) ** 2))
    q, rms = math.sqrt(square) * abs(p.scale), math.sqrt(float(np.mean(np.square(comparison.got - comparison.want))))
    if q == 0.0 or rms == 0.0:
        return ""
    bits = -math.log2(rms / (q * math.sqrt(2.0 / 3.0)))
    for kept_bits, name in PRECISIONS.items():
        for rounded, how in ((_nearest, "rounded"), (_cut, "cut")):
            if _explains(comparison, p, rounded(p.P.wide, kept_bits) @ rounded(p.Q.wide, kept_bits)):
                return f"operands {how} to {kept_bits} bits, as by {name} (residual 2^-{bits:.1f} of them)"
    return (
        _of_the_step_before(finding, comparison, p, trace)
        or _other_operand(comparison, p)
        or _low_sum(comparison, p, bits)
    )


def _low_sum(comparison: Comparison, p: Product, bits: float) -> str:
    """Small differences all over, as sums of fewer bits leave."""
    off, size = np.abs(comparison.got - comparison.want), np.abs(p.P.wide) @ np.abs(p.Q.wide) * abs(p.scale)
    follows = np.abs(_follows(comparison, p))
    wrong = wrong_entries(comparison)
    if wrong.mean() < 0.3 or np.any(off > 2.0**-7 * (size * follows + comparison.bound)):
        return ""
    return f"a sum of lower precision: all within 2^-7 of the sizes of their terms (residual 2^-{bits:.1f})"


def _of_the_step_before(finding: Finding, comparison: Comparison, p: Product, trace: StepTrace) -> str:
    """An operand as it was one step earlier."""
    before, l = trace.previous, layer_of(finding)
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
        if _explains(comparison, p, wide @ p.Q.wide if side == "left" else p.P.wide @ wide):
            return f"the {side} operand is that of the step before: stale"
    return ""


def _theta(trace: StepTrace, name: str) -> np.ndarray | None:
    at, shape = trace.spec.layout.get(name, (0, (0, 0)))
    return trace.theta[at : at + shape[0] * shape[1]].reshape(shape) if name in trace.spec.layout else None


def _other_operand(comparison: Comparison, p: Product) -> str:
    """One operand right and the other not: the difference then lies in the space of the right one's rows or columns."""
    follows = _follows(comparison, p)
    if not np.all(np.abs(follows[np.abs(_whole(p)) > 0.0]) > 1e-3):
        return ""  # what a mask has taken away cannot be looked at
    rest = (comparison.got - comparison.want) / np.where(follows == 0.0, 1.0, follows) / (p.scale or 1.0)
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
