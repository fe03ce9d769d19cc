"""Products for cuBLASLt: how a layer's matrices are read column-major, and the descriptors, which need no device."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from support.emulated_cuda import multiply

from backprop_gpu.backends.cuda import gemm
from backprop_gpu.errors import DeviceError, MissingDependencyError

LAYOUTS = ("C", "F", "rows", "columns")  # the latter: a part of a larger matrix


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers in another place: C or Fortran order, or with room between rows or columns."""
    if layout in ("C", "F"):
        return np.array(x, order=layout)  # type: ignore[call-overload]
    wide = np.full((x.shape[0] + 3, x.shape[1] + 5), np.nan, x.dtype, order="C" if layout == "rows" else "F")
    part = wide[2 : 2 + x.shape[0], 1 : 1 + x.shape[1]]
    part[...] = x
    return part


def operand(x: np.ndarray) -> gemm.Operand:
    return gemm.operand(x, x.ctypes.data)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 3), (1, 4, 3), (2, 3, 1), (4, 5, 6)])
def test_every_layout_is_multiplied_as_it_lies(shape: tuple[int, int, int], accumulate: bool) -> None:
    """64 layouts of three matrices; small integers, so that the product is exact in any order."""
    n, k, m = shape
    rng = np.random.default_rng(shape)
    left, right, old = (rng.integers(-4, 5, s).astype("float32") for s in ((n, k), (k, m), (n, m)))
    alpha = np.array([0.5], "float32")
    for kinds in itertools.product(LAYOUTS, repeat=3):
        a, b, out = (laid_out(x, kind) for x, kind in zip((left, right, old), kinds, strict=True))
        around = None if out.base is None else out.base.copy()
        for factor in (0, alpha.ctypes.data):
            out[...] = old
            found = gemm.product(operand(a), operand(b), operand(out), alpha=factor, accumulate=accumulate)
            assert found is not None, kinds
            assert found.lda >= (found.K if found.transpose_a else found.M)
            assert found.ldb >= (found.N if found.transpose_b else found.K)
            multiply(found)
            wanted = left @ right * (0.5 if factor else 1.0) + (old if accumulate else 0.0)
            np.testing.assert_array_equal(out, wanted, err_msg=str(kinds))
        out[...] = old
        if around is not None:  # nothing beside the part was written
            np.testing.assert_array_equal(out.base, around)


def test_transposed_views_cost_nothing() -> None:
    """W^T dZ and dZ A^T are taken from W and A where they lie."""
    W, A = np.ones((4, 3), "float32"), np.ones((5, 3), "float32").T
    out = np.empty((4, 5), "float32", order="F")
    found = gemm.product(operand(W), operand(A), operand(out), alpha=0, accumulate=False)
    assert found is not None
    assert (found.a, found.transpose_a, found.lda) == (W.ctypes.data, True, 3)
    assert (found.b, found.transpose_b, found.ldb) == (A.ctypes.data, False, 3)
    assert (found.d, found.ldd, found.M, found.N, found.K) == (out.ctypes.data, 4, 4, 5, 3)


def test_a_matrix_with_gaps_both_ways_is_left_to_others() -> None:
    gaps = np.ones((8, 8), "float32")[::2, ::2]
    whole = np.ones((4, 4), "float32")
    for a, b, out in ((gaps, whole, whole), (whole, gaps, whole), (whole, whole, gaps)):
        assert gemm.product(operand(a), operand(b), operand(out), alpha=0, accumulate=False) is None
    backwards = whole[::-1]
    assert gemm.product(operand(backwards), operand(whole), operand(whole), alpha=0, accumulate=False) is None


@pytest.mark.parametrize(("address", "wanted"), [(256, 256), (512, 256), (4096 + 16, 16), (4, 4), (1024 + 128, 128)])
def test_alignment(address: int, wanted: int) -> None:
    assert gemm.alignment(address) == wanted


def test_a_status_is_named() -> None:
    gemm.check(0, "cublasLtMatmul")
    with pytest.raises(DeviceError, match=r"cublasLtMatmul: not supported; kernels: reference does without it"):
        gemm.check(15, "cublasLtMatmul")
    with pytest.raises(DeviceError, match="status 99"):
        gemm.check(99, "cublasLtCreate")


def test_the_result_of_the_heuristic_has_the_size_of_the_headers() -> None:
    """cublasLt.h: 64 bytes of algorithm, a size_t, an int, a float, four ints."""
    assert ctypes.sizeof(gemm.Heuristic) == 96
    assert gemm.Heuristic.workspace.offset == 64
    assert gemm.Heuristic.state.offset == 72
    assert gemm.Heuristic.waves.offset == 76


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    try:
        return gemm.load()
    except MissingDependencyError as error:
        pytest.skip(str(error))


class Attributes:
    """What a descriptor says of itself."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def get(self, function: str, of: Any, attribute: int, kind: Any) -> int:
        value, written = kind(), ctypes.c_size_t()
        status = getattr(self.library, function)(
            of, attribute, ctypes.byref(value), ctypes.sizeof(value), ctypes.byref(written)
        )
        assert (status, written.value) == (0, ctypes.sizeof(value))
        return int(value.value)


@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", "fp32"), ("float32", "tf32"), ("bfloat16", "bf16"), ("float64", "")]
)
def test_descriptors_round_trip(library: ctypes.CDLL, dtype: str, precision: str) -> None:
    """What a plan wrote is what the library reads out of its own descriptors; no device is asked."""
    compute = gemm.COMPUTE_TYPES[precision] if precision else 70
    result = "float64" if dtype == "float64" else "float32"
    p = gemm.Product(dtype, result, 5, 7, 3, 1 << 20, 4, True, (1 << 20) + 64, 9, True, 1 << 21, 6, 0, False)
    plan, read = gemm.Plan(library, p, compute), Attributes(library)
    kind, factor = {"float32": 0, "float64": 1}[result], {"float32": 0, "float64": 1, "bfloat16": 14}[dtype]
    wanted = {0: compute, 1: kind, 2: 1, 3: 1, 4: 1, 7: 1}  # type, scale type, pointers on device, T, T, no epilogue
    for attribute, value in wanted.items():
        assert read.get("cublasLtMatmulDescGetAttribute", plan.operation, attribute, ctypes.c_int32) == value
    layouts = ((plan.a, factor, 3, 5, 4), (plan.b, factor, 7, 3, 9), (plan.d, kind, 5, 7, 6))
    for layout, numbers, rows, columns, leading in layouts:
        sizes = ((0, ctypes.c_uint32, numbers), (1, ctypes.c_int32, 0), (2, ctypes.c_uint64, rows))
        for attribute, size, value in (*sizes, (3, ctypes.c_uint64, columns), (4, ctypes.c_int64, leading)):
            assert read.get("cublasLtMatrixLayoutGetAttribute", layout, attribute, size) == value
    room = read.get("cublasLtMatmulPreferenceGetAttribute", plan.preference, 1, ctypes.c_uint64)
    assert room == gemm.WORKSPACE
    for attribute, value in ((5, 256), (6, 64), (7, 256), (8, 256)):
        found = read.get("cublasLtMatmulPreferenceGetAttribute", plan.preference, attribute, ctypes.c_uint32)
        assert found == value


def test_without_a_device_cublaslt_says_so(library: ctypes.CDLL) -> None:
    """It loads, its descriptors work, and its start fails as an error of ours."""
    handle = ctypes.c_void_p()
    status = library.cublasLtCreate(ctypes.byref(handle))
    if status == 0:
        pytest.skip("there is a device here; the laws of the kernels try it")
    with pytest.raises(DeviceError, match="not initialized"):
        gemm.check(status, "cublasLtCreate")
