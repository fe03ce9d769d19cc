"""Matrix products: |device - P Q| <= gamma_K |P| |Q| for any order of summation, split or not, with or without FMA.

Source: Higham, *Accuracy and Stability*, 3.5. Operands that are rounded on the way in (tf32, bf16) are off by u_in |P|
and u_in |Q|, so that the bound is

    |P| E_Q + E_P (|Q| + E_Q) + gamma_K (|P| + E_P)(|Q| + E_Q) = ((1 + u_in)^2 (1 + gamma_K) - 1) |P| |Q|.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .bounds import U64, Bounded, Bounds, weighed

LONG = 256
"""Sums from this length on have a bound that says little of precision: its factor |P| |Q| is then taken from norms."""


class Recorded:
    """An array as the device recorded it, with what is made of it once: a float64 copy, its size, its largest entry."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    @cached_property
    def wide(self) -> np.ndarray:
        """In float64."""
        return self.x.astype(np.float64)

    @cached_property
    def size(self) -> np.ndarray:
        """|x|, in its own dtype."""
        return np.abs(self.x)

    @cached_property
    def top(self) -> float:
        """max |x|."""
        return float(max(self.x.max(), -self.x.min()))

    @cached_property
    def row_squares(self) -> np.ndarray:
        """Sums of squares along the rows, (n,)."""
        return np.einsum("nk,nk->n", self.wide, self.wide)

    @cached_property
    def column_squares(self) -> np.ndarray:
        """Sums of squares down the columns, (k,)."""
        return np.einsum("nk,nk->k", self.wide, self.wide)

    @cached_property
    def T(self) -> Recorded:
        """The transpose, which shares them."""
        turned = Recorded(self.x.T)
        turned.__dict__.update(wide=self.wide.T, row_squares=self.column_squares, column_squares=self.row_squares)
        if "size" in self.__dict__:
            turned.__dict__["size"] = self.size.T
        return turned

    def given(self, bounds: Bounds, part: Any = slice(None)) -> Bounded:
        """A part of it: exact."""
        return Bounded(bounds, self.x[part].astype(np.float64), self.top)


class ExpectedRms(NamedTuple):
    """What the root mean square of a difference should be, and what it would be had operands been rounded to tf32."""

    honest: float
    as_tf32: float

    def after(self, got: np.ndarray, product: np.ndarray) -> ExpectedRms:
        """The same of a function of the product, whose slope is taken as the ratio of their spreads; for tf32 alone."""
        spread, before = float(np.std(got, dtype=np.float64)), float(np.std(product))
        return ExpectedRms(0.0, self.as_tf32 * (spread / before if before else 0.0))


class Product:
    """scale P Q + plus, block by block: ``product[rows]`` is a :class:`Bounded` of those rows.

    Parameters
    ----------
    P, Q : (n, k), (k, m)
    plus : (n, 1) or (n, m), optional
        A bias, or what was there before: a term of the sum, wherever in its order a device adds it.
    scale : float, default 1.0
        Applied to the product, or to its parts.
    """

    def __init__(
        self, bounds: Bounds, P: Recorded, Q: Recorded, *, plus: np.ndarray | None = None, scale: float = 1.0
    ) -> None:
        self.bounds, self.k, self.scale, self.plus = bounds, P.x.shape[1], scale, plus
        self.P, self.Q = P, Q
        self.v = P.wide @ Q.wide
        self.size = None if bounds.u == 0.0 or self.k >= LONG else _size(P, Q)
        self.norms = _norms(P, Q) if self.size is None and bounds.u else None
        self.edges = None if bounds.eta_in == 0.0 else _edges(bounds.eta_in * max(1.0, abs(scale)), P.size, Q.size)
        roundings = self.k + (scale != 1.0) + (plus is not None)
        # The device's roundings, those of v, and those of the sizes, which are summed in the recorded precision.
        u = bounds.u_sum + U64 if bounds.u else 0.0
        gamma = bounds.gamma(roundings, u)
        self.factor = ((1.0 + bounds.u_in) ** 2 * (1.0 + gamma) - 1.0) * (1.0 + 2.0 * bounds.gamma(self.k, 2.0**-24))
        self.floor = (2 * self.k + 3) * bounds.eta * max(1.0, abs(scale))
        # |P Q| <= |P| |Q|, whose rounding the factor covers
        most = float(np.max(np.abs(self.v))) if self.norms is None else float(self.norms[0].max() * self.norms[1].max())
        most = most if self.size is None else float(self.size.max()) * (1.0 + 2.0 * bounds.gamma(self.k, 2.0**-24))
        added = 0.0 if plus is None else float(np.abs(plus).max())
        self.top = most * abs(scale) + added
        # Sums of a lower precision are taken in float32, which a part of a sum may overflow although the sum does not.
        self.limit = bounds.largest if bounds.u <= bounds.u_sum else float(np.finfo("float32").max)
        self.parts_overflow = not most + added < self.limit

    @property
    def shape(self) -> tuple[int, ...]:
        return self.v.shape

    def __getitem__(self, rows: slice) -> Bounded:
        v = self.v[rows] * self.scale if self.scale != 1.0 else self.v[rows]
        plus = None if self.plus is None else self.plus[rows].astype(np.float64)
        v = v if plus is None else v + plus
        if self.bounds.u == 0.0:
            return Bounded(self.bounds, v, self.top)
        if not math.isfinite(self.factor):
            e = np.full(v.shape, np.inf)
        elif self.norms is not None:
            e = self.norms[0][rows] * (self.norms[1] * (self.factor * abs(self.scale)))
        else:
            assert self.size is not None
            e = self.size[rows].astype(np.float64)
            e *= self.factor * abs(self.scale)
        e += self.floor if plus is None else self.factor * np.abs(plus) + self.floor
        if self.parts_overflow:
            e = np.where(e >= self.factor * self.limit * min(abs(self.scale), 1.0), np.inf, e)
        if self.edges is not None:
            e += self.edges[0][rows] + self.edges[1]
        # A precision below that of the sum rounds its result once more.
        r = self.bounds.u if self.bounds.u > self.bounds.u_sum else 0.0
        return Bounded(self.bounds, v, self.top, r=r, e=e, zeros=False).checked()

    def expected_rms(self) -> ExpectedRms:
        """Root mean squares of the difference over all entries, if roundings were independent.

        u sqrt(K (v^2/9 + q^2/6) + z^2/3) with q^2 = P^2 Q^2, whose mean needs no product, and z with what is added;
        operands that are rounded on the way in add 2 u_in^2 q^2/3, a stored result of lower precision u^2 z^2/3, and
        roundings to subnormal numbers no more than u eta each.
        """
        B, (n, m) = self.bounds, self.v.shape
        v2 = float(np.einsum("nm,nm->", self.v, self.v)) / (n * m)
        q2 = float(np.sum(self.P.column_squares * self.Q.row_squares)) / (n * m)
        added = 0.0 if self.plus is None else float(np.mean(np.square(self.plus, dtype=np.float64)))
        z2 = v2 + added
        square = B.u_sum**2 * (self.k * (v2 / 9.0 + q2 / 6.0) + z2 / 3.0) + 2.0 * B.u_in**2 * q2 / 3.0
        square += B.u**2 * z2 / 3.0 if B.u > B.u_sum else 0.0
        square += ((2 * self.k + 3) * B.u * B.eta) ** 2
        as_tf32 = 2.0**-11 * math.sqrt(2.0 * q2 / 3.0)
        return ExpectedRms(abs(self.scale) * math.sqrt(square), abs(self.scale) * as_tf32)


def row_sums(dZ: Recorded, bounds: Bounds, *, plus: np.ndarray | None = None, scale: float = 1.0) -> Bounded:
    """scale sum of each row + plus, (n, 1), in any order: what was there before is a term like the others."""
    m = dZ.x.shape[1]
    v, size = np.sum(dZ.wide, axis=1, keepdims=True) * scale, _row_sizes(dZ) * abs(scale)
    if plus is not None:
        v, size = v + plus, size + np.abs(plus)
    roundings = m - 1 + (scale != 1.0) + (plus is not None)
    e = weighed(bounds.gamma(roundings, bounds.u_sum + U64 if bounds.u else 0.0), size)
    r = bounds.u if bounds.u > bounds.u_sum else 0.0
    return Bounded(bounds, v, float(np.max(np.abs(v))), r=r, a=bounds.eta * (roundings > 0), e=e).checked()


def _row_sizes(x: Recorded) -> np.ndarray:
    """Sums of |x| along the rows, in float64; a product with ones in float32 is rounded upwards."""
    m = x.x.shape[1]
    if x.x.dtype == np.float64:
        return np.sum(x.size, axis=1, keepdims=True)
    total = (x.size @ np.ones((m, 1), x.x.dtype)).astype(np.float64)
    return np.where(np.isfinite(total), total * (1.0 + 2.0 * m * 2.0**-24), np.inf)


def _norms(P: Recorded, Q: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """Cauchy-Schwarz in the place of |P| |Q|: norms of P's rows and of Q's columns."""
    return np.sqrt(P.row_squares)[:, None], np.sqrt(Q.column_squares)[None, :] * (1.0 + 2.0**-30)


def _size(P: Recorded, Q: Recorded) -> np.ndarray:
    """|P| |Q| in the recorded precision, in float64 where that overflows."""
    size = P.size @ Q.size
    if size.dtype != np.float64 and not math.isfinite(float(size.max())):
        size = P.size.astype(np.float64) @ Q.size.astype(np.float64)
    return size


def _edges(eta_in: float, P: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operands that underflow on the way in: eta_in (sum of |P| along a row + sum of |Q| down a column)."""
    across = eta_in * P.sum(axis=1, keepdims=True, dtype=np.float64)
    down = eta_in * (Q.sum(axis=0, keepdims=True, dtype=np.float64) + P.shape[1] * eta_in)
    return across, down
