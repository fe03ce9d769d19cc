"""CuPy and cuBLASLt as far as ``backends.cuda.launch`` and ``gemm`` call them, over host memory.

Sources are compiled by g++ (``emulated_cuda``) from the text that NVRTC would get. cuBLASLt's functions are C functions
made by ctypes, called through the types that the package declares, with descriptors of their own.
"""

from __future__ import annotations

import contextlib
import ctypes as C
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from support.emulated_cuda import host_module, multiply

from backprop_gpu.backends.cuda import compile, gemm
from backprop_gpu.backends.cuda.gemm import Product


class DeviceArray(np.ndarray):
    """A NumPy array with CuPy's ``data.ptr`` and ``get``."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self) -> np.ndarray:
        return np.array(self)


class Stream:
    """While it is being captured, work is written down; otherwise it is done at once."""

    def __init__(self, fake: FakeCupy) -> None:
        self.fake, self.ptr = fake, 1 + len(fake.streams)
        self.captured: list[Callable[[], None]] | None = None
        fake.streams.append(self)

    def __enter__(self) -> Stream:
        self.fake.current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.fake.current.pop()

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Any:
        work, self.captured = self.captured, None
        assert work is not None
        return SimpleNamespace(launch=lambda: [do() for do in work], size=len(work))

    def do(self, work: Callable[[], None]) -> None:
        if self.captured is None:
            work()
        else:
            self.captured.append(work)


class Module:
    """``cupy.cuda.function.Module``; its machine code is the source itself."""

    def __init__(self, fake: FakeCupy) -> None:
        self.fake = fake

    def load(self, code: bytes) -> None:
        self.library = host_module(code.decode())

    def get_function(self, name: str) -> Callable[..., None]:
        function = getattr(self.library, f"emulate_{name}")
        function.restype, function.argtypes = C.c_char_p, [C.c_uint, C.c_uint, C.c_void_p, C.c_int]

        def call(grid: tuple[int, int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert block == (compile.THREADS,)
            assert all(isinstance(x, np.int64 | np.float64) for x in arguments)
            slots = b"".join(x.tobytes() for x in arguments)

            def run() -> None:
                fault = function(*grid, slots, 0)
                assert fault is None, f"{name}: {fault.decode()}"

            self.fake.current[-1].do(run)

        return call


class Card:
    """``cupy.cuda.Device``."""

    compute_capability = "90"

    def __init__(self, index: int = 0) -> None:
        self.index = index

    def __enter__(self) -> Card:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class FakeCupy:
    """The module: ``sys.modules["cupy"]`` while a test runs. What it has not itself is NumPy's."""

    ndarray = DeviceArray

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.current = [Stream(self)]
        self.compiled: list[tuple[str, ...]] = []

        def compile_program(program: str, options: tuple[str, ...]) -> None:
            self.compiled.append(options)

        nvrtc = SimpleNamespace(
            getVersion=lambda: (13, 0),
            getSupportedArchs=lambda: (80, 90, 100),
            createProgram=lambda text, name, headers, names: text,
            compileProgram=compile_program,
            getCUBIN=lambda program: program.encode(),
            destroyProgram=lambda program: None,
        )
        self.cuda = SimpleNamespace(
            Device=Card,
            Stream=lambda non_blocking: Stream(self),
            get_current_stream=lambda: self.current[-1],
            function=SimpleNamespace(Module=lambda: Module(self)),
            nvrtc=nvrtc,
            runtime=SimpleNamespace(memGetInfo=lambda: (2**36, 2**36)),
        )
        self.pool = SimpleNamespace(free_bytes=lambda: 0, used_bytes=lambda: 0, free_all_blocks=lambda: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def get_default_memory_pool(self) -> Any:
        return self.pool

    def asarray(self, host: Any, blocking: bool = False) -> DeviceArray:
        return np.array(host, order="C").view(DeviceArray)

    def zeros(self, shape: Any, dtype: Any) -> DeviceArray:
        return np.zeros(shape, dtype).view(DeviceArray)


class FakeCublasLt:
    """The functions of cublasLt.h that are called: descriptors in a table, products through NumPy."""

    def __init__(self, fake: FakeCupy) -> None:
        self.fake = fake
        self.table: dict[int, dict[Any, Any]] = {}
        self.products: list[Product] = []
        word, size = C.c_void_p, C.c_size_t
        for name, types in {
            "cublasLtCreate": [word],
            "cublasLtMatmulDescCreate": [word, C.c_int, C.c_int],
            "cublasLtMatmulDescSetAttribute": [word, C.c_int, word, size],
            "cublasLtMatmulDescGetAttribute": [word, C.c_int, word, size, word],
            "cublasLtMatrixLayoutCreate": [word, C.c_int, C.c_uint64, C.c_uint64, C.c_int64],
            "cublasLtMatrixLayoutGetAttribute": [word, C.c_int, word, size, word],
            "cublasLtMatmulPreferenceCreate": [word],
            "cublasLtMatmulPreferenceSetAttribute": [word, C.c_int, word, size],
            "cublasLtMatmulPreferenceGetAttribute": [word, C.c_int, word, size, word],
            "cublasLtMatmulAlgoGetHeuristic": [word] * 7 + [C.c_int, word, word],
            "cublasLtMatmul": [word] * 14 + [size, word],
        }.items():
            setattr(self, name, C.CFUNCTYPE(C.c_int, *types)(getattr(self, f"_{name}", self._unused)))

    def _unused(self, *arguments: Any) -> int:
        raise AssertionError("not called when a step runs")

    def _made(self, out: int, **what: Any) -> int:
        handle = 1000 + len(self.table)
        self.table[handle] = what
        C.c_void_p.from_address(out).value = handle
        return 0

    def _cublasLtCreate(self, out: int) -> int:
        return self._made(out, kind="handle")

    def _cublasLtMatmulDescCreate(self, out: int, compute: int, scale: int) -> int:
        return self._made(out, kind="operation", compute=compute, scale=scale)

    def _cublasLtMatrixLayoutCreate(self, out: int, kind: int, rows: int, columns: int, leading: int) -> int:
        return self._made(out, kind="layout", type=kind, shape=(rows, columns), leading=leading)

    def _cublasLtMatmulPreferenceCreate(self, out: int) -> int:
        return self._made(out, kind="preference")

    def _set(self, handle: int, attribute: int, value: int, size: int) -> int:
        self.table[handle][attribute] = int.from_bytes(C.string_at(value, size), "little")
        return 0

    _cublasLtMatmulDescSetAttribute = _cublasLtMatmulPreferenceSetAttribute = _set

    def _cublasLtMatmulAlgoGetHeuristic(self, *given: int) -> int:
        handle, operation, a, b, c, d, preference, wanted, results, found = given
        kinds = [self.table[x]["kind"] for x in (handle, operation, a, b, c, d, preference)]
        assert kinds == ["handle", "operation", *["layout"] * 4, "preference"]
        assert wanted == 1
        C.memset(results, 0, 96)
        C.c_uint64.from_address(results).value = preference  # so that the product knows what was promised
        C.c_int.from_address(found).value = 1
        return 0

    def _cublasLtMatmul(self, *given: int) -> int:
        handle, operation, alpha, a, A, b, B, beta, c, Cl, d, D, algorithm, workspace, size, stream = given
        o, layouts = self.table[operation], [self.table[x] for x in (A, B, Cl, D)]
        promised = self.table[C.c_uint64.from_address(algorithm).value]
        assert self.table[handle]["kind"] == "handle"
        assert (c, Cl) == (d, D)
        assert o[2] == 1, "alpha and beta are on the device"
        assert workspace
        assert size == promised[1]
        assert all(x % promised[at] == 0 for x, at in zip((a, b, c, d), (5, 6, 7, 8), strict=True)), "misaligned"
        dtype = {0: "float32", 1: "float64"}[o["scale"]]
        types = [x["type"] for x in layouts]
        assert types in ([o["scale"]] * 4, [14, 14, 0, 0])
        factors = "bfloat16" if types[0] == 14 else dtype
        real = C.c_float if dtype == "float32" else C.c_double
        assert real.from_address(beta).value in (0.0, 1.0)
        (M, N), shape_a = layouts[3]["shape"], layouts[0]["shape"]
        transposed = bool(o[3]), bool(o[4])
        K = shape_a[0] if transposed[0] else shape_a[1]
        assert layouts[0]["shape"] == ((K, M) if transposed[0] else (M, K))
        assert layouts[1]["shape"] == ((N, K) if transposed[1] else (K, N))
        sides = (a, layouts[0]["leading"], transposed[0], b, layouts[1]["leading"], transposed[1])
        adds = real.from_address(beta).value == 1.0
        product = Product(factors, dtype, M, N, K, *sides, d, layouts[3]["leading"], alpha, adds)
        self.products.append(product)
        current = self.fake.current[-1]
        assert stream == current.ptr
        current.do(lambda: multiply(product))
        return 0


@contextlib.contextmanager
def fake_cuda(monkeypatch: Any) -> Iterator[tuple[FakeCupy, FakeCublasLt]]:
    """CuPy and cuBLASLt stood in for while a test runs."""
    cupy = FakeCupy()
    library = FakeCublasLt(cupy)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setattr(gemm, "load", lambda: gemm._declared(library))  # type: ignore[arg-type]
        yield cupy, library
