"""The elementary functions of the native kernels against 40 digits, and at the edges of the number line."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from support.native import compiled

from backprop_gpu.backends.cpu.library import native_library
from backprop_gpu.native import build

DTYPES = ("float32", "float64")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled("elementary_test.cpp", tmp_path_factory.mktemp("native") / "maps.so", shared=True)))


def applied(library: ctypes.CDLL, name: str, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function over an array."""
    function = getattr(library, f"{name}_{dtype}")
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]

    def apply(x: np.ndarray) -> np.ndarray:
        x, out = np.ascontiguousarray(x), np.empty_like(x)
        function(x.ctypes.data, out.ctypes.data, x.size)
        return out

    return apply


def spread(dtype: str, low: float, high: float) -> np.ndarray:
    """Even steps, and every size down to the smallest normal number, within [low, high]."""
    smallest = np.log10(float(np.finfo(dtype).smallest_normal)) + 0.03
    sizes = np.logspace(smallest, np.log10(max(abs(low), abs(high), 10.0**smallest)), 1500)
    x = np.unique(np.concatenate([np.linspace(low, high, 4000), sizes, -sizes]).astype(dtype))
    return x[(x >= low) & (x <= high)]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


# Name, the range in float32 and in float64 (results are normal numbers), the function, units in the last place.
CASES: list[tuple[str, tuple[float, float], tuple[float, float], Callable[[Any], Any], float]] = [
    ("exp", (-87.3, 88.7), (-708.3, 709.7), mpmath.exp, 1.1),
    ("tanh", (-12.0, 12.0), (-22.0, 22.0), mpmath.tanh, 1.2),
    ("sigmoid", (-87.0, 30.0), (-708.0, 60.0), sigmoid, 2.2),
    ("erf", (-6.0, 6.0), (-8.0, 8.0), mpmath.erf, 1.2),
    ("log1p_unit", (0.0, 1.0), (0.0, 1.0), mpmath.log1p, 1.5),
    ("expm1", (-90.0, 88.0), (-745.0, 709.0), mpmath.expm1, 1.5),
    ("sin", (-1e5, 1e5), (-1e9, 1e9), mpmath.sin, 1.5),
    ("cos", (-1e5, 1e5), (-1e9, 1e9), mpmath.cos, 1.5),
    ("log", (1.3e-38, 3e38), (2.3e-308, 1.7e308), mpmath.log, 0.9),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "single", "double", "exact", "ulps"), CASES, ids=[c[0] for c in CASES])
def test_within_the_stated_ulps(
    name: str,
    single: Any,
    double: Any,
    exact: Callable[[Any], Any],
    ulps: float,
    dtype: str,
    library: ctypes.CDLL,
) -> None:
    x = spread(dtype, *(single if dtype == "float32" else double))
    if name == "log":
        x = np.concatenate([x, np.linspace(0.5, 2.0, 3000).astype(dtype)])
    got = applied(library, name, dtype)(x)
    with mpmath.workdps(40):
        for value, result in zip(x, got, strict=True):
            wanted = exact(mpmath.mpf(float(value)))
            unit = float(np.spacing(np.dtype(dtype).type(abs(float(wanted)))))
            assert abs(mpmath.mpf(float(result)) - wanted) <= ulps * unit, (name, value, result, wanted)


LIMITS = {
    "exp": (np.inf, 0.0, 1.0),
    "tanh": (1.0, -1.0, 0.0),
    "sigmoid": (1.0, 0.0, 0.5),
    "erf": (1.0, -1.0, 0.0),
    "log": (np.inf, None, -np.inf),
    "expm1": (None, -1.0, 0.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LIMITS)
def test_nan_stays_and_infinities_have_their_limits(name: str, dtype: str, library: ctypes.CDLL) -> None:
    got = applied(library, name, dtype)(np.array([np.nan, np.inf, -np.inf, 0.0], dtype))
    if name != "log":  # the logarithm is only ever taken of sums of exponentials, which a NaN reaches another way
        assert np.isnan(got[0])
    for result, wanted in zip(got[1:], LIMITS[name], strict=True):
        assert wanted is None or result == np.dtype(dtype).type(wanted)


def test_exp_runs_out_gracefully(library: ctypes.CDLL) -> None:
    """Results below the smallest normal number are right to their last bit or so, and then 0."""
    x = np.linspace(-104.5, -87.0, 2001).astype(np.float32)
    got = applied(library, "exp", "float32")(x).astype(np.float64)
    assert np.all(np.abs(got - np.exp(x.astype(np.float64))) <= 1.1 * np.maximum(np.spacing(np.float32(got)), 1.4e-45))
    assert got[0] == 0.0
    assert np.all(np.diff(got) >= 0.0)
    x = np.linspace(-746.5, -708.0, 2001)
    got = applied(library, "exp", "float64")(x)
    with mpmath.workdps(40):
        for value, result in zip(x, got, strict=True):
            assert abs(mpmath.mpf(result) - mpmath.exp(mpmath.mpf(value))) <= 1.1 * max(np.spacing(result), 5e-324)
    assert got[0] == 0.0
    assert np.all(np.diff(got) >= 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "theirs"), [("maximum", np.maximum), ("minimum", np.minimum)])
def test_nan_comes_through_maximum_and_minimum(name: str, theirs: np.ufunc, dtype: str, library: ctypes.CDLL) -> None:
    """Either operand's, as through NumPy's."""
    x = np.array([1.0, np.nan, -2.0, 3.0, np.inf, np.nan, np.nan, -np.inf, 0.5], dtype)
    np.testing.assert_array_equal(applied(library, name, dtype)(x)[:-1], theirs(x[:-1], x[1:]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_functions_are_odd(dtype: str, library: ctypes.CDLL) -> None:
    x = spread(dtype, 0.0, 9.0)
    for name in ("tanh", "erf"):
        got = applied(library, name, dtype)(np.concatenate([x, -x])).reshape(2, -1)
        assert got[1].tobytes() == (-got[0]).tobytes(), "the sign of -0.0 included"
    assert np.signbit(applied(library, "expm1", dtype)(np.array([-0.0], dtype)))[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_gives_the_same_bits(dtype: str, tmp_path: Path) -> None:
    """And every compiler that is there, on the instruction sets that this processor has."""
    there = [name for name in build.INSTRUCTION_SETS[build.machine()] if native_library().supports(name)]
    x, found = spread(dtype, -700.0, 700.0), dict[tuple[str, str], bytes]()
    for compiler in (c for c in ("g++", "clang++") if shutil.which(c)):
        for name in there:
            path = compiled(
                "elementary_test.cpp",
                tmp_path / f"{compiler}-{name}.so",
                shared=True,
                instruction_set=name,
                compiler=compiler,
            )
            made = ctypes.CDLL(str(path))
            functions = ("exp", "expm1", "tanh", "sigmoid", "erf")
            results = [applied(made, f, dtype)(x) for f in functions]
            results += [applied(made, "log", dtype)(np.abs(x)), applied(made, "log1p_unit", dtype)(np.abs(x) / 700)]
            found[compiler, name] = b"".join(r.tobytes() for r in results)
    assert len(set(found.values())) == 1, f"different bits among {sorted(found)}"
