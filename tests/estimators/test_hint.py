"""float64 on a device where it is slow: one hint, once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from backprop_gpu import MLPRegressor
from backprop_gpu.backends.base import Backend
from backprop_gpu.estimators import fitted_network

X = np.random.default_rng(0).standard_normal((40, 3))


def fit(X: np.ndarray) -> list[str]:
    """The warnings of a fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # of convergence too, which is not looked at
        MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, device="cpu").fit(X, X[:, 0])
    return [str(w.message) for w in caught if issubclass(w.category, UserWarning) and "float64" in str(w.message)]


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted_network, "_hinted", set())


@pytest.mark.usefixtures("nothing_said")
def test_said_once_for_float64_rows_on_a_device_that_is_slow_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "double_slowdown", lambda self: 64)
    assert fit(X.astype(np.float32)) == []
    (said,) = fit(X)
    assert said == "float64 is 64 times slower than float32 on numpy; pass dtype='float32' or float32 rows"
    assert fit(X) == []


@pytest.mark.usefixtures("nothing_said")
def test_nothing_is_said_elsewhere() -> None:
    assert fit(X) == []
