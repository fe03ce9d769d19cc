"""A stand-in device: NumPy behind an array type that refuses every silent conversion, with memory that runs out.

What a GPU's arrays refuse, these refuse: becoming a NumPy array, a Python number, a truth value, an index or an
iterator, and mixing with NumPy arrays. Every byte is counted from its allocation to the end of its array; beyond
``limit``, allocation raises MemoryError. ``asarray`` and ``to_host`` are the only transfers, and they are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_gpu.backends.base import Backend


class SilentConversion(TypeError):
    """Somebody took an array of the device for something on the host."""


class Memory:
    """Bytes that live, the most that did, and how many may."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.live, self.peak = limit, 0, 0

    def take(self, n: int) -> None:
        if self.limit is not None and self.live + n > self.limit:
            raise MemoryError(f"{n} bytes more than the {self.limit} that there are")
        self.live += n
        self.peak = max(self.peak, self.live)


def _refuse(self: Any, *unused: Any, **also_unused: Any) -> Any:
    raise SilentConversion("an array of the stand-in device was used as if it were on the host")


class StandInArray:
    """A view shares its base's bytes and keeps it alive."""

    _counted = 0

    def __init__(self, memory: Memory, x: np.ndarray, base: StandInArray | None = None) -> None:
        self._memory, self._x, self._base = memory, x, base
        if base is None:
            memory.take(x.nbytes)
            self._counted = x.nbytes

    def __del__(self) -> None:
        self._memory.live -= self._counted

    __array__ = __float__ = __int__ = __bool__ = __index__ = __complex__ = __iter__ = __len__ = __contains__ = _refuse
    __dlpack__ = __buffer__ = tolist = item = _refuse
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    shape = property(lambda self: self._x.shape)
    dtype = property(lambda self: self._x.dtype)
    nbytes = property(lambda self: self._x.nbytes)

    @property
    def T(self) -> StandInArray:
        return StandInArray(self._memory, self._x.T, self)

    def __getitem__(self, key: Any) -> StandInArray:
        view = self._x[key]
        assert isinstance(view, np.ndarray), "one number is a number of the host"
        assert not view.size or np.may_share_memory(view, self._x), "a choice by index is a copy: use take"
        return StandInArray(self._memory, view, self)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._x[key] = _inner(value)


def _inner(x: Any) -> Any:
    """The NumPy array behind an argument; NumPy arrays themselves are refused."""
    if isinstance(x, StandInArray):
        return x._x
    if isinstance(x, np.ndarray | np.generic):
        raise SilentConversion("a NumPy array was mixed with arrays of the stand-in device")
    return [_inner(part) for part in x] if isinstance(x, list | tuple) else x


def _operator(name: str) -> Any:
    def operate(self: StandInArray, *others: Any) -> StandInArray:
        return StandInArray(self._memory, getattr(self._x, name)(*(_inner(other) for other in others)))

    return operate


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor", "rshift", "lshift"):
    for _side in ("", "r"):
        setattr(StandInArray, f"__{_side}{_name}__", _operator(f"__{_side}{_name}__"))
for _name in ("neg", "pos", "abs", "eq", "lt", "gt", "le", "ge"):
    setattr(StandInArray, f"__{_name}__", _operator(f"__{_name}__"))


class StandInNamespace:
    """NumPy's functions, on arrays of the device."""

    __name__ = "standin"

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or name in ("finfo", "iinfo") or name == "erf":
            return found

        def function(*arguments: Any, device: Any = None, **options: Any) -> Any:
            inner = [_inner(a) for a in arguments]
            result = found(*inner, **{key: _inner(value) for key, value in options.items()})
            for outer, own in zip(arguments, inner, strict=True):
                if isinstance(outer, StandInArray) and np.may_share_memory(result, own):
                    return StandInArray(self._memory, result, outer)
            return StandInArray(self._memory, np.asarray(result))

        return function


class StandInBackend(Backend):
    """``limit``: bytes of memory; None: any number. ``uploads`` and ``downloads`` count the transfers."""

    def __init__(self, limit: int | None = None) -> None:
        self.memory = Memory(limit)
        self.uploads = self.downloads = 0
        super().__init__("standin:0", StandInNamespace(self.memory), reason="for tests")

    def asarray(self, host: Any, dtype: str | None = None) -> StandInArray:
        assert not isinstance(host, StandInArray), "asarray copies from the host"
        self.uploads += 1
        return StandInArray(self.memory, np.array(host, dtype=dtype, order="C", copy=True))

    def to_host(self, x: Any) -> np.ndarray:
        self.downloads += 1
        return np.array(x._x, copy=True)

    def zeros(self, shape: Sequence[int], dtype: str) -> StandInArray:
        if self.memory.limit is not None:  # before NumPy is asked
            self.memory.take(n := int(np.prod([int(k) for k in shape], dtype=object)) * np.dtype(dtype).itemsize)
            self.memory.live -= n
        return StandInArray(self.memory, np.zeros(tuple(shape), dtype))

    def owns(self, x: Any) -> bool:
        return isinstance(x, StandInArray)

    def available(self) -> int | None:
        return None if self.memory.limit is None else self.memory.limit - self.memory.live
