"""erf against 40 digits."""

from __future__ import annotations

import math

import array_api_strict
import mpmath as mp
import numpy as np
import pytest
from support.real_part import REAL_PART, slope
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.maths.special import erf


def grid(dtype: str) -> np.ndarray:
    """Dense to 7, denser about the seams at 1 and 6, tiny down to subnormals, and huge."""
    info = np.finfo(dtype)
    tiny, huge = float(info.smallest_normal), float(info.max)
    points = [
        np.linspace(0.0, 7.0, 3001),
        1.0 + np.linspace(-2e-3, 2e-3, 801),
        6.0 + np.linspace(-1e-3, 1e-3, 101),
        np.geomspace(tiny, 1.0, 600),
        [tiny / 4.0, 10.0, 27.0, 1e4, huge / 2.0, huge],
    ]
    return np.concatenate(points).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_within_two_ulp(dtype: str) -> None:
    x = grid(dtype)
    with np.errstate(over="ignore"):
        got = erf(np, x)
    assert got.dtype == dtype
    with mp.workdps(40):
        want = [mp.erf(mp.mpf(v)) for v in x.astype(float).tolist()]
        error = np.array([abs(float(mp.mpf(g) - w)) for g, w in zip(got.astype(float).tolist(), want, strict=True)])
    ulp = np.spacing(np.array([float(w) for w in want]).astype(dtype)).astype(float)
    assert np.max(error / ulp) <= 2.0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_odd_bounded_and_right_at_the_ends(dtype: str) -> None:
    x = np.linspace(0.0, 9.0, 400).astype(dtype)
    assert np.array_equal(erf(np, -x), -erf(np, x))
    ends = erf(np, np.array([0.0, np.inf, -np.inf, np.nan], dtype))
    assert np.array_equal(ends, np.array([0.0, 1.0, -1.0, np.nan], dtype), equal_nan=True)
    assert np.all(np.abs(erf(np, x)) <= 1.0)


def test_float16_within_two_ulp() -> None:
    x = np.linspace(-4.0, 4.0, 2001).astype(np.float16)
    want = np.array([math.erf(v) for v in x.astype(float)])
    ulp = np.spacing(np.abs(want).astype(np.float16)).astype(float)
    assert np.all(np.abs(erf(np, x).astype(float) - want) <= 2.0 * ulp)


@pytest.mark.parametrize("device", DEVICES)
def test_array_api_strict_gives_numpys_bits(device: str) -> None:
    x = np.linspace(-7.0, 7.0, 301)
    assert np.array_equal(to_host(erf(array_api_strict, to_strict(x, device)), device), erf(np, x))


def test_a_namespaces_own_erf_is_used() -> None:
    x = np.linspace(-3.0, 3.0, 61)
    want = 2.0 / math.sqrt(math.pi) * np.exp(-x * x)
    assert np.max(np.abs(slope(erf, x) - want)) <= 1e-15
    assert np.iscomplexobj(erf(REAL_PART, x + 0j))
