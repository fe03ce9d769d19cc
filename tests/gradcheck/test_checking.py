"""The complex-step check agrees with every right gradient: activations, losses, penalties, conventions, kinks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from support.small_nets import LOSS_CASES, ROWS, rows, small_net

from backprop_gpu.errors import ConfigError, DataError, ShapeError
from backprop_gpu.gradcheck import THRESHOLD, gradcheck
from backprop_gpu.maths.activations import ACTIVATIONS, Activation, tanh
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.network.targets import check_targets

HIDDEN = [
    *(name for name, a in ACTIVATIONS.items() if not a.output_only),
    {"name": "leaky_relu", "slope": 0.3},
    {"name": "elu", "alpha": 0.7},
]
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "l2": {"l2": 0.3},
    "l1": {"l1": 0.2},
    "l1+l2": {"l1": 0.2, "l2": 0.3},
    "penalty_over_none": {"l1": 0.2, "l2": 0.3, "penalty_over": "none"},
}
KERNELS = ("native", "reference")


def check(net: DenseNet, X: np.ndarray, y: np.ndarray, weights: Any = None, **settings: Any) -> None:
    """The gradient agrees to the promised 12 digits, and tensor for tensor."""
    report = gradcheck(net, X, y, weights, **settings)
    assert [t.name for t in report.tensors] == list(net.parameters())
    assert report.ok, report
    assert report.error <= THRESHOLD == 1e-12


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("case", LOSS_CASES)
def test_every_activation_and_loss_and_penalty(case: str, kernels: str) -> None:
    """Each pair of an activation, a loss and a penalty; not all triples."""
    loss, outputs, y = LOSS_CASES[case]
    penalties = itertools.cycle(PENALTIES.values())
    for activation in HIDDEN[list(LOSS_CASES).index(case) :] + HIDDEN[: list(LOSS_CASES).index(case)]:
        net = small_net([4, 5, 3, outputs], activation=activation, loss=loss, kernels=kernels)
        check(net, rows(4), y, **next(penalties))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("one_over_m", ["early", "late"])
@pytest.mark.parametrize("delta", ["fused", "literal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_convention(kernels: str, reduction: str, one_over_m: str, delta: str, weighted: bool) -> None:
    weights = [0.0, 2.0, 0.25, 1.0, 7.0, 0.0] if weighted else None
    first = [kernels == "native", reduction == "sum", one_over_m == "early", delta == "literal", weighted].count(
        True
    ) % 2
    for loss, outputs, y in list(LOSS_CASES.values())[first::2]:  # the others meet each two of the conventions as well
        net = small_net([4, 5, 3, outputs], activation=["tanh", "gelu"], loss=loss, kernels=kernels)
        settings = {"reduction": reduction, "one_over_m": one_over_m, "delta": delta}
        check(net, rows(4), y, weights, l1=0.05, l2=0.3, **settings)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", HIDDEN, ids=str)
def test_dropout(activation: Any, kernels: str) -> None:
    first = HIDDEN.index(activation) % 3
    for loss, outputs, y in list(LOSS_CASES.values())[first::3]:
        net = small_net([4, 9, 6, outputs], activation=activation, loss=loss, dropout=[0.4, 0.25], kernels=kernels)
        check(net, rows(4), y, one_over_m="late")


@pytest.mark.parametrize("sizes", [[1, 1], [4, 2], [4, 1, 1, 1], [3, 1, 17, 2, 30, 1]], ids=str)
def test_any_depth_and_width(sizes: list[int]) -> None:
    net = small_net(sizes, activation="tanh", loss="squared_error")
    check(net, rows(sizes[0]), rows(sizes[-1], seed=5), l2=0.1)
    check(net, rows(sizes[0], n=1), rows(sizes[-1], n=1), l2=0.1)


@pytest.mark.parametrize("device", ["array_api_strict", "array_api_strict:device1"])
def test_on_another_namespace_and_device(device: str) -> None:
    for loss, outputs, y in LOSS_CASES.values():
        net = small_net([4, 5, 3, outputs], activation=["gelu", "relu"], loss=loss, dropout=0.3, device=device)
        check(net, rows(4), y, np.arange(1.0, 1.0 + ROWS), l1=0.05, l2=0.3, one_over_m="late")


def test_a_float32_network_is_checked_in_float64_and_left_as_it_was() -> None:
    net = small_net([4, 5, 1], dtype="float32")
    before = net.params.theta.copy()
    check(net, rows(4), LOSS_CASES["binary"][2])
    assert net.params.theta.dtype == np.float32
    np.testing.assert_array_equal(net.params.theta, before)


# --- kinks: at a tie the derivative is the one that the formulas take -----------------------------------------------


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", HIDDEN, ids=str)
def test_zero_pre_activations(activation: Any, kernels: str) -> None:
    X, y = rows(4), LOSS_CASES["binary-soft"][2]
    X[2:4] = 0.0  # with zero biases: Z[1] is exactly zero for these rows
    net = DenseNet([4, 5, 3, 2], activation=activation, device="cpu", dtype="float64", kernels=kernels)
    check(net, X, y, l2=0.1)
    named = net.parameters()
    named["W1"][1] = 0.0  # a unit whose Z is zero for every row, in front of weights that are not
    net.set_parameters(named)
    check(net, X, y, l2=0.1)


@pytest.mark.parametrize("smooth", ["elu", "silu", "gelu", "gelu_tanh", "tanh", "identity"])
@pytest.mark.parametrize("kinked", ["relu", "leaky_relu", {"name": "elu", "alpha": 0.7}], ids=str)
def test_zero_pre_activations_behind_a_smooth_layer(smooth: str, kinked: Any) -> None:
    X, y = rows(4), LOSS_CASES["binary-soft"][2]
    X[2:4] = 0.0  # g(0) = 0, so Z[2] is exactly zero too: the imaginary part must not leak into it
    for seed in range(3):
        net = DenseNet([4, 5, 3, 2], activation=[smooth, kinked], device="cpu", dtype="float64", seed=seed)
        check(net, X, y)


@pytest.mark.parametrize("kernels", KERNELS)
def test_dead_units(kernels: str) -> None:
    net = small_net([4, 5, 3, 1], kernels=kernels)
    named = net.parameters()
    named["b1"][:2] = -1e3
    named["b2"][:] = -1e3  # no gradient reaches W1, W2 at all
    net.set_parameters(named)
    check(net, rows(4), LOSS_CASES["binary"][2])
    check(net, rows(4), LOSS_CASES["binary"][2], l1=0.1, l2=0.1)


@pytest.mark.parametrize("kernels", KERNELS)
def test_zero_weights_under_l1(kernels: str) -> None:
    net = small_net([4, 5, 1], activation="tanh", kernels=kernels)
    named = net.parameters()
    named["W1"][::2] = 0.0
    named["W1"][1, 1] = -0.0
    named["W2"][:, :3] = 0.0
    net.set_parameters(named)
    check(net, rows(4), LOSS_CASES["binary"][2], l1=0.7, l2=0.2)


def test_zero_everything() -> None:
    net = DenseNet([4, 5, 3], loss="absolute_error", device="cpu", dtype="float64", initializer="zeros")
    check(net, np.zeros((ROWS, 4)), np.zeros((ROWS, 3)), l1=1.0)


@pytest.mark.parametrize("loss", ["absolute_error", {"name": "huber", "threshold": 0.5}], ids=str)
def test_residuals_on_the_kink_of_a_loss(loss: Any) -> None:
    net = small_net([2, 2], loss=loss)
    net.set_parameters({"W1": np.eye(2), "b1": np.zeros((2, 1))})
    X = np.array([[1.0, 2.0], [0.5, -4.0], [3.0, 0.25]])
    offset = np.array([[0.0, 0.5], [-0.5, 0.0], [0.25, 7.0]])  # Z - Y: 0 and exactly the threshold among them
    check(net, X, X - offset)


def test_saturated_outputs_the_logits_form_is_the_derivative_and_the_literal_form_says_where_it_is_not() -> None:
    net = small_net([2, 1])
    net.set_parameters({"W1": np.array([[800.0, 0.0]]), "b1": np.zeros((1, 1))})
    X, y = np.array([[1.0, 0.3], [-1.0, 0.2]]), np.array([0.0, 0.0])  # AL is exactly 1 in the first row, wrongly
    check(net, X, y)
    report = gradcheck(net, X, y, delta="literal")
    assert [t.name for t in report.tensors if not t.ok] == ["W1", "b1"]
    bias = report.tensors[1]
    assert (bias.worst, bias.got, bias.want) == ((0, 0), 0.0, 0.5)


# --- what is not a fault must not be called one --------------------------------------------------------------------


def test_a_gradient_that_cancels_to_rounding_is_not_called_wrong() -> None:
    X = rows(4, n=20)
    y = X @ [1.0, -2.0, 0.5, 3.0] + 0.1 * rows(1, n=20)[:, 0]
    best = np.linalg.lstsq(np.c_[X, np.ones(20)], y, rcond=None)[0]
    net = small_net([4, 1], loss="squared_error")
    net.set_parameters({"W1": best[None, :4], "b1": best[4:].reshape(1, 1)})  # trained to the optimum
    check(net, X, y)


def test_balanced_labels_at_equal_weights_are_not_called_wrong() -> None:
    net = DenseNet([4, 5, 4, 1], activation="softplus", device="cpu", dtype="float64", initializer="zeros")
    check(net, rows(4), np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0]))  # dW3 = log 2 * sum dZ = 0, but for rounding


# --- the network that was given is the one that is checked ---------------------------------------------------------


def test_an_activation_object_is_checked_itself_not_its_namesake() -> None:
    wrong = Activation("tanh", tanh, lambda xp, dA, Z, A: dA * (1.0 - A))
    report = gradcheck(small_net([4, 3, 1], activation=wrong, kernels="reference"), rows(4), LOSS_CASES["binary"][2])
    assert [t.name for t in report.tensors if not t.ok] == ["W1", "b1"]


def test_an_activation_of_ones_own_can_be_checked() -> None:
    cube = Activation("cube", lambda xp, Z: Z * Z * Z, lambda xp, dA, Z, A: dA * (3.0 * Z * Z))
    check(small_net([4, 3, 1], activation=cube, kernels="reference"), rows(4), LOSS_CASES["binary"][2])


class TwiceTheDerivative(SquaredError):
    """The fault of scikit-learn#8349 with two outputs: the gradient is n_outputs times that of the reported cost."""

    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        return Z - Y


def test_a_loss_object_is_checked_itself_not_its_namesake() -> None:
    report = gradcheck(small_net([4, 3, 2], loss=TwiceTheDerivative()), rows(4), LOSS_CASES["squared"][2])
    assert not any(t.ok for t in report.tensors)
    assert all(t.got == pytest.approx(2.0 * t.want, rel=1e-12) for t in report.tensors)


# --- an independent witness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in LOSS_CASES if c != "absolute"])
def test_central_differences_of_the_reported_cost_agree_with_the_gradient(case: str) -> None:
    loss, outputs, y = LOSS_CASES[case]
    net, X = small_net([4, 3, outputs], activation="tanh", loss=loss), rows(4)
    step = TrainingStep(net, "sgd")
    targets = check_targets(y, net.loss, outputs, ROWS)
    step.gradient(net.upload_columns(X), net.upload_columns(targets))
    gradient = net.params.named(net.params.grad.copy())
    named, h = net.parameters(), 1e-5
    for name, g in gradient.items():
        for entry in np.ndindex(g.shape):
            costs = []
            for sign in (1.0, -1.0):
                moved = named[name].copy()
                moved[entry] += sign * h
                net.set_parameters(named | {name: moved})
                costs.append(net.cost(X, y))
            # Truncation h^2 |J'''| / 6 and rounding eps |J| / h are each below 1e-9 here.
            assert (costs[0] - costs[1]) / (2.0 * h) == pytest.approx(g[entry], abs=3e-9)


# --- the door ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report_and_another_another() -> None:
    net, X, y = small_net([4, 5, 1]), rows(4), LOSS_CASES["binary"][2]
    errors = [[t.error for t in gradcheck(net, X, y, seed=s).tensors] for s in (1, 1, 2)]
    assert errors[0] == errors[1] != errors[2]


def test_input_that_the_network_would_not_take() -> None:
    net, X, y = small_net([4, 5, 1]), rows(4), LOSS_CASES["binary"][2]
    with pytest.raises(ShapeError, match=r"X must be \(n_samples, 4\)"):
        gradcheck(net, rows(3), y)
    with pytest.raises(DataError, match="between 0 and 1"):
        gradcheck(net, X, y + 1.0)
    with pytest.raises(DataError, match="sample_weight"):
        gradcheck(net, X, y, -np.ones(ROWS))
    with pytest.raises(ConfigError, match="does not take clip_norm, schedule"):
        gradcheck(net, X, y, schedule="cosine", clip_norm=1.0)
    with pytest.raises(ConfigError, match="did you mean 'literal'"):
        gradcheck(net, X, y, delta="litteral")
