"""An array namespace that computes in float64 and, beside every number, how far a device may be from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .bounded_array import (
    BoundedArray,
    MaskArray,
    Relation,
    Untraceable,
    added_up,
    as_mask,
    lift,
    power,
    with_own_error,
)
from .bounds import Bounds
from .elementary64 import erf64

_MOVES = {"broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims", "repeat", "reshape"}
_MOVES |= {"roll", "squeeze", "swapaxes", "take", "take_along_axis", "tile", "transpose", "tril", "triu"}
_JOINS = ("concat", "concatenate", "stack", "hstack", "vstack")
_SHAPES = ("zeros", "ones", "eye", "arange", "zeros_like", "ones_like")
_COMPARISONS: dict[str, Relation] = {
    name: getattr(np, name) for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "pow": power,
    "power": power,
    "logical_and": lambda a, b: as_mask(a) & b,
    "logical_or": lambda a, b: as_mask(a) | b,
    "logical_xor": lambda a, b: as_mask(a) ^ b,
}


def _erf_spread(v: np.ndarray, e: np.ndarray) -> np.ndarray:
    """The derivative is at most 2/sqrt(pi) e^(-t^2) at the t nearest to 0 that x may be."""
    nearest = np.maximum(np.abs(v) - e, 0.0)
    return 2.0 / math.sqrt(math.pi) * np.exp(-nearest * nearest) * e


def _exp_spread(v: np.ndarray, e: np.ndarray) -> np.ndarray:
    """e^v (e^e - 1); an e so large that this is 0 times infinity leaves e^(v + e)."""
    return np.where(e < 700.0, np.exp(v) * np.expm1(e), np.exp(v + e))


def _sqrt_spread(v: np.ndarray, e: np.ndarray) -> np.ndarray:
    """e / (sqrt v + sqrt(v - e)); all of sqrt(e) where v is 0."""
    total = np.sqrt(v) + np.sqrt(np.maximum(v - e, 0.0))
    return np.where(v > 0.0, e / np.where(total > 0.0, total, 1.0), np.sqrt(e))


# Functions with how far f(x) may move where x moves by e > 0.
_ELEMENTWISE: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "exp": (np.exp, _exp_spread),
    "expm1": (np.expm1, _exp_spread),
    "log": (np.log, lambda v, e: e / np.maximum(v - e, 0.0)),
    "log1p": (np.log1p, lambda v, e: e / np.maximum(1.0 + v - e, 0.0)),
    # its second derivative is at most 4/(3 sqrt 3) = 0.7698 in size
    "tanh": (np.tanh, lambda v, e: np.minimum((1.0 - np.tanh(v) ** 2) * e + 0.385 * e * e, 2.0)),
    "erf": (erf64, _erf_spread),
    "sqrt": (np.sqrt, _sqrt_spread),
    "sin": (np.sin, lambda v, e: np.minimum(e, 2.0)),
    "cos": (np.cos, lambda v, e: np.minimum(e, 2.0)),
}


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
            return lambda x: self._elementwise(name, x)
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

    def _elementwise(self, name: str, x: Any) -> BoundedArray:
        # Of a number alone a namespace makes an array of its default dtype: lift allows either.
        x = lift(np.float64(x) if isinstance(x, int | float) else x, self.bounds)
        function, moved = _ELEMENTWISE[name]
        return with_own_error(x, function(x.v), np.where(x.e == 0.0, 0.0, moved(x.v, x.e)), name)

    def abs(self, x: Any) -> BoundedArray:
        return abs(lift(x, self.bounds))

    def sign(self, x: Any) -> BoundedArray:
        x = lift(x, self.bounds)
        e = np.where(np.isnan(x.e), np.nan, np.where((np.abs(x.v) <= x.e) & (x.e > 0.0), 2.0, 0.0))
        return BoundedArray(self.bounds, np.sign(x.v), e, x.k)

    def negative(self, x: Any) -> BoundedArray:
        return -lift(x, self.bounds)

    def positive(self, x: Any) -> BoundedArray:
        return lift(x, self.bounds)

    def square(self, x: Any) -> BoundedArray:
        x = lift(x, self.bounds)
        return x * x

    def reciprocal(self, x: Any) -> BoundedArray:
        return 1.0 / lift(x, self.bounds)

    def maximum(self, a: Any, b: Any) -> BoundedArray:
        a, b = lift(a, self.bounds), lift(b, self.bounds)
        # Where one is larger whatever the errors, the error of the other does not matter.
        e = np.where(a.v - a.e > b.v + b.e, a.e, np.where(b.v - b.e > a.v + a.e, b.e, np.maximum(a.e, b.e)))
        return BoundedArray(self.bounds, np.maximum(a.v, b.v), e, max(a.k, b.k))

    def minimum(self, a: Any, b: Any) -> BoundedArray:
        return -self.maximum(-lift(a, self.bounds), -lift(b, self.bounds))

    def clip(self, x: Any, min: Any = None, max: Any = None) -> BoundedArray:
        x = lift(x, self.bounds) if min is None else self.maximum(x, min)
        return x if max is None else self.minimum(x, max)

    def logical_not(self, mask: Any) -> Any:
        return ~mask if isinstance(mask, MaskArray) else np.logical_not(mask)

    def where(self, mask: Any, a: Any, b: Any) -> BoundedArray:
        a, b, mask = lift(a, self.bounds), lift(b, self.bounds), as_mask(mask)
        v, e = np.where(mask.value, a.v, b.v), np.where(mask.value, a.e, b.e)
        other, other_e = np.where(mask.value, b.v, a.v), np.where(mask.value, b.e, a.e)
        e = np.where(mask.open, np.maximum(e, np.abs(v - other) + other_e), e)
        return BoundedArray(self.bounds, v, e, max(a.k, b.k))

    def isfinite(self, x: Any) -> np.ndarray:
        return np.isfinite(lift(x, self.bounds).v)

    def isnan(self, x: Any) -> np.ndarray:
        return np.isnan(lift(x, self.bounds).v)

    # -- sums and products --------------------------------------------------------------------------------------------

    def matmul(self, a: Any, b: Any) -> BoundedArray:
        return lift(a, self.bounds) @ lift(b, self.bounds)

    def vecdot(self, a: Any, b: Any, *, axis: int = -1) -> BoundedArray:
        a, b = self.moveaxis(lift(a, self.bounds), axis, -1), self.moveaxis(lift(b, self.bounds), axis, -1)
        return (a[..., None, :] @ b[..., :, None])[..., 0, 0]

    def sum(self, x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> BoundedArray:
        self._check_dtype(dtype)
        x, B = lift(x, self.bounds), self.bounds
        count, over = _count(x.shape, axis), {"axis": axis, "keepdims": keepdims}
        spread, total = np.sum(x.e, **over), np.sum(np.abs(x.v) + x.e, **over)
        finite = bool(np.all(np.isfinite(x.v)))
        return added_up(B, np.sum(x.v, **over), spread, total, max(count - 1, 0), max(x.k, count), finite)

    def mean(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> BoundedArray:
        x = lift(x, self.bounds)
        # A device may divide by the count or multiply by its rounded reciprocal.
        share = lift(1.0, self.bounds) / lift(_count(x.shape, axis), self.bounds)
        total = self.sum(x, axis=axis, keepdims=keepdims)
        if np.any(np.isinf(total.v)) and np.all(np.isfinite(x.v)):  # a device may divide before it overflows
            v = np.sum(x.v, axis=axis, keepdims=keepdims)
            total = BoundedArray(self.bounds, v, np.where(np.isinf(total.v), np.nan, total.e), total.k)
        return total * share

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> BoundedArray:
        x, over = lift(x, self.bounds), {"axis": axis, "keepdims": keepdims}
        return BoundedArray(self.bounds, np.max(x.v, **over), np.max(x.e, **over), x.k)

    def min(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> BoundedArray:
        return -self.max(-lift(x, self.bounds), axis=axis, keepdims=keepdims)

    # -- what only moves or makes numbers -----------------------------------------------------------------------------

    def _moved(self, function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, BoundedArray):
            return x.rearranged(lambda part: function(part, *args, **kwargs))
        if isinstance(x, MaskArray):
            return MaskArray(function(x.value, *args, **kwargs), function(x.open, *args, **kwargs))
        return function(x, *args, **kwargs)

    def _joined(self, function: Callable[..., Any], parts: Any, **kwargs: Any) -> Any:
        if not any(isinstance(part, BoundedArray | MaskArray) for part in parts):
            return function(parts, **kwargs)
        if any(isinstance(part, MaskArray) for part in parts):
            masks = [as_mask(part) for part in parts]
            return MaskArray(function([m.value for m in masks], **kwargs), function([m.open for m in masks], **kwargs))
        arrays = [lift(part, self.bounds) for part in parts]
        v, e = (function([part(a) for a in arrays], **kwargs) for part in (lambda a: a.v, lambda a: a.e))
        return BoundedArray(self.bounds, v, e, max(a.k for a in arrays))

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


def _array(x: Any, bounds: Bounds) -> Any:
    return x if isinstance(x, BoundedArray | MaskArray) or np.asarray(x).dtype.kind == "b" else lift(x, bounds)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    """Numbers that a reduction over ``axis`` (None, one, or several) joins into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


def _on_plain_arrays(name: str, *args: Any, **kwargs: Any) -> Any:
    """NumPy's function of labels and indices, which is exact; of anything that carries a bound it is unknown."""
    if any(isinstance(a, BoundedArray | MaskArray) for a in (*args, *kwargs.values())):
        raise Untraceable(f"xp.{name}")
    result = getattr(np, name)(*args, **kwargs)
    if isinstance(result, np.ndarray | np.generic) and result.dtype.kind not in "biu":
        raise Untraceable(f"xp.{name}")
    return result
