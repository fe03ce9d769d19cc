"""The exact-arithmetic step: bit for bit the float64 one on every honest device, and on no device that rounds more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.faults import FAULTS, FaultyBackend, rounded_to
from support.orders import ORDERS, HalfKernels, With, with_product

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import ConfigError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import replay
from backprop_gpu.parity.exact_step import exact
from backprop_gpu.parity.trace import StepTrace

SIZES = [(1, 1), (5, 6, 6, 2), (30, 16, 8, 1), (3, 400, 7, 4), (20,) * 9]
DEVICES = ["numpy reference", "array_api_strict reference"]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("one_over_m", ["early", "late"])
@pytest.mark.parametrize("name", DEVICES)
def test_honest_devices_are_exact(name: str, one_over_m: str, sizes: tuple[int, ...]) -> None:
    device, _, kernels = name.partition(" ")
    for seed in range(3):
        report = exact(sizes, device, kernels=kernels, one_over_m=one_over_m, seed=seed)
        assert report.ok, report.summary()
        assert len(report.steps) == 2
        assert all(f.ratio == 0.0 for f in report.findings)


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_native_kernels_are_exact(sizes: tuple[int, ...]) -> None:
    for one_over_m in ("early", "late"):
        assert exact(sizes, "numpy", kernels="native", one_over_m=one_over_m).ok


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_summation_does_not_matter(order: str) -> None:
    for seed in range(3):
        assert exact((5, 6, 6, 2), with_product(ORDERS[order]), seed=seed).ok


def test_float64_is_exact_too() -> None:
    assert exact((5, 6, 6, 2), "numpy", dtype="float64").ok


class Forgets(ReferenceKernels):
    """A recording that leaves out what came first, as a graph would that was captured too late."""

    def capture(self, program: Any) -> Any:
        def replay(times: int) -> None:
            for _ in range(times):
                program()
            self.last[0][...] = 0.0

        return replay

    def dense(self, W: Any, *given: Any, **out: Any) -> None:
        self.last = [W]
        super().dense(W, *given, **out)


def test_a_recording_that_differs_from_the_step_is_seen() -> None:
    class Late(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Forgets(self)

    report = exact((5, 6, 6, 2), Late("numpy", np))
    assert report.first is not None
    assert (report.first.operation, report.first.tensor) == ("recorded step", "theta recorded")
    names = {f.tensor for f in exact((5, 6, 6, 2), "numpy").findings}
    assert {"J recorded", "theta recorded"} <= names


class Rounding(ReferenceKernels):
    """One operation alone rounds its operands."""

    def __init__(self, backend: Backend, operation: str, bits: int) -> None:
        super().__init__(backend)
        self.operation, self.bits, self.on = operation, bits, False
        self.xp = self  # the namespace of this kernel set, with a product of its own

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def matmul(self, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        return rounded_to(P, self.bits) @ rounded_to(Q, self.bits) if self.on else P @ Q

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name not in ("dense", "dense_vjp_input", "dense_vjp_params"):
            return found

        def call(*args: Any, **kwargs: Any) -> None:
            self.on = name == self.operation
            found(*args, **kwargs)
            self.on = False

        return call


@pytest.mark.parametrize("sizes", [(12, 20, 20, 4), (64, 128, 64, 8), (20,) * 9], ids=str)
@pytest.mark.parametrize("bits", [10, 7])
@pytest.mark.parametrize("operation", ["dense", "dense_vjp_input", "dense_vjp_params"])
def test_operands_of_lower_precision_are_seen_in_each_product(
    operation: str, bits: int, sizes: tuple[int, ...]
) -> None:
    report = exact(sizes, With(lambda backend: Rounding(backend, operation, bits)))
    assert report.first is not None
    assert report.first.operation == operation


def test_sums_in_half_precision_are_seen() -> None:
    assert not exact((12, 20, 20, 4), With(HalfKernels)).ok


@pytest.mark.parametrize("name", ["bias_missing", "sigmoid_prime_is_A", "labels_rolled"])
def test_faults_of_other_kinds_are_the_replays_business(name: str) -> None:
    """An exact-arithmetic step has ReLU alone and the batch as it is given: what it can see, it sees."""
    fault = FAULTS[name]
    report = exact((5, 6, 6, 4, 2), FaultyBackend(fault))
    assert report.ok == (name != "bias_missing")


def gradients(trace: StepTrace) -> dict[str, np.ndarray]:
    layout = trace.spec.layout
    return {name: trace.grad[at : at + n * k] for name, (at, (n, k)) in layout.items()}


def test_the_step_is_not_trivial() -> None:
    report = exact((12, 20, 20, 4), "numpy")
    assert report.trace is not None
    assert all(np.any(g) for g in gradients(report.trace).values())
    assert np.any(report.trace.theta_after != report.trace.theta)


@pytest.mark.parametrize("right", [True, False])
def test_its_report_has_a_picture_and_a_case(tmp_path: Path, right: bool) -> None:
    report = exact((12, 20, 20, 4), "numpy" if right else With(HalfKernels))
    report.plot(tmp_path / "exact.png")
    assert (tmp_path / "exact.png").stat().st_size > 5000
    report.save(tmp_path / "case")
    again = replay(tmp_path / "case")
    assert again.ok is right
    assert again.first == report.first


def test_a_network_gives_its_sizes_and_odd_outputs_are_rounded_down() -> None:
    net = DenseNet([9, 8, 5], loss="squared_error", device="numpy")
    report = exact(net, "numpy")
    assert report.ok
    assert report.about["sizes"] == [9, 8, 4]
    assert report.about["claim"] == "exact"


@pytest.mark.parametrize("kernels", ["reference", "native"])
def test_a_network_is_judged_with_its_own_kernels_and_device(kernels: str) -> None:
    net = DenseNet([9, 8, 4], loss="squared_error", device="numpy", kernels=kernels)
    same = [exact(net), exact(net, "numpy"), exact(net, net.backend)]
    assert {report.about["kernels"] for report in same} == {type(net.kernels).__name__}
    assert exact(net, "array_api_strict").about["kernels"] == "ReferenceKernels"
    assert exact(net, kernels="reference").about["kernels"] == "ReferenceKernels"


def test_kernels_that_claim_less_are_not_judged_so() -> None:
    class Half(HalfKernels):
        claim = "fp16"

    with pytest.raises(ConfigError, match="claim fp16"):
        exact((5, 6, 2), With(Half))


def test_sizes_that_are_none_are_refused() -> None:
    for wrong in ([3], [3, 0, 1], []):
        with pytest.raises(ConfigError, match="sizes needs inputs and outputs"):
            exact(wrong, "numpy")
    with pytest.raises(ConfigError, match="a DenseNet, a model with a net"):
        exact(3, "numpy")
