"""Splits: a partition, sized and stratified by largest remainder, fixed by the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backprop_gpu.data import Split, split_indices
from backprop_gpu.errors import ConfigError, DataError

fractions = st.sampled_from([0.0, 0.1, 0.15, 0.25, 1 / 3, 0.4])


def check_partition(split: Split, n: int) -> None:
    for part in split:
        assert part.dtype.kind == "i"
        assert np.all(np.diff(part) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(n))


@settings(max_examples=100, deadline=None)
@given(n=st.integers(20, 300), validation=fractions, test=fractions, seed=st.integers(0, 2**32))
def test_parts_are_a_partition_of_the_right_sizes(n: int, validation: float, test: float, seed: int) -> None:
    split = split_indices(n, validation=validation, test=test, seed=seed)
    check_partition(split, n)
    for part, share in zip(split, (1 - validation - test, validation, test), strict=True):
        assert abs(len(part) - n * share) < 1.0


@settings(max_examples=100, deadline=None)
@given(data=st.data(), validation=fractions, test=fractions, seed=st.integers(0, 1000))
def test_stratified_parts_hold_the_classes_shares(
    data: st.DataObject, validation: float, test: float, seed: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    shares = np.array([1 - validation - test, validation, test])
    wanted = int(np.sum(shares > 0))
    assume(max(sizes) >= wanted)  # else validation and test are empty, which is an error
    split = split_indices(len(y), y, validation=validation, test=test, stratify=True, seed=seed)
    check_partition(split, len(y))
    for k, size in enumerate(sizes):
        counts = np.array([np.sum(y[part] == k) for part in split])
        if size < wanted:
            assert counts.tolist() == [size, 0, 0]
        else:
            assert np.all((counts > 0) == (shares > 0))
            assert np.all(counts <= np.maximum(size * shares + 1, 1))
            assert np.all(counts > size * shares - 2.0 - (size * shares[1:] < 1).sum())


@settings(max_examples=50, deadline=None)
@given(k=st.integers(2, 8), size=st.integers(20, 60), seed=st.integers(0, 1000))
def test_stratified_totals_do_not_drift(k: int, size: int, seed: int) -> None:
    """The remainders of the classes are carried on, so many classes do not add up to parts of the wrong size."""
    sizes = np.random.default_rng(seed).integers(20, size + 1, k)
    y = np.repeat(np.arange(k), sizes)
    for part, share in zip(split_indices(len(y), y, stratify=True, seed=seed), (0.7, 0.15, 0.15), strict=True):
        assert abs(len(part) - share * len(y)) < 2.0
        for label, m in enumerate(sizes):
            assert abs(np.sum(y[part] == label) - share * m) < 1.0


def test_exact_shares() -> None:
    split = split_indices(100, np.repeat(["a", "b"], [60, 40]), stratify=True)
    assert [len(part) for part in split] == [70, 15, 15]
    assert [int(np.sum(part < 60)) for part in split] == [42, 9, 9]


def test_a_class_of_three_is_in_every_part() -> None:
    y = np.array([0] * 100 + [1] * 3)
    for part in split_indices(103, y, stratify=True):
        assert np.sum(y[part] == 1) == 1


def test_the_seed_fixes_the_split() -> None:
    y = np.arange(200) % 3
    for stratify in (False, True):
        first = split_indices(200, y, stratify=stratify, seed=7)
        for a, b in zip(first, split_indices(200, y, stratify=stratify, seed=7), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(first.test, split_indices(200, y, stratify=stratify, seed=8).test)


def test_every_row_can_be_in_every_part() -> None:
    counts = np.zeros((3, 16))
    for seed in range(300):
        for part, rows in enumerate(
            split_indices(16, np.arange(16) % 2, validation=0.25, test=0.25, stratify=True, seed=seed)
        ):
            counts[part, rows] += 1
    np.testing.assert_allclose(counts / 300, np.array([0.5, 0.25, 0.25])[:, None] * np.ones(16), atol=0.12)


def test_without_validation_and_test_all_rows_train() -> None:
    split = split_indices(5, validation=0.0, test=0.0)
    assert split.train.tolist() == [0, 1, 2, 3, 4]
    assert len(split.validation) == len(split.test) == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"validation": -0.1}, "validation must be"),
        ({"test": 1.0}, "test must be"),
        ({"validation": float("nan")}, "validation must be"),
        ({"validation": 0.6, "test": 0.4}, "must be below 1"),
    ],
)
def test_fractions_out_of_range(settings: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        split_indices(100, **settings)


def test_too_few_rows_for_the_parts() -> None:
    with pytest.raises(DataError, match=r"2 rows are too few.* none for"):
        split_indices(2)
    with pytest.raises(DataError, match="none for validation"):
        split_indices(10, validation=0.01, test=0.2)
    with pytest.raises(DataError, match="none for validation"):
        split_indices(4, [0, 0, 1, 1], stratify=True)


def test_labels_to_stratify_by() -> None:
    for y in (None, [0, 1], np.zeros((9, 2))):
        with pytest.raises(DataError, match="one label for each of the 9 rows"):
            split_indices(9, y, stratify=True)
    y = np.arange(30) % 2
    for flat, column in zip(
        split_indices(30, y, stratify=True), split_indices(30, y[:, None], stratify=True), strict=True
    ):
        np.testing.assert_array_equal(flat, column)
