"""What kind of fault a wrong tensor looks like, with the number that gave it away.

Each test is one hypothesis that, taken back, leaves a difference within the bound. They are asked from the most
particular to the most general, and the first that fits is the answer; none is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ...gradcheck.diagnosis import Batch, denominators, repetitions
from ..comparator import Comparison
from ..findings import Finding
from ..trace import StepTrace
from . import layers, products, updates
from .evidence import FITS, fits, wrong_entries


def diagnose(finding: Finding, comparison: Comparison | None, trace: StepTrace) -> str:
    """The likely cause of a wrong finding, or an empty text."""
    if finding.status != "wrong" or comparison is None or comparison.got.shape != comparison.want.shape:
        return finding.cause
    with np.errstate(all="ignore"):
        return next((cause for test in TESTS if (cause := test(finding, comparison, trace))), "")


def _not_finite(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    got, want = np.isfinite(comparison.got), np.isfinite(comparison.want)
    hidden, made = int((got & ~want).sum()), int((~got & want).sum())
    if hidden:
        return f"{hidden} entries are finite where their inputs give NaN or infinity: something hides them"
    return f"{made} entries are NaN or infinite where the reference is finite" if made else ""


# -- constant factors -------------------------------------------------------------------------------------------------


def _denominators(trace: StepTrace) -> Iterator[tuple[str, float]]:
    """Factors by which a denominator, or a count, may be wrong."""
    m, weights_sum = trace.X.shape[1], None if trace.weights is None else float(trace.weights.sum(dtype=np.float64))
    r = trace.spec
    yield from denominators(Batch(m, r.sizes[-1], r.reduction == "mean", weights_sum, r.members))
    parts = [part.stop - part.start for part in trace.spec.parts(m)]
    if len(parts) > 1:
        for part in set(parts):
            yield "micro-batches of different sizes are weighted equally", m / (len(parts) * part)
        yield "divided by the micro-batch's examples, not by the batch's", m / parts[0]
    yield from repetitions()


def _constant(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """got = c want everywhere."""
    if comparison.bound.max() == 0.0 or not np.all(np.isfinite(comparison.want)):
        return ""
    score = np.abs(comparison.want) / np.maximum(comparison.bound, 1e-300)
    # The entries that tell the factor most exactly.
    clear = (score >= 0.5 * score.max()) & (score > 64.0)
    if not clear.any() or np.count_nonzero(score > 4.0) < min(4, comparison.want.size):
        return ""
    c = float(np.median(comparison.got[clear] / comparison.want[clear]))
    if not math.isfinite(c) or not fits(comparison, c * comparison.want, c):
        return ""
    if c == 0.0:
        return "all 0: never written, or multiplied with 0"
    if abs(c - 1.0) <= 1e-3:
        off, left = (np.abs(comparison.got - x * comparison.want)[clear].mean() for x in (1.0, c))
        eps = float(np.finfo(trace.spec.dtype).eps)
        return f"a constant relative error of {c - 1.0:.3g}, {abs(c - 1.0) / eps:.3g} ulp" if left < 0.1 * off else ""
    if abs(c + 1.0) < 1e-3:
        return f"the sign is turned (got/want {c:.6g})"
    near = min(1e-3, 4.0 * float(np.max(comparison.bound[clear] / np.abs(comparison.want[clear]))) + 1e-6)
    for text, factor in _denominators(trace):
        for sign, more in ((1.0, ""), (-1.0, ", and the sign is turned")):
            if abs(c / (sign * factor) - 1.0) < near:
                return f"{text}{more} (got/want {c:.6g})"
    # Any single number is some factor of any other.
    return f"a constant factor (got/want {c:.6g})" if comparison.want.size > 1 else ""


def _movement(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """What an update added, as a constant times what it should have added."""
    if finding.tensor != "theta":
        return ""
    before = trace.theta.astype(np.float64)
    cause = _constant(finding, replace(comparison, got=comparison.got - before, want=comparison.want - before), trace)
    return f"of the step that was taken, {cause}" if cause else ""


# -- arrangement ------------------------------------------------------------------------------------------------------


def _rearranged(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    got, want, bound = comparison.got, comparison.want, comparison.bound
    if want.ndim != 2 or want.size < 2:
        return ""
    if want.shape[0] == want.shape[1] > 1 and _near(got, want.T, bound.T):
        return "equal to the transpose"
    for axis, what in ((0, "rows"), (1, "columns")):
        for shift in (1, -1):
            if want.shape[axis] > 1 and _near(got, np.roll(want, shift, axis), np.roll(bound, shift, axis)):
                return f"{what} are rolled by {shift}"
        wrong = np.flatnonzero(wrong_entries(comparison).any(axis=1 - axis))
        if len(wrong) == 2:
            order = np.arange(want.shape[axis])
            order[wrong] = order[wrong[::-1]]
            if _near(got, np.take(want, order, axis), np.take(bound, order, axis)):
                return f"{what} {wrong[0]} and {wrong[1]} are swapped"
    if cause := _permuted(got, want, bound):
        return cause
    if min(want.shape) > 1:
        misread, its_bound = (np.ascontiguousarray(x.T).reshape(x.shape) for x in (want, bound))
        if _near(got, misread, its_bound):
            return "written in the other memory order"
    return ""


def _permuted(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> str:
    """Rows or columns in any other order, found by their sums; such as are nearly alike are not looked at."""
    for axis, what in ((1, "columns"), (0, "rows")):
        if want.shape[axis] < 3:
            continue
        if _near(got, np.flip(want, axis), np.flip(bound, axis)):
            return f"{what} are in reverse order"
        there, here = (np.argsort(x.sum(axis=1 - axis), kind="stable") for x in (want, got))
        order = np.empty(len(there), int)
        order[here] = there
        if np.array_equal(here, there):
            continue
        if _near(got, np.take(want, order, axis), np.take(bound, order, axis)):
            count = int((order != np.arange(len(order))).sum())
            return f"{count} of {len(order)} {what} are at other places"
    return ""


def _scaled_or_0(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Some entries 0, all others times one number: dropout where there is none, or with another scale."""
    gone = (comparison.got == 0.0) & (comparison.want != 0.0)
    there = (comparison.want != 0.0) & ~gone
    if not gone.any() or np.count_nonzero(there) < 4 or not np.all(np.isfinite(comparison.want)):
        return ""
    c = float(np.median(comparison.got[there] / comparison.want[there]))
    rest = replace(comparison, got=np.where(gone, c * comparison.want, comparison.got))
    if abs(c - 1.0) < 1e-3 or not fits(rest, c * comparison.want, c):
        return ""
    share = float(gone.sum() / (gone | there).sum())
    return f"{share:.0%} of the entries are 0 and all others times {c:.6g}: dropout"


def _near(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> bool:
    return bool(np.all(np.abs(got - want) <= FITS * bound))


def _edge(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Wrong rows or columns: the last ones alone, or a single one."""
    wrong = wrong_entries(comparison)
    if wrong.ndim != 2 or wrong.size < 4:
        return ""
    for axis, one, many in ((0, "row", "rows"), (1, "column", "columns")):
        n, found = wrong.shape[axis], np.flatnonzero(wrong.any(axis=1 - axis))
        if n < 3 or not 0 < len(found) <= n // 3 or float(np.take(wrong, found, axis).mean()) < 0.3:
            continue
        silent = bool((comparison.got[wrong] == 0.0).all())
        relative = np.abs(comparison.got - comparison.want)[wrong] / np.maximum(np.abs(comparison.want[wrong]), 1e-300)
        slightly = float(np.median(relative)) < 0.05
        what = "not computed" if silent else "a number of its own is off" if slightly else "stale, or not written"
        if found[0] == n - len(found):
            count = f"last {one}" if len(found) == 1 else f"last {len(found)} {many}"
            tile = "" if slightly and not silent else ", as at the edge of a tile"
            return f"wrong in the {count} of {n} alone: {what}{tile}"
        if len(found) == 1:
            return f"wrong in {one} {found[0]} of {n} alone: {what}"
    return ""


# -- the rest ---------------------------------------------------------------------------------------------------------


def _shifted(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The same number added to every entry."""
    rest = comparison.got - comparison.want
    shift = float(np.median(rest)) if rest.size else 0.0
    if rest.size < 4 or not wrong_entries(comparison).all() or float(np.max(np.abs(rest - shift))) > 1e-3 * abs(shift):
        return ""
    return f"{shift:.3g} is added to every entry"


def _small(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """An elementwise operation that is nearly right: the wrong entries, and only they, give the number."""
    wrong = wrong_entries(comparison) & (np.abs(comparison.want) > 0.0)
    relative = np.abs(comparison.got - comparison.want)[wrong] / np.abs(comparison.want)[wrong]
    if comparison.product is not None or relative.size < 2 or not float(np.median(relative)) < 1e-2:
        return ""
    typical = float(np.max(relative[relative <= 64.0 * np.median(relative)], initial=0.0))
    eps, share = float(np.finfo(trace.spec.dtype).eps), float(wrong_entries(comparison).mean())
    if typical < eps / 4.0:
        return ""
    size = f"{typical:.2g} ({typical / eps:.3g} ulp) of itself"
    return f"an approximation: off by up to {size}, {share:.0%} of entries too far"


def _how_many(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    wrong = wrong_entries(comparison)
    if wrong.size == 1 and comparison.want.any():
        return f"it is {float((comparison.got / comparison.want).reshape(-1)[0]):.7g} times what it should be"
    return f"{int(wrong.sum())} of {wrong.size} entries are too far off"


TESTS: tuple[Callable[[Finding, Comparison, StepTrace], str], ...] = (
    _not_finite,
    layers.not_0,
    products.bias,
    products.entering,
    products.product_transposed,
    products.overwritten,
    layers.other_activation,
    layers.masks,
    layers.output,
    layers.one_loss,
    layers.other_derivative,
    layers.copies,
    _rearranged,
    products.lost_term,
    products.part_of_the_examples,
    layers.kink,
    layers.clamped,
    layers.few,
    products.one_operand,
    _edge,
    _movement,
    updates.step_numbers,
    updates.penalty_on_biases,
    updates.penalty_times,
    updates.norms,
    updates.state,
    updates.adaptive,
    _constant,
    _scaled_or_0,
    layers.mask_of,
    layers.stored,
    products.operands,
    _shifted,
    _small,
    _how_many,
)
