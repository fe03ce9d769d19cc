"""Comparing what a device recorded with its reference, block by block, and keeping the worst of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .findings import Finding, Status
from .oracle.bounds import Bounded
from .oracle.products import ExpectedRms, Product

BLOCK = 16_384  # entries: a dozen float64 arrays of them stay in a second-level cache

Part = tuple[slice, ...]
Entering = tuple[Product, Callable[[np.ndarray], np.ndarray]]
Reference = Callable[[slice], Bounded]


@dataclass(frozen=True)
class Comparison:
    """A whole comparison, for the tensors whose pictures or causes are wanted; all three of one shape.

    ``product``: what the tensor is the product of, if it is one. ``entering``: the product that a function turns into
    the tensor, and that function of float64 arrays, where the device does not keep the product.
    """

    got: np.ndarray
    want: np.ndarray
    bound: np.ndarray
    product: Product | None = None
    entering: Entering | None = None

    def ratio(self) -> np.ndarray:
        """|got - want| / bound, entry by entry."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(self.got - self.want)
            found = np.where(gap == 0.0, 0.0, gap / self.bound)
        same = (np.isnan(self.got) & np.isnan(self.want)) | (self.got == self.want)
        return np.where(same, 0.0, np.where(np.isnan(found), np.inf, found))


def blocks(length: int, width: int, cuts: Sequence[int] = ()) -> Iterator[slice]:
    """Slices of an axis, each of about BLOCK entries, none across a cut."""
    step, edges = max(BLOCK // max(width, 1), 1), [0, *cuts, length]
    for low, high in pairwise(edges):
        for start in range(low, high, step):
            yield slice(start, min(start + step, high))


def ratios(gap: np.ndarray, got: np.ndarray, reference: Bounded) -> tuple[np.ndarray, int]:
    """gap / bound before slack, written over ``gap`` = |got - v|, and how many entries have no bound.

    Infinite where an exact number differs in any bit, or where NaN and infinities do.
    """
    error = np.asarray(reference.error())
    top = float(error.max())
    if math.isfinite(top):
        found = gap
        if top == 0.0 or (reference.zeros and float(error.min()) == 0.0):
            np.divide(gap, error, out=found, where=gap > 0.0)
        else:
            found /= error
        if math.isfinite(float(found.max())):
            return found, 0
    return _odd_ratios(got, reference, error)


def _odd_ratios(got: np.ndarray, reference: Bounded, error: np.ndarray) -> tuple[np.ndarray, int]:
    """The same where there are exact numbers, NaN or infinities."""
    v, limit, gap = reference.v, reference.bounds.largest, np.abs(got - reference.v)
    finite = np.isfinite(got) & np.isfinite(v)
    found = np.where(gap == 0.0, 0.0, gap / error)
    found = np.where(finite & ~np.isnan(found), found, np.inf)
    overflow = np.isinf(got) & (np.sign(got) == np.sign(v)) & (np.abs(v) + error >= limit)
    same = (np.isnan(got) & np.isnan(v)) | (got == v) | overflow
    # Infinity times a number that may be 0 on the device is NaN there, and infinite here.
    neither = ~np.isfinite(got) & ~np.isfinite(v) & (error != 0.0)
    open_ = ~same & ((np.isfinite(v) & ~np.isfinite(error)) | neither)
    return np.where(same | open_, 0.0, found), int(open_.sum())


class Comparator:
    """Findings by tensor, in the order in which they are first checked, with the tensors that each was computed from.

    ``tf32``: the rms of a product's difference, as a part of what operands rounded to tf32 would leave.
    """

    def __init__(self, keep: Sequence[str] = ()) -> None:
        self.keep = set(keep)
        self.findings: dict[str, Finding] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.comparisons: dict[str, Comparison] = {}
        self.tf32: dict[str, float] = {}

    def compare(
        self,
        operation: str,
        tensor: str,
        got: np.ndarray,
        reference: Reference | Bounded,
        *,
        k: int = 1,
        inputs: Sequence[str] = (),
        axis: int = 0,
        cuts: Sequence[int] = (),
        expected: ExpectedRms | None = None,
        product: Product | None = None,
        entering: Entering | None = None,
    ) -> Finding:
        """Check a tensor by ``reference(rows)``, rows along ``axis``; of two with one name the worse is kept."""
        got = np.asarray(got)
        if isinstance(reference, Bounded):
            whole = reference
            if whole.shape != got.shape:
                return self.add(Finding(operation, tensor, got.shape, k, math.inf, status="wrong"), inputs)
            reference = _rows_of(whole, axis)
        found = _Worst(axis, expected is not None)
        for rows in blocks(got.shape[axis], got.size // max(got.shape[axis], 1), cuts):
            found.add(rows, got[_part(rows, axis)].astype(np.float64), reference(rows))
        finding = found.finding(operation, tensor, got.shape, k, expected)
        if expected is not None and found.alive:
            part = found.rms / expected.as_tf32 if expected.as_tf32 else math.inf
            self.tf32[tensor] = max(self.tf32.get(tensor, 0.0), part if math.isfinite(part) else math.inf)
        if finding.status == "wrong" or tensor in self.keep:
            better = tensor in self.comparisons and self.findings[tensor].ratio >= finding.ratio
            if not better:
                self.comparisons[tensor] = replace(
                    _whole(got, reference, axis, cuts), product=product, entering=entering
                )
        return self.add(finding, inputs)

    def same(
        self, operation: str, tensor: str, got: np.ndarray, want: np.ndarray, inputs: Sequence[str] = ()
    ) -> Finding:
        """Check a tensor that must be ``want`` bit for bit."""
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            return self.add(Finding(operation, tensor, got.shape, 1, math.inf, status="wrong"), inputs)
        if np.array_equal(got, want):
            return self.add(Finding(operation, tensor, got.shape, 1, 0.0), inputs)
        differs = ~((got == want) | ((got != got) & (want != want)))
        if not differs.any():  # but for NaN in the same places
            return self.add(Finding(operation, tensor, got.shape, 1, 0.0), inputs)
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(differs)), got.shape))
        g, w = got.astype(np.float64), want.astype(np.float64)
        self.comparisons.setdefault(tensor, Comparison(g, w, np.zeros_like(w)))
        return self.add(
            Finding(operation, tensor, got.shape, 1, math.inf, None, at, float(g[at]), float(w[at]), "wrong"), inputs
        )

    def add(self, finding: Finding, inputs: Sequence[str] = ()) -> Finding:
        """Take a finding; of two of one tensor the worse stays, at the place of the first."""
        before = self.findings.get(finding.tensor)
        if before is None or _rank(finding) > _rank(before):
            self.findings[finding.tensor] = finding
        self.inputs[finding.tensor] = tuple(dict.fromkeys([*self.inputs.get(finding.tensor, ()), *inputs]))
        return finding


def _rank(finding: Finding) -> tuple[int, float]:
    return ("ok", "warning", "wrong").index(finding.status), finding.ratio


def _part(rows: slice, axis: int) -> Part:
    return (rows,) if axis == 0 else (slice(None), rows)


def _rows_of(whole: Bounded, axis: int) -> Reference:
    return lambda rows: whole[_part(rows, axis)]


def _whole(got: np.ndarray, reference: Reference, axis: int, cuts: Sequence[int]) -> Comparison:
    parts = []
    for rows in blocks(got.shape[axis], got.size // max(got.shape[axis], 1), cuts):
        block = reference(rows)
        bound = np.broadcast_to(np.asarray(block.error() * block.bounds.slack, np.float64), block.shape)
        parts.append((block.v, bound))
    v, bound = (np.concatenate(list(arrays), axis=axis) for arrays in zip(*parts, strict=True))
    return Comparison(got.astype(np.float64), v, bound)


class _Worst:
    """The largest ratio of a tensor so far, and the sum of squares of the differences."""

    def __init__(self, axis: int, squares: bool) -> None:
        self.axis, self.squares = axis, squares
        self.ratio, self.at, self.got, self.want = -1.0, (), 0.0, 0.0
        self.open, self.square_sum, self.alive = 0, 0.0, 0

    def add(self, rows: slice, got: np.ndarray, reference: Bounded) -> None:
        if got.size == 0:
            return
        gap = np.subtract(got, reference.v)
        np.abs(gap, out=gap)
        if self.squares:
            self.square_sum += float(np.einsum("i,i->", gap.reshape(-1), gap.reshape(-1)))  # not a threaded BLAS
            self.alive += int(np.count_nonzero(reference.v)) if reference.zeros else gap.size
        found, no_bound = ratios(gap, got, reference)
        self.open += no_bound
        ratio = float(found.max()) / reference.bounds.slack
        if ratio > self.ratio:
            here = tuple(int(i) for i in np.unravel_index(int(found.argmax()), found.shape))
            self.ratio, self.got, self.want = ratio, float(got[here]), float(reference.v[here])
            self.at = tuple(i + rows.start * (n == self.axis) for n, i in enumerate(here))

    @property
    def rms(self) -> float:
        """Root mean square of the difference, of the entries that are not 0."""
        return math.sqrt(self.square_sum / self.alive)

    def finding(
        self, operation: str, tensor: str, shape: tuple[int, ...], k: int, expected: ExpectedRms | None
    ) -> Finding:
        ratio, rms = max(self.ratio, 0.0), None
        status: Status = "ok" if ratio <= 1.0 else "wrong"
        cause = ""
        if expected is not None and expected.honest and self.alive and math.isfinite(self.square_sum):
            rms = self.rms / expected.honest
            # Few entries may all be unlucky: six standard deviations of the mean of n squares of a rounding error.
            if status == "ok" and rms > 1.0 + 6.0 / math.sqrt(self.alive):
                status, cause = "warning", f"{rms:.3g} times what independent roundings would give"
        if status == "ok" and self.open:
            status, cause = "warning", f"{self.open} entries have no finite bound"
        at = self.at if self.ratio >= 0.0 else None
        return Finding(operation, tensor, shape, k, ratio, rms, at, self.got, self.want, status, cause)
