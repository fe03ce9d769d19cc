"""An array namespace that computes in float64 and, beside every number, how far a device may be from it.

A function written against ``xp`` runs on it once more and leaves a bound on each of its results. The rules are those of
``bounds``, applied entry by entry: exact zeros stay exact, and nothing of second order is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError
from . import elementary
from .bounds import Bounded, Bounds, Exact, Mask, count, joined, largest, maximum, minimum, reduced, sign, where

EVALUATION = 1.0 + 2.0**-30  # covers the roundings of a bound's own evaluation


class Untraceable(ConfigError, AttributeError):
    """The trace met something whose error it cannot bound; a stated tolerance takes its place."""

    def __init__(self, what: str) -> None:
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
        return _power(self, p)

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


def _power(x: BoundedArray, p: Any) -> Bounded:
    if not isinstance(p, int | float | np.number):
        raise Untraceable("a power whose exponent is an array")
    return elementary.power(x, float(p))


def _array(x: Any, bounds: Bounds) -> Any:
    return x if isinstance(x, BoundedArray | MaskArray) or np.asarray(x).dtype.kind == "b" else lift(x, bounds)


_MOVES = {"broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims", "repeat", "reshape"}
_MOVES |= {"roll", "squeeze", "swapaxes", "take", "take_along_axis", "tile", "transpose", "tril", "triu"}
_JOINS = ("concat", "concatenate", "stack", "hstack", "vstack")
_SHAPES = ("zeros", "ones", "eye", "arange", "zeros_like", "ones_like")
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(np, name) for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "pow": _power,
    "power": _power,
    "logical_and": lambda a, b: as_mask(a) & b,
    "logical_or": lambda a, b: as_mask(a) | b,
    "logical_xor": lambda a, b: as_mask(a) ^ b,
}
_ELEMENTWISE = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt", "sin", "cos")


class BoundedNamespace:
    """The standard's functions on :class:`BoundedArray`; ``bounds`` says how the device computes."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    def __getattr__(self, name: str) -> Any:
        if name in _COMPARISONS:
            return lambda a, b: lift(a, self.bounds).compared(b, _COMPARISONS[name])
        if name in _OPERATORS:
            return lambda a, b: _OPERATORS[name](_array(a, self.bounds), b)
        if name in _ELEMENTWISE:
            # Of a number alone a namespace makes an array of its default dtype: lift allows either.
            function = getattr(elementary, name)
            return lambda x: function(lift(np.float64(x) if isinstance(x, int | float) else x, self.bounds))
        if name in _MOVES:
            return lambda x, *args, **kwargs: self._moved(getattr(np, name), x, *args, **kwargs)
        if name in _JOINS:
            return lambda parts, **kwargs: self._joined(getattr(np, name), parts, **kwargs)
        if name in _SHAPES:
            return lambda *args, **kwargs: self._new(getattr(np, name), *args, **kwargs)
        known = getattr(np, name, None)
        if name == "newaxis" or isinstance(known, float | type):
            return known  # a constant or a dtype
        if not callable(known):
            raise Untraceable(f"xp.{name}")
        return lambda *args, **kwargs: _on_plain_arrays(name, *args, **kwargs)

    # -- elementwise --------------------------------------------------------------------------------------------------

    def abs(self, x: Any) -> Bounded:
        return abs(lift(x, self.bounds))

    def sign(self, x: Any) -> Bounded:
        return sign(lift(x, self.bounds))

    def negative(self, x: Any) -> Bounded:
        return -lift(x, self.bounds)

    def positive(self, x: Any) -> Bounded:
        return lift(x, self.bounds)

    def square(self, x: Any) -> Bounded:
        x = lift(x, self.bounds)
        return x * x

    def reciprocal(self, x: Any) -> Bounded:
        return 1.0 / lift(x, self.bounds)

    def maximum(self, a: Any, b: Any) -> Bounded:
        return maximum(lift(a, self.bounds), b)

    def minimum(self, a: Any, b: Any) -> Bounded:
        return minimum(lift(a, self.bounds), b)

    def clip(self, x: Any, min: Any = None, max: Any = None) -> Bounded:
        x = lift(x, self.bounds) if min is None else self.maximum(x, min)
        return x if max is None else self.minimum(x, max)

    def logical_not(self, mask: Any) -> Any:
        return ~mask if isinstance(mask, MaskArray) else np.logical_not(mask)

    def where(self, mask: Any, a: Any, b: Any) -> Bounded:
        return where(as_mask(mask), lift(a, self.bounds), lift(b, self.bounds), self.bounds)

    def isfinite(self, x: Any) -> np.ndarray:
        return np.isfinite(lift(x, self.bounds).v)

    def isnan(self, x: Any) -> np.ndarray:
        return np.isnan(lift(x, self.bounds).v)

    # -- sums and products --------------------------------------------------------------------------------------------

    def matmul(self, a: Any, b: Any) -> Bounded:
        return lift(a, self.bounds) @ b

    def vecdot(self, a: Any, b: Any, *, axis: int = -1) -> Any:
        a, b = self.moveaxis(lift(a, self.bounds), axis, -1), self.moveaxis(lift(b, self.bounds), axis, -1)
        return (a[..., None, :] @ b[..., :, None])[..., 0, 0]

    def sum(self, x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Bounded:
        self._check_dtype(dtype)
        return reduced(lift(x, self.bounds), axis, keepdims=keepdims)

    def mean(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Bounded:
        x = lift(x, self.bounds)
        # A device may divide by the count or multiply by its rounded reciprocal.
        share = lift(1.0, self.bounds) / lift(count(x.shape, axis), self.bounds)
        total = self.sum(x, axis=axis, keepdims=keepdims)
        if np.any(np.isinf(total.v)) and np.all(np.isfinite(x.v)):  # a device may divide before it overflows
            v = np.sum(x.v, axis=axis, keepdims=keepdims)
            total = total.like(v, e=np.where(np.isinf(total.v), np.nan, total.errors()))
        return total * share

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Bounded:
        return largest(lift(x, self.bounds), axis, keepdims=keepdims)

    def min(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Bounded:
        return -self.max(-lift(x, self.bounds), axis=axis, keepdims=keepdims)

    # -- what only moves or makes numbers -----------------------------------------------------------------------------

    def _moved(self, function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, BoundedArray):
            return x.rearranged(lambda part: function(part, *args, **kwargs))
        if isinstance(x, MaskArray):
            return MaskArray(function(x.value, *args, **kwargs), function(x.undetermined, *args, **kwargs))
        return function(x, *args, **kwargs)

    def _joined(self, function: Callable[..., Any], parts: Any, **kwargs: Any) -> Any:
        if not any(isinstance(part, BoundedArray | MaskArray) for part in parts):
            return function(parts, **kwargs)
        if any(isinstance(part, MaskArray) for part in parts):
            masks = [as_mask(part) for part in parts]
            undetermined = function([m.undetermined for m in masks], **kwargs)
            return MaskArray(function([m.value for m in masks], **kwargs), undetermined)
        return joined(lambda arrays: function(arrays, **kwargs), [lift(part, self.bounds) for part in parts])

    def _new(self, function: Callable[..., Any], *args: Any, device: Any = None, **kwargs: Any) -> Any:
        like = [np.zeros(a.shape, a.dtype) if isinstance(a, BoundedArray) else a for a in args]
        made = function(*like, **kwargs)
        if made.dtype.kind != "f":
            return made
        self._check_dtype(kwargs.get("dtype"))
        if np.any(made != np.trunc(made)):
            raise Untraceable(f"xp.{function.__name__} of fractions")
        return lift(made.astype(self.bounds.dtype), self.bounds)

    def full(self, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        self._check_dtype(dtype)
        return self.broadcast_to(self.asarray(fill_value, dtype=dtype), shape)

    def full_like(self, x: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        return self.full(x.shape, float(fill_value), dtype=dtype)

    def asarray(self, x: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
        if isinstance(x, BoundedArray | MaskArray):
            return x if dtype is None else self.astype(x, dtype)
        host = np.asarray(x, dtype)
        if host.dtype.kind != "f":
            return host
        self._check_dtype(dtype)
        # With no dtype it is for the namespace to round to its default or not: lift allows either.
        return lift(host, self.bounds)

    def astype(self, x: Any, dtype: Any, *, copy: bool = True, device: Any = None) -> Any:
        wanted = np.dtype(dtype)
        if wanted.kind == "f":
            self._check_dtype(wanted)
            return lift(x, self.bounds)
        if isinstance(x, BoundedArray) or (isinstance(x, MaskArray) and wanted.kind != "b"):
            raise Untraceable(f"a conversion to {wanted}")
        return x if isinstance(x, MaskArray) else np.asarray(x).astype(wanted)

    def _check_dtype(self, dtype: Any) -> None:
        if dtype is not None and np.dtype(dtype).kind == "f" and np.dtype(dtype) != np.dtype(self.bounds.dtype):
            raise Untraceable(f"{np.dtype(dtype)} inside a function of {self.bounds.dtype} arrays")


def _on_plain_arrays(name: str, *args: Any, **kwargs: Any) -> Any:
    """NumPy's function of labels and indices, which is exact; of anything that carries a bound it is unknown."""
    if any(isinstance(a, BoundedArray | MaskArray) for a in (*args, *kwargs.values())):
        raise Untraceable(f"xp.{name}")
    result = getattr(np, name)(*args, **kwargs)
    if isinstance(result, np.ndarray | np.generic) and result.dtype.kind not in "biu":
        raise Untraceable(f"xp.{name}")
    return result
