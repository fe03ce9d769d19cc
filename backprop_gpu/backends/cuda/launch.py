"""Kernel launches and matrix products as plain records of numbers, and the launcher that runs them through CuPy.

``CudaKernels`` makes :class:`Call` and ``gemm.Product`` objects; a launcher runs them, at once or while a stream is
being captured. The tests use a launcher that runs the same sources compiled for the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..._typing import Array
from ...devices import one_line
from ...errors import DeviceError
from ..protocol import Device
from . import compile
from .cache import cached
from .gemm import CublasLt, Product


class Call(NamedTuple):
    """One launch: addresses, integers and doubles, each eight bytes, in the order of the kernel's parameters."""

    kernel: str
    dtype: str
    grid: tuple[int, int]
    arguments: tuple[int | float, ...]


class Graph(Protocol):
    """Recorded work."""

    def launch(self) -> None:
        """Run all of it once."""


class Launcher(Protocol):
    """Runs calls in order; ``precision``: that of its float32 products (``gemm.COMPUTE_TYPES``)."""

    precision: str

    def address(self, x: Array) -> int:
        """Where an array's first number is."""

    def run(self, work: Call | Product) -> None:
        """Start a call or a product; work runs in the order in which it was started."""

    def record(self, work: Sequence[Call | Product]) -> Graph:
        """A graph of this work, which has been run before."""


def packed(call: Call) -> tuple[np.int64 | np.float64, ...]:
    """The arguments as the kernel declares them: NumPy scalars of eight bytes, which CuPy passes as they are."""
    kinds = compile.parameters(compile.module_of(call.kernel))[call.kernel]
    return tuple(
        np.float64(x) if kind == "double" else np.int64(x) for x, kind in zip(call.arguments, kinds, strict=True)
    )


class CupyLauncher:
    """Calls through CuPy, products through cuBLASLt, on the current stream. ``precision``: see ``gemm``."""

    def __init__(self, backend: Device, precision: str) -> None:
        import cupy

        self._cupy, self.precision = cupy, precision
        self._functions: dict[tuple[str, str], Any] = {}
        self._products = CublasLt(backend, precision)

    def address(self, x: Array) -> int:
        """Where an array's first number is."""
        return int(x.data.ptr)

    def run(self, work: Call | Product) -> None:
        """Start a call or a product on the current stream."""
        if isinstance(work, Product):
            self._products(work, self._cupy.cuda.get_current_stream().ptr)
            return
        self._function(work.kernel, work.dtype)(work.grid, (compile.THREADS,), packed(work))

    def _function(self, kernel: str, dtype: str) -> Any:
        if (kernel, dtype) not in self._functions:
            cuda, name = self._cupy.cuda, compile.module_of(kernel)
            capability, text = int(cuda.Device().compute_capability), compile.source(name, dtype)
            compiler = ".".join(str(part) for part in cuda.nvrtc.getVersion())
            key = (text, *compile.OPTIONS, str(capability), compiler)
            module = cuda.function.Module()
            module.load(cached(key, lambda: compile.machine_code(cuda.nvrtc, text, capability)))
            for other in compile.parameters(name):
                self._functions[other, dtype] = module.get_function(other)
        return self._functions[kernel, dtype]

    def record(self, work: Sequence[Call | Product]) -> Graph:
        """Capture the work on a stream of its own, which runs nothing; CuPy instantiates the graph as it ends."""
        stream = self._cupy.cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    for one in work:
                        self.run(one)
                finally:
                    graph = stream.end_capture()
        except Exception as error:  # CuPy's and CUDA's own
            raise DeviceError(f"the step cannot be captured: {one_line(error)}") from error
        return graph  # its launch() goes to the current stream, after what was started there
