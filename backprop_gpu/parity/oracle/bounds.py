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

The rules are stated here once. :class:`Bounded` keeps a bound as two numbers and an array, which is cheap for one
operation of a step on large arrays; ``BoundedArray`` applies the same rules with a bound for each entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

U64 = 2.0**-53
Number = int | float
Exact = Callable[[], tuple[np.ndarray, Any]]
"""Where an operation rounds nothing on any device, and the error that is left there."""


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

    ``k``: terms of the longest sum that led to it. ``zeros`` is False where e is known to be positive everywhere, which
    saves looking. Arithmetic is between two, or with a Python number, which is rounded to the device's dtype.
    """

    __array_ufunc__ = None  # numpy arrays leave the operators to this class
    __slots__ = ("a", "bounds", "e", "k", "r", "top", "v", "zeros")

    def __init__(
        self,
        bounds: Bounds,
        v: Any,
        top: float = math.inf,
        *,
        r: float = 0.0,
        a: float = 0.0,
        e: np.ndarray | None = None,
        k: int = 1,
        zeros: bool = True,
    ) -> None:
        self.bounds, self.v, self.top, self.r, self.a, self.e = bounds, v, top, r, a, e
        self.k, self.zeros = k, zeros

    def error(self) -> Any:
        """The whole bound, as an array or a number."""
        if not self.r:
            return self.a if self.e is None else self.e + self.a if self.a else self.e
        total = np.abs(self.v)
        total *= self.r
        total += self.a
        return total if self.e is None else np.add(total, self.e, out=total)

    def errors(self) -> np.ndarray:
        """The whole bound, entry by entry."""
        return np.broadcast_to(self.error(), np.shape(self.v))

    @property
    def exact(self) -> bool:
        """Whether the device must have v bit for bit."""
        return self.e is None and self.r == 0.0 and self.a == 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array."""
        return tuple(np.shape(self.v))

    # -- results ------------------------------------------------------------------------------------------------------

    def like(
        self, v: Any, top: float = math.inf, *, r: float = 0.0, a: float = 0.0, e: Any = None, k: int | None = None
    ) -> Bounded:
        """Another of this kind with the bound that is given; no operation of the device lies between."""
        return Bounded(self.bounds, v, top, r=r, a=a, e=e, k=self.k if k is None else k)

    def rounded(
        self, v: Any, top: float, *, r: float, a: float, e: Any = None, k: int | None = None, exact: Exact | None = None
    ) -> Bounded:
        """The result of an operation whose own error is r |v| + a; e: what comes in. ``exact`` is not needed here."""
        return self.like(v, top, r=r, a=a, e=e, k=k).checked()

    def summed(self, v: Any, top: float, *, r: float, a: float, e: Any, k: int, total: Any, finite: bool) -> Bounded:
        """The result of a sum; ``total``: of the sizes of its terms, which may overflow although the sum does not."""
        if not top < self.bounds.largest:
            e = np.where(total >= self.bounds.largest, np.inf, e)
        return self.like(v, top, r=r, a=a, e=e, k=k).checked()

    def lifted(self, other: Any) -> Bounded:
        """The other operand."""
        return self.bounds.lift(other)

    def checked(self) -> Bounded:
        """The same without a bound where a device that keeps this number in its own precision overflows."""
        limit = self.bounds.largest
        if self.top < limit:
            return self
        error = self.error()
        over = np.isfinite(self.v) & (np.abs(self.v) + error >= limit)
        top = float(np.max(np.abs(self.v), initial=0.0))
        return self.like(self.v, top, e=np.where(over, np.inf, error))

    def rearranged(self, function: Callable[[Any], Any]) -> Bounded:
        """What only moves numbers, done to v and e alike."""
        e = None if self.e is None else function(np.broadcast_to(self.e, np.shape(self.v)))
        return self.like(function(self.v), self.top, r=self.r, a=self.a, e=e)

    def __getitem__(self, part: Any) -> Bounded:
        return self.rearranged(lambda x: x[part])

    @property
    def T(self) -> Bounded:
        """The transpose."""
        return self.rearranged(np.transpose)

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def __neg__(self) -> Bounded:
        return self.like(-self.v, self.top, r=self.r, a=self.a, e=self.e)

    def __abs__(self) -> Bounded:
        return self.like(np.abs(self.v), self.top, r=self.r, a=self.a, e=self.e)

    def __add__(self, other: Any) -> Bounded:
        return _add(self, self.lifted(other), False)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Bounded:
        return _add(self, -self.lifted(other), False)

    def __rsub__(self, other: Any) -> Bounded:
        return _add(self.lifted(other), -self, False)

    def __mul__(self, other: Any) -> Bounded:
        x, y, B = self, self.lifted(other), self.bounds
        r = (1.0 + x.r) * (1.0 + y.r) * (1.0 + B.rounding) - 1.0
        a = _times(x.a, y.top) + _times(y.a, x.top) + x.a * y.a + B.eta
        e = None
        for one, two in ((x, y), (y, x)):
            if one.e is not None:
                part = np.abs(two.v) * one.e + one.e * two.a if two.a else np.abs(two.v) * one.e
                e = part if e is None else e + part
        if e is not None and x.e is not None and y.e is not None:
            e = e + x.e * y.e
        top, k = _times(x.top, y.top), max(x.k, y.k)
        return x.rounded(x.v * y.v, top, r=r, a=a, e=e, k=k, exact=lambda: (_zero(x) | _zero(y), 0.0))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Bounded:
        if self.bounds.reciprocal_first and isinstance(other, int | float):
            return self * (self.lifted(1.0) / self.lifted(other))
        return _divide(self, self.lifted(other))

    def __rtruediv__(self, other: Any) -> Bounded:
        if self.bounds.reciprocal_first and isinstance(other, int | float) and other != 1.0:
            return self.lifted(other) * _divide(self.lifted(1.0), self)
        return _divide(self.lifted(other), self)

    def __matmul__(self, other: Any) -> Bounded:
        """Higham 3.5, any order of summation; a declared precision rounds the operands on the way in."""
        x, y, n = _operand(self), _operand(self.lifted(other)), self.shape[-1]
        sizes, others, e, f = np.abs(x.v), np.abs(y.v), x.errors(), y.errors()
        spread, total = sizes @ f + e @ (others + f), (sizes + e) @ (others + f)
        finite = bool(np.all(np.isfinite(x.v)) and np.all(np.isfinite(y.v)))
        top, k = _times(x.top, y.top) * n, max(x.k, y.k, n)
        return added_up(x, x.v @ y.v, spread, total, roundings=n, top=top, k=k, finite=finite)

    # -- comparisons --------------------------------------------------------------------------------------------------

    def compared(self, other: Any, relation: Callable[[Any, Any], Any]) -> Any:
        """A mask, undetermined where the operands may lie on either side of each other."""
        y = self.lifted(other)
        value = np.asarray(relation(self.v, y.v))
        if self.exact and y.exact:
            return Mask(value)
        spread = (self.error() + y.error()) * self.bounds.slack
        return Mask(value, (np.abs(self.v - y.v) <= spread) & (spread > 0.0) | np.isnan(spread))

    def __gt__(self, other: Any) -> Any:
        return self.compared(other, np.greater)


def _times(a: float, b: float) -> float:
    """a b, with 0 times infinity 0."""
    return a * b if a and b else 0.0


def _zero(x: Bounded) -> Any:
    """Where every device has 0."""
    return (x.v == 0.0) & (x.error() == 0.0)


def _add(x: Bounded, y: Bounded, same_sign: bool) -> Bounded:
    """x + y; relative errors stay relative where nothing cancels."""
    B, r, parts = x.bounds, x.bounds.rounding, [z.e for z in (x, y) if z.e is not None]
    if same_sign:
        r = (1.0 + max(x.r, y.r)) * (1.0 + r) - 1.0
    else:
        parts += [z.r * np.abs(z.v) for z in (x, y) if z.r]
    e = None if not parts else parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
    top, a, k = x.top + y.top, x.a + y.a + B.eta, max(x.k, y.k)
    return x.rounded(x.v + y.v, top, r=r, a=a, e=e, k=k, exact=lambda: (_zero(x) | _zero(y), x.error() + y.error()))


def _divide(x: Bounded, y: Bounded) -> Bounded:
    """x / y; no bound where y may be 0."""
    B, q, size, k = x.bounds, x.v / y.v, np.abs(y.v), max(x.k, y.k)
    least = float(np.min(size)) if size.size else math.inf
    relative = y.r + (y.a / least if least > 0.0 else math.inf if y.a else 0.0)
    if y.e is None and relative < 0.25 and least > 0.0:
        rest = 1.0 - relative
        r = (1.0 + x.r) / rest * (1.0 + B.rounding) - 1.0
        e = None if x.e is None else x.e / size / rest
        top, a = x.top / least, x.a / least / rest + B.eta
        return x.rounded(q, top, r=r, a=a, e=e, k=k, exact=lambda: (_zero(x), 0.0))
    incoming, error = x.error(), y.error()
    room = size - error
    spread = np.where(room > 0.0, (incoming + np.abs(q) * error) / np.where(room > 0.0, room, 1.0), np.inf)
    spread = np.where((size == 0.0) & (error == 0.0), 0.0, spread)  # infinity or NaN on every device
    spread = np.where(np.isnan(incoming) | np.isnan(error), np.nan, spread)
    top = float(np.max(np.abs(q), initial=0.0))
    return x.rounded(q, top, r=B.rounding, a=B.eta, e=spread, k=k, exact=lambda: (_zero(x), 0.0))


def _operand(x: Bounded) -> Bounded:
    """x as a product of the declared precision takes it."""
    B = x.bounds
    if B.operand_bits:
        unit = np.ldexp(1.0, np.frexp(x.v)[1] - abs(B.operand_bits))
        shortened = np.rint(x.v / unit) if B.operand_bits > 0 else np.trunc(x.v / unit)
        return x.like(shortened * unit, x.top, r=x.r, a=x.a, e=x.e)
    if B.u_in == 0.0:
        return x
    error = x.error()
    return x.like(x.v, x.top, e=np.where(_zero(x), 0.0, error + B.u_in * (np.abs(x.v) + error) + B.eta_in))


# -- sums -------------------------------------------------------------------------------------------------------------


def weighed(factor: float, size: Any) -> Any:
    """factor size; an infinite factor of nothing is nothing."""
    return factor * size if math.isfinite(factor) else np.where(size > 0.0, np.inf, 0.0)


def added_up(
    x: Bounded, v: Any, spread: Any, total: Any, *, roundings: int, top: float, k: int, finite: bool = True
) -> Bounded:
    """A sum with so many roundings at each of its terms, in any order.

    ``spread``: what the terms' errors make of it; ``total``: the sum of their sizes, errors included; ``finite``: all
    terms are.
    """
    B = x.bounds
    e = spread + weighed(B.gamma(roundings, B.u_sum + U64 if B.u else 0.0), total)
    r = B.u if B.u > B.u_sum else 0.0  # a precision below that of the sum rounds its result once more
    return x.summed(v, top, r=r, a=2.0 * roundings * B.eta, e=e, k=k, total=total, finite=finite)
