"""A device: its array namespace, transfers, buffers, and kernel sets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._typing import Array, Namespace
from ..errors import DeviceError
from .argument_checks import with_argument_checks
from .protocol import Kernels
from .reference import ReferenceKernels
from .transfers import Transfers


class Backend:
    """One device of one array namespace.

    Subclasses override what the namespace's standard functions do not give: ``cpu.device.CpuBackend`` has the native
    kernels, ``cuda.device.CudaBackend`` is the only one that knows CuPy.

    Attributes
    ----------
    name : str
        Canonical name in the grammar of ``devices.py``: ``"numpy"``, ``"cupy:0"``, ``"torch:cpu"``, ...
    xp : module
        The array namespace.
    device : object or None
        The namespace's own device object, passed to its creation functions; None for its default device.
    reason : str
        One sentence: why this backend was chosen (shown by ``backprop-gpu devices``).
    kernel_sets : tuple of str
        The names that :meth:`kernels` takes.
    """

    kernel_sets: tuple[str, ...] = ("reference",)  # maths on any namespace

    def __init__(self, name: str, xp: Namespace, device: Any = None, reason: str = "") -> None:
        self.name, self.xp, self.device, self.reason = name, xp, device, reason

    def __repr__(self) -> str:
        return f"<Backend {self.name}>"

    def dtype(self, name: str) -> Any:
        """The namespace's dtype object for a NumPy dtype name such as ``"float32"``."""
        return getattr(self.xp, name)

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """Copy a host array to this device (C order), converted to ``dtype`` on the host first."""
        host = np.array(host, dtype=dtype, order="C", copy=True)
        return host if self.xp is np else self.xp.asarray(host, device=self.device)

    def asarray_read_only(self, host: np.ndarray, dtype: str) -> Array:
        """A host array on this device that is only read: without a copy where that is possible."""
        return self.asarray(host, dtype)

    def upload(self, host: Any, out: Array, dtype: str) -> None:
        """out <- host values, converted to ``dtype``, its own."""
        out[...] = self.asarray(host, dtype)

    def to_host(self, x: Array) -> np.ndarray:
        """Copy an array of this device to a new NumPy array."""
        return np.array(x, copy=True)

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """A new C-ordered buffer of zeros."""
        return self.xp.zeros(tuple(shape), dtype=self.dtype(dtype), device=self.device)

    def owns(self, x: Array) -> bool:
        """Whether ``x`` is an array of this namespace (on any of its devices)."""
        on_host = isinstance(x, np.ndarray)
        return on_host if self.name == "numpy" else not on_host and hasattr(x, "shape")

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the namespace's default device is this one."""
        return contextlib.nullcontext()

    def double_slowdown(self) -> int:
        """How many times slower float64 is than float32: 2 on CPUs and data-centre cards, up to 64 on others."""
        return 2

    def synchronize(self) -> None:
        """Wait until the device has finished all work."""

    def available(self) -> int | None:
        """Bytes that can still be allocated; None if unknown."""
        return None

    def has_room(self, needed: int) -> bool:
        """Whether so many bytes can be allocated, as far as is known."""
        there = self.available()
        return there is None or needed <= there

    def used(self) -> int | None:
        """Bytes that arrays of this process take on the device; None if unknown."""
        return None

    def free(self) -> None:
        """Return cached memory to the device."""

    def transfers(self, outs: Sequence[Array], dtypes: Sequence[str]) -> Transfers:
        """Transfers of batches from the host into ``outs``, buffers of this device with these NumPy dtype names."""
        return Transfers(self, outs, dtypes)

    def kernels(self, kind: str) -> Kernels:
        """A kernel set by its name, one of ``kernel_sets``. What ``"auto"`` means is said in ``select.py``.

        Raises
        ------
        DeviceError
            If the set does not run here.
        """
        if kind == "reference":
            return with_argument_checks(ReferenceKernels)(self)
        raise DeviceError(f"kernels {kind!r} do not run on {self.name}; use {' or '.join(map(repr, self.kernel_sets))}")
