"""Parity of ensembles: honest devices are found right, and faults are found where they enter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.checking import check, replay
from backprop_gpu.parity.report import Report

RNG = np.random.default_rng(0)
X, Y, W = RNG.standard_normal((20, 4)), RNG.integers(0, 3, 20), RNG.integers(0, 3, 20) + np.eye(1, 20)[0]
K = 3


def net_of(device: Any, kernels: str = "reference", dtype: str = "float32", **settings: Any) -> DenseNet:
    given = {"activation": ["tanh", "gelu"], "dropout": [0.2, 0.0], "adapters": "all"} | settings
    return DenseNet(
        [4, 6, 5, 3],
        loss="categorical_cross_entropy",
        members=K,
        device=device,
        kernels=kernels,
        dtype=dtype,
        seed=3,
        **given,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases(without=["array_api_strict"]))
def test_honest_devices_are_found_right(case: Case, dtype: str) -> None:
    for one_over_m, size, adapters in (("early", 7, "all"), ("late", None, "first"), ("late", 7, "all")):
        net = net_of(case.backend, case.kind, dtype, adapters=adapters, input_scaling=size is None)
        report = check(
            net, X, Y, dtype=dtype, l2=0.3, steps=2, one_over_m=one_over_m, micro_batch=size, sample_weight=W
        )
        assert report.ok, report.summary()
        assert not [f for f in report.findings if f.status == "warning"]
        names = {f.tensor for f in report.findings}
        assert {"member's W1", "member's dW1", "dR1", "dW1", "dW2", "db3", "predicted AL"} <= names
        assert ("dS2" in names) == (adapters == "all")


def test_recorded_epochs_are_found_right() -> None:
    assert check(net_of("numpy", "native", adapters="first"), X, Y, epochs=3, batch_size=8).ok


def test_a_step_is_written_down_and_judged_again(tmp_path: Path) -> None:
    report = check(net_of("numpy"), X, Y, sample_weight=W, micro_batch=9)
    report.save(tmp_path / "case")
    again = replay(tmp_path / "case")
    assert again.ok
    assert [f.ratio for f in again.findings] == [
        f.ratio for f in report.findings if f.tensor not in ("X", "Y", "weights", "predicted AL")
    ]


def faulty(operation: str, change: Callable[[dict[str, Any]], None]) -> Report:
    """A step whose kernel is given other arguments."""
    net = net_of("numpy")
    honest = getattr(ReferenceKernels, operation)

    class Faulty(type(net.kernels)):  # type: ignore[misc]
        pass

    def wrong(self: Any, *given: Any, **named: Any) -> None:
        keys = list(honest.__annotations__)
        arguments = dict(zip(keys, given, strict=False)) | named
        change(arguments)
        honest(self, **arguments)

    setattr(Faulty, operation, wrong)
    kernels = Faulty(net.backend)
    original = type(net.backend).kernels
    try:
        type(net.backend).kernels = lambda self, kind: kernels  # type: ignore[method-assign]
        return check(net, X, Y, micro_batch=12, kernels="reference")
    finally:
        type(net.backend).kernels = original  # type: ignore[method-assign]


FAULTS: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("member_weights", lambda a: a.update(s=None), "member's W1"),
    ("member_weights", lambda a: a.update(r=np.ones_like(a["r"])), "member's W1"),
    ("member_weights_vjp", lambda a: a.update(accumulate=False), "dW1"),
    ("member_weights_vjp", lambda a: a.update(accumulate_own=False), "dR1"),
    ("member_weights_vjp", lambda a: a.update(G=a["G"] * K), "dW1"),
    ("member_weights_vjp", lambda a: a.update(W=a["W"].copy() * 2), "dR1"),
    ("output_delta", lambda a: a.update(inverse_denominator=a["inverse_denominator"] * K), "dZ3"),
    ("dense_vjp_params", lambda a: a.update(accumulate=not a["accumulate"]), "dW3"),
]


@pytest.mark.parametrize(("operation", "change", "tensor"), FAULTS)
def test_faults_are_found_where_they_enter(
    operation: str, change: Callable[[dict[str, Any]], None], tensor: str
) -> None:
    report = faulty(operation, change)
    assert report.first is not None
    assert report.first.tensor == tensor, report.summary()


def test_a_step_that_forgets_the_1_over_k_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TrainingStep.step_scalars

    def forgets(self: TrainingStep, k: int, D: Any) -> list[float]:
        return [D.inverse, *honest(self, k, D)[1:]]

    monkeypatch.setattr(TrainingStep, "step_scalars", forgets)
    report = check(net_of("numpy"), X, Y)
    assert report.first is not None
    assert report.first.tensor == "1/D", report.summary()
    assert "summed over the 3 members, not averaged: the 1/k is missing" in report.summary()


def test_a_head_of_another_member_is_found() -> None:
    net = net_of("numpy")
    honest = DenseNet.__init__

    def swapped(self: DenseNet, *given: Any, **named: Any) -> None:
        honest(self, *given, **named)
        self.parts[0].W[3], self.parts[1].W[3] = self.parts[1].W[3], self.parts[0].W[3]

    DenseNet.__init__ = swapped  # type: ignore[method-assign]
    try:
        report = check(net, X, Y)
    finally:
        DenseNet.__init__ = honest  # type: ignore[method-assign]
    assert report.first is not None
    assert report.first.tensor in ("Z3", "A3"), report.summary()
