"""What kind of fault a wrong gradient looks like, from the whole tensor beside the right one.

Each test is a hypothesis that explains all of the difference; the most particular is asked first, and none is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EXPLAINED = 1e-4  # of a difference may be left by the hypothesis that explains it
PRECISIONS = {24: "float32", 11: "float16 or tf32", 8: "bfloat16"}


@dataclass(frozen=True)
class Batch:
    """What the denominators of a cost can be confused with."""

    m: int
    n_out: int
    mean: bool
    weights_sum: float | None = None
    members: int = 1


def denominators(batch: Batch) -> Iterator[tuple[str, float]]:
    """Factors by which a denominator, or a count, may be wrong."""
    m, D = batch.m, float(batch.m)
    if batch.weights_sum is not None:
        D = batch.weights_sum
        yield "divided by the number of examples, not by the sum of their weights", D / m
    if batch.mean:
        yield "the 1/m is missing", D
        yield "the 1/m is applied twice", 1.0 / D
        yield "the 1/m is applied three times", 1.0 / D**2
    if m > 1:
        yield "divided by m - 1", m / (m - 1)
        yield "one example of m is lost", (m - 1) / m
    if batch.members > 1:
        yield f"summed over the {batch.members} members, not averaged: the 1/k is missing", float(batch.members)
        yield f"the 1/k of the {batch.members} members is applied twice", 1.0 / batch.members
    if batch.n_out > 1:
        yield f"summed over the {batch.n_out} outputs, not averaged", float(batch.n_out)
        yield f"averaged over the {batch.n_out} outputs, not summed", 1.0 / batch.n_out


def repetitions() -> Iterator[tuple[str, float]]:
    """Factors that several ranks or passes leave behind."""
    yield "doubled: added up by 2 ranks or in 2 passes without dividing", 2.0
    yield "halved", 0.5
    for ranks in (3, 4, 8, 16):
        yield f"added up over {ranks} ranks without dividing", float(ranks)
        yield f"divided once too often by {ranks} ranks", 1.0 / ranks


def diagnose(
    got: np.ndarray, want: np.ndarray, batch: Batch, theta: np.ndarray, terms: Sequence[np.ndarray], penalized: bool
) -> str:
    """The likely cause of a gradient ``got`` that should be ``want``, or an empty text.

    Parameters
    ----------
    got, want, theta : (n, k)
        Of one parameter tensor.
    terms : sequence of (n, k)
        The examples' own gradients, where there are few; empty otherwise.
    penalized : bool
        Whether the tensor carries the penalty.
    """
    if not np.all(np.isfinite(got)):
        return f"{int(np.count_nonzero(~np.isfinite(got)))} entries are NaN or infinite"
    if not got.any():
        return "all 0: never written, or multiplied with 0"
    return (
        _factor(got, want, batch)
        or _rearranged(got, want)
        or _lost(got, want, terms)
        or _penalty(got, want, theta, penalized)
        or _few(got, want)
        or _precision(got, want)
    )


def _left(rest: np.ndarray, hypothesis: np.ndarray) -> float:
    """The part of a difference that a hypothesis about it leaves."""
    return float(np.linalg.norm(rest - hypothesis) / np.linalg.norm(rest))


def _factor(got: np.ndarray, want: np.ndarray, batch: Batch) -> str:
    square = float(np.sum(want * want))
    if square == 0.0 or np.count_nonzero(want) < 2:
        return ""
    c = float(np.sum(got * want)) / square
    if _left(got - want, (c - 1.0) * want) > EXPLAINED:
        return ""
    if abs(c + 1.0) < 1e-6:
        return "the sign is turned"
    for text, factor in (*denominators(batch), *repetitions()):
        for sign, more in ((1.0, ""), (-1.0, ", and the sign is turned")):
            if abs(c / (sign * factor) - 1.0) < 1e-6:
                return f"{text}{more} (got/want {c:.6g})"
    return f"a constant factor (got/want {c:.9g})"


def _rearranged(got: np.ndarray, want: np.ndarray) -> str:
    if want.shape[0] == want.shape[1] > 1 and _left(got - want, want.T - want) <= EXPLAINED:
        return "equal to the transpose"
    for axis, what in ((0, "rows"), (1, "columns")):
        for shift in (1, -1):
            if want.shape[axis] > 1 and _left(got - want, np.roll(want, shift, axis) - want) <= EXPLAINED:
                return f"{what} are rolled by {shift}"
    return ""


def _lost(got: np.ndarray, want: np.ndarray, terms: Sequence[np.ndarray]) -> str:
    for i, term in enumerate(terms):
        if term.any():
            if _left(got - want, -term) <= EXPLAINED:
                return f"example {i} is missing from the sum"
            if _left(got - want, term) <= EXPLAINED:
                return f"example {i} is counted twice"
    half = len(terms) // 2
    for text, part in (("the first half", terms[:half]), ("every second example", terms[::2])):
        if half and _left(got - want, np.sum(part, axis=0) - np.sum(terms, axis=0)) <= EXPLAINED:
            return f"the sum is over {text} alone"
    return ""


def _penalty(got: np.ndarray, want: np.ndarray, theta: np.ndarray, penalized: bool) -> str:
    """Off by a multiple of the parameters, as L2 adds it, or of their signs, as L1 does."""
    for name, direction in (("L2", theta), ("L1", np.sign(theta))):
        square = float(np.sum(direction * direction))
        c = float(np.sum((got - want) * direction)) / square if square else 0.0
        if c and np.count_nonzero(direction) > 1 and _left(got - want, c * direction) <= EXPLAINED:
            how = "missing, or of the wrong sign" if c < 0.0 else "added once too often"
            return f"the {name} penalty is {how if penalized else 'put on biases too'} (off by {c:.6g} times it)"
    return ""


def _few(got: np.ndarray, want: np.ndarray) -> str:
    """One entry, one row or one column wrong, all others right."""
    off = np.abs(got - want)
    wrong = off > EXPLAINED * off.max()
    count = int(wrong.sum())
    if count == 1 and wrong.size > 1:
        return "this entry alone is wrong"
    for axis, what in ((0, "row"), (1, "column")):
        found = np.flatnonzero(wrong.any(axis=1 - axis))
        if len(found) == 1 and wrong.shape[axis] > 2:
            last = " (the last)" if found[0] == wrong.shape[axis] - 1 else ""
            return f"{what} {found[0]}{last} of {wrong.shape[axis]} alone is wrong"
    return ""


def _precision(got: np.ndarray, want: np.ndarray) -> str:
    """Relative errors of the size of a rounding, all over; larger ones have another cause."""
    clear = want != 0.0
    relative = np.abs(got - want)[clear] / np.abs(want)[clear]
    bits = -math.log2(max(float(np.median(relative)), 2.0**-60)) if relative.size > 3 else 0.0
    for kept, name in PRECISIONS.items():
        if kept <= bits <= kept + 4.0:
            return f"a precision of about {bits:.0f} bits, as of {name}"
    return ""
