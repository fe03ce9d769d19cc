"""Parity of the loss of several class labels: honest devices are found right, faults of a group are found."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check, replay
from backprop_gpu.parity.claims import bounds_of
from backprop_gpu.parity.oracle.losses import loss_delta, loss_value
from backprop_gpu.parity.report import Report

GROUPS = (3, 1, 2)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((14, 4))
Y = np.hstack([np.eye(n)[RNG.integers(0, n, 14)] for n in GROUPS])
W = RNG.integers(0, 3, 14) + np.eye(1, 14)[0]


def checked(device: Any, kernels: str = "reference", dtype: str = "float32", **settings: Any) -> Report:
    loss = {"name": "grouped_cross_entropy", "groups": list(GROUPS)}
    net = DenseNet([4, 5, 6], loss=loss, device=device, kernels=kernels, dtype=dtype, seed=3)
    return check(net, X, Y, dtype=dtype, **settings)


def test_the_formulas_are_those_of_the_labels_one_by_one() -> None:
    """In closed form, for logits that are 0: softmax is 1/n, and L is the sum of log n."""
    B = bounds_of("numpy", "fp64")
    z, y = B.given(np.zeros((6, 14))), B.given(Y.T)
    value = loss_value(B, "grouped_cross_entropy", {"groups": GROUPS}, z, y).v
    np.testing.assert_allclose(value, np.full((1, 14), np.log(3.0) + np.log(2.0)), rtol=1e-15)
    share = np.repeat([1.0 / n for n in GROUPS], GROUPS)[:, None]
    np.testing.assert_allclose(loss_delta(B, "grouped_cross_entropy", {"groups": GROUPS}, z, y).v, share - Y.T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_honest_devices_are_found_right(case: Case, dtype: str) -> None:
    for delta, one_over_m, w in itertools.product(("fused", "literal"), ("early", "late"), (None, W)):
        settings = {"delta": delta, "one_over_m": one_over_m, "sample_weight": w, "micro_batch": 5, "steps": 2}
        report = checked(case.backend, case.kind, dtype, **settings)
        assert report.ok, report.summary()
        assert not [f for f in report.findings if f.status == "warning"]


def test_a_step_is_written_down_and_judged_again(tmp_path: Path) -> None:
    checked("numpy").save(tmp_path / "case")
    assert replay(tmp_path / "case").ok


def over_all_rows(loss: Any, Z: np.ndarray, dZ: np.ndarray) -> None:
    """Softmax over every label at once."""
    e = np.exp(Z - Z.max(axis=0))
    dZ[...] = dZ - loss.link.forward(np, Z) / len(X) + e / e.sum(axis=0) / len(X)


def a_label_forgotten(loss: Any, Z: np.ndarray, dZ: np.ndarray) -> None:
    """The last label's rows."""
    dZ[4:] = 0.0


@pytest.mark.parametrize("act", [over_all_rows, a_label_forgotten])
def test_a_fault_is_found_in_the_outputs(act: Callable[..., None]) -> None:
    class Faulty(ReferenceKernels):
        def output_delta(self, loss: Any, form: str, Z: Any, Y: Any, weights: Any, **out: Any) -> None:
            super().output_delta(loss, form, Z, Y, weights, **out)
            act(loss, Z, out["dZ"])

    class Device(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Faulty(self)

    report = checked(Device("numpy", np))
    assert report.first is not None
    assert report.first.tensor == "dZ2"


def test_a_cost_without_one_label_is_found() -> None:
    class Faulty(ReferenceKernels):
        def output_delta(self, loss: Any, form: str, Z: Any, Y: Any, weights: Any, **out: Any) -> None:
            last = loss.value(np, np.where(np.arange(6)[:, None] < 4, 0.0, Z), Y) - np.log(3.0)
            super().output_delta(loss, form, Z, Y, weights, **out)
            out["value"][...] = out["value"] - np.sum(last) / len(X)

    class Device(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Faulty(self)

    report = checked(Device("numpy", np))
    assert report.first is not None
    assert report.first.tensor == "value"
