"""Matrix products by cuBLASLt, called directly: CuPy refuses cuBLAS while a stream is being captured.

cuBLASLt is column-major. A matrix with contiguous examples, or in C order, is column-major itself or transposed, so no
layout that layers have needs a copy (:func:`product`).

ctypes rather than nvmath-python's bindings: nothing more to install, and inside a graph the cost of a call is paid once
(docs/decisions/0009-cuda-kernels.md). Numbers of enumerations are those of cublasLt.h, CUDA 12 and 13.
"""

from __future__ import annotations

import ctypes as C
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..._typing import Array
from ...devices import one_line
from ...errors import DeviceError, MissingDependencyError
from ..protocol import Device

WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for Hopper and later
COMPUTE_TYPES = {"fp32": 68, "tf32": 77, "bf16": 68}  # cublasComputeType_t of float32 results, by precision
_TYPES = {"float32": 0, "float64": 1, "bfloat16": 14}  # cudaDataType_t
_COMPUTE_64F = 70
_POINTER_MODE_DEVICE = 1
_DESC_POINTER_MODE, _DESC_TRANSA, _DESC_TRANSB = 2, 3, 4
_PREF_WORKSPACE, _PREF_ALIGNMENTS = 1, (5, 6, 7, 8)  # of A, B, C, D


class Product(NamedTuple):
    """D (M, N) <- alpha op(A) op(B) (+ D), column-major: addresses, sizes, leading dimensions, whether transposed.

    ``factors``, ``dtype``: number types of A and B, and of D. ``alpha``: address of the factor, 0 for one.
    """

    factors: str
    dtype: str
    M: int
    N: int
    K: int
    a: int
    lda: int
    transpose_a: bool
    b: int
    ldb: int
    transpose_b: bool
    d: int
    ldd: int
    alpha: int
    accumulate: bool


class Operand(NamedTuple):
    """A matrix in memory: its address, number type, shape, and strides in numbers."""

    address: int
    dtype: str
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def T(self) -> Operand:
        return self._replace(shape=self.shape[::-1], strides=self.strides[::-1])

    def leading(self) -> tuple[bool, int] | None:
        """(is it the transpose that is column-major?, leading dimension); None if neither is."""
        for transposed, x in ((False, self), (True, self.T)):
            (rows, columns), (down, across) = x.shape, x.strides
            if (down == 1 or rows == 1) and (across >= rows or columns == 1):
                return transposed, across if columns > 1 else rows
        return None


def operand(x: Array, address: int) -> Operand:
    """The matrix that an array is."""
    return Operand(address, str(x.dtype), tuple(x.shape), tuple(stride // x.dtype.itemsize for stride in x.strides))


def product(a: Operand, b: Operand, out: Operand, *, alpha: int, accumulate: bool) -> Product | None:
    """out <- alpha a b (+ out); None if one has neither rows nor columns contiguous, or the factors' types differ."""
    first, second, result = a.leading(), b.leading(), out.leading()
    if first is None or second is None or result is None or a.dtype != b.dtype:
        return None
    if result[0]:  # out^T = b^T a^T
        return product(b.T, a.T, out.T, alpha=alpha, accumulate=accumulate)
    (rows, inner), columns = a.shape, b.shape[1]
    sides = (a.address, first[1], first[0], b.address, second[1], second[0])
    return Product(a.dtype, out.dtype, rows, columns, inner, *sides, out.address, result[1], alpha, accumulate)


class Heuristic(C.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", C.c_uint64 * 8),
        ("workspace", C.c_size_t),
        ("state", C.c_int),
        ("waves", C.c_float),
        ("reserved", C.c_int * 4),
    )


def load() -> C.CDLL:
    """The cuBLASLt library that CuPy's wheel brought along, or the system's.

    Raises
    ------
    MissingDependencyError
    """
    windows = sys.platform == "win32"
    names = [f"cublasLt64_{n}.dll" if windows else f"libcublasLt.so.{n}" for n in (13, 12)]
    found: list[str] = []
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        found.append(load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:  # not installed, or not found: it raises types of its own
        reason = one_line(error)
    for name in (*found, *names):
        try:
            library = C.CDLL(name)
        except OSError as error:
            reason = one_line(error)
            continue
        return _declared(library)
    raise MissingDependencyError(f"cuBLASLt cannot be loaded ({reason}); pip install -U 'cupy-cuda13x[ctk]'")


def _declared(library: C.CDLL) -> C.CDLL:
    """The library with the argument types of what is called here; every function returns a cublasStatus_t."""
    handle, pointer, size = C.c_void_p, C.POINTER(C.c_void_p), C.c_size_t
    signatures: dict[str, Sequence[Any]] = {
        "cublasLtCreate": [pointer],
        "cublasLtMatmulDescCreate": [pointer, C.c_int, C.c_int],
        "cublasLtMatmulDescSetAttribute": [handle, C.c_int, handle, size],
        "cublasLtMatmulDescGetAttribute": [handle, C.c_int, handle, size, C.POINTER(size)],
        "cublasLtMatrixLayoutCreate": [pointer, C.c_int, C.c_uint64, C.c_uint64, C.c_int64],
        "cublasLtMatrixLayoutGetAttribute": [handle, C.c_int, handle, size, C.POINTER(size)],
        "cublasLtMatmulPreferenceCreate": [pointer],
        "cublasLtMatmulPreferenceSetAttribute": [handle, C.c_int, handle, size],
        "cublasLtMatmulPreferenceGetAttribute": [handle, C.c_int, handle, size, C.POINTER(size)],
        "cublasLtMatmulAlgoGetHeuristic": [handle] * 7 + [C.c_int, C.POINTER(Heuristic), C.POINTER(C.c_int)],
        "cublasLtMatmul": [handle] * 14 + [size, handle],
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, C.c_int
    return library


class Plan:
    """Descriptors of one shape: what is computed, and how its matrices lie. Needs no device.

    Descriptors are never freed: a network has a few dozen.
    """

    def __init__(self, library: C.CDLL, p: Product, compute: int) -> None:
        self.library, factor, result = library, _TYPES[p.factors], _TYPES[p.dtype]
        self.operation = self._new("cublasLtMatmulDescCreate", compute, result)
        for attribute, value in (
            (_DESC_POINTER_MODE, _POINTER_MODE_DEVICE),
            (_DESC_TRANSA, p.transpose_a),
            (_DESC_TRANSB, p.transpose_b),
        ):
            self._set("cublasLtMatmulDescSetAttribute", self.operation, attribute, C.c_int32(value))
        shapes = [
            (factor, p.M, p.K, p.transpose_a, p.lda),
            (factor, p.K, p.N, p.transpose_b, p.ldb),
            (result, p.M, p.N, False, p.ldd),
        ]
        self.a, self.b, self.d = (
            self._new(
                "cublasLtMatrixLayoutCreate", kind, *((columns, rows) if transposed else (rows, columns)), leading
            )
            for kind, rows, columns, transposed, leading in shapes
        )
        self.preference = self._new("cublasLtMatmulPreferenceCreate")
        room, prefer = C.c_size_t(WORKSPACE), "cublasLtMatmulPreferenceSetAttribute"
        self._set(prefer, self.preference, _PREF_WORKSPACE, room)
        for attribute, address in zip(_PREF_ALIGNMENTS, (p.a, p.b, p.d, p.d), strict=True):
            self._set(prefer, self.preference, attribute, C.c_uint32(alignment(address)))
        self.chosen = Heuristic()

    def _new(self, function: str, *arguments: int) -> C.c_void_p:
        made = C.c_void_p()
        check(getattr(self.library, function)(C.byref(made), *arguments), function)
        return made

    def _set(self, function: str, of: C.c_void_p, attribute: int, value: Any) -> None:
        check(getattr(self.library, function)(of, attribute, C.byref(value), C.sizeof(value)), function)

    def choose(self, handle: C.c_void_p) -> None:
        """Take cuBLASLt's first suggestion of an algorithm: the same one every time, for a version and a card."""
        found = C.c_int()
        shapes = (self.operation, self.a, self.b, self.d, self.d, self.preference)
        status = self.library.cublasLtMatmulAlgoGetHeuristic(handle, *shapes, 1, C.byref(self.chosen), C.byref(found))
        check(status or (0 if found.value else 15), "cublasLtMatmulAlgoGetHeuristic")


class CublasLt:
    """Products on the current device, with a workspace of their own; ``precision``: a key of ``COMPUTE_TYPES``."""

    def __init__(self, device: Device, precision: str) -> None:
        self.library, self.precision, self.device = load(), precision, device
        self.handle = C.c_void_p()
        check(self.library.cublasLtCreate(C.byref(self.handle)), "cublasLtCreate")
        self._workspace = device.zeros((WORKSPACE,), "uint8")
        # alpha and beta are read from the device, so that a captured product sees what a scale holds now.
        self._numbers = {dtype: device.asarray([0.0, 1.0], dtype) for dtype in ("float32", "float64")}
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def __call__(self, p: Product, stream: int) -> None:
        """Start a product on a stream."""
        key = (*p._replace(a=alignment(p.a), b=alignment(p.b), d=alignment(p.d), alpha=0, accumulate=False),)
        if key not in self._plans:
            compute = COMPUTE_TYPES[self.precision] if p.dtype == "float32" else _COMPUTE_64F
            self._plans[key] = Plan(self.library, p, compute)
            self._plans[key].choose(self.handle)
        plan, zero = self._plans[key], self._numbers[p.dtype].data.ptr
        one = zero + self._numbers[p.dtype].dtype.itemsize
        status = self.library.cublasLtMatmul(
            *(self.handle, plan.operation, p.alpha or one, p.a, plan.a, p.b, plan.b),
            *(one if p.accumulate else zero, p.d, plan.d, p.d, plan.d, C.addressof(plan.chosen)),
            *(self._workspace.data.ptr, WORKSPACE, stream),
        )
        check(status, "cublasLtMatmul")


def alignment(address: int) -> int:
    """The largest power of two that divides an address, at most 256."""
    return min(address & -address, 256)


def check(status: int, function: str) -> None:
    """Raise DeviceError unless a cublasStatus_t is 0."""
    if status:
        names = {1: "not initialized", 3: "out of memory", 7: "invalid value", 8: "not for this card", 13: "failed",
                 14: "internal error", 15: "not supported"}  # fmt: skip
        raise DeviceError(f"{function}: {names.get(status, f'status {status}')}; kernels: reference does without it")
