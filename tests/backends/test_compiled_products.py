"""Products of our own: right within their bound, nothing touched beside the matrices, the same bits however cut."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="compiled kernels need numba; pip install 'backprop-gpu[fast]'")

from backprop_gpu.backends.cpu.blas import cpu_flags
from backprop_gpu.backends.host.compiled import products as module
from backprop_gpu.backends.host.compiled.product_code import CHUNK
from backprop_gpu.backends.host.compiled.products import FEWEST_COLUMNS, FEWEST_ROWS, Products, product, products
from backprop_gpu.backends.host.compiled.tiles import Tiles
from backprop_gpu.backends.host.openblas import OpenBlas, numpys_openblas

WIDE, NARROW = Tiles(64, 8, 3), Tiles(32, 4, 3)
DTYPES = ("float32", "float64")
PLAIN, TRANSPOSED = 111, 112


def _has(feature: str) -> bool:
    return feature in cpu_flags()


def _needs(tiles: Tiles) -> str:
    return "avx512f" if tiles is WIDE else "avx2"


@pytest.fixture(params=[(t, d) for t in (WIDE, NARROW) for d in DTYPES], ids=lambda p: f"{p[0].vector}-{p[1]}")
def gemm(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``gemm(A, B, C, alpha, beta)`` for views that are matrices or transposed ones, whatever their pitch."""
    tiles, dtype = request.param
    if not _has(_needs(tiles)):
        pytest.skip(f"this processor has no {_needs(tiles)}")

    real, enum, wide, at = ctypes.c_float if dtype == "float32" else ctypes.c_double, *_C
    kind = ctypes.CFUNCTYPE(None, enum, enum, enum, wide, wide, wide, real, at, wide, at, wide, real, at, wide)
    code = kind(product(dtype, tiles).address)

    def call(A: np.ndarray, B: np.ndarray, C: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> None:
        (n, k), m = A.shape, B.shape[1]
        code(101, *(_how(x) for x in (A, B)), n, m, k, alpha, *_where(A), *_where(B), beta, *_where(C))

    call.dtype = dtype  # type: ignore[attr-defined]
    return call


_C = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


def _how(x: np.ndarray) -> int:
    return PLAIN if x.strides[1] == x.itemsize else TRANSPOSED


def _where(x: np.ndarray) -> tuple[int, int]:
    return x.ctypes.data, max(x.strides) // x.itemsize


def _matrix(rng: Any, n: int, m: int, dtype: str, turned: bool, wider: int) -> np.ndarray:
    """Numbers in a matrix that is part of a wider one, or in its transposed."""
    whole = rng.standard_normal((m, n + wider) if turned else (n, m + wider)).astype(dtype)
    return whole[:, :n].T if turned else whole[:, :m]


SIZES = [(1, 1, 1), (2, 3, 1), (7, 5, 9), (8, 24, 16), (9, 25, 17), (15, 49, 31), (16, 48, CHUNK), (21, 97, CHUNK + 3)]


@pytest.mark.parametrize("size", [*SIZES, (3, 100, 120), (600, 20, 40)])
@pytest.mark.parametrize("turned", [(a, b) for a in (False, True) for b in (False, True)])
def test_every_number_is_the_sum_within_the_bound_of_its_terms(
    gemm: Any, size: tuple[int, int, int], turned: tuple[bool, bool]
) -> None:
    """|got - want| <= (k + 2) u sum |alpha a b| + |beta c| u: Higham (2002), section 3.1, for sums in any order."""
    (n, m, k), rng, u = size, np.random.default_rng(sum(size)), float(np.finfo(gemm.dtype).eps)
    for wider, alpha, beta in ((1, 1.0, 0.0), (5, 0.5, 1.0), (0, -3.0, 1.0)):
        A, B = _matrix(rng, n, k, gemm.dtype, turned[0], wider), _matrix(rng, k, m, gemm.dtype, turned[1], wider)
        C = rng.standard_normal((n, m + 3)).astype(gemm.dtype)
        before, exact = C.copy(), np.longdouble
        gemm(A, B, C[:, :m], alpha, beta)
        want = alpha * (A.astype(exact) @ B.astype(exact)) + beta * before[:, :m].astype(exact)
        terms = abs(alpha) * (abs(A.astype(exact)) @ abs(B.astype(exact))) + abs(beta * before[:, :m])
        assert (abs(C[:, :m] - want) <= (k + 3) * u * terms).all()
        np.testing.assert_array_equal(C[:, m:], before[:, m:])  # what is beside C is left alone


@pytest.mark.parametrize("turned", [(a, b) for a in (False, True) for b in (False, True)])
def test_the_bits_do_not_depend_on_how_a_product_is_cut(gemm: Any, turned: tuple[bool, bool]) -> None:
    n, m, k = 37, 101, CHUNK + 50
    rng = np.random.default_rng(0)
    A, B = _matrix(rng, n, k, gemm.dtype, turned[0], 2), _matrix(rng, k, m, gemm.dtype, turned[1], 2)
    whole, parts = np.empty((n, m), gemm.dtype), np.full((n, m), np.nan, gemm.dtype)
    gemm(A, B, whole)
    for rows in (slice(0, 12), slice(12, 13), slice(13, n)):
        for columns in (slice(0, 16), slice(16, 17), slice(17, 60), slice(60, m)):
            gemm(A[rows], B[:, columns], parts[rows, columns])
    np.testing.assert_array_equal(parts, whole)


def test_nan_and_infinity_stay_in_their_row_and_column(gemm: Any) -> None:
    A, B, C = np.ones((11, 20), gemm.dtype), np.ones((20, 30), gemm.dtype), np.full((11, 30), np.nan, gemm.dtype)
    A[4, 3], B[7, 29] = np.inf, np.nan
    for right in (B, np.ascontiguousarray(B.T).T):
        gemm(A, right, C)  # beta is 0: what C held is not looked at
        assert np.isnan(C[:, 29]).all()
        assert (C[4, :29] == np.inf).all()
        np.testing.assert_array_equal(np.delete(C, 4, axis=0)[:, :29], np.float64(20.0))


def _before_a_wall(x: np.ndarray) -> tuple[np.ndarray, mmap.mmap]:
    """A copy that ends where the next page may not be touched."""
    size = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    room = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = np.frombuffer(room, x.dtype, x.size, size - x.nbytes).reshape(x.shape)
    copy[...] = x
    return copy, room


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="pages are protected by mprotect, of POSIX systems")
@pytest.mark.parametrize("turned", [(a, b) for a in (False, True) for b in (False, True)])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 3, 2), (9, 25, 17)])
def test_no_byte_beyond_a_matrix_is_read_or_written(
    gemm: Any, size: tuple[int, int, int], turned: tuple[bool, bool]
) -> None:
    """The process would end."""
    (n, m, k), rng = size, np.random.default_rng(1)
    shapes = (k, n) if turned[0] else (n, k), (m, k) if turned[1] else (k, m), (n, m)
    walled = [_before_a_wall(rng.standard_normal(shape).astype(gemm.dtype)) for shape in shapes]
    A, B, C = (copy for copy, _ in walled)
    gemm(A.T if turned[0] else A, B.T if turned[1] else B, C)
    exact = (A.T if turned[0] else A).astype(np.longdouble) @ (B.T if turned[1] else B)
    np.testing.assert_allclose(C.astype(np.float64), exact.astype(np.float64), rtol=1e-4, atol=1e-4)


# -- which code makes which product ----------------------------------------------------------------------------------


def test_small_flat_and_huge_products_are_left_to_blas() -> None:
    chosen = Products({"float32": 1, "float64": 2}, {"float32": 3, "float64": 4}, most=(1e7, 1e9))
    assert chosen.gemm("float32", 64, 200, 30, False) == 3
    assert chosen.gemm("float64", 64, 200, 30, True) == 4
    assert chosen.gemm("float64", 64, FEWEST_COLUMNS - 1, 200, False) == 2
    assert chosen.gemm("float32", FEWEST_ROWS - 1, 64, 200, True) == 1
    assert chosen.gemm("float32", FEWEST_ROWS - 1, 64, 200, False) == 3
    assert chosen.gemm("float32", 1000, 1000, 10, False) == 1
    assert chosen.gemm("float32", 1000, 1000, 10, True) == 3
    assert chosen.gemm("float32", 1000, 1000, 1000, True) == 1


def _blas() -> OpenBlas:
    found = numpys_openblas()
    assert found is not None
    return found


def test_this_processor_has_its_own_where_it_has_vectors() -> None:
    chosen = products(_blas())
    assert bool(chosen.own) == (_has("avx2") and _has("fma"))


def test_a_processor_without_vectors_has_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_processor", lambda: None)
    chosen = products(_blas())
    assert chosen.gemm("float32", 64, 200, 30, False) == _blas().gemm["float32"]


@pytest.mark.parametrize(
    ("flags", "tiles"),
    [("avx512f avx2 fma", WIDE), ("avx2 fma sse2", NARROW), ("avx2 sse2", None), ("", None)],
)
def test_tiles_by_what_the_processor_has(flags: str, tiles: Tiles | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module._processor.cache_clear()
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags.split()))
    found = module._processor()
    module._processor.cache_clear()
    assert (found and found[0]) == tiles
