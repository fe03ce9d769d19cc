"""Workloads are data: their FLOPs against a count of multiplications, their numbers the same in every process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.roofline import products
from benchmarks.workloads import ULPS, WORKLOADS, Workload, checked_orders, make_task

ALL = [work for works in WORKLOADS.values() for work in works]
TINY = Workload("tiny", (5, 4, 3, 2), 6, 24, checked=7)


def counted_flops(sizes: tuple[int, ...], m: int) -> int:
    """A multiplication and an addition for each innermost turn of the loops of a training step."""
    flops = 0
    for l in range(1, len(sizes)):
        for _ in range(m):  # Z = W A_prev
            for _ in range(sizes[l]):
                for _ in range(sizes[l - 1]):
                    flops += 2
        for _ in range(sizes[l]):  # dW = dZ A_prev^T
            for _ in range(sizes[l - 1]):
                for _ in range(m):
                    flops += 2
        if l > 1:  # dA_prev = W^T dZ
            for _ in range(sizes[l - 1]):
                for _ in range(m):
                    for _ in range(sizes[l]):
                        flops += 2
    return flops


@pytest.mark.parametrize("sizes", [(5, 4, 3, 2), (7, 3), (2, 9, 4)])
def test_step_flops_are_those_of_the_loops(sizes: tuple[int, ...]) -> None:
    assert Workload("w", sizes, 6, 12).step_flops == counted_flops(sizes, 6)


@pytest.mark.parametrize("work", ALL, ids=lambda work: work.name)
def test_the_floor_multiplies_what_a_step_multiplies(work: Workload) -> None:
    flops = [
        2 * left.shape[0] * left.shape[1] * right.shape[1]
        for left, right, _ in products(replace(work, batch_size=3), True)
    ]
    assert sum(flops) == replace(work, batch_size=3).step_flops


def test_prediction_multiplies_once_a_layer() -> None:
    assert [left.shape for left, _, _ in products(TINY, train=False)] == [(4, 5), (3, 4), (2, 3)]


@pytest.mark.parametrize("work", ALL, ids=lambda work: work.name)
def test_counts(work: Workload) -> None:
    assert work.parameters == sum(n * k + n for k, n in zip(work.sizes, work.sizes[1:], strict=False))
    assert (work.batches - 1) * work.batch_size < work.rows <= work.batches * work.batch_size


def test_the_issue_s_networks() -> None:
    given = {work.name: (work.sizes, work.batch_size, work.activation) for work in WORKLOADS["step"]}
    assert given["W1"] == ((784, 512, 256, 10), 128, "relu")
    assert given["W2"] == ((30, 64, 32, 2), 32, "relu")
    assert given["W3"] == ((1024, 2048, 2048, 10), 1024, "relu")
    for name, activation in {"W4": "relu", "W4t": "tanh", "W4s": "sigmoid", "W4g": "gelu"}.items():
        assert given[name] == ((64, 64, 64, 64, 10), 256, activation)
    digits, table = WORKLOADS["fit"]
    assert (digits.source, digits.target) == ("digits", 0.97)
    assert (table.rows, table.sizes[:3], table.batch_size, table.epochs) == (100_000, (50, 128, 64), 256, 20)


def test_tasks_are_the_same_each_time_and_learnable() -> None:
    one, other = make_task(TINY), make_task(TINY)
    for a, b in zip([*one.W, *one.b, one.X, one.y], [*other.W, *other.b, other.X, other.y], strict=True):
        np.testing.assert_array_equal(a, b)
    assert [w.shape for w in one.W] == [(4, 5), (3, 4), (2, 3)]
    assert {w.dtype for w in [*one.W, *one.b, one.X]} == {np.dtype("float32")}
    y = make_task(replace(TINY, rows=2_000)).y
    assert set(y) == {0, 1}
    assert 0.2 < y.mean() < 0.8


def test_a_disturbed_start_is_off_by_units_in_the_last_place() -> None:
    plain, moved = make_task(WORKLOADS["step"][3]), make_task(WORKLOADS["step"][3], perturbed=1)
    for w, v in zip(plain.W, moved.W, strict=True):
        steps = (v.astype(np.float64) - w) / np.spacing(np.abs(w))
        assert np.abs(steps).max() <= ULPS
        assert (steps > 1).any()
        assert (steps < -1).any()


def test_digits_are_split_once() -> None:
    work = WORKLOADS["fit"][0]
    task = make_task(work)
    assert task.X.shape == (work.rows, 64)
    assert task.X_test.shape == (1_797 - work.rows, 64)
    assert (task.X.min(), task.X.max()) == (0.0, 1.0)
    assert set(task.y) == set(task.y_test) == set(range(10))


@pytest.mark.parametrize("work", [*ALL, TINY], ids=lambda work: work.name)
def test_checked_orders_are_permutations_of_full_batches(work: Workload) -> None:
    orders = list(checked_orders(work))
    for order in orders:
        assert len(order) % work.batch_size == 0
        np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))
    steps = sum(len(order) for order in orders) // work.batch_size
    assert work.checked <= steps < 2 * work.checked
