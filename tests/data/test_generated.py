"""The drawn data sets: their geometry, their noise, and that a seed fixes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backprop_gpu.data import friedman1, moons
from backprop_gpu.errors import ConfigError


@pytest.mark.parametrize("n", [2, 7, 1000])
def test_moons_without_noise_are_two_half_circles(n: int) -> None:
    X, y = moons(n, noise=0.0)
    assert X.shape == (n, 2)
    assert np.bincount(y).tolist() == [(n + 1) // 2, n // 2]
    centre = np.where(y[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(np.linalg.norm(X - centre, axis=1), 1.0, rtol=1e-12)
    side = np.where(y == 0, 1.0, -1.0) * (X - centre)[:, 1]
    assert side.min() > -1e-12  # class 0 is the upper half, class 1 the lower
    for label in (0, 1):
        along = (X - centre)[y == label, 0]
        assert abs(along).max() == pytest.approx(1.0)  # from end to end
        assert len(along) < 3 or along.min() + along.max() == pytest.approx(0.0, abs=1e-12)


def test_moons_have_the_noise_that_was_asked_for() -> None:
    (clean, y), (noisy, z) = moons(20000, noise=0.0, seed=4), moons(20000, noise=0.3, seed=4)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_allclose((noisy - clean).std(axis=0), 0.3, rtol=0.03)
    assert not np.array_equal(np.sort(y), y)


def test_friedman1_is_the_published_function() -> None:
    X, y = friedman1(500, features=7, noise=0.0)
    assert X.shape == (500, 7)
    assert 0.0 <= X.min() < X.max() < 1.0
    for x, value in zip(X[:20], y, strict=False):
        expected = 10 * np.sin(np.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]
        assert value == pytest.approx(expected, rel=1e-14)
    noisy = friedman1(500, features=7, noise=2.0)[1]
    assert np.std(noisy - y) == pytest.approx(2.0, rel=0.1)


def test_the_documented_spread_of_friedman1() -> None:
    assert np.std(friedman1(50000, noise=0.0)[1]) == pytest.approx(4.9, abs=0.05)


@pytest.mark.parametrize("draw", [moons, friedman1])
def test_the_seed_fixes_the_rows(draw: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    X, y = draw(50, seed=1)
    again, same = draw(50, seed=1)
    other, _ = draw(50, seed=2)
    assert X.tobytes() == again.tobytes()
    assert y.tobytes() == same.tobytes()
    assert not np.array_equal(X, other)
    assert X.dtype == np.float64


@pytest.mark.parametrize("draw", [moons, friedman1])
@pytest.mark.parametrize(
    ("setting", "value"),
    [("n", 0), ("n", 2.5), ("n", "many"), ("noise", -0.1), ("noise", np.inf), ("noise", np.nan), ("seed", -1)],
)
def test_settings_out_of_range(draw: Callable, setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be"):
        draw(**{setting: value})


def test_friedman1_needs_its_five_columns() -> None:
    with pytest.raises(ConfigError, match="at least 5, got 4"):
        friedman1(features=4)
