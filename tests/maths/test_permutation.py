"""Keyed permutations: exactly a bijection, and by its statistics as good as one that is drawn."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from backprop_gpu.maths import permutation as module
from backprop_gpu.maths.permutation import KeyedPermutation, permutation
from backprop_gpu.maths.random import host_generator


@pytest.mark.parametrize("n", [1, 2, 3, 10, 255, 256, 257, 4096, 70_001])
def test_each_number_is_there_once_and_found_again(n: int) -> None:
    p = KeyedPermutation(n, 7, 2, 0)
    whole = p[:]
    np.testing.assert_array_equal(np.sort(whole), np.arange(n))
    np.testing.assert_array_equal(p.inverse(whole), np.arange(n))
    np.testing.assert_array_equal(p[p.inverse(np.arange(n))], np.arange(n))
    some = np.random.default_rng(0).integers(0, n, 20)
    np.testing.assert_array_equal(p[some], whole[some])
    np.testing.assert_array_equal(p[n // 3 : n // 2], whole[n // 3 : n // 2])


def test_numbers_beyond_any_memory() -> None:
    n = 2**62
    p, rows = KeyedPermutation(n, 0, 2, 5), np.array([0, 1, n // 2, n - 1])
    found = p[rows]
    assert found.min() >= 0
    assert found.max() < n
    np.testing.assert_array_equal(p.inverse(found), rows)


def test_the_values_stay_what_they_are() -> None:
    """A run is resumed with the order that an earlier release gave it."""
    assert KeyedPermutation(20_000_000, 0, 2, 0)[:4].tolist() == PINNED
    assert KeyedPermutation(20_000_000, 0, 2, 1)[:4].tolist() != PINNED
    assert KeyedPermutation(20_000_000, 1, 2, 0)[:4].tolist() != PINNED


PINNED = [18284084, 15034869, 9239520, 2423944]


def test_every_order_of_a_few_is_as_frequent() -> None:
    """All 24 orders of 4 numbers over 2,400 keys: chi-square with 23 degrees of freedom, p = 1e-4 at 56."""
    count = Counter(tuple(KeyedPermutation(4, 3, k)[:].tolist()) for k in range(2400))
    assert set(count) == set(permutations(range(4)))
    assert sum((found - 100) ** 2 / 100 for found in count.values()) < 56


def test_statistics_are_those_of_orders_that_are_drawn() -> None:
    n, keys = 997, 400
    orders = np.stack([KeyedPermutation(n, 11, k)[:] for k in range(keys)])
    places = np.arange(n)
    # Fixed points are Poisson(1); descents have mean (n - 1)/2, variance (n + 1)/12; means within 4.5 deviations.
    fixed = (orders == places).sum(axis=1)
    assert abs(fixed.mean() - 1.0) < 4.5 / np.sqrt(keys)
    descents = (np.diff(orders) < 0).sum(axis=1)
    assert abs(descents.mean() - (n - 1) / 2) < 4.5 * np.sqrt((n + 1) / 12 / keys)
    assert 0.7 < descents.var() / ((n + 1) / 12) < 1.35
    # Correlation of place with number, and of an epoch's order with the next one's: N(0, 1/(n - 1)).
    for other in (np.broadcast_to(places, orders.shape), np.roll(orders, 1, axis=0)):
        scaled = (orders - (n - 1) / 2) * (other - (n - 1) / 2)
        r = scaled.mean(axis=1) / ((n * n - 1) / 12) * np.sqrt(n - 1)
        assert abs(r.mean()) < 4.5 / np.sqrt(keys)
        assert 0.7 < r.var() < 1.35
    # The first 8 numbers fall evenly into 10 parts: chi-square with 9 degrees of freedom, p = 1e-4 at 34.
    parts = np.bincount(orders[:, :8].ravel() * 10 // n, minlength=10)
    expected = np.diff(np.ceil(np.arange(11) * n / 10)) / n * keys * 8
    assert ((parts - expected) ** 2 / expected).sum() < 34


def test_stored_or_keyed_by_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(permutation(50, 4, 2, 3)[:], host_generator(4, 2, 3).permutation(50))
    monkeypatch.setattr(module, "MOST_STORED", 49)
    np.testing.assert_array_equal(permutation(50, 4, 2, 3)[:], KeyedPermutation(50, 4, 2, 3)[:])
