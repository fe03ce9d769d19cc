"""An array namespace that computes in float64 and, beside every number, how far a device may be from it.

A function written against ``xp`` runs on it once more and leaves a bound on each of its results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .bounded_array import BoundedArray, MaskArray, Untraceable, as_mask, lift, power
from .oracle import elementary
from .oracle.bounds import Bounded, Bounds
from .oracle.operations import count, joined, largest, maximum, minimum, reduced, sign, where


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
    "pow": power,
    "power": power,
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
