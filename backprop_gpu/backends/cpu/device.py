"""The backend of the CPU: NumPy's arrays, and the native kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..argument_checks import with_argument_checks
from ..base import Backend
from ..locks import IMPORTS
from ..protocol import Kernels
from .memory import CACHE_LINE, available_bytes, keep_freed_memory

LITTLE = 2**20  # bytes


class CpuBackend(Backend):
    """The CPU through NumPy."""

    kernel_sets = ("reference", "native")

    def __init__(self, reason: str) -> None:
        super().__init__("numpy", np, reason=reason)
        keep_freed_memory()

    def asarray_read_only(self, host: np.ndarray, dtype: str) -> np.ndarray:
        return np.require(host, dtype, ["C", "A"])

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Buffers begin at a cache line: two cores that each write half of the columns never write to one line."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = np.zeros(size + CACHE_LINE, np.uint8)
        first = -room.ctypes.data % CACHE_LINE
        return room[first : first + size].view(dtype).reshape(tuple(shape))

    def upload(self, host: Any, out: np.ndarray, dtype: str) -> None:
        out[...] = host

    def available(self) -> int | None:
        return available_bytes()

    def has_room(self, needed: int) -> bool:
        """So little as LITTLE is there in any case: to ask the system takes longer than to have it."""
        return needed <= LITTLE or super().has_room(needed)

    def kernels(self, kind: str) -> Kernels:
        """``"reference"``, or ``"native"``: C++ kernels."""
        if kind != "native":
            return super().kernels(kind)
        with IMPORTS:
            from .kernels import NativeKernels
            from .library import native_library

        return with_argument_checks(NativeKernels)(self, native_library())
