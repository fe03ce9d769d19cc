"""The same training step on every device: every tensor of each of many steps, within the bound of its operation.

Nothing is compared between devices. Each step is recomputed in float64 from what the device itself recorded
(``parity.step_replay``), so that no error compounds and the bounds need no tuning. Trajectories are not judged: Adam's
first step is about lr sign(g), and one rounding may turn a sign. How far the weights drift apart is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from support.backends import Case, cases
from support.plans import PLANS, Plan

from backprop_gpu.parity.findings import Finding
from backprop_gpu.parity.step_replay import compare_step
from backprop_gpu.parity.trace import trace_step

STEPS = 100 if os.environ.get("BACKPROP_GPU_LONG_TESTS") else 25
HOST = Case("numpy", "reference")


@cache
def untraced(name: str) -> np.ndarray:
    """The weights after the run on NumPy's reference kernels, without a recorder."""
    plan = PLANS[name]
    step = plan.step(HOST)
    for t in range(STEPS):
        X, Y, w = plan.batch(t)
        step(X, Y, w, micro_batch=plan.micro_batch)
    return HOST.get(step.net.params.theta)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("case", cases())
def test_every_tensor_of_every_step_is_within_its_bound(
    case: Case, name: str, record_property: Callable[[str, object], None]
) -> None:
    plan = PLANS[name]
    step = plan.step(case)
    worst: dict[str, Finding] = {}
    expected = case.get(step.net.params.theta)
    for t in range(STEPS):
        X, Y, w = plan.batch(t)
        trace = trace_step(step, *(None if x is None else case.put(x) for x in (X, Y, w)), micro_batch=plan.micro_batch)
        np.testing.assert_array_equal(trace.theta, expected, err_msg=f"theta moved between steps {t - 1} and {t}")
        assert trace.t == t
        plan.assert_asked(trace.spec)
        expected = trace.theta_after
        for got, host in ((trace.X, X), (trace.Y, Y), (trace.weights, w)):
            np.testing.assert_array_equal(got, host)
        for f in compare_step(trace, "fp32").findings:
            assert f.ratio <= 1.0, f"step {t}: {f}"
            worst[f.tensor] = max(f, worst.get(f.tensor, f), key=lambda f: f.ratio)
    drift = float(np.max(np.abs(expected - untraced(name))))
    scale = float(np.max(np.abs(expected)))
    ratios = ", ".join(f"{name} {f.ratio:.3f}" for name, f in worst.items())
    record_property("ratios", ratios)
    record_property("drift", drift)
    print(f"{name} on {case}: after {STEPS} steps the weights are {drift:.3g} from numpy's (largest {scale:.3g})")
    print("largest error/bound:", ratios)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("case", cases())
def test_initial_weights_are_the_same_bits_everywhere(case: Case, name: str) -> None:
    here, there = PLANS[name].net(case, "float32").parameters(), PLANS[name].net(HOST, "float32").parameters()
    assert here.keys() == there.keys()
    for key in there:
        np.testing.assert_array_equal(here[key], there[key])


@pytest.mark.parametrize("how", [{}, {"one_over_m": "late"}, {"delta": "literal", "l2": 0.5}], ids=str)
@pytest.mark.parametrize("case", cases())
def test_a_step_of_small_whole_numbers_is_exact(case: Case, how: dict[str, object]) -> None:
    """Small integers and powers of two: float32 needs no rounding in any order of summation, tf32 and bf16 would."""
    plan = Plan(
        (5, 6, 6, 2), ("relu", "relu"), "squared_error", {"name": "sgd", "learning_rate": 2.0**-6}, m=16, training=how
    )
    step, rng = plan.step(case), np.random.default_rng(21)
    whole = {name: rng.integers(-1, 2, x.shape).astype("float32") for name, x in step.net.parameters().items()}
    step.net.set_parameters(whole)
    X, Y = (rng.integers(-3, 4, (n, plan.m)).astype("float32") for n in (5, 2))
    trace = trace_step(step, case.put(X), case.put(Y))
    assert np.abs(trace.theta_after - trace.theta).max() > 0.0
    for f in compare_step(trace, "exact").findings:
        assert f.ratio == 0.0, f
