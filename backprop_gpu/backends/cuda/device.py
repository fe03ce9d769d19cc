"""The backend of one CUDA device, through CuPy. ``probe.py`` says beforehand whether it can work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ...errors import DeviceError
from ..argument_checks import with_argument_checks
from ..base import Backend
from ..protocol import Kernels
from ..transfers import Transfers
from .probe import card_name, dotted
from .transfers import RingTransfers

# Kernel sets, with the precision that each claims for its products of float32 factors (parity checks it).
PRECISION_OF = {"cuda": "fp32", "cuda-tf32": "tf32", "cuda-bf16": "bf16"}


def device_count() -> int:
    """Number of visible CUDA devices. Call it only after :func:`probe` said ok."""
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


class CudaBackend(Backend):
    """One CUDA device through CuPy. CuPy's creation functions take no ``device``: they use the current one."""

    kernel_sets = ("reference", *PRECISION_OF)

    def __init__(self, index: int = 0, reason: str = "") -> None:
        import cupy

        super().__init__(f"cupy:{index}", cupy, cupy.cuda.Device(index), reason)
        self.index = index

    def dtype(self, name: str) -> Any:
        return np.dtype(name)

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        if isinstance(host, self.xp.ndarray):
            raise DeviceError(f"the array is a cupy array already ({host.device!r}); asarray copies from the host")
        with self.activate():
            # blocking: the caller may write to pinned host memory as soon as this returns
            return self.xp.asarray(np.asarray(host, dtype=dtype, order="C"), blocking=True)

    def to_host(self, x: Array) -> np.ndarray:
        return np.asarray(x.get())

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        with self.activate():
            return self.xp.zeros(tuple(shape), dtype=self.dtype(dtype))

    def owns(self, x: Array) -> bool:
        return isinstance(x, self.xp.ndarray)

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.index)

    def synchronize(self) -> None:
        with self.activate():
            self.device.synchronize()

    def double_slowdown(self) -> int:
        runtime = self.xp.cuda.runtime
        return int(runtime.deviceGetAttribute(runtime.cudaDevAttrSingleToDoublePrecisionPerfRatio, self.index))

    def available(self) -> int | None:
        with self.activate():
            pool = self.xp.get_default_memory_pool()
            return int(self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes())

    def used(self) -> int | None:
        with self.activate():
            return int(self.xp.get_default_memory_pool().used_bytes())

    def free(self) -> None:
        with self.activate():
            self.xp.get_default_memory_pool().free_all_blocks()

    def transfers(self, outs: Sequence[Array], dtypes: Sequence[str]) -> Transfers:
        return RingTransfers(self, outs, dtypes)

    def kernels(self, kind: str) -> Kernels:
        """``"reference"``, or ``"cuda"``: own kernels, cuBLASLt and CUDA graphs in float32, with
        products of factors rounded to tf32 or bf16 as ``"cuda-tf32"`` and ``"cuda-bf16"``. No card has run them yet.
        """
        if kind not in PRECISION_OF:
            return super().kernels(kind)
        from .kernels import CudaKernels
        from .launch import CupyLauncher

        with self.activate():
            return with_argument_checks(CudaKernels)(self, CupyLauncher(self, PRECISION_OF[kind]))

    def describe(self) -> dict[str, str]:
        """The card and its software: name, compute capability, memory, driver and runtime version."""
        runtime = self.xp.cuda.runtime
        capability = str(self.device.compute_capability)
        return {
            "name": card_name(self.xp, self.index),
            "compute capability": f"{capability[:-1]}.{capability[-1]}",
            "memory": f"{runtime.getDeviceProperties(self.index)['totalGlobalMem'] / 2**30:.1f} GiB",
            "driver": f"for CUDA up to {dotted(runtime.driverGetVersion())}",
            "CUDA runtime": dotted(runtime.runtimeGetVersion()),
            "CuPy": str(self.xp.__version__),
        }
