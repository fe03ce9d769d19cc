"""Where a function of the network cannot take the complex step, central differences decide, clear of kinks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.small_nets import LOSS_CASES, ROWS, rows, small_net

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.gradcheck import gradcheck
from backprop_gpu.gradcheck.costs import CentralCost, ComplexCost, Rows
from backprop_gpu.maths.activations import Activation
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.network.dense_net import DenseNet

CENTRAL = "central difference"


def refuses(xp: Any, Z: Any) -> Any:
    """softsign, for real numbers alone."""
    if np.iscomplexobj(Z):
        raise TypeError("real numbers only")
    return Z / (1.0 + np.abs(Z))


def drops(xp: Any, Z: Any) -> Any:
    """softsign with NumPy's own |z|, which is not analytic."""
    return Z / (1.0 + np.abs(Z))


def softsign_vjp(xp: Any, dA: Any, Z: Any, A: Any) -> Any:
    return dA / (1.0 + np.abs(Z)) ** 2


def too_steep_vjp(xp: Any, dA: Any, Z: Any, A: Any) -> Any:
    return 1.001 * softsign_vjp(xp, dA, Z, A)


def hard_tanh(xp: Any, Z: Any) -> Any:
    """min(max(z, -1), 1) for real numbers alone: kinks that are not at 0."""
    if np.iscomplexobj(Z):
        raise TypeError("real numbers only")
    return np.clip(Z, -1.0, 1.0)


def hard_tanh_vjp(xp: Any, dA: Any, Z: Any, A: Any) -> Any:
    return np.where(np.abs(Z) < 1.0, dA, 0.0)


def net_with(forward: Any, vjp: Any, sizes: list[int] | None = None) -> DenseNet:
    own = Activation("own", forward, vjp)
    return small_net(sizes or [4, 5, 2], activation=own, loss="squared_error", kernels="reference")


@pytest.mark.parametrize("forward", [refuses, drops])
def test_differences_decide_where_the_complex_step_cannot(forward: Any) -> None:
    report = gradcheck(net_with(forward, softsign_vjp), rows(4), LOSS_CASES["squared"][2], l2=0.1)
    assert report.ok, report
    assert report.tensors[0].method == report.tensors[1].method == CENTRAL
    assert 0.0 < report.error <= 1e-6


@pytest.mark.parametrize("forward", [refuses, drops])
def test_and_they_find_a_wrong_derivative(forward: Any) -> None:
    report = gradcheck(net_with(forward, too_steep_vjp), rows(4), LOSS_CASES["squared"][2])
    assert [t.name for t in report.tensors if not t.ok] == ["W1", "b1"]
    assert report.tensors[0].method == CENTRAL
    assert "constant factor (got/want 1.001" in report.tensors[0].cause


@pytest.mark.parametrize("vjp", [hard_tanh_vjp, softsign_vjp])
def test_in_a_normalized_layer_kinks_are_looked_for_at_what_the_activation_sees(vjp: Any) -> None:
    """gamma X + beta by weighted statistics; a wrong derivative there is found in the first tensors of the layer."""
    own = Activation("own", hard_tanh, vjp)
    net = DenseNet([4, 5, 2], activation=own, loss="squared_error", batch_norm=True, device="cpu", kernels="reference")
    weights = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])
    report = gradcheck(net, rows(4), LOSS_CASES["squared"][2], weights)
    assert {t.name: t.method for t in report.tensors}["gamma1"] == CENTRAL
    assert report.ok == (vjp is hard_tanh_vjp), report
    if not report.ok:
        assert [t.name for t in report.tensors if not t.ok] == ["W1", "b1", "gamma1"]
        assert report.summary().startswith("gradient wrong in layer 1, dW1")


@dataclass(frozen=True)
class RealOnly(SquaredError):
    """The squared error for real numbers alone."""

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return super().value(xp, Z, Y) + 0.0 * np.floor(Z).sum()  # floor refuses complex numbers


def test_a_loss_of_ones_own() -> None:
    net = small_net([4, 5, 2], activation="relu", loss=RealOnly(), kernels="reference")
    report = gradcheck(net, rows(4), LOSS_CASES["squared"][2], np.arange(1.0, 1.0 + ROWS), l1=0.1)
    assert report.ok, report
    assert {t.method for t in report.tensors} == {CENTRAL}


def test_a_right_gradient_stays_with_the_complex_step_and_its_threshold() -> None:
    class Slightly(ReferenceKernels):
        def dense_vjp_params(self, dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
            super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            dW *= 1.0 + 1e-9  # far below what differences can see

    class Slight(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Slightly(self)

    net = small_net([4, 5, 2], activation="tanh", loss="squared_error", device=Slight("numpy", np))
    report = gradcheck(net, rows(4), LOSS_CASES["squared"][2])
    assert [t.name for t in report.tensors if not t.ok] == ["W1", "W2"]
    assert {t.method for t in report.tensors} == {"complex step"}


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
def test_both_ways_to_differentiate_agree(activation: str) -> None:
    net = small_net([4, 5, 2], activation=activation, loss="huber")
    given = Rows(rows(4), LOSS_CASES["squared"][2], None)
    central, sharp = CentralCost(net, given, {"l2": 0.3}), ComplexCost(net, given, {"l2": 0.3})
    rng = np.random.default_rng(0)
    for name, value in net.parameters().items():
        d = rng.standard_normal(value.shape)
        found = central.slope(name, d)
        assert abs(found.value - sharp.derivative(name, d)) <= found.error <= 1e-7


# --- kinks ---------------------------------------------------------------------------------------------------------


def on_a_kink(at: float, vjp: Any = hard_tanh_vjp) -> tuple[DenseNet, Rows]:
    """Two hidden units; the pre-activation of the first is ``at`` in the first row, whatever W2 and b2."""
    net = net_with(hard_tanh, vjp, [1, 2, 1])
    named = net.parameters() | {"W1": np.array([[1.0], [0.5]]), "b1": np.zeros((2, 1))}
    net.set_parameters(named)
    return net, Rows(np.array([[at], [0.3], [-0.4]]), np.array([[0.2], [0.1], [-2.0]]), None)


def test_a_direction_that_crosses_a_kink_tells_nothing() -> None:
    net, given = on_a_kink(1.0)
    cost = CentralCost(net, given, {})
    assert cost.slope("W1", np.array([[1.0], [0.0]])).error > 0.01  # Z goes through 1
    assert cost.slope("b1", np.array([[1.0], [0.5]])).error > 0.01
    assert cost.slope("W1", np.array([[0.0], [1.0]])).error < 1e-9  # the other unit's Z is 0.5
    assert cost.slope("W2", np.array([[1.0, 1.0]])).error < 1e-9


def test_near_a_kink_a_smaller_step_is_taken() -> None:
    net, given = on_a_kink(1.0 - 2e-6)  # a step of 1e-5 goes past it, one of 1e-6 does not
    d = np.array([[1.0], [0.0]])
    want = CentralCost(net, given, {}).slope("W1", d)
    step, h = net.parameters(), 1e-7
    costs = []
    for side in (1.0, -1.0):
        net.set_parameters(step | {"W1": step["W1"] + side * h * d})
        costs.append(net.cost(given.X, given.Y))
    assert want.value == pytest.approx((costs[0] - costs[1]) / (2 * h), rel=1e-6)
    assert want.error < 1e-7


def test_at_a_tie_any_slope_in_between_is_right_and_any_other_function_is_not() -> None:
    def either(xp: Any, dA: Any, Z: Any, A: Any) -> Any:
        return np.where(np.abs(Z) <= 1.0, dA, 0.0)  # 1 at the tie where hard_tanh_vjp has 0

    for vjp in (hard_tanh_vjp, either):
        net, given = on_a_kink(1.0, vjp)
        report = gradcheck(net, given.X, given.Y)
        assert report.ok, report
    net, given = on_a_kink(1.0, lambda xp, dA, Z, A: dA * (1.0 - A * A))
    assert [t.name for t in gradcheck(net, given.X, given.Y).tensors if not t.ok] == ["W1", "b1"]


def test_where_nothing_can_be_told_the_report_says_so() -> None:
    noise = np.random.default_rng(0)

    def noisy(xp: Any, Z: Any) -> Any:
        return np.tanh(np.real(Z)) * (1.0 + 0.1 * noise.standard_normal(Z.shape))

    net = net_with(noisy, lambda xp, dA, Z, A: dA * (1.0 - np.tanh(Z) ** 2))
    report = gradcheck(net, rows(4), LOSS_CASES["squared"][2])
    assert not report.ok
    assert "a kink or noise in every direction" in report.tensors[0].cause
    assert math.isnan(report.error)


def test_zero_weights_under_l1_lie_on_a_kink_of_the_penalty() -> None:
    net = small_net([4, 5, 2], activation="tanh", loss="squared_error")
    named = net.parameters()
    named["W1"][0, 0] = 0.0
    net.set_parameters(named)
    cost = CentralCost(net, Rows(rows(4), LOSS_CASES["squared"][2], None), {"l1": 0.1})
    entry = np.zeros((5, 4))
    entry[0, 0] = 1.0
    assert cost.slope("W1", entry).error > 0.01
    assert cost.slope("W1", np.roll(entry, 1)).error < 1e-9


# --- what cannot be judged -----------------------------------------------------------------------------------------


def test_a_gradient_of_nan_is_called_so_and_not_a_kink() -> None:
    for forward in (refuses, drops):
        net = net_with(forward, lambda xp, dA, Z, A: softsign_vjp(xp, dA, Z, A) * np.where(Z > 0.5, np.nan, 1.0))
        report = gradcheck(net, rows(4), LOSS_CASES["squared"][2])
        assert [t.name for t in report.tensors if not t.ok] == ["W1", "b1"]
        assert "are NaN or infinite" in report.summary()
        assert "kink" not in report.summary()
        assert np.isnan(report.first.got)
        assert np.isfinite(report.first.want)


def test_a_cost_of_nan_is_called_so() -> None:
    net = net_with(lambda xp, Z: np.log(Z), lambda xp, dA, Z, A: dA / Z)
    with np.errstate(all="ignore"):
        report = gradcheck(net, rows(4), LOSS_CASES["squared"][2])
    assert not any(t.ok for t in report.tensors)
    assert "the cost is nan at these parameters" in report.summary()
