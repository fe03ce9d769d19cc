"""The same training step on every device: every tensor of each of 100 steps, within the bound of its operation.

Nothing is compared between devices. Each step is recomputed in float64 from what the device itself recorded
(``support.replay``), so that no error compounds and the bounds need no tuning. Trajectories are not judged: Adam's
first step is about lr sign(g), and one rounding may turn a sign. How far the weights drift apart is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from support.backends import Case, cases
from support.bounds import Bounds
from support.plans import PLANS, Plan
from support.replay import Replay, Verdict, worst
from support.trace import traced

STEPS = 100
HOST = Case("numpy", "reference")


def learning_rate(plan: Plan, t: int) -> float:
    """The rate of step t (from 0), worked out apart: constant, or the cosine of Loshchilov & Hutter."""
    base, total = plan.optimizer["learning_rate"], plan.training.get("total_steps", 1)
    return base * 0.5 * (1.0 + math.cos(math.pi * t / total)) if plan.training.get("schedule") == "cosine" else base


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
    replay = Replay(plan.recipe(step), case.bounds("float32"))
    seen: list[Verdict] = []
    expected = case.get(step.net.params.theta)
    for t in range(STEPS):
        X, Y, w = plan.batch(t)
        on_device = [None if x is None else case.put(x) for x in (X, Y, w)]
        trace = traced(step, *on_device, micro_batch=plan.micro_batch)
        np.testing.assert_array_equal(trace.theta, expected, err_msg=f"theta moved between steps {t - 1} and {t}")
        expected = trace.theta_after
        seen.append(replay(trace, t, learning_rate(plan, t), X, Y, w))
        assert seen[-1].first is None, f"step {t}: {seen[-1].first} is out of its bound; {seen[-1]}"
    drift = float(np.max(np.abs(expected - untraced(name))))
    scale = float(np.max(np.abs(expected)))
    record_property("ratios", str(worst(seen)))
    record_property("drift", drift)
    print(f"{name} on {case}: after {STEPS} steps the weights are {drift:.3g} from numpy's (largest {scale:.3g})")
    print("largest error/bound:", ", ".join(f"{k} {r:.3f}" for k, r in worst(seen).items()))


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("case", cases())
def test_initial_weights_are_the_same_bits_everywhere(case: Case, name: str) -> None:
    here, there = PLANS[name].net(case, "float32").parameters(), PLANS[name].net(HOST, "float32").parameters()
    assert here.keys() == there.keys()
    for key in there:
        np.testing.assert_array_equal(here[key], there[key])


class Exact(Bounds):
    """No rounding at all: every bound is 0, so that every tensor must be the float64 one bit for bit."""

    u = 0.0
    eta = 0.0


@pytest.mark.parametrize("how", [{}, {"one_over_m": "late"}, {"delta": "literal", "l2": 0.5}], ids=str)
@pytest.mark.parametrize("case", cases())
def test_a_step_on_a_lattice_is_exact(case: Case, how: dict[str, object]) -> None:
    """Small integers and powers of two: float32 needs no rounding in any order of summation, tf32 and bf16 would."""
    plan = Plan(
        (5, 6, 6, 2), ("relu", "relu"), "squared_error", {"name": "sgd", "learning_rate": 2.0**-6}, m=16, training=how
    )
    step, rng = plan.step(case), np.random.default_rng(21)
    whole = {name: rng.integers(-1, 2, x.shape).astype("float32") for name, x in step.net.parameters().items()}
    step.net.set_parameters(whole)
    X, Y = (rng.integers(-3, 4, (n, plan.m)).astype("float32") for n in (5, 2))
    trace = traced(step, case.put(X), case.put(Y))
    assert np.abs(trace.theta_after - trace.theta).max() > 0.0
    verdict = Replay(plan.recipe(step), Exact("float32", {}))(trace, 0, 2.0**-6, X, Y)
    assert verdict.first is None, str(verdict)
