"""Numbers with a bound on how far a device may be from them.

A :class:`Bounded` is (v, e): v computed in float64, and e >= |device - v| for any device that follows IEEE arithmetic
in the working dtype, whatever its order of summation and whether or not it contracts to FMA. Nothing is tuned:

* one rounding (standard model, Higham, *Accuracy and Stability*, 2.2): e = e_prop + u (|v| + e_prop) + eta;
* sums and dot products of K terms: e = e_prop + gamma_K sum |a||b| + 2 K eta, gamma_K = K u / (1 - K u) (Higham, 3.1);
* elementary functions: the derivative's bound on what comes in, and k ulp <= 2 k u |v| for the function itself;
* a comparison whose operands may lie on either side of each other is undetermined: ``where`` then covers both branches;
* exact operations (max, min, abs, negation, selection, products with an exact 0) add nothing: e = 0 means bit-equal.

The float64 evaluation rounds too, by u64 = 2^-53 in the place of u, so u below is the sum of both. This file and
``formulas.py`` share no code with ``backprop_gpu.maths``: a fault there cannot excuse itself here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

U64 = 2.0**-53
_erf = np.frompyfunc(math.erf, 1, 1)


class Mask:
    """A comparison: what it is in float64, and where a device may find otherwise."""

    def __init__(self, value: np.ndarray, undetermined: np.ndarray) -> None:
        self.value, self.undetermined = value, undetermined


class Bounded:
    """v with a bound e; arithmetic between two, or with a Python number, which is rounded to the working dtype."""

    __array_ufunc__ = None  # numpy arrays leave the operators to this class

    def __init__(self, v: Any, e: Any, bounds: Bounds) -> None:
        self.v = np.asarray(v, np.float64)
        self.e = np.broadcast_to(np.asarray(e, np.float64), self.v.shape)
        self.bounds = bounds

    @property
    def T(self) -> Bounded:
        return Bounded(self.v.T, self.e.T, self.bounds)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.v.shape

    def __getitem__(self, part: Any) -> Bounded:
        return Bounded(self.v[part], self.e[part], self.bounds)

    def __neg__(self) -> Bounded:
        return Bounded(-self.v, self.e, self.bounds)

    def __add__(self, other: Any) -> Bounded:
        a, b = self, self.bounds.lift(other)
        inexact = ~(_zero(a) | _zero(b))
        with np.errstate(invalid="ignore", over="ignore"):
            return self.bounds.rounded(a.v + b.v, a.e + b.e, ulps=0.5 * inexact)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Bounded:
        return self + -self.bounds.lift(other)

    def __rsub__(self, other: Any) -> Bounded:
        return self.bounds.lift(other) + -self

    def __mul__(self, other: Any) -> Bounded:
        a, b = self, self.bounds.lift(other)
        with np.errstate(invalid="ignore", over="ignore"):
            spread = np.abs(a.v) * b.e + a.e * np.abs(b.v) + a.e * b.e
            return self.bounds.rounded(a.v * b.v, spread, ulps=0.5 * ~(_zero(a) | _zero(b)))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Bounded:
        a, b = self, self.bounds.lift(other)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            quotient, room = a.v / b.v, np.abs(b.v) - b.e
            spread = np.where(room > 0.0, (a.e + np.abs(quotient) * b.e) / np.where(room > 0.0, room, 1.0), np.inf)
            spread = np.where(b.e > 0.0, spread, a.e / np.abs(b.v))
        return self.bounds.rounded(quotient, spread, ulps=0.5 * ~_zero(a))

    def __rtruediv__(self, other: Any) -> Bounded:
        return self.bounds.lift(other) / self

    def __matmul__(self, other: Bounded) -> Bounded:
        a, b, k = self, other, self.shape[-1]
        size_a, size_b = np.abs(a.v), np.abs(b.v)
        total = (size_a + a.e) @ (size_b + b.e)
        spread = size_a @ b.e + a.e @ (size_b + b.e)
        e = spread + self.bounds.gamma(k) * total + 2 * k * self.bounds.eta * (total > 0.0)
        return Bounded(a.v @ b.v, e, self.bounds)

    def __gt__(self, other: Any) -> Mask:
        b = self.bounds.lift(other)
        spread = self.e + b.e
        return Mask(self.v > b.v, (np.abs(self.v - b.v) <= spread) & (spread > 0.0))


def _zero(x: Bounded) -> np.ndarray:
    """Where x is 0 on every device."""
    return (x.v == 0.0) & (x.e == 0.0)


@dataclass(frozen=True)
class Bounds:
    """The working dtype of a device, its functions' errors in ulp, and whether it divides a number by an array so."""

    dtype: str
    ulps: Mapping[str, float]
    reciprocal_first: bool = False

    @property
    def u(self) -> float:
        """Both roundings; the second factor covers their product."""
        return (2.0 ** -(np.finfo(self.dtype).nmant + 1) + U64) * (1.0 + 2.0**-40)

    @property
    def eta(self) -> float:
        return float(np.finfo(self.dtype).smallest_normal)

    @property
    def largest(self) -> float:
        return float(np.finfo(self.dtype).max)

    def gamma(self, k: int) -> float:
        return k * self.u / (1.0 - k * self.u)

    def given(self, x: Any) -> Bounded:
        """What the device itself recorded: exact."""
        return Bounded(np.asarray(x, np.float64), 0.0, self)

    def constant(self, x: float) -> Bounded:
        """A number worked out on the host in float64: rounded once to the working dtype, here not at all."""
        return Bounded(x, self.u * abs(x), self)

    def lift(self, x: Any) -> Bounded:
        """A parameter as the device gets it."""
        if isinstance(x, Bounded):
            return x
        return Bounded(np.asarray(x, self.dtype).astype(np.float64), 0.0, self)

    def rounded(self, v: np.ndarray, spread: np.ndarray, ulps: Any = 0.5) -> Bounded:
        """v with what came in and one rounding (half an ulp), or a function's error in ulp; 0 ulp: exact."""
        with np.errstate(invalid="ignore", over="ignore"):
            e = spread + 2.0 * ulps * self.u * (np.abs(v) + spread)
            e = e + self.eta * ((e > 0.0) & (np.asarray(ulps) > 0))
            over = np.isfinite(v) & (np.abs(v) - e > self.largest)
            return Bounded(np.where(over, np.copysign(np.inf, v), v), np.where(over, 0.0, e), self)

    def over(self, x: float, b: Bounded) -> Bounded:
        """A Python number over an array. torch's ``__rtruediv__`` is its reciprocal times the number: two roundings."""
        return self.lift(x) * (1.0 / b) if self.reciprocal_first else self.lift(x) / b

    # -- functions ------------------------------------------------------------------------------------------------

    def exp(self, x: Bounded) -> Bounded:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            v = np.exp(x.v)
            spread = np.where(x.e > 0.0, v * np.expm1(x.e), 0.0)
            # e^x is never 0: a device may return a subnormal number where float64 underflows
            spread = np.where((v == 0.0) & np.isfinite(x.v), self.eta, spread)
        return self.rounded(v, spread, self.ulps["exp"])

    def expm1(self, x: Bounded) -> Bounded:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            spread = np.where(x.e > 0.0, np.exp(x.v) * np.expm1(x.e), 0.0)
            return self.rounded(np.expm1(x.v), spread, self.ulps["expm1"])

    def log(self, x: Bounded) -> Bounded:
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.where(x.e > 0.0, x.e / np.maximum(x.v - x.e, 0.0), 0.0)
            return self.rounded(np.log(x.v), spread, self.ulps["log"])

    def log1p(self, x: Bounded) -> Bounded:
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.where(x.e > 0.0, x.e / np.maximum(1.0 + x.v - x.e, 0.0), 0.0)
            return self.rounded(np.log1p(x.v), spread, self.ulps["log1p"])

    def tanh(self, x: Bounded) -> Bounded:
        v = np.tanh(x.v)
        # The second derivative is at most 4 / (3 sqrt 3) = 0.7698 in size.
        spread = np.minimum((1.0 - v * v) * x.e + 0.385 * x.e * x.e, 2.0)
        return self.rounded(v, spread, self.ulps["tanh"])

    def erf(self, x: Bounded) -> Bounded:
        v = np.asarray(_erf(x.v), np.float64)
        # The derivative is at most 2/sqrt(pi) e^(-t^2) at the t nearest to 0 that x may be.
        nearest = np.maximum(np.abs(x.v) - x.e, 0.0)
        return self.rounded(v, 2.0 / math.sqrt(math.pi) * np.exp(-nearest * nearest) * x.e, self.ulps["erf"])

    def sqrt(self, x: Bounded) -> Bounded:
        v = np.sqrt(x.v)
        low = np.sqrt(np.maximum(x.v - x.e, 0.0))
        spread = np.where(x.e > 0.0, x.e / np.where(v + low > 0.0, v + low, 1.0), 0.0)
        return self.rounded(v, np.where((v == 0.0) & (x.e > 0.0), np.sqrt(x.e), spread))

    def abs(self, x: Bounded) -> Bounded:
        return Bounded(np.abs(x.v), x.e, self)

    def maximum(self, x: Bounded, y: Any) -> Bounded:
        y = self.lift(y)
        return Bounded(np.maximum(x.v, y.v), np.maximum(x.e, y.e), self)

    def minimum(self, x: Bounded, y: Any) -> Bounded:
        return -self.maximum(-x, -self.lift(y))

    def sign(self, x: Bounded) -> Bounded:
        return Bounded(np.sign(x.v), np.where((np.abs(x.v) <= x.e) & (x.e > 0.0), 2.0, 0.0), self)

    def where(self, mask: Any, a: Any, b: Any) -> Bounded:
        """a where the mask is true, else b; an undetermined mask allows either."""
        mask = mask if isinstance(mask, Mask) else Mask(np.asarray(mask), np.asarray(False))
        a, b = self.lift(a), self.lift(b)
        v, e = np.where(mask.value, a.v, b.v), np.where(mask.value, a.e, b.e)
        other, other_e = np.where(mask.value, b.v, a.v), np.where(mask.value, b.e, a.e)
        with np.errstate(invalid="ignore"):
            either = np.maximum(e, np.abs(v - other) + other_e)
        return Bounded(v, np.where(mask.undetermined, either, e), self)

    def sum(self, x: Bounded, axis: int | None = None) -> Bounded:
        """Over one axis, kept, or over all, giving shape (1,)."""
        x = Bounded(x.v.reshape(-1), x.e.reshape(-1), self) if axis is None else x
        axis = 0 if axis is None else axis
        n, keep = x.v.shape[axis], {"axis": axis, "keepdims": True}
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.sum(np.abs(x.v) + x.e, **keep)
            e = np.sum(x.e, **keep) + self.gamma(n - 1) * total
            return Bounded(np.sum(x.v, **keep), e, self)

    def max(self, x: Bounded, axis: int) -> Bounded:
        return Bounded(x.v.max(axis=axis, keepdims=True), x.e.max(axis=axis, keepdims=True), self)


def ratio(device: Any, reference: Bounded) -> float:
    """max |device - v| / e: at most 1 if the device computed what it should.

    Infinite where NaN and infinities differ, and where the bound is infinite: such a comparison would decide nothing.
    """
    x = np.asarray(device, np.float64)
    v, e, bounds = reference.v, reference.e, reference.bounds
    if x.shape != v.shape:
        return math.inf
    if x.size == 0:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = np.abs(x - v)
        # the last factor covers the roundings of the bound's own evaluation
        found = np.where(gap == 0.0, 0.0, gap / (e * (1.0 + 2.0**-30)))
        overflow = np.isinf(x) & (np.sign(x) == np.sign(v)) & (np.abs(v) + e >= bounds.largest)
        same = (np.isnan(x) & np.isnan(v)) | (x == v) | overflow
        found = np.where(same, 0.0, np.where(np.isfinite(x) & np.isfinite(e), found, np.inf))
    return float(np.max(np.where(np.isnan(found), np.inf, found)))
