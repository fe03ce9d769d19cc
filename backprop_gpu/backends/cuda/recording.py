"""Runs kernels and products, or records them for a CUDA graph."""

from __future__ import annotations

from typing import Any

from ..._typing import Array, Program, Replay
from ...errors import DeviceError
from ..protocol import Device
from ..reference import ReferenceKernels
from .gemm import Operand, Product, operand, product
from .graph import Calls, Captured, NotRecordableError
from .grids import blocks, line
from .launch import Call, Launcher


class RecordingKernels(ReferenceKernels):
    """A kernel set whose work is calls of kernels and products, which are run at once or traced.

    Attributes
    ----------
    reasons : dict of str to str
        Operations that fell back to the reference so far, each with the reason.
    """

    def __init__(self, backend: Device, launcher: Launcher) -> None:
        super().__init__(backend)
        self.launcher, self.precision = launcher, launcher.precision
        self.reasons: dict[str, str] = {}
        self._calls: list[Call | Product] | None = None
        self._buffers: dict[tuple[str, int, str], Array] = {}
        self._of_losses: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._refused: dict[Product, str] = {}  # shapes that cuBLASLt has no algorithm for, with its reason

    def _start(self, work: Call | Product) -> None:
        if self._calls is None:
            self.launcher.run(work)
        else:
            self._calls.append(work)

    def _run(self, kernel: str, like: Array, grid: tuple[int, int], *arguments: Any) -> None:
        """Start a kernel; arrays go by address, None is address 0, a matrix (see ``_matrix``) is three numbers."""
        flat = [x for a in arguments for x in (a if isinstance(a, tuple) else (a,))]
        plain = (x if isinstance(x, int | float) else self._address(x) for x in flat)
        self._start(Call(kernel, dtype_name(like), grid, tuple(plain)))

    def _address(self, x: Array) -> int:
        return 0 if x is None else self.launcher.address(x)

    def _matrix(self, x: Array) -> tuple[int, int, int]:
        """Address and strides of (units, examples)."""
        return (0, 0, 0) if x is None else (self._address(x), *operand(x, 0).strides)

    def _product(self, a: Array, b: Array, out: Array, *, scale: Array = None, accumulate: bool = False) -> str | None:
        """out <- scale a b (+ out); the reason, and nothing done, if cuBLASLt does not take them in their layout."""
        left, right, result = (operand(x, self._address(x)) for x in (a, b, out))
        if self.precision == "bf16" and dtype_name(out) == "float32":
            left, right = self._rounded("left", a, left), self._rounded("right", b, right)
        found = product(left, right, result, alpha=self._address(scale), accumulate=accumulate)
        if found is None:
            return "a matrix without contiguous rows or columns"
        shape = found._replace(a=0, b=0, d=0, alpha=0)
        if shape not in self._refused:
            try:
                self._start(found)
                return None
            except DeviceError as refusal:
                self._refused[shape] = str(refusal)
        return self._refused[shape]

    def _rounded(self, side: str, x: Array, given: Operand) -> Operand:
        """A factor as a bfloat16 copy, laid out as it is; copied for every product, since the factor may have changed.

        A factor that is not contiguous stays float32; the product of mixed types is then refused.
        """
        if not (x.flags.c_contiguous or x.flags.f_contiguous):
            return given
        n = x.shape[0] * x.shape[1]
        copy = self._buffer("uint16", n, side)
        self._run("round_to_bfloat16", x, line(n), x, copy, n)
        return given._replace(address=self._address(copy), dtype="bfloat16")

    def _buffer(self, dtype: str, size: int, use: str = "sums") -> Array:
        """A scratch buffer, cached by size: partial sums, and counters that every kernel leaves at 0."""
        if (dtype, size, use) not in self._buffers:
            self._check_allocation()
            self._buffers[dtype, size, use] = self.backend.zeros((size,), dtype)
        return self._buffers[dtype, size, use]

    def _partial(self, like: Array, n: int, m: int) -> Array:
        """A buffer for the sums of blocks of examples, n units each."""
        return self._buffer(dtype_name(like), blocks(m) * n)

    def _counters(self, count: int) -> Array:
        """Counters by which blocks of threads find out which of them is the last."""
        return self._buffer("int32", count)

    def _check_allocation(self) -> None:
        if self._calls is not None:
            raise NotRecordableError("a buffer is needed that no earlier run had needed")

    def _falls_back(self, operation: str, reason: str) -> None:
        """Note that an operation runs by the reference kernels; while recording, raise NotRecordableError."""
        self.reasons[operation] = reason
        if self._calls is not None:
            raise NotRecordableError(f"{operation}: {reason}")

    def trace(self, program: Program) -> Calls:
        """The work of a program, in order, none of it run.

        Raises
        ------
        NotRecordableError
            If an operation falls back to the reference.
        """
        self._calls = []
        try:
            program()
            return tuple(self._calls)
        finally:
            self._calls = None

    def capture(self, program: Program) -> Replay:
        """A CUDA graph, recorded after a few runs; the Python itself if something falls back (see ``Captured``)."""
        return Captured(program, self.trace, self.launcher)

    def release(self) -> None:
        """Free the scratch buffers; a graph recorded before is then refused, since they have moved."""
        super().release()
        self._buffers.clear()
        self._of_losses.clear()


def dtype_name(x: Array) -> str:
    """NumPy's name of an array's dtype."""
    return str(x.dtype)
