"""Means and scales: accurate at any offset and unit, and never a float64 copy of the whole table."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backprop_gpu.data import Preprocessor, read_table, table, table_from_arrays
from backprop_gpu.data.statistics import mean_and_scale, medians, survey
from backprop_gpu.errors import DataError


def standardized(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = table_from_arrays(X)
    found = survey(rows)
    return mean_and_scale(rows, found, found.mean)


def exact(column: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation in rational arithmetic."""
    values = [Fraction(float(value)) for value in column]
    mean = sum(values, Fraction(0)) / len(values)
    variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values)
    unit = Fraction(2) ** (math.frexp(float(max(abs(value - mean) for value in values)))[1])
    return float(mean), float(unit) * math.sqrt(variance / unit**2)


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(2, 60),
    offset=st.sampled_from([0.0, 1.0, -1e3, 1e9, -1e12]),
    unit=st.sampled_from([1e-3, 1.0, 1e5]),
    block=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_mean_and_scale_are_right_to_rounding(n: int, offset: float, unit: float, block: int, seed: int) -> None:
    assume(unit > 1e-13 * abs(offset))  # below, the column is constant up to rounding
    X = offset + unit * np.random.default_rng(seed).normal(size=(n, 2))
    kept, table._BLOCK_VALUES = table._BLOCK_VALUES, block
    try:
        mean, scale = standardized(X)
    finally:
        table._BLOCK_VALUES = kept
    for j in range(2):
        true_mean, true_scale = exact(X[:, j])
        assert mean[j] == pytest.approx(true_mean, rel=4e-16, abs=4e-15 * true_scale)
        assert scale[j] == pytest.approx(true_scale, rel=1e-13)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
def test_tiny_and_huge_units_keep_their_variance(unit: float) -> None:
    mean, scale = standardized(unit * np.array([[1.0], [2.0], [4.0], [5.0]]))
    assert mean[0] == pytest.approx(3.0 * unit, rel=1e-14)
    assert scale[0] == pytest.approx(math.sqrt(2.5) * unit, rel=1e-14)


def test_what_overflows_float64_is_an_error_that_names_the_column() -> None:
    with pytest.raises(DataError, match="column 'x1' is too large or too small to standardize"):
        standardized(np.array([[1.0, 1.7e308], [2.0, -1.7e308]]))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, 1 / 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_columns_have_scale_one(value: float, dtype: type) -> None:
    X = np.full((1000, 1), value, dtype=dtype)
    mean, scale = standardized(X)
    assert mean.tolist() == [float(dtype(value))]
    assert scale.tolist() == [1.0]
    jittered = X.astype(np.float64)
    jittered[::2] = np.nextafter(jittered[::2], np.inf)
    if value:
        assert standardized(jittered)[1].tolist() == [1.0]


def test_missing_values_are_left_out_of_the_survey_and_then_filled() -> None:
    X = np.array([[np.nan, 5.0], [1.0, np.nan], [3.0, np.nan], [8.0, 7.0]])
    rows = table_from_arrays(X)
    found = survey(rows)
    assert found.gaps.tolist() == [1, 2]
    assert found.mean.tolist() == [4.0, 6.0]
    assert medians(rows).tolist() == [3.0, 6.0]
    mean, scale = mean_and_scale(rows, found, np.array([3.0, 6.0]))
    filled = np.where(np.isnan(X), [3.0, 6.0], X)
    np.testing.assert_allclose(mean, filled.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(scale, filled.std(axis=0), rtol=1e-15)


def test_infinite_values_and_empty_columns_are_refused() -> None:
    X = np.ones((5, 3))
    X[3, 1] = -np.inf
    with pytest.raises(DataError, match=r"X, row 3, column 'x1': the value is infinite"):
        survey(table_from_arrays(X))
    X[:, 1] = np.nan
    with pytest.raises(DataError, match=r"column 'x1' has no value in any training row; leave it out \(data"):
        survey(table_from_arrays(X))


def test_a_memory_mapped_table_is_never_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_BLOCK_VALUES", 1 << 14)  # 128 KiB of float64
    n, k = 40_000, 16
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(n, k)).astype(np.float32))
    source = read_table(tmp_path / "X.npy", labelled=False)
    tracemalloc.start()
    try:
        train = source.take(np.arange(0, n, 2))
        preprocessor = Preprocessor.fit(train)
        fit_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        out = preprocessor.transform(source)
        transform_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    blocks = 12 * (1 << 17)
    assert fit_peak < blocks < n * k * 4
    assert transform_peak < out.nbytes + blocks
