"""What kind of fault a wrong tensor looks like, with the number that gave it away.

Each test is one hypothesis that, taken back, leaves a difference within the bound. They are asked from the most
particular to the most general, and the first that fits is the answer; none is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..gradcheck.causes import Batch, denominators, repetitions
from . import hypotheses as h
from . import hypotheses_derivatives as derivatives
from . import hypotheses_layers as layers
from . import hypotheses_updates as updates
from .findings import Finding
from .hypotheses import fits, wrong_entries
from .judge import Kept
from .trace import StepTrace


def classify(finding: Finding, kept: Kept | None, trace: StepTrace) -> str:
    """The likely cause of a wrong finding, or an empty text."""
    if finding.verdict != "wrong" or kept is None or kept.got.shape != kept.want.shape:
        return finding.cause
    with np.errstate(all="ignore"):
        return next((cause for test in TESTS if (cause := test(finding, kept, trace))), "")


def _not_finite(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    got, want = np.isfinite(kept.got), np.isfinite(kept.want)
    hidden, made = int((got & ~want).sum()), int((~got & want).sum())
    if hidden:
        return f"{hidden} entries are finite where their inputs give NaN or infinity: something hides them"
    return f"{made} entries are NaN or infinite where the reference is finite" if made else ""


# -- constant factors -------------------------------------------------------------------------------------------------


def _denominators(trace: StepTrace) -> Iterator[tuple[str, float]]:
    """Factors by which a denominator, or a count, may be wrong."""
    m, weights_sum = trace.X.shape[1], None if trace.weights is None else float(trace.weights.sum(dtype=np.float64))
    yield from denominators(Batch(m, trace.recipe.sizes[-1], trace.recipe.reduction == "mean", weights_sum))
    parts = [part.stop - part.start for part in trace.recipe.parts(m)]
    if len(parts) > 1:
        for part in set(parts):
            yield "micro-batches of different sizes are weighted equally", m / (len(parts) * part)
        yield "divided by the micro-batch's examples, not by the batch's", m / parts[0]
    yield from repetitions()


def _constant(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """got = c want everywhere."""
    if kept.bound.max() == 0.0 or not np.all(np.isfinite(kept.want)):
        return ""
    score = np.abs(kept.want) / np.maximum(kept.bound, 1e-300)
    # The entries that tell the factor most exactly.
    clear = (score >= 0.5 * score.max()) & (score > 64.0)
    if not clear.any() or np.count_nonzero(score > 4.0) < min(4, kept.want.size):
        return ""
    c = float(np.median(kept.got[clear] / kept.want[clear]))
    if not math.isfinite(c) or not fits(kept, c * kept.want, c):
        return ""
    if c == 0.0:
        return "all 0: never written, or multiplied with 0"
    if abs(c - 1.0) <= 1e-3:
        left = np.abs(kept.got - c * kept.want)[clear].mean() / np.abs(kept.got - kept.want)[clear].mean()
        eps = float(np.finfo(trace.recipe.dtype).eps)
        return f"a constant relative error of {c - 1.0:.3g}, {abs(c - 1.0) / eps:.3g} ulp" if left < 0.1 else ""
    if abs(c + 1.0) < 1e-3:
        return f"the sign is turned (got/want {c:.6g})"
    near = min(1e-3, 4.0 * float(np.max(kept.bound[clear] / np.abs(kept.want[clear]))) + 1e-6)
    for text, factor in _denominators(trace):
        for sign, more in ((1.0, ""), (-1.0, ", and the sign is turned")):
            if abs(c / (sign * factor) - 1.0) < near:
                return f"{text}{more} (got/want {c:.6g})"
    # Any single number is some factor of any other.
    return f"a constant factor (got/want {c:.6g})" if kept.want.size > 1 else ""


def _movement(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """What an update added, as a constant times what it should have added."""
    if finding.tensor != "theta":
        return ""
    before = trace.theta.astype(np.float64)
    cause = _constant(finding, replace(kept, got=kept.got - before, want=kept.want - before), trace)
    return f"of the step that was taken, {cause}" if cause else ""


# -- arrangement ------------------------------------------------------------------------------------------------------


def _rearranged(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    got, want, bound = kept.got, kept.want, kept.bound
    if want.ndim != 2 or want.size < 2:
        return ""
    if want.shape[0] == want.shape[1] > 1 and _near(got, want.T, bound.T):
        return "equal to the transpose"
    for axis, what in ((0, "rows"), (1, "columns")):
        for shift in (1, -1):
            if want.shape[axis] > 1 and _near(got, np.roll(want, shift, axis), np.roll(bound, shift, axis)):
                return f"{what} are rolled by {shift}"
        wrong = np.flatnonzero(wrong_entries(kept).any(axis=1 - axis))
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


def _scaled_or_0(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Some entries 0, all others times one number: dropout where there is none, or with another scale."""
    gone = (kept.got == 0.0) & (kept.want != 0.0)
    there = (kept.want != 0.0) & ~gone
    if not gone.any() or np.count_nonzero(there) < 4 or not np.all(np.isfinite(kept.want)):
        return ""
    c = float(np.median(kept.got[there] / kept.want[there]))
    rest = replace(kept, got=np.where(gone, c * kept.want, kept.got))
    if abs(c - 1.0) < 1e-3 or not fits(rest, c * kept.want, c):
        return ""
    share = float(gone.sum() / (gone | there).sum())
    return f"{share:.0%} of the entries are 0 and all others times {c:.6g}: dropout"


def _near(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> bool:
    return bool(np.all(np.abs(got - want) <= h.FITS * bound))


def _edge(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """Wrong rows or columns: the last ones alone, or a single one."""
    wrong = wrong_entries(kept)
    if wrong.ndim != 2 or wrong.size < 4:
        return ""
    for axis, one, many in ((0, "row", "rows"), (1, "column", "columns")):
        n, found = wrong.shape[axis], np.flatnonzero(wrong.any(axis=1 - axis))
        if n < 3 or not 0 < len(found) <= n // 3 or float(np.take(wrong, found, axis).mean()) < 0.3:
            continue
        silent = bool((kept.got[wrong] == 0.0).all())
        relative = np.abs(kept.got - kept.want)[wrong] / np.maximum(np.abs(kept.want[wrong]), 1e-300)
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


def _shifted(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """The same number added to every entry."""
    rest = kept.got - kept.want
    shift = float(np.median(rest)) if rest.size else 0.0
    if rest.size < 4 or not wrong_entries(kept).all() or float(np.max(np.abs(rest - shift))) > 1e-3 * abs(shift):
        return ""
    return f"{shift:.3g} is added to every entry"


def _small(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    """An elementwise operation that is nearly right: the wrong entries, and only they, give the number."""
    wrong = wrong_entries(kept) & (np.abs(kept.want) > 0.0)
    relative = np.abs(kept.got - kept.want)[wrong] / np.abs(kept.want)[wrong]
    if kept.product is not None or relative.size < 2 or not float(np.median(relative)) < 1e-2:
        return ""
    typical = float(np.max(relative[relative <= 64.0 * np.median(relative)], initial=0.0))
    eps, share = float(np.finfo(trace.recipe.dtype).eps), float(wrong_entries(kept).mean())
    if typical < eps / 4.0:
        return ""
    size = f"{typical:.2g} ({typical / eps:.3g} ulp) of itself"
    return f"an approximation: off by up to {size}, {share:.0%} of entries too far"


def _how_many(finding: Finding, kept: Kept, trace: StepTrace) -> str:
    wrong = wrong_entries(kept)
    if wrong.size == 1 and kept.want.any():
        return f"it is {float((kept.got / kept.want).reshape(-1)[0]):.7g} times what it should be"
    return f"{int(wrong.sum())} of {wrong.size} entries are too far off"


TESTS: tuple[Callable[[Finding, Kept, StepTrace], str], ...] = (
    _not_finite,
    layers.not_0,
    h.bias,
    h.entering,
    h.product_transposed,
    h.overwritten,
    layers.other_activation,
    layers.masks,
    layers.output,
    layers.one_loss,
    derivatives.other_derivative,
    layers.copies,
    _rearranged,
    h.lost_term,
    h.part_of_the_examples,
    derivatives.kink,
    layers.clamped,
    layers.few,
    h.one_operand,
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
    derivatives.mask,
    layers.stored,
    h.operands,
    _shifted,
    _small,
    _how_many,
)
