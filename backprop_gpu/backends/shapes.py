"""A device for abstract evaluation: its arrays have a shape and a dtype but no data, and it counts allocated bytes.

Running the reference kernels on it measures what a step would allocate, for any formulas, without allocating it. NumPy
may need less, since it writes some intermediate results over their operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from .base import Backend

_ELEMENTWISE = (
    "abs",
    "cos",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "sign",
    "sin",
    "sqrt",
    "tanh",
    "where",
)
_COMPARISONS = ("equal", "greater", "greater_equal", "isfinite", "less", "less_equal", "logical_and", "logical_not")


class Meter:
    """Bytes allocated now, and the peak."""

    live = peak = 0

    def add(self, n: int) -> None:
        """``n`` more bytes."""
        self.live += n
        self.peak = max(self.peak, self.live)


class ShapeArray:
    """An array without data. A view counts no bytes and keeps a reference to its base."""

    def __init__(
        self,
        meter: Meter,
        shape: Sequence[int],
        dtype: Any,
        base: ShapeArray | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self.meter, self.shape, self.dtype, self.base = meter, tuple(shape), np.dtype(dtype), base
        self.strides = _c_order(self.shape, self.dtype.itemsize) if strides is None else strides
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._counted = self.nbytes if base is None else 0
        meter.add(self._counted)

    def __del__(self) -> None:
        self.meter.add(-self._counted)

    @property
    def T(self) -> ShapeArray:
        """The transposed view."""
        return ShapeArray(self.meter, self.shape[::-1], self.dtype, self, self.strides[::-1])

    @property
    def flags(self) -> SimpleNamespace:
        """Whether it lies in C order, in Fortran order."""
        size = self.dtype.itemsize
        return SimpleNamespace(
            c_contiguous=self.strides == _c_order(self.shape, size),
            f_contiguous=self.strides[::-1] == _c_order(self.shape[::-1], size),
        )

    def reshape(self, *shape: Any) -> ShapeArray:
        """A view in C order."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        known = math.prod(n for n in wanted if n != -1)
        whole = [math.prod(self.shape) // known if n == -1 else n for n in wanted]
        return ShapeArray(self.meter, whole, self.dtype, self)

    def view(self, dtype: Any) -> ShapeArray:
        """The same bytes as numbers of another type of that size."""
        return ShapeArray(self.meter, self.shape, dtype, self, self.strides)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    def __getitem__(self, key: Any) -> ShapeArray:
        parts = key if isinstance(key, tuple) else (key,)
        parts = parts[:-1] if parts and parts[-1] is Ellipsis else parts
        assert all(part is None or isinstance(part, slice | int) for part in parts), "a choice by index is a copy"
        # Of one number, which nothing reads: with the dots, it is a view whatever the key.
        view = np.lib.stride_tricks.as_strided(np.empty((), self.dtype), self.shape, self.strides)[(*parts, ...)]
        return ShapeArray(self.meter, view.shape, self.dtype, self, view.strides)

    # What NumPy's own functions do, with ``out`` and without.

    def __array_ufunc__(self, function: np.ufunc, method: str, *operands: Any, **named: Any) -> Any:
        out = named.get("out")
        if out is not None:
            return out[0]
        assert method == "__call__", "a reduction is written somewhere"
        own = getattr(ShapeNamespace(self.meter), function.__name__, None)
        return elementwise(self.meter, *operands) if own is None else own(*operands)

    def __array_function__(self, function: Any, types: Any, arguments: Any, named: Any) -> Any:
        if function is np.copyto:
            return None
        return named["out"] if "out" in named else getattr(ShapeNamespace(self.meter), function.__name__)(*arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Writing takes no memory."""

    def _with(self, other: Any) -> ShapeArray:
        return elementwise(self.meter, self, other)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _with
    __and__ = __rand__ = __xor__ = __rxor__ = __or__ = __ror__ = __rshift__ = __lshift__ = _with

    def _copy(self) -> ShapeArray:
        return ShapeArray(self.meter, self.shape, self.dtype)

    __neg__ = __pos__ = _copy


def _c_order(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Strides in bytes."""
    return tuple(size * math.prod(shape[i + 1 :]) for i in range(len(shape)))


def elementwise(meter: Meter, *operands: Any, dtype: Any = None) -> ShapeArray:
    """The result of an elementwise operation; Python numbers take part in neither shape nor dtype."""
    arrays = [x for x in operands if isinstance(x, ShapeArray)]
    kind = np.result_type(*(x.dtype for x in arrays)) if dtype is None else dtype
    return ShapeArray(meter, np.broadcast_shapes(*(x.shape for x in arrays)), kind)


class ShapeNamespace:
    """As much of the array API standard as ``maths`` uses."""

    float32, float64, int64, bool = (np.dtype(name) for name in ("float32", "float64", "int64", "bool"))
    int32, uint16 = np.dtype("int32"), np.dtype("uint16")  # what kernel sets keep for themselves
    finfo = staticmethod(np.finfo)

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        for name in _ELEMENTWISE:
            setattr(self, name, self._elementwise(None))
        for name in _COMPARISONS:
            setattr(self, name, self._elementwise(self.bool))

    def _elementwise(self, dtype: Any) -> Callable[..., ShapeArray]:
        return lambda *operands: elementwise(self._meter, *operands, dtype=dtype)

    def where(self, condition: ShapeArray, a: Any, b: Any) -> ShapeArray:
        """Of the dtype of what it chooses from."""
        kind = np.result_type(*(x.dtype for x in (a, b) if isinstance(x, ShapeArray)))
        return elementwise(self._meter, condition, a, b, dtype=kind)

    def zeros(self, shape: Sequence[int], dtype: Any, device: Any = None) -> ShapeArray:
        """A new array."""
        return ShapeArray(self._meter, shape, dtype)

    def asarray(self, x: Any, dtype: Any = None, device: Any = None) -> ShapeArray:
        """A new array of what has a shape."""
        return ShapeArray(self._meter, x.shape, dtype or x.dtype)

    def astype(self, x: ShapeArray, dtype: Any) -> ShapeArray:
        """A copy."""
        return ShapeArray(self._meter, x.shape, dtype)

    def matmul(self, a: ShapeArray, b: ShapeArray) -> ShapeArray:
        """Of two matrices, or of as many pairs of them."""
        return ShapeArray(self._meter, (*a.shape[:-1], b.shape[-1]), np.result_type(a.dtype, b.dtype))

    def matrix_transpose(self, x: ShapeArray) -> ShapeArray:
        """A view with the last two axes exchanged."""
        order = (*x.strides[:-2], x.strides[-1], x.strides[-2])
        return ShapeArray(self._meter, (*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype, x, order)

    def sum(self, x: ShapeArray, axis: int | None = None, keepdims: Any = False) -> ShapeArray:
        """Over all elements or one axis."""
        shape = [1 if axis is None or i == axis % len(x.shape) else n for i, n in enumerate(x.shape)]
        if not keepdims:
            shape = [] if axis is None else [n for i, n in enumerate(x.shape) if i != axis % len(x.shape)]
        return ShapeArray(self._meter, shape, x.dtype)

    max = mean = sum

    def take(self, x: ShapeArray, indices: ShapeArray, axis: int = 0) -> ShapeArray:
        """A copy of the entries along an axis."""
        return ShapeArray(self._meter, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)

    def stack(self, arrays: Sequence[ShapeArray], axis: int = 0) -> ShapeArray:
        """A copy of all."""
        shape = arrays[0].shape
        return ShapeArray(self._meter, (*shape[:axis], len(arrays), *shape[axis:]), arrays[0].dtype)

    def concat(self, arrays: Sequence[ShapeArray], axis: int = 0) -> ShapeArray:
        """A copy of all."""
        shape = arrays[0].shape
        length = sum(x.shape[axis] for x in arrays)
        return ShapeArray(self._meter, (*shape[:axis], length, *shape[axis + 1 :]), arrays[0].dtype)

    def reshape(self, x: ShapeArray, shape: Sequence[int]) -> ShapeArray:
        """A view."""
        return x.reshape(*shape)


class ShapeBackend(Backend):
    """The device; ``meter`` counts."""

    def __init__(self) -> None:
        self.meter = Meter()
        super().__init__("shapes", ShapeNamespace(self.meter), reason="to predict memory")

    def asarray(self, host: Any, dtype: str | None = None) -> ShapeArray:
        """An array of that shape."""
        return ShapeArray(self.meter, np.shape(host), dtype or np.asarray(host).dtype)

    def owns(self, x: Any) -> bool:
        """Whether it is an array without data."""
        return isinstance(x, ShapeArray)

    def passing(self, run: Callable[[], object]) -> int:
        """Peak bytes allocated while ``run`` runs, beyond those allocated before."""
        before = self.meter.peak = self.meter.live
        run()
        return self.meter.peak - before
