"""The CUDA kernels on the host: the same sources, compiled by g++ under a shim that plays threads, blocks and barriers.

:class:`EmulatedLauncher` takes the place of CuPy and cuBLASLt: kernels run thread by thread, products are NumPy's, read
through the very addresses and leading dimensions that cuBLASLt would be given. :class:`EmulatedBackend` is NumPy with
arrays between guard bytes, so that a kernel that writes beside an array is seen.

Shows index arithmetic, barriers, order of summation and formulas. Shows nothing of a card: no races between threads
that run at once, no CUDA compiler, no speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from backprop_gpu.backends.argument_checks import with_argument_checks
from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cuda import compile
from backprop_gpu.backends.cuda.gemm import Product
from backprop_gpu.backends.cuda.kernels import CudaKernels
from backprop_gpu.backends.cuda.launch import Call, packed

SHIM = Path(__file__).with_name("cuda_shim.h")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-math-errno")
FLAGS += ("-fno-strict-aliasing", "-Wl,-Bsymbolic")


def obstacle() -> str | None:
    """Why nothing can be emulated here, or None."""
    if platform.system() != "Linux":
        return "the emulation of CUDA kernels needs Linux (it switches stacks with makecontext)"
    return None if shutil.which("g++") else "g++ is not installed; it compiles the CUDA kernels for the host"


def _shim() -> list[str]:
    return [f"#define THREADS {compile.THREADS}", SHIM.read_text(encoding="utf-8")]


def host_module(text: str) -> ctypes.CDLL:
    """The kernels of one source, from the text that a device's compiler would be given."""
    kernels = re.findall(r"__global__ void (\w+)\(", text)
    return compiled("\n".join([*_shim(), text, *(f"EMULATE({name})" for name in kernels)]))


def host_text(dtype: str, extra: str = "") -> str:
    """One translation unit with every kernel; headers that several modules share live in a namespace of each."""
    parts = _shim()
    for module in compile.modules():
        kernels = "\n".join(f"EMULATE({name})" for name in compile.parameters(module))
        parts.append(f"namespace {module}_ns {{\n{compile.source(module, dtype)}\n{kernels}\n}}")
    return "\n".join([*parts, extra])


@cache
def compiled(text: str) -> ctypes.CDLL:
    """A shared object of C++ text, built once and kept in the temporary folder of this user."""
    name = hashlib.sha256("\n".join((text, *FLAGS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"backprop_gpu_emulation_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else"
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, made = Path(scratch, "code.cpp"), Path(scratch, "made.so")
            code.write_text(text, encoding="utf-8")
            done = subprocess.run(["g++", *FLAGS, str(code), "-o", str(made)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:4000]
            os.replace(made, library)  # two workers may build it at once; either is whole
    return ctypes.CDLL(str(library))


@cache
def emulated(kernel: str, dtype: str) -> Any:
    """The host's form of a kernel."""
    function = getattr(compiled(host_text(dtype)), f"emulate_{kernel}")
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int]
    return function


class Tape:
    """What a CUDA graph is: calls with the arguments they had when they were recorded."""

    def __init__(self, launcher: EmulatedLauncher, work: Sequence[Call | Product]) -> None:
        self.launcher, self.work, self.launches = launcher, tuple(work), 0

    def launch(self) -> None:
        self.launches += 1
        for one in self.work:
            self.launcher.run(one)


class EmulatedLauncher:
    """See ``backends.cuda.launch.Launcher``. ``backwards``: run blocks and threads from the last to the first."""

    def __init__(self, *, backwards: bool = False, precision: str = "fp32") -> None:
        self.backwards, self.precision = backwards, precision
        self.graphs: list[Tape] = []

    def address(self, x: np.ndarray) -> int:
        return int(x.ctypes.data)

    def run(self, work: Call | Product) -> None:
        if isinstance(work, Product):
            multiply(work, self.precision)
            return
        assert all(0 < size <= limit for size, limit in zip(work.grid, (2**31 - 1, 65_535), strict=True)), work
        slots = b"".join(x.tobytes() for x in packed(work))
        fault = emulated(work.kernel, work.dtype)(*work.grid, slots, int(self.backwards))
        assert fault is None, f"{work.kernel}: {fault.decode()}"

    def record(self, work: Sequence[Call | Product]) -> Tape:
        self.graphs.append(Tape(self, work))
        return self.graphs[-1]


def factor(x: np.ndarray, precision: str) -> np.ndarray:
    """The numbers that a product is made of: bfloat16 as float32, float32 rounded to tf32 (ties to even) if claimed."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    if precision != "tf32" or x.dtype != np.float32:
        return x
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) >> 13 << 13).astype(np.uint32).view(np.float32)


def multiply(p: Product, precision: str = "fp32") -> None:
    """cuBLASLt's product, by NumPy, from addresses and leading dimensions."""

    def matrix(address: int, rows: int, columns: int, leading: int, dtype: str = p.factors) -> np.ndarray:
        assert leading >= rows, p
        kind = np.dtype("uint16" if dtype == "bfloat16" else dtype)
        size, item = (columns - 1) * leading + rows, kind.itemsize
        flat = np.frombuffer((ctypes.c_char * (size * item)).from_address(address), kind)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), (item, leading * item))

    a = matrix(p.a, p.K, p.M, p.lda).T if p.transpose_a else matrix(p.a, p.M, p.K, p.lda)
    b = matrix(p.b, p.N, p.K, p.ldb).T if p.transpose_b else matrix(p.b, p.K, p.N, p.ldb)
    d = matrix(p.d, p.M, p.N, p.ldd, p.dtype)
    with np.errstate(all="ignore"):  # a device does not warn
        result = np.matmul(factor(a, precision), factor(b, precision))
        if p.alpha:
            result *= matrix(p.alpha, 1, 1, 1, p.dtype)[0, 0]
        d[...] = d + result if p.accumulate else result


GUARD = 256  # bytes on either side of an array; 0xFF is NaN to whoever reads it


class EmulatedBackend(Backend):
    """NumPy whose CUDA kernels are the emulated ones."""

    def __init__(self, *, backwards: bool = False, precision: str = "fp32") -> None:
        super().__init__("numpy", np, reason="the CUDA kernels emulated on the host")
        self.launcher = EmulatedLauncher(backwards=backwards, precision=precision)
        self._guarded: list[weakref.ref[np.ndarray]] = []

    def asarray(self, host: Any, dtype: str | None = None) -> np.ndarray:
        return self._between_guards(np.array(host, dtype=dtype, order="C"))

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        return self._between_guards(np.zeros(tuple(shape), dtype))

    def _between_guards(self, x: np.ndarray) -> np.ndarray:
        whole = np.full(x.nbytes + 2 * GUARD, 0xFF, np.uint8)
        self._guarded.append(weakref.ref(whole))
        inner = whole[GUARD : GUARD + x.nbytes].view(x.dtype).reshape(x.shape)
        inner[...] = x
        return inner

    def check_guards(self) -> int:
        """How many arrays are alive, each with its guards as they were."""
        alive = [whole for ref in self._guarded if (whole := ref()) is not None]
        for whole in alive:
            assert (whole[:GUARD] == 0xFF).all(), "something was written below an array"
            assert (whole[-GUARD:] == 0xFF).all(), "something was written above an array"
        return len(alive)

    def kernels(self, kind: str) -> Any:
        return with_argument_checks(CudaKernels)(self, self.launcher) if kind == "cuda" else super().kernels(kind)
