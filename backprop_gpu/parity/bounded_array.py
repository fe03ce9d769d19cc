"""Arrays whose numbers carry a bound: what a function of arrays sees while its operations are traced.

``bounds.py`` is made for one operation of a training step on large arrays. Here errors pass through many operations on
arrays of any shape, so that each entry has its own: exact zeros stay exact, and nothing of second order is left out.
The rules are the same (Higham, *Accuracy and Stability*, 2.2 and 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError
from .bounds import U64, Bounds, Mask

EVALUATION = 1.0 + 2.0**-30  # covers the roundings of a bound's own evaluation
Relation = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Untraceable(ConfigError, AttributeError):
    """The trace met something whose error it cannot bound; a stated tolerance takes its place."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the operation trace cannot follow {what}; pass tolerance=, a relative error such as 1e-5")


class MaskArray(Mask):
    """Booleans, some of which a device may find otherwise."""

    __array_ufunc__ = None  # numpy arrays leave the operators to this class

    def __init__(self, value: np.ndarray, open_: np.ndarray) -> None:
        super().__init__(value, open_)
        self.open = open_

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array."""
        return self.value.shape

    def __invert__(self) -> MaskArray:
        return MaskArray(~self.value, self.open)

    def __and__(self, other: Any) -> MaskArray:
        a, b = self, as_mask(other)
        return MaskArray(a.value & b.value, a.open & (b.value | b.open) | b.open & (a.value | a.open))

    def __or__(self, other: Any) -> MaskArray:
        return ~(~self & ~as_mask(other))

    def __xor__(self, other: Any) -> MaskArray:
        b = as_mask(other)
        return MaskArray(self.value ^ b.value, self.open | b.open)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __getitem__(self, part: Any) -> MaskArray:
        return MaskArray(self.value[part], self.open[part])

    def __bool__(self) -> NoReturn:
        raise Untraceable("a branch on a comparison that the device may decide otherwise")


def as_mask(x: Any) -> MaskArray:
    """Booleans, all determined unless they say otherwise."""
    return x if isinstance(x, MaskArray) else MaskArray(np.asarray(x), np.zeros(np.shape(x), bool))


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise Untraceable(what)

    return refuse


class BoundedArray:
    """``v`` with the operators of an array; ``e``: how far a device may be from it, 0 where it must find the same.

    e is NaN where a part of a sum may overflow although the sum does not: whether it does is up to the order of
    summation, and a device may find anything, NaN included. It stays NaN in whatever is computed from it.

    ``k``: terms of the longest sum that led to it.
    """

    __array_ufunc__ = None  # numpy arrays leave the operators to this class
    __hash__ = None  # type: ignore[assignment]
    device = None

    def __init__(self, bounds: Bounds, v: Any, e: Any, k: int = 1) -> None:
        self.bounds, self.k = bounds, k
        self.v = np.asarray(v, np.float64)
        # infinities and NaN are the same on every device, or the bound of a finite neighbour says so
        self.e = np.where(np.isfinite(self.v) | np.isnan(e), e, 0.0)

    @property
    def zero(self) -> np.ndarray:
        """Where every device has 0."""
        return (self.v == 0.0) & (self.e == 0.0)

    # -- shape --------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array, like the next five."""
        return self.v.shape

    @property
    def ndim(self) -> int:
        return self.v.ndim

    @property
    def size(self) -> int:
        return self.v.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.bounds.dtype)

    @property
    def T(self) -> BoundedArray:
        return self.rearranged(np.transpose)

    @property
    def mT(self) -> BoundedArray:
        return self.rearranged(lambda x: np.swapaxes(x, -1, -2))

    def rearranged(self, function: Callable[[np.ndarray], np.ndarray]) -> BoundedArray:
        """What only moves numbers, done to v and e alike."""
        return BoundedArray(self.bounds, function(self.v), function(self.e), self.k)

    def __len__(self) -> int:
        return len(self.v)

    def __getitem__(self, part: Any) -> BoundedArray:
        if isinstance(part, Mask | BoundedArray):
            raise Untraceable("a selection by a comparison that the device may decide otherwise")
        return self.rearranged(lambda x: x[part])

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def __neg__(self) -> BoundedArray:
        return BoundedArray(self.bounds, -self.v, self.e, self.k)

    def __pos__(self) -> BoundedArray:
        return self

    def __abs__(self) -> BoundedArray:
        return BoundedArray(self.bounds, np.abs(self.v), self.e, self.k)

    def __add__(self, other: Any) -> BoundedArray:
        a, b = self, lift(other, self.bounds)
        total = rounded(a.bounds, a.v + b.v, a.e + b.e, max(a.k, b.k))
        total.e = np.where(a.zero | b.zero, a.e + b.e, total.e)
        return total

    def __sub__(self, other: Any) -> BoundedArray:
        return self + -lift(other, self.bounds)

    def __rsub__(self, other: Any) -> BoundedArray:
        return lift(other, self.bounds) + -self

    def __mul__(self, other: Any) -> BoundedArray:
        a, b = self, lift(other, self.bounds)
        spread = np.abs(a.v) * b.e + a.e * np.abs(b.v) + a.e * b.e
        product = rounded(a.bounds, a.v * b.v, spread, max(a.k, b.k))
        product.e = np.where((a.zero | b.zero) & ~np.isnan(product.e), 0.0, product.e)  # 0 times infinity is NaN
        return product

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Any) -> BoundedArray:
        if self.bounds.reciprocal_first and isinstance(other, int | float):
            return self * (lift(1.0, self.bounds) / lift(other, self.bounds))
        a, b = self, lift(other, self.bounds)
        v, room = a.v / b.v, np.abs(b.v) - b.e
        spread = np.where(room > 0.0, (a.e + np.abs(v) * b.e) / np.where(room > 0.0, room, 1.0), np.inf)
        spread = np.where(np.isnan(a.e) | np.isnan(b.e), np.nan, spread)
        quotient = rounded(a.bounds, v, spread, max(a.k, b.k))
        quotient.e = np.where(a.zero & ~np.isnan(quotient.e), 0.0, quotient.e)
        return quotient

    def __rtruediv__(self, other: Any) -> BoundedArray:
        other = lift(other, self.bounds)
        return other * (lift(1.0, self.bounds) / self) if self.bounds.reciprocal_first else other / self

    def __matmul__(self, other: Any) -> BoundedArray:
        """Higham 3.5, any order of summation; a declared precision rounds the operands on the way in."""
        B, a, b, k = self.bounds, _operand(self), _operand(lift(other, self.bounds)), self.shape[-1]
        size_a, size_b = np.abs(a.v), np.abs(b.v)
        spread, total = size_a @ b.e + a.e @ (size_b + b.e), (size_a + a.e) @ (size_b + b.e)
        finite = bool(np.all(np.isfinite(a.v)) and np.all(np.isfinite(b.v)))
        return added_up(B, a.v @ b.v, spread, total, k, max(a.k, b.k, k), finite)

    def __rmatmul__(self, other: Any) -> BoundedArray:
        return lift(other, self.bounds) @ self

    def __pow__(self, p: Any) -> BoundedArray:
        return power(self, p)

    # -- comparisons --------------------------------------------------------------------------------------------------

    def compared(self, other: Any, relation: Relation) -> Any:
        """Plain booleans where every device must find the same, else a :class:`MaskArray`."""
        a, b = self, lift(other, self.bounds)
        spread, gap = a.e + b.e, np.abs(a.v - b.v)
        open_ = (gap <= spread) & (spread > 0.0) | np.isnan(spread)
        value = np.asarray(relation(a.v, b.v))
        return MaskArray(value, open_) if open_.any() else value

    def __gt__(self, other: Any) -> Any:
        return self.compared(other, np.greater)

    def __ge__(self, other: Any) -> Any:
        return self.compared(other, np.greater_equal)

    def __lt__(self, other: Any) -> Any:
        return self.compared(other, np.less)

    def __le__(self, other: Any) -> Any:
        return self.compared(other, np.less_equal)

    def __eq__(self, other: Any) -> Any:
        return self.compared(other, np.equal)

    def __ne__(self, other: Any) -> Any:
        return self.compared(other, np.not_equal)

    # -- what leaves the trace ----------------------------------------------------------------------------------------

    __float__ = __int__ = __bool__ = __index__ = __complex__ = _refuse("the use of an array's value as a Python number")
    __array__ = _refuse("a NumPy function that is not called through xp")
    __setitem__ = _refuse("an assignment to part of an array; write it with xp.where or xp.concat")

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(f".{name} of an array, which the array API standard does not have")


def received(bounds: Bounds, x: np.ndarray) -> BoundedArray:
    """An input as it is on the device, which may take subnormal numbers for 0."""
    v = x.astype(np.float64)
    return BoundedArray(bounds, v, np.where(np.abs(v) < bounds.eta, np.abs(v), 0.0))


def lift(x: Any, bounds: Bounds) -> BoundedArray:
    """An operand as the device gets it: exact, but for what it may round or not.

    That is floats of another dtype, and everything where less is claimed than the dtype can hold.
    """
    if isinstance(x, BoundedArray):
        return x
    if isinstance(x, MaskArray):
        return BoundedArray(bounds, x.value, x.open)
    host = np.asarray(x)
    if host.dtype.kind not in "biuf":
        raise Untraceable(f"numbers of type {host.dtype}")
    of_other_dtype = isinstance(x, np.ndarray | np.generic) and host.dtype.kind == "f" and host.dtype != bounds.dtype
    if of_other_dtype or bounds.u > np.finfo(bounds.dtype).eps:
        return BoundedArray(bounds, host, bounds.u * np.abs(host) + bounds.eta * (host != 0.0))
    return received(bounds, host.astype(bounds.dtype))


def _operand(x: BoundedArray) -> BoundedArray:
    """x as a product of the declared precision takes it."""
    B = x.bounds
    if B.operand_bits:
        unit = np.ldexp(1.0, np.frexp(x.v)[1] - abs(B.operand_bits))
        shortened = np.rint(x.v / unit) if B.operand_bits > 0 else np.trunc(x.v / unit)
        return BoundedArray(B, shortened * unit, x.e, x.k)
    if B.u_in == 0.0:
        return x
    return BoundedArray(B, x.v, np.where(x.zero, 0.0, x.e + B.u_in * (np.abs(x.v) + x.e) + B.eta_in), x.k)


def power(x: BoundedArray, p: Any) -> BoundedArray:
    """x^p for a number p: the slope is largest at one end of what x may be."""
    if not isinstance(p, int | float | np.number):
        raise Untraceable("a power whose exponent is an array")
    B = x.bounds
    if p == 0:
        return BoundedArray(B, np.ones_like(x.v), 0.0)  # whatever x is
    if p == 1:
        return x
    low, high = np.maximum(np.abs(x.v) - x.e, 0.0), np.abs(x.v) + x.e
    slope = abs(p) * np.maximum(low ** (p - 1.0), high ** (p - 1.0))
    spread = np.where(x.e == 0.0, 0.0, slope * x.e)
    return with_own_error(x, x.v ** float(p), spread, "square" if p == 2 else "pow")


def rounded(
    bounds: Bounds, v: np.ndarray, spread: np.ndarray, k: int, ulps: float = 0.5, here: float = 0.5
) -> BoundedArray:
    """v with what came in, and the operation's own error in ulp on the device and ``here``, in float64."""
    own = 2.0 * ulps * bounds.u + 2.0 * here * U64
    e = (spread + own * (np.abs(v) + spread) + bounds.eta) * EVALUATION
    overflows = np.isfinite(v) & (np.abs(v) - e > bounds.largest)
    return BoundedArray(bounds, np.where(overflows, np.copysign(np.inf, v), v), e, k)


def added_up(
    bounds: Bounds, v: Any, spread: Any, total: Any, roundings: int, k: int, finite: bool = True
) -> BoundedArray:
    """A sum with so many roundings at each of its terms, in any order; ``total``: of the terms' sizes, all finite."""
    e = spread + (bounds.gamma(roundings, bounds.u_sum + U64) * total + 2 * roundings * bounds.eta * (total > 0.0))
    if bounds.u > bounds.u_sum:  # a precision below that of the sum rounds its result once more
        e = e + bounds.u * (np.abs(v) + e)
    e = e * EVALUATION
    # The sum itself overflows in any order, if all its terms are of one sign; a part of it in some order.
    always = np.isfinite(v) & (np.abs(v) - e > bounds.largest) & (np.abs(v) >= total * (1.0 - 1e-9))
    e = np.where((total < bounds.largest) | always | (not finite and ~np.isfinite(total)), e, np.nan)
    return BoundedArray(bounds, np.where(always, np.copysign(np.inf, v), v), e, k)


def with_own_error(x: BoundedArray, v: np.ndarray, spread: np.ndarray, name: str) -> BoundedArray:
    """f(x) of a function in the device's table; NumPy's own float64 functions miss by at most 4 ulp."""
    return rounded(x.bounds, v, spread, x.k, x.bounds.ulps[name], 4.0)
