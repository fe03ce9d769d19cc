"""The preset's inputs: each part by its formula on values worked out by hand, and back from its state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backprop_gpu import read_table
from backprop_gpu.data.piecewise_linear import PiecewiseLinear
from backprop_gpu.data.preprocessing import Preprocessor
from backprop_gpu.data.tabular_inputs import RobustScale, TabularInputs
from backprop_gpu.errors import CheckpointError

NAN = np.nan


def test_the_scale_is_its_formula_and_bounded() -> None:
    X = np.array([[0.0, 5.0, 1.0], [1.0, 5.0, 1.0], [2.0, 5.0, 1.0], [3.0, 5.0, 1.0], [1e9, 5.0, 3.0]])
    scale = RobustScale.fit(X)
    np.testing.assert_array_equal(scale.centre, [2.0, 5.0, 1.0])
    np.testing.assert_array_equal(scale.spread, [2.0, 1.0, 1.0])  # quartiles 1 and 3; constant; half the range
    z = (X[:, 0] - 2.0) / 2.0
    np.testing.assert_allclose(scale(X)[:, 0], z / np.sqrt(1.0 + z**2 / 9.0), rtol=1e-15)
    np.testing.assert_array_equal(scale(X)[:, 1], 0.0)
    far = scale(np.array([[1e300, -1e300, NAN]]))  # whose squares overflow
    np.testing.assert_allclose(far, [[3.0, -3.0, 0.0]], rtol=1e-15)


def test_the_components_of_the_piecewise_linear_encoding() -> None:
    """Gorishniy et al. 2022, equation 1, with edges 0, 1, 3, 7 (their example's shape)."""
    bins = PiecewiseLinear((np.array([0.0, 1.0, 3.0, 7.0]), np.empty(0)))
    X = np.array([[-5.0, 1.0], [0.0, 1.0], [0.25, 1.0], [2.0, 1.0], [3.0, 1.0], [6.0, 1.0], [99.0, 1.0], [NAN, 1.0]])
    expected = [[0, 0, 0], [0, 0, 0], [0.25, 0, 0], [1, 0.5, 0], [1, 1, 0], [1, 1, 0.75], [1, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(bins(X), expected)
    assert bins.names(["age", "one"]) == ["age in 0..1", "age in 1..3", "age in 3..7"]
    # A linear layer on top is any piecewise-linear function with bends at the edges: here |x - 3| up to 7.
    x = np.linspace(0.0, 7.0, 29)
    np.testing.assert_allclose(3.0 + bins(np.stack([x, x], axis=1)) @ [-1.0, -2.0, 4.0], abs(x - 3.0), atol=1e-14)


def test_edges_are_quantiles_once_each_or_the_few_values() -> None:
    many = np.arange(101.0)
    few = np.where(many < 50, 1.0, np.where(many < 80, 2.0, 4.0))
    mostly_zero = np.where(many < 60, 0.0, many)
    two = many % 2
    gaps = np.where(many % 2 == 0, NAN, many)
    bins = PiecewiseLinear.fit(np.stack([many, few, mostly_zero, two, gaps], axis=1), 4)
    np.testing.assert_array_equal(bins.edges[0], [0.0, 25.0, 50.0, 75.0, 100.0])
    np.testing.assert_array_equal(bins.edges[1], [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(bins.edges[2], [0.0, 75.0, 100.0])
    np.testing.assert_array_equal(bins.edges[4], [1.0, 25.5, 50.0, 74.5, 99.0])
    assert bins.widths == (4, 2, 2, 0, 4)


def test_numbers_gaps_bins_categories_and_dates_side_by_side() -> None:
    day = np.datetime64("2024-07-01").astype(np.int64)  # a Monday, half a year round
    X = np.array([[0.0, 1.0, day], [1.0, 0.0, day + 7.0], [2.0, -1.0, day + 14.0], [NAN, 1.0, NAN]])
    inputs = TabularInputs.fit(X, 2, ("number", "category", "date"), (0, 2, 0))
    found = inputs(X)
    assert found.shape == (4, inputs.width) == (4, (1 + 1 + 5) + 2 + (2 + 2) + 2)
    np.testing.assert_allclose(found[:, 0], [-1 / np.sqrt(1 + 1 / 9), 0.0, 1 / np.sqrt(1 + 1 / 9), 0.0])
    np.testing.assert_array_equal(found[:, 7:9], [[0, 0], [0, 0], [0, 0], [1, 1]])  # where the gaps are
    np.testing.assert_array_equal(found[:, 9:11], [[0, 0], [1, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(found[:, -2:], [[0, 1], [1, 0], [0, 0], [0, 1]])
    parts = inputs.scale.centre[2:]  # year, month and weekday on a circle
    np.testing.assert_allclose(parts, [2024.0, 0.0, -1.0, 0.0, 1.0], atol=1e-12)
    again = TabularInputs.from_state(*inputs.state())
    np.testing.assert_array_equal(again(X), found)
    tensors, kept = inputs.state()
    for damage in ({"sizes": [0, 0, 3]}, {"kinds": ["number", "text", "date"]}, {"gaps": [True]}, {"edges": [3, -1]}):
        with pytest.raises(CheckpointError, match="do not fit together"):
            TabularInputs.from_state(tensors, kept | damage)


def test_hours_have_bins_in_files_and_in_frames_alike(tmp_path: Path) -> None:
    """The hour of a time is as finely told as a number: a pair of sine and cosine alone bends too little."""
    days = 19723.0 + np.arange(72) / 24.0  # three days by the hour
    inputs = TabularInputs.fit(days[:, None], 4, ("datetime",), (0,))
    hour = np.sin(2.0 * np.pi * np.arange(72) / 24.0)
    edges = inputs.bins.edges[-2]
    np.testing.assert_allclose(edges, np.quantile(hour, [0.0, 0.25, 0.5, 0.75, 1.0]), atol=1e-12)
    assert [len(e) > 0 for e in inputs.bins.edges] == [True, *[False] * 5, True, True]
    path = tmp_path / "hours.csv"
    rows = [f"2024-01-0{1 + i // 24} {i % 24:02}:00,{i}" for i in range(72)]
    path.write_text("\n".join(["when,y", *rows]) + "\n", encoding="utf-8")
    table = read_table(path, target="y")
    made = Preprocessor.fit(table, standardize="robust", piecewise_linear=4)
    np.testing.assert_allclose(made.transform(table, "float64"), inputs(days[:, None]), atol=1e-9)


def test_a_column_without_any_value_is_zero() -> None:
    X = np.array([[NAN, 1.0], [NAN, 2.0]])
    inputs = TabularInputs.fit(X, 4)
    np.testing.assert_array_equal(inputs(X)[:, 0], 0.0)
    assert np.isfinite(inputs(X)).all()
