"""Numbers with a bound on how far a device may be from them.

A :class:`Bounded` is v, computed in float64, with a bound on |device - v| for any device that follows IEEE arithmetic
in its working precision, whatever its order of summation and whether or not it contracts to FMA. Nothing is tuned:

* one rounding (standard model, Higham, *Accuracy and Stability*, 2.2): u |v|, and eta where it underflows;
* sums of K terms: gamma_(K-1) sum |terms|, gamma_K = K u / (1 - K u) (Higham, 3.1); products of matrices: ``products``;
* a product: |a| e_b + |b| e_a + e_a e_b; a quotient: (e_a + |a/b| e_b) / (|b| - e_b);
* a comparison whose operands may lie on either side of each other is undetermined: ``where`` then covers both branches;
* exact operations (max, min, abs, negation, selection) add nothing: a bound of 0 means bit-equal.

The float64 evaluation rounds too, which is added to the device's roundings. This file and the formulas that use it
share no code with ``maths``: a fault there cannot excuse itself here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

U64 = 2.0**-53
Number = int | float


@dataclass(frozen=True)
class Bounds:
    """The arithmetic of a device.

    Attributes
    ----------
    dtype : str
        What its arrays are stored as; a Python number that meets an array is rounded to it.
    u, eta : float
        Unit roundoff of one operation, and the smallest normal number (results below it may be flushed to 0).
    largest : float
        Larger results are infinite.
    u_in, eta_in : float
        The operands of products are rounded so on the way in; 0 where they are not.
    u_sum : float
        Unit roundoff inside sums and products of matrices.
    ulps : mapping
        Units in the last place by which its elementary functions may miss, from its own documents.
    reciprocal_first : bool
        Whether a Python number over an array is the number times the array's reciprocal (torch).
    operand_bits : int
        A traced product rounds its operands to so many bits (negative: cuts them off), to see what a device that does
        so would give; 0: it does not.
    """

    dtype: str = "float32"
    u: float = 2.0**-24
    eta: float = 2.0**-126
    largest: float = float(np.finfo("float32").max)
    u_in: float = 0.0
    eta_in: float = 0.0
    u_sum: float = 2.0**-24
    ulps: Mapping[str, float] = field(default_factory=dict)
    reciprocal_first: bool = False
    operand_bits: int = 0

    @property
    def rounding(self) -> float:
        """One rounding of the device and one of the float64 evaluation; exact arithmetic (u = 0) has neither."""
        return self.u + U64 if self.u else 0.0

    @property
    def slack(self) -> float:
        """Factor on every bound for the products of roundings that are left out of it, and for its own evaluation."""
        return 1.0 + 64.0 * self.u + 2.0**-30

    def gamma(self, k: int, u: float | None = None) -> float:
        """k u / (1 - k u); infinite where the sum is so long that the bound says nothing."""
        total = k * (self.rounding if u is None else u)
        return total / (1.0 - total) if total < 0.5 else math.inf

    def given(self, x: Any) -> Bounded:
        """What the device itself recorded: exact."""
        x = np.asarray(x)
        top = float(max(x.max(), -x.min())) if x.size else 0.0
        return Bounded(self, x.astype(np.float64), top)

    def constant(self, x: float) -> Bounded:
        """A number worked out on the host in float64: rounded once to the device's precision, here not at all."""
        exact = self._represents(x)
        return Bounded(self, np.float64(x), abs(x), r=0.0 if exact else self.u, a=0.0 if exact else self.eta)

    def lift(self, x: Bounded | Number) -> Bounded:
        """A Python number as it meets an array of the device."""
        if isinstance(x, Bounded):
            return x
        if not self._represents(x):
            if self.u > np.finfo(self.dtype).eps:  # a precision below that of the arrays may round it further, or not
                return self.constant(x)
            x = float(np.asarray(x, self.dtype))
        return Bounded(self, np.float64(x), abs(float(x)))

    def _represents(self, x: float) -> bool:
        """Whether x needs no rounding."""
        if self.u == 0.0 or not math.isfinite(x):
            return True
        return math.frexp(x)[0] % self.u == 0.0 and (x == 0.0 or abs(x) >= self.eta)

    def over(self, x: Bounded | Number, b: Bounded) -> Bounded:
        """A Python number over an array."""
        return self.lift(x) * (1.0 / b) if self.reciprocal_first else self.lift(x) / b

    def total(self, *terms: Bounded | Number, same_sign: bool = False) -> Bounded:
        """The sum of a few terms in any order. ``same_sign``: two that do not cancel, so that errors stay relative."""
        lifted = [self.lift(t) for t in terms]
        if len(lifted) == 1:
            return lifted[0]
        if len(lifted) == 2:
            return _add(lifted[0], lifted[1], same_sign)
        v, size = lifted[0].v, np.abs(lifted[0].v)
        for term in lifted[1:]:
            v, size = v + term.v, size + np.abs(term.v)
        e = sum((t.error() for t in lifted), start=self.gamma(len(lifted) - 1) * size)
        return Bounded(self, v, sum(t.top for t in lifted), a=2.0 * self.eta, e=e).checked()


class Mask:
    """A comparison: what it is in float64, and where a device may find otherwise (None: nowhere)."""

    def __init__(self, value: np.ndarray, undetermined: np.ndarray | None = None) -> None:
        self.value, self.undetermined = value, undetermined


class Bounded:
    """v with |device - v| <= e + r |v| + a, and |v| <= top. ``e`` is an array, or None for 0; r and a are numbers.

    ``zeros`` is False where e is known to be positive everywhere, which saves looking. Arithmetic is between two, or
    with a Python number, which is rounded to the device's dtype.
    """

    __array_ufunc__ = None  # numpy arrays leave the operators to this class
    __slots__ = ("a", "bounds", "e", "r", "top", "v", "zeros")

    def __init__(
        self,
        bounds: Bounds,
        v: Any,
        top: float,
        *,
        r: float = 0.0,
        a: float = 0.0,
        e: np.ndarray | None = None,
        zeros: bool = True,
    ) -> None:
        self.bounds, self.v, self.top, self.r, self.a, self.e, self.zeros = bounds, v, top, r, a, e, zeros

    def error(self) -> Any:
        """The whole bound, as an array or a number."""
        if not self.r:
            return self.a if self.e is None else self.e + self.a if self.a else self.e
        total = np.abs(self.v)
        total *= self.r
        total += self.a
        return total if self.e is None else np.add(total, self.e, out=total)

    @property
    def exact(self) -> bool:
        """Whether the device must have v bit for bit."""
        return self.e is None and self.r == 0.0 and self.a == 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.v))

    def __getitem__(self, part: Any) -> Bounded:
        e = None if self.e is None else np.broadcast_to(self.e, self.v.shape)[part]
        return Bounded(self.bounds, self.v[part], self.top, r=self.r, a=self.a, e=e)

    def checked(self) -> Bounded:
        """The same without a bound where a device that keeps this number in its own precision overflows."""
        limit = self.bounds.largest
        if self.top < limit:
            return self
        error = self.error()
        over = np.isfinite(self.v) & (np.abs(self.v) + error >= limit)
        top = float(np.max(np.abs(self.v), initial=0.0))
        return Bounded(self.bounds, self.v, top, e=np.where(over, np.inf, error))

    def __neg__(self) -> Bounded:
        return Bounded(self.bounds, -self.v, self.top, r=self.r, a=self.a, e=self.e)

    def __add__(self, other: Bounded | Number) -> Bounded:
        return _add(self, self.bounds.lift(other), False)

    __radd__ = __add__

    def __sub__(self, other: Bounded | Number) -> Bounded:
        return _add(self, -self.bounds.lift(other), False)

    def __rsub__(self, other: Bounded | Number) -> Bounded:
        return _add(self.bounds.lift(other), -self, False)

    def __mul__(self, other: Bounded | Number) -> Bounded:
        x, y, B = self, self.bounds.lift(other), self.bounds
        r = (1.0 + x.r) * (1.0 + y.r) * (1.0 + B.rounding) - 1.0
        a = _times(x.a, y.top) + _times(y.a, x.top) + x.a * y.a + B.eta
        e = None
        for one, two in ((x, y), (y, x)):
            if one.e is not None:
                part = np.abs(two.v) * one.e + one.e * two.a if two.a else np.abs(two.v) * one.e
                e = part if e is None else e + part
        if e is not None and x.e is not None and y.e is not None:
            e = e + x.e * y.e
        return Bounded(B, x.v * y.v, _times(x.top, y.top), r=r, a=a, e=e).checked()

    __rmul__ = __mul__

    def __truediv__(self, other: Bounded | Number) -> Bounded:
        x, y, B = self, self.bounds.lift(other), self.bounds
        q, size = x.v / y.v, np.abs(y.v)
        least = float(np.min(size))
        relative = y.r + (y.a / least if least > 0.0 else math.inf if y.a else 0.0)
        if y.e is None and relative < 0.25 and least > 0.0:
            rest = 1.0 - relative
            r = (1.0 + x.r) / rest * (1.0 + B.rounding) - 1.0
            e = None if x.e is None else x.e / size / rest
            return Bounded(B, q, x.top / least, r=r, a=x.a / least / rest + B.eta, e=e).checked()
        room = size - y.error()
        spread = np.where(room > 0.0, (x.error() + np.abs(q) * y.error()) / np.where(room > 0.0, room, 1.0), np.inf)
        spread = np.where(size == 0.0, 0.0, spread) if y.exact else spread
        return Bounded(B, q, float(np.max(np.abs(q))), r=B.rounding, a=B.eta, e=spread).checked()

    def __rtruediv__(self, other: Bounded | Number) -> Bounded:
        return self.bounds.lift(other) / self

    def __gt__(self, other: Bounded | Number) -> Mask:
        other = self.bounds.lift(other)
        if self.exact and other.exact:
            return Mask(self.v > other.v)
        spread = self.error() + other.error()
        return Mask(self.v > other.v, (np.abs(self.v - other.v) <= spread) & (spread > 0.0))


def _times(a: float, b: float) -> float:
    """a b, with 0 times infinity 0."""
    return a * b if a and b else 0.0


def _add(x: Bounded, y: Bounded, same_sign: bool) -> Bounded:
    """x + y; relative errors stay relative where nothing cancels."""
    B, r, parts = x.bounds, x.bounds.rounding, [z.e for z in (x, y) if z.e is not None]
    if same_sign:
        r = (1.0 + max(x.r, y.r)) * (1.0 + r) - 1.0
    else:
        parts += [z.r * np.abs(z.v) for z in (x, y) if z.r]
    e = None if not parts else parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
    return Bounded(B, x.v + y.v, x.top + y.top, r=r, a=x.a + y.a + B.eta, e=e).checked()


# -- exact operations -------------------------------------------------------------------------------------------------


def absolute(x: Bounded) -> Bounded:
    """|x|."""
    return Bounded(x.bounds, np.abs(x.v), x.top, r=x.r, a=x.a, e=x.e)


def maximum(x: Bounded, y: Bounded | Number) -> Bounded:
    """The larger: off by no more than the operand that is further off."""
    y = x.bounds.lift(y)
    v, top = np.maximum(x.v, y.v), max(x.top, y.top)
    if x.exact and y.exact:
        return Bounded(x.bounds, v, top)
    e = x.error() if y.exact else np.maximum(x.error(), y.error())
    return Bounded(x.bounds, v, top, a=e) if np.ndim(e) == 0 else Bounded(x.bounds, v, top, e=e)


def minimum(x: Bounded, y: Bounded | Number) -> Bounded:
    """The smaller."""
    return -maximum(-x, -x.bounds.lift(y))


def sign(x: Bounded) -> Bounded:
    """-1, 0 or 1; either where x may be on either side of 0."""
    e = None if x.exact else np.where(np.abs(x.v) <= x.error(), 2.0, 0.0)
    return Bounded(x.bounds, np.sign(x.v), 1.0, e=e)


def where(mask: Mask | np.ndarray, x: Bounded | Number, y: Bounded | Number, bounds: Bounds) -> Bounded:
    """x where the mask is true, else y; an undetermined mask allows either."""
    mask = mask if isinstance(mask, Mask) else Mask(np.asarray(mask))
    x, y = bounds.lift(x), bounds.lift(y)
    if mask.undetermined is None and y.exact and y.top == 0.0 and x.shape == mask.value.shape:
        return _or_zero(mask.value, x)
    v, top = np.where(mask.value, x.v, y.v), max(x.top, y.top)
    if mask.undetermined is None and x.exact and x.top == 0.0:
        e = None if y.e is None else np.where(mask.value, 0.0, y.e)
        return Bounded(bounds, v, top, r=y.r, a=y.a, e=e)
    if mask.undetermined is None and x.r == y.r and x.e is None and y.e is None:
        return Bounded(bounds, v, top, r=x.r, a=max(x.a, y.a))
    x_error, y_error = x.error(), y.error()
    e = np.where(mask.value, x_error, y_error)
    if mask.undetermined is not None:
        either = np.maximum(e, np.abs(x.v - y.v) + np.where(mask.value, y_error, x_error))
        e = np.where(mask.undetermined, either, e)
    return Bounded(bounds, v, top, e=e)


def _or_zero(mask: np.ndarray, x: Bounded) -> Bounded:
    """x where the mask is true, else exactly 0: by the bits, which is faster than a choice and keeps NaN out."""
    bits = -np.ascontiguousarray(mask).view(np.int8).astype(np.int64)

    def kept(y: np.ndarray) -> np.ndarray:
        return np.bitwise_and(np.ascontiguousarray(y).view(np.int64), bits).view(np.float64)

    e = None if x.e is None else kept(np.broadcast_to(x.e, x.shape))
    return Bounded(x.bounds, kept(x.v), x.top, r=x.r, a=x.a, e=e)


def largest(x: Bounded, axis: int) -> Bounded:
    """max over one axis, kept."""
    e = None if x.exact else np.max(np.broadcast_to(x.error(), x.shape), axis=axis, keepdims=True)
    return Bounded(x.bounds, x.v.max(axis=axis, keepdims=True), x.top, e=e)


def stacked(parts: Sequence[Bounded]) -> Bounded:
    """Rows under rows."""
    v = np.concatenate([x.v for x in parts])
    e = None
    if not all(x.exact for x in parts):
        e = np.concatenate([np.broadcast_to(x.error(), x.shape) for x in parts])
    return Bounded(parts[0].bounds, v, max(x.top for x in parts), e=e)


def weighed(factor: float, size: np.ndarray) -> np.ndarray:
    """factor size; an infinite factor of nothing is nothing."""
    return factor * size if math.isfinite(factor) else np.where(size > 0.0, np.inf, 0.0)


def sum_over(x: Bounded, axis: int | None = None) -> Bounded:
    """The sum over one axis, kept, or over all, giving shape (1,)."""
    B, keep = x.bounds, axis is not None
    n = x.v.size if axis is None else x.v.shape[axis]
    v, size = np.sum(x.v, axis=axis, keepdims=keep), np.sum(np.abs(x.v), axis=axis, keepdims=keep)
    gamma = B.gamma(n - 1, B.u_sum + U64 if B.u else 0.0)
    e = weighed(gamma, size)
    if not x.exact:
        incoming = np.sum(np.broadcast_to(x.error(), x.shape), axis=axis, keepdims=keep)
        e = e + weighed(1.0 + gamma, incoming)
    if x.top * n >= B.largest:  # a part of the sum may overflow although the sum does not
        e = np.where(size >= B.largest, np.inf, e)
    v, e = (v.reshape(1), np.reshape(e, 1)) if axis is None else (v, e)
    r = B.u if B.u > B.u_sum else 0.0  # a precision below that of the sum rounds its result once more
    return Bounded(B, v, x.top * n, r=r, a=B.eta if n > 1 else 0.0, e=e).checked()
