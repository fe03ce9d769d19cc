"""Operations of :class:`~.bounds.Bounded` that select numbers, which add no error, and sums in any order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .bounds import Bounded, Bounds, Mask, Number, added_up

# -- exact operations -------------------------------------------------------------------------------------------------


def maximum(x: Bounded, y: Bounded | Number) -> Bounded:
    """The larger; where one is larger whatever the errors, the error of the other does not matter."""
    y = x.lifted(y)
    v, top, k = np.maximum(x.v, y.v), max(x.top, y.top), max(x.k, y.k)
    if x.exact and y.exact:
        return x.like(v, top, k=k)
    one, two = x.error(), y.error()
    gap, room = x.v - y.v, (one + two) * x.bounds.slack
    e = np.where(gap > room, one, np.where(gap < -room, two, np.maximum(one, two)))
    return x.like(v, top, e=e, k=k)


def minimum(x: Bounded, y: Bounded | Number) -> Bounded:
    """The smaller."""
    return -maximum(-x, -x.lifted(y))


def sign(x: Bounded) -> Bounded:
    """-1, 0 or 1; either where x may be on either side of 0."""
    if x.exact:
        return x.like(np.sign(x.v), 1.0)
    error = x.error()
    e = np.where((np.abs(x.v) <= error * x.bounds.slack) & (error > 0.0), 2.0, 0.0)
    return x.like(np.sign(x.v), 1.0, e=np.where(np.isnan(error), np.nan, e))


def where(mask: Mask | np.ndarray, x: Bounded | Number, y: Bounded | Number, bounds: Bounds) -> Bounded:
    """x where the mask is true, else y; an undetermined mask allows either."""
    mask = mask if isinstance(mask, Mask) else Mask(np.asarray(mask))
    x, y = bounds.lift(x), bounds.lift(y)
    if mask.undetermined is None and y.exact and y.top == 0.0 and x.shape == mask.value.shape:
        return _or_zero(mask.value, x)
    v, top, k = np.where(mask.value, x.v, y.v), max(x.top, y.top), max(x.k, y.k)
    if mask.undetermined is None and x.exact and x.top == 0.0:
        e = None if y.e is None else np.where(mask.value, 0.0, y.e)
        return x.like(v, top, r=y.r, a=y.a, e=e, k=k)
    if mask.undetermined is None and x.r == y.r and x.e is None and y.e is None:
        return x.like(v, top, r=x.r, a=max(x.a, y.a), k=k)
    x_error, y_error = x.error(), y.error()
    e = np.where(mask.value, x_error, y_error)
    if mask.undetermined is not None:
        either = np.maximum(e, np.abs(x.v - y.v) + np.where(mask.value, y_error, x_error))
        e = np.where(mask.undetermined, either, e)
    return x.like(v, top, e=e, k=k)


def _or_zero(mask: np.ndarray, x: Bounded) -> Bounded:
    """x where the mask is true, else exactly 0: by the bits, which is faster than a choice and keeps NaN out."""
    bits = -np.ascontiguousarray(mask).view(np.int8).astype(np.int64)

    def chosen(y: np.ndarray) -> np.ndarray:
        return np.bitwise_and(np.ascontiguousarray(y).view(np.int64), bits).view(np.float64)

    e = None if x.e is None else chosen(np.broadcast_to(x.e, x.shape))
    return x.like(chosen(x.v), x.top, r=x.r, a=x.a, e=e)


def largest(x: Bounded, axis: Any, *, keepdims: bool = True) -> Bounded:
    """max over an axis."""
    e = None if x.exact else np.max(x.errors(), axis=axis, keepdims=keepdims)
    return x.like(np.max(x.v, axis=axis, keepdims=keepdims), x.top, e=e)


def joined(function: Callable[..., Any], parts: Sequence[Bounded]) -> Bounded:
    """Arrays put side by side or on top of each other, by ``function`` of a list."""
    e = None if all(x.exact for x in parts) else function([x.errors() for x in parts])
    top, k = max(x.top for x in parts), max(x.k for x in parts)
    return parts[0].like(function([x.v for x in parts]), top, e=e, k=k)


# -- sums --------------------------------------------------------------------------------------------------------------


def sum_over(x: Bounded, axis: int | None = None) -> Bounded:
    """The sum over one axis, kept, or over all, giving shape (1,)."""
    if axis is not None:
        return reduced(x, axis, keepdims=True)
    return reduced(x, None, keepdims=False).rearranged(lambda s: np.reshape(s, 1))


def reduced(x: Bounded, axis: int | tuple[int, ...] | None, *, keepdims: bool) -> Bounded:
    """The sum over one axis, several or all."""
    n, v = count(x.shape, axis), np.sum(x.v, axis=axis, keepdims=keepdims)
    total, spread = np.sum(np.abs(x.v), axis=axis, keepdims=keepdims), 0.0
    if not x.exact:
        spread = np.sum(x.errors(), axis=axis, keepdims=keepdims)
        total = total + spread
    finite = math.isfinite(x.top) or bool(np.all(np.isfinite(x.v)))
    return added_up(x, v, spread, total, roundings=max(n - 1, 0), top=x.top * n, k=max(x.k, n), finite=finite)


def count(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> int:
    """Numbers that a reduction over an axis (None: all, or several) joins into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
