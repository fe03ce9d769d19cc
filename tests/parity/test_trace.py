"""Recording changes nothing, and leaves nothing out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parity.faults import DROPOUT, EARLY, LATE, MICRO, Plan

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.step_replay import compare_step
from backprop_gpu.parity.trace import trace_step

PLANS = {"early": EARLY, "late": LATE, "micro": MICRO, "dropout": DROPOUT}
SETS = [("numpy", "reference"), ("array_api_strict", "reference"), ("numpy", "native")]


def kernel_sets() -> list[Any]:
    needs = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
    return [pytest.param(d, k, marks=[needs] if k == "native" else [], id=f"{d}-{k}") for d, k in SETS]


def step_of(plan: Plan, device: str, kernels: str) -> tuple[TrainingStep, list[Any]]:
    model = plan.net()
    net = DenseNet(**model.spec(), device=device, kernels=kernels)
    net.set_parameters(model.parameters())
    X, y = plan.rows()
    batch = [net.upload_columns(X), net.upload_columns(y[:, None])]
    return TrainingStep(net, "adam", **plan.settings), batch


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("device", "kernels"), kernel_sets())
def test_a_recorded_step_is_the_same_step_bit_for_bit(device: str, kernels: str, name: str) -> None:
    plan = PLANS[name]
    plain, batch = step_of(plan, device, kernels)
    recorded, _ = step_of(plan, device, kernels)
    inner = recorded.net.kernels
    for t in range(3):
        plain(*batch, micro_batch=plan.micro_batch)
        trace = trace_step(recorded, *batch, micro_batch=plan.micro_batch)
        assert trace.t == t
        for a, b in ((plain.net.params.theta, recorded.net.params.theta), (plain.value, recorded.value)):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(plain.optimizer_state, recorded.optimizer_state, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        np.testing.assert_array_equal(np.asarray(plain.net.params.theta), trace.theta_after)
    assert recorded.net.kernels is inner, "the network has its own kernels back"


@pytest.mark.parametrize(("device", "kernels"), kernel_sets())
def test_every_tensor_of_the_step_is_judged(device: str, kernels: str) -> None:
    step, batch = step_of(MICRO, device, kernels)
    found = compare_step(trace_step(step, *batch, micro_batch=7), "fp32")
    tensors = {f.tensor for f in found.findings}
    wanted = {f"{letter}{l}" for letter in ("A", "dZ", "dW", "db") for l in (1, 2, 3, 4)}
    wanted |= {"1/D", "value", "l2", "dW+penalty", "db applied", "J", "step numbers", "state 0", "state 1", "theta"}
    assert wanted <= tensors
    if kernels == "reference":
        assert {f"{letter}{l}" for letter in ("Z", "G") for l in (1, 2, 3, 4)} <= tensors
    assert all(f.status == "ok" for f in found.findings)
    assert list(tensors) != []
    order = [f.tensor for f in found.findings]
    assert order.index("A1") < order.index("A4") < order.index("dZ4") < order.index("dW4") < order.index("dZ1")
    assert order[-1] == "theta"


def test_the_kernels_come_back_after_a_failure() -> None:
    step, (X, Y) = step_of(EARLY, "numpy", "reference")
    inner = step.net.kernels
    with pytest.raises(Exception, match="must be"):
        trace_step(step, X[:-1], Y)
    assert step.net.kernels is inner


@pytest.mark.parametrize("operation", ["dense", "output_delta", "dense_vjp_params", "update"])
def test_a_missing_call_is_a_finding_not_a_crash(operation: str) -> None:
    step, batch = step_of(EARLY, "numpy", "reference")
    trace = trace_step(step, *batch)
    last = max(i for i, c in enumerate(trace.calls) if c.name == operation)
    del trace.calls[last]
    wrong = [f for f in compare_step(trace, "fp32").findings if f.status == "wrong"]
    assert [f.tensor for f in wrong] == ["calls"]
    assert operation in wrong[0].cause


def test_a_call_too_many_is_a_finding() -> None:
    step, batch = step_of(EARLY, "numpy", "reference")
    trace = trace_step(step, *batch)
    trace.calls.append(next(c for c in trace.calls if c.name == "dense_vjp_params"))
    wrong = [f for f in compare_step(trace, "fp32").findings if f.status == "wrong"]
    assert [f.tensor for f in wrong] == ["calls"]
    assert "dense_vjp_params" in wrong[0].cause
