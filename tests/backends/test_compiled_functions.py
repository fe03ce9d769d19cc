"""The float32 functions of the compiled kernels against 40 digits, and at the edges of the number line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

nb = pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")
functions = pytest.importorskip("backprop_gpu.backends.host.compiled.functions")


def applied(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function over an array, compiled as the kernels compile their loops."""
    scalar = getattr(functions, name)

    @nb.njit(fastmath={"contract", "reassoc"}, error_model="numpy")
    def loop(x: Any, out: Any) -> None:
        for i in range(x.size):
            out[i] = scalar(x[i])

    def apply(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        loop(x, out)
        return out

    return apply


def spread(low: float, high: float) -> np.ndarray:
    """Even steps, and every size down to the smallest normal number, within [low, high]."""
    sizes = np.logspace(-37.9, np.log10(max(abs(low), abs(high), 1e-37)), 1500)
    x = np.unique(np.concatenate([np.linspace(low, high, 4000), sizes, -sizes]).astype(np.float32))
    return x[(x >= low) & (x <= high)]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


CASES = [
    ("exp", spread(-87.3, 88.7), mpmath.exp, 1.1),
    ("tanh", spread(-12.0, 12.0), mpmath.tanh, 1.2),
    ("sigmoid", spread(-87.0, 30.0), sigmoid, 2.2),
    ("erf", spread(-6.0, 6.0), mpmath.erf, 1.2),
    ("log1p_unit", spread(0.0, 1.0), mpmath.log1p, 1.5),
    ("expm1_negative", spread(-90.0, 0.0), mpmath.expm1, 1.5),
    (
        "log",
        np.concatenate([np.logspace(-37.9, 38.5, 3000), np.linspace(0.5, 2.0, 3000)]).astype("f4"),
        mpmath.log,
        0.9,
    ),
]


@pytest.mark.parametrize(("name", "x", "exact", "ulps"), CASES, ids=[c[0] for c in CASES])
def test_within_the_stated_ulps(name: str, x: np.ndarray, exact: Callable[[Any], Any], ulps: float) -> None:
    got = applied(name)(x)
    with mpmath.workdps(40):
        for value, result in zip(x, got, strict=True):
            wanted = exact(mpmath.mpf(float(value)))
            unit = float(np.spacing(np.float32(abs(float(wanted)))))
            assert abs(mpmath.mpf(float(result)) - wanted) <= ulps * unit, (name, value, result, wanted)


LIMITS = {
    "exp": (np.inf, 0.0, 1.0),
    "tanh": (1.0, -1.0, 0.0),
    "sigmoid": (1.0, 0.0, 0.5),
    "erf": (1.0, -1.0, 0.0),
    "log": (np.inf, None, -np.inf),
    "expm1_negative": (None, -1.0, 0.0),
}


@pytest.mark.parametrize("name", LIMITS)
def test_nan_stays_and_infinities_have_their_limits(name: str) -> None:
    got = applied(name)(np.array([np.nan, np.inf, -np.inf, 0.0], np.float32))
    if name != "log":  # the logarithm is only ever taken of sums of exponentials, which a NaN reaches another way
        assert np.isnan(got[0])
    for result, wanted in zip(got[1:], LIMITS[name], strict=True):
        assert wanted is None or result == np.float32(wanted)


def test_exp_runs_out_gracefully() -> None:
    """Results below the smallest normal number are right to their last bit or so, and then 0."""
    x = np.linspace(-104.5, -87.0, 2001).astype(np.float32)
    got = applied("exp")(x).astype(np.float64)
    assert np.all(np.abs(got - np.exp(x.astype(np.float64))) <= 1.1 * np.maximum(np.spacing(np.float32(got)), 1.4e-45))
    assert got[0] == 0.0
    assert np.all(np.diff(got) >= 0.0)


def test_odd_functions_are_odd() -> None:
    x = spread(0.0, 9.0)
    for name in ("tanh", "erf"):
        np.testing.assert_array_equal(applied(name)(-x), -applied(name)(x))
