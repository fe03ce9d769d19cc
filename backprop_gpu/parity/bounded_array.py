"""Arrays with a bound for each entry: what a function of arrays sees while its operations are traced.

The rules are those of ``oracle.bounds``. Errors pass through many operations here, on arrays of any shape, so that
exact zeros stay exact and nothing of second order is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError
from .oracle import elementary
from .oracle.bounds import Bounded, Bounds, Exact, Mask

EVALUATION = 1.0 + 2.0**-30  # covers the roundings of a bound's own evaluation


class Untraceable(ConfigError, AttributeError):
    """The trace met something whose error it cannot bound; a stated tolerance takes its place."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"the operation trace cannot follow {what}; pass tolerance=, a relative error such as 1e-5")


class MaskArray(Mask):
    """Booleans, some of which a device may find otherwise."""

    __array_ufunc__ = None  # numpy arrays leave the operators to this class
    undetermined: np.ndarray

    def __init__(self, value: np.ndarray, undetermined: np.ndarray) -> None:
        super().__init__(value, undetermined)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array."""
        return self.value.shape

    def __invert__(self) -> MaskArray:
        return MaskArray(~self.value, self.undetermined)

    def __and__(self, other: Any) -> MaskArray:
        a, b = self, as_mask(other)
        undetermined = a.undetermined & (b.value | b.undetermined) | b.undetermined & (a.value | a.undetermined)
        return MaskArray(a.value & b.value, undetermined)

    def __or__(self, other: Any) -> MaskArray:
        return ~(~self & ~as_mask(other))

    def __xor__(self, other: Any) -> MaskArray:
        b = as_mask(other)
        return MaskArray(self.value ^ b.value, self.undetermined | b.undetermined)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __getitem__(self, part: Any) -> MaskArray:
        return MaskArray(self.value[part], self.undetermined[part])

    def __bool__(self) -> NoReturn:
        raise Untraceable("a branch on a comparison that the device may decide otherwise")


def as_mask(x: Any) -> MaskArray:
    """Booleans, all determined unless they say otherwise."""
    return x if isinstance(x, MaskArray) else MaskArray(np.asarray(x), np.zeros(np.shape(x), bool))


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise Untraceable(what)

    return refuse


class BoundedArray(Bounded):
    """A :class:`Bounded` with a bound ``e`` for each entry, 0 where every device must find v, and an array's interface.

    e is NaN where a part of a sum may overflow although the sum does not: whether it does is up to the order of
    summation, and a device may find anything, NaN included. It stays NaN in whatever is computed from it.
    """

    __hash__ = None  # type: ignore[assignment]
    device = None
    e: np.ndarray

    def __init__(self, bounds: Bounds, v: Any, e: Any = 0.0, k: int = 1) -> None:
        v = np.asarray(v, np.float64)
        # infinities and NaN are the same on every device, or the bound of a finite neighbour says so
        super().__init__(bounds, v, e=np.where(np.isfinite(v) | np.isnan(e), e, 0.0), k=k)

    # -- results ------------------------------------------------------------------------------------------------------

    def like(
        self, v: Any, top: float = math.inf, *, r: float = 0.0, a: float = 0.0, e: Any = None, k: int | None = None
    ) -> BoundedArray:
        """With all of the bound in each entry."""
        whole = (0.0 if e is None else e) + (r * np.abs(v) if r else 0.0) + a
        return BoundedArray(self.bounds, v, whole, self.k if k is None else k)

    def rounded(
        self, v: Any, top: float, *, r: float, a: float, e: Any = None, k: int | None = None, exact: Exact | None = None
    ) -> BoundedArray:
        """The result of an operation, whose own error is 0 where ``exact`` says so."""
        incoming = 0.0 if e is None else e
        error = (incoming + r * (np.abs(v) + incoming) + a) * EVALUATION
        overflows = np.isfinite(v) & (np.abs(v) - error > self.bounds.largest)
        result = self.like(np.where(overflows, np.copysign(np.inf, v), v), e=error, k=k)
        if exact is not None:
            there, left = exact()
            result.e = np.where(there & ~np.isnan(result.e), left, result.e)
        return result

    def summed(self, v: Any, top: float, *, r: float, a: float, e: Any, k: int, total: Any, finite: bool) -> Bounded:
        """NaN where a part of the sum may overflow; the sum itself does in any order, if all terms are of one sign."""
        e, limit = e + a * (total > 0.0), self.bounds.largest
        e = (e + r * (np.abs(v) + e)) * EVALUATION
        always = np.isfinite(v) & (np.abs(v) - e > limit) & (np.abs(v) >= total * (1.0 - 1e-9))
        e = np.where((total < limit) | always | (not finite and ~np.isfinite(total)), e, np.nan)
        return self.like(np.where(always, np.copysign(np.inf, v), v), e=e, k=k)

    def lifted(self, other: Any) -> BoundedArray:
        """The other operand as the device gets it."""
        return lift(other, self.bounds)

    # -- shape --------------------------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """As of any array, like the next three."""
        return int(self.v.ndim)

    @property
    def size(self) -> int:
        return int(self.v.size)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.bounds.dtype)

    @property
    def mT(self) -> Bounded:
        return self.rearranged(lambda x: np.swapaxes(x, -1, -2))

    def __len__(self) -> int:
        return len(self.v)

    def __getitem__(self, part: Any) -> Bounded:
        if isinstance(part, Mask | Bounded):
            raise Untraceable("a selection by a comparison that the device may decide otherwise")
        return super().__getitem__(part)

    # -- operators ----------------------------------------------------------------------------------------------------

    def __pos__(self) -> BoundedArray:
        return self

    def __rmatmul__(self, other: Any) -> Bounded:
        return self.lifted(other) @ self

    def __pow__(self, p: Any) -> Bounded:
        return power(self, p)

    def compared(self, other: Any, relation: Callable[[Any, Any], Any]) -> Any:
        """Plain booleans where every device must find the same, else a :class:`MaskArray`."""
        mask = super().compared(other, relation)
        return MaskArray(mask.value, mask.undetermined) if mask.undetermined.any() else mask.value

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
        return BoundedArray(bounds, x.value, x.undetermined)
    host = np.asarray(x)
    if host.dtype.kind not in "biuf":
        raise Untraceable(f"numbers of type {host.dtype}")
    of_other_dtype = isinstance(x, np.ndarray | np.generic) and host.dtype.kind == "f" and host.dtype != bounds.dtype
    if of_other_dtype or bounds.u > np.finfo(bounds.dtype).eps:
        return BoundedArray(bounds, host, bounds.u * np.abs(host) + bounds.eta * (host != 0.0))
    return received(bounds, host.astype(bounds.dtype))


def power(x: BoundedArray, p: Any) -> Bounded:
    """x to a power that is one number.

    Raises
    ------
    Untraceable
        For an array of exponents.
    """
    if not isinstance(p, int | float | np.number):
        raise Untraceable("a power whose exponent is an array")
    return elementary.power(x, float(p))
