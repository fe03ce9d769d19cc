"""The roofline multiplies every product of a step, as often as it says, and counts the steps of its time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.roofline import RooflineWorker, products
from benchmarks.workloads import Workload

WORK = Workload("small", (30, 64, 2), 32, 100, epochs=3)


@pytest.mark.parametrize("train", [True, False])
def test_stacked_products_are_all_computed(train: bool) -> None:
    for left, right, out in products(WORK, train):
        assert len(out) > 1
        out[...] = np.nan
        np.matmul(left, right, out=out)
        np.testing.assert_array_equal(out, np.broadcast_to(left @ right, out.shape))


def test_large_products_are_not_stacked() -> None:
    assert [len(out) for _, _, out in products(Workload("large", (512, 1024, 1024), 64, 64), False)] == [1, 1]


@pytest.mark.parametrize(("mode", "steps"), [("step", 1), ("epoch", 4), ("fit", 12), ("inference", 100 / 32)])
def test_steps_of_a_turn(mode: str, steps: float) -> None:
    machine = RooflineWorker()
    machine.prepare(WORK, mode)
    assert machine.steps == steps
    assert machine.measure(0.0) > 0.0


def test_bytes_are_those_of_parameters_gradient_and_moments() -> None:
    machine = RooflineWorker()
    machine.prepare(WORK, "step")
    assert machine.copied.size == 4 * WORK.parameters
    machine.prepare(WORK, "inference")
    assert machine.copied.size == 32 * (30 + 2)
