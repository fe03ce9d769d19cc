"""The complex-step check catches what can be wrong with a gradient, and names the tensor and the entry.

Each fault is a kernel set with one thing wrong, handed to the network by a backend that knows no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.small_nets import LOSS_CASES, ROWS, rows, small_net

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cpu.kernels import NativeKernels
from backprop_gpu.backends.cpu.library import native_library
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.gradcheck import GradientReport, gradcheck
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep

# W1 (4, 3), W2 (4, 4), W3 (2, 4): shapes tell the layers apart, and a square one can be transposed.
SIZES = [3, 4, 4, 2]
W1, W2, W3 = (4, 3), (4, 4), (2, 4)
ALL = ("W1", "b1", "W2", "b2", "W3", "b3")
WEIGHTS = ("W1", "W2", "W3")


class FaultyBackend(Backend):
    """NumPy with a kernel set of one's own."""

    def __init__(self, *classes: type) -> None:
        super().__init__("numpy", np)
        self.kernel_set = type("Faulty", classes, {})

    def kernels(self, kind: str = "auto") -> Any:
        library = [native_library()] if issubclass(self.kernel_set, NativeKernels) else []
        return self.kernel_set(self, *library)


class ParameterGradient:
    """Faults of dW: ``spoil`` rewrites dW in place after it was computed rightly."""

    at: Any = None  # the shape of the layer's W; None means every layer

    def dense_vjp_params(self, dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
        super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
        if self.at in (None, dW.shape):
            self.spoil(dW, dZ, A_prev, scale)


class InputGradient:
    """Faults of dZ[l-1] and db[l-1], seen from the layer l whose W has the shape ``at``."""

    at: Any = None

    def dense_vjp_input(
        self, W: Any, dZ: Any, activation_prev: Any, dropout_prev: Any, A_prev: Any, saved_prev: Any, **out: Any
    ) -> None:
        given = [W, dZ, activation_prev, dropout_prev, A_prev, saved_prev]
        if self.at in (None, W.shape):
            given = self.arguments(*given)
        super().dense_vjp_input(*given, **out)
        if self.at in (None, W.shape):
            self.spoil(given, **out)

    def arguments(self, *given: Any) -> list[Any]:
        return list(given)

    def spoil(self, given: list[Any], **out: Any) -> None:
        pass


class OutputDelta:
    """Faults of the first derivative: ``settings`` rewrites the arguments, ``spoil`` the results."""

    def output_delta(self, loss: Any, form: str, Z: Any, Y: Any, weights: Any, **out: Any) -> None:
        weights, out = self.settings(Z, weights, dict(out))
        super().output_delta(loss, form, Z, Y, weights, **out)
        self.spoil(**out)

    def settings(self, Z: Any, weights: Any, out: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return weights, out

    def spoil(self, **out: Any) -> None:
        pass


# --- the faults ----------------------------------------------------------------------------------------------------


class WrongSign(ParameterGradient):
    at = W2

    def spoil(self, dW: Any, *_: Any) -> None:
        dW *= -1.0


class TransposedParameterGradient(ParameterGradient):
    at = W2

    def spoil(self, dW: Any, *_: Any) -> None:
        dW[...] = dW.T.copy()


class UsesTheOutputNotTheInput(ParameterGradient):
    at = W2

    def spoil(self, dW: Any, dZ: Any, A_prev: Any, scale: Any) -> None:
        dW[...] = dZ @ np.tanh(A_prev).T  # g applied once too often


class ScaleTwice(ParameterGradient):
    def spoil(self, dW: Any, dZ: Any, A_prev: Any, scale: Any) -> None:
        dW *= scale


class OneMissingExample(ParameterGradient):
    at = W3

    def spoil(self, dW: Any, dZ: Any, A_prev: Any, scale: Any) -> None:
        dW -= dZ[:, -1:] @ A_prev[:, -1:].T


class LowPrecision(ParameterGradient):
    at = W1

    def spoil(self, dW: Any, *_: Any) -> None:
        dW[...] = dW.astype(np.float32)


class NotANumber(ParameterGradient):
    at = W2

    def spoil(self, dW: Any, *_: Any) -> None:
        dW[3, 1] = np.nan


class NoSlope(InputGradient):
    at = W3

    def spoil(self, given: Any, *, scale: Any, dZ_prev: Any, db_prev: Any, accumulate: bool) -> None:
        dZ_prev[...] = given[0].T @ given[1]  # g' left out
        db_prev[...] = dZ_prev.sum(axis=1, keepdims=True)


class TransposedWeights(InputGradient):
    at = W2

    def arguments(self, W: Any, *given: Any) -> list[Any]:
        return [W.T.copy(), *given]


class BiasOverHalfTheBatch(InputGradient):
    at = W3

    def spoil(self, given: Any, *, scale: Any, dZ_prev: Any, db_prev: Any, accumulate: bool) -> None:
        db_prev[...] = dZ_prev[:, : ROWS // 2].sum(axis=1, keepdims=True)


class BiasIsTheMean(InputGradient):
    at = W2

    def spoil(self, given: Any, *, scale: Any, dZ_prev: Any, db_prev: Any, accumulate: bool) -> None:
        db_prev /= ROWS


class NoDropoutOnTheWayBack(InputGradient):
    def arguments(self, W: Any, dZ: Any, activation: Any, dropout: Any, *given: Any) -> list[Any]:
        return [W, dZ, activation, None, *given]


class OutputBiasMissing(OutputDelta):
    def spoil(self, *, db: Any, **_: Any) -> None:
        db[...] = 0.0


class NoOneOverM(OutputDelta):
    def settings(self, Z: Any, weights: Any, out: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return weights, out | {"inverse_denominator": np.ones(1)}


class OneOverMMinusOne(OutputDelta):
    def settings(self, Z: Any, weights: Any, out: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return weights, out | {"inverse_denominator": np.array([1.0 / (Z.shape[1] - 1)])}


class WeightsSquared(OutputDelta):
    def settings(self, Z: Any, weights: Any, out: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return weights * weights, out


class WeightsIgnored(OutputDelta):
    def settings(self, Z: Any, weights: Any, out: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return None, out


class PenaltyOnBiases:
    def penalty(self, theta: Any, grad: Any, **out: Any) -> None:
        super().penalty(theta.base, grad.base, **out)  # the whole vectors, of which the weights are the first part


class PenaltyTwice:
    def penalty(self, theta: Any, grad: Any, **out: Any) -> None:
        super().penalty(theta, grad, **out)
        super().penalty(theta, grad, **out)


class PenaltyOfWrongSign:
    def penalty(self, theta: Any, grad: Any, **out: Any) -> None:
        super().penalty(-theta, grad, **out)


class NoPenalty:
    def penalty(self, theta: Any, grad: Any, **out: Any) -> None:
        pass


class ForwardWithoutBias:
    def dense(self, W: Any, A_prev: Any, b: Any, *given: Any, **out: Any) -> None:
        super().dense(W, A_prev, 0.0 * b, *given, **out)


FAULTS: list[tuple[type, tuple[str, ...], dict[str, Any]]] = [
    (WrongSign, ("W2",), {}),
    (TransposedParameterGradient, ("W2",), {}),
    (UsesTheOutputNotTheInput, ("W2",), {}),
    (ScaleTwice, WEIGHTS, {"one_over_m": "late"}),
    (OneMissingExample, ("W3",), {}),
    (LowPrecision, ("W1",), {}),
    (NotANumber, ("W2",), {}),
    (NoSlope, ("W1", "b1", "W2", "b2"), {}),
    (TransposedWeights, ("W1", "b1"), {}),
    (BiasOverHalfTheBatch, ("b2",), {}),
    (BiasIsTheMean, ("b1",), {}),
    (NoDropoutOnTheWayBack, ("W1", "b1", "W2", "b2"), {"dropout": 0.4}),
    (OutputBiasMissing, ("b3",), {}),
    (NoOneOverM, ALL, {}),
    (NoOneOverM, ("b3",), {"one_over_m": "late"}),
    (OneOverMMinusOne, ALL, {}),
    (OneOverMMinusOne, ("b3",), {"one_over_m": "late"}),
    (WeightsSquared, ALL, {"weights": [1.0, 2.0, 0.5, 0.0, 3.0, 1.0]}),
    (WeightsIgnored, ALL, {"weights": [1.0, 2.0, 0.5, 0.0, 3.0, 1.0]}),
    (PenaltyOnBiases, ("b1", "b2", "b3"), {"l2": 0.3}),
    (PenaltyOnBiases, ("b1", "b2", "b3"), {"l1": 0.3}),
    (PenaltyTwice, WEIGHTS, {"l1": 0.1, "l2": 0.1}),
    (PenaltyOfWrongSign, WEIGHTS, {"l2": 0.1}),
    (PenaltyOfWrongSign, WEIGHTS, {"l1": 0.1}),
    (NoPenalty, WEIGHTS, {"l2": 1e-6}),
    (ForwardWithoutBias, ALL, {}),
]


def checked(
    fault: type | None,
    kernels: type,
    *,
    loss: str = "squared",
    dropout: float = 0.0,
    weights: Any = None,
    **settings: Any,
) -> tuple[DenseNet, GradientReport]:
    """A network on the (faulty) kernels, and what the check says of it."""
    spec, outputs, y = LOSS_CASES[loss]
    backend = FaultyBackend(*([fault] if fault else []), kernels)
    net = small_net([*SIZES[:-1], outputs], activation="tanh", loss=spec, dropout=dropout, device=backend)
    assert isinstance(net.kernels, fault or kernels)
    return net, gradcheck(net, rows(3), y, weights, **settings)


def failed(report: GradientReport) -> tuple[str, ...]:
    """Names of the tensors that are called wrong."""
    return tuple(t.name for t in report.tensors if not t.ok)


@pytest.mark.parametrize("kernels", [NativeKernels, ReferenceKernels])
@pytest.mark.parametrize(("fault", "tensors", "settings"), FAULTS)
def test_a_fault_is_caught_in_the_tensors_that_it_spoils_and_no_others(
    fault: type, tensors: tuple[str, ...], settings: dict[str, Any], kernels: type
) -> None:
    if (fault, kernels) == (NoDropoutOnTheWayBack, NativeKernels):
        pytest.skip("on the way back native kernels look at what the forward saved, not at the rate")
    _, report = checked(None, kernels, **settings)
    assert report.ok, report  # without the fault nothing is called wrong
    _, report = checked(fault, kernels, **settings)
    assert failed(report) == tensors
    assert not report.ok
    assert not report.error <= 1e-12  # NaN counts as a failure too


@pytest.mark.parametrize("kernels", [NativeKernels, ReferenceKernels])
@pytest.mark.parametrize("entry", [(0, 0), (3, 2), (2, 1)])
@pytest.mark.parametrize("size", [1e-9, -1e-4, 0.1])
def test_one_bad_entry_is_found_and_shown_with_both_numbers(entry: tuple[int, int], size: float, kernels: type) -> None:
    class Bad(ParameterGradient):
        at = W1

        def spoil(self, dW: Any, *_: Any) -> None:
            dW[entry] += size
            dW[1, 0] -= 1e-3 * size  # a lesser fault, which is not the one to show

    _, report = checked(Bad, kernels, l2=0.1)
    assert failed(report) == ("W1",)
    bad, right = report.tensors[0], right_gradient(l2=0.1)["W1"]
    assert bad.worst == entry
    assert bad.want == pytest.approx(right[entry], rel=1e-12)
    assert bad.got == pytest.approx(right[entry] + size, rel=1e-12)


def right_gradient(**settings: Any) -> dict[str, np.ndarray]:
    """The gradient of the same network and data, by the package's own kernels."""
    spec, outputs, y = LOSS_CASES["squared"]
    net = small_net([*SIZES[:-1], outputs], activation="tanh", loss=spec)
    step = TrainingStep(net, "sgd", **settings)
    step.gradient(net.upload_columns(rows(3)), net.upload_columns(y))
    step.penalty()
    return net.params.named(net.params.grad.copy())


def test_the_number_that_is_wanted_is_the_slope_of_the_cost_by_central_differences() -> None:
    class Bad(ParameterGradient):
        at = W3

        def spoil(self, dW: Any, *_: Any) -> None:
            dW[1, 2] += 0.125

    net, report = checked(Bad, NativeKernels)
    bad = report.tensors[ALL.index("W3")]
    assert bad.worst == (1, 2)
    assert bad.got - bad.want == pytest.approx(0.125, rel=1e-12)
    named, h, costs = net.parameters(), 1e-5, []
    for sign in (1.0, -1.0):
        moved = named["W3"].copy()
        moved[1, 2] += sign * h
        net.set_parameters(named | {"W3": moved})
        costs.append(net.cost(rows(3), LOSS_CASES["squared"][2]))
    assert (costs[0] - costs[1]) / (2.0 * h) == pytest.approx(bad.want, abs=1e-9)


def test_a_gradient_that_is_not_a_number_is_the_worst_entry_and_the_largest_error() -> None:
    _, report = checked(NotANumber, NativeKernels)
    bad = report.tensors[ALL.index("W2")]
    assert bad.worst == (3, 1)
    assert np.isnan(bad.got)
    assert np.isfinite(bad.want)
    assert np.isnan(report.error)


@pytest.mark.parametrize("kernels", [NativeKernels, ReferenceKernels])
def test_the_other_slope_at_a_kink_is_caught_where_a_pre_activation_is_zero(kernels: type) -> None:
    class OneAtZero(InputGradient):
        def spoil(self, given: Any, *, scale: Any, dZ_prev: Any, db_prev: Any, accumulate: bool) -> None:
            W, dZ, A_prev = given[0], given[1], given[4]
            dZ_prev[...] = np.where(A_prev >= 0.0, W.T @ dZ, 0.0)  # g'(0) taken as 1: A = max(Z, 0) is always >= 0
            db_prev[...] = dZ_prev.sum(axis=1, keepdims=True)

    def report(*classes: type) -> GradientReport:
        net = DenseNet([3, 4, 2], loss="squared_error", device=FaultyBackend(*classes, kernels), dtype="float64")
        return gradcheck(net, np.vstack([rows(3, n=4), np.zeros((2, 3))]), LOSS_CASES["squared"][2])

    assert report().ok
    assert failed(report(OneAtZero)) == ("W1", "b1")


@pytest.mark.parametrize("loss", ["binary", "categorical-integer", "poisson", "huber", "absolute"])
def test_faults_are_caught_under_every_loss(loss: str) -> None:
    assert checked(None, NativeKernels, loss=loss)[1].ok
    assert failed(checked(WrongSign, NativeKernels, loss=loss)[1]) == ("W2",)
    assert failed(checked(OneOverMMinusOne, NativeKernels, loss=loss)[1]) == ALL
    assert failed(checked(BiasIsTheMean, NativeKernels, loss=loss)[1]) == ("b1",)


def test_a_fault_of_a_normalized_layers_gamma_is_named() -> None:
    class Halved:
        def batch_norm_vjp(self, *given: Any, dgamma: Any, **out: Any) -> None:
            super().batch_norm_vjp(*given, dgamma=dgamma, **out)
            dgamma *= 0.5

    backend = FaultyBackend(Halved, ReferenceKernels)
    net = DenseNet([4, 5, 12, 1], activation="tanh", loss="squared_error", batch_norm=[False, True], device=backend)
    rng = np.random.default_rng(0)
    report = gradcheck(net, rng.standard_normal((9, 4)), rng.standard_normal(9))
    assert [t.name for t in report.tensors if not t.ok] == ["gamma2"]
    assert report.summary().startswith("gradient wrong in layer 2, dgamma2, entry [")
    assert "halved" in report.summary()
