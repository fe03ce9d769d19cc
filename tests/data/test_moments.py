"""Mean and variance in one pass: right values where textbook sums lose them, and the same for every way to cut rows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from backprop_gpu.data.moments import MergedMoments, Moments


def exact(values: np.ndarray) -> tuple[float, float]:
    """Mean and sum of squared deviations, in rational numbers."""
    numbers = [Fraction(float(v)) for v in values]
    mean = sum(numbers) / len(numbers)
    return float(mean), float(sum((v - mean) ** 2 for v in numbers))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1e9, 1.0), (-3e-5, 1e-9), (1e12, 1e-3), (0.0, 1e100)])
def test_values_are_right_however_rows_are_cut(shift: float, scale: float) -> None:
    X = shift + scale * np.random.default_rng(0).normal(size=(600, 2))
    X[5:9, 1] = np.nan
    for cuts in ([], [1], [300], [3, 4, 100, 101, 599], list(range(7, 600, 7)), list(range(1, 600))):
        merged = MergedMoments()
        for part in np.split(X, cuts):
            merged.add(Moments.of(part))
        found = merged.total()
        for j in range(2):
            seen = X[~np.isnan(X[:, j]), j]
            mean, m2 = exact(seen)
            # Chan, Golub & LeVeque: relative error of the pairwise sum log2(n) eps kappa, kappa = sqrt(1 + n mean^2/S)
            kappa = np.sqrt(1.0 + len(seen) * mean**2 / m2)
            bound = 16 * np.log2(600) * np.finfo(np.float64).eps
            assert abs(found.mean[j] - mean) <= bound * np.abs(seen).max()
            assert abs(found.m2[j] - m2) <= bound * kappa * m2
            assert (found.count[j], found.low[j], found.high[j]) == (len(seen), seen.min(), seen.max())


def test_parts_without_values_add_nothing() -> None:
    X = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, 7.0]])
    merged = MergedMoments()
    for part in (X[:0], X[:1], X[:0], X[1:2], X[2:]):
        merged.add(Moments.of(part))
    found, whole = merged.total(), Moments.of(X)
    for at in ("count", "mean", "m2", "low", "high"):
        np.testing.assert_allclose(getattr(found, at), getattr(whole, at), rtol=1e-15)
    assert found.mean.tolist() == pytest.approx([7 / 3, 7.0])
    assert found.m2.tolist() == pytest.approx([14 / 3, 0.0])
