"""Predictions: honest kernel sets are found right, and what a prediction may do wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.faults import patched
from support.backends import Case, cases
from support.orders import With

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.maths import normalization
from backprop_gpu.network.dense_net import BLOCK_ROWS, DenseNet
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.report import Report

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((21, 5)) * 2.0 + 1.0, RNG.integers(0, 3, 21)


def net_of(device: Any = "numpy", kernels: str = "reference", dtype: str = "float32", **given: Any) -> DenseNet:
    given = {"loss": "categorical_cross_entropy", "batch_norm": [True, False], "dropout": 0.3} | given
    net = DenseNet([5, 6, 4, 3], activation=["gelu", "tanh"], device=device, kernels=kernels, dtype=dtype, **given)
    named = net.parameters()
    for name, value in named.items():
        value += np.random.default_rng(len(name)).uniform(0.1, 0.5, value.shape)
    net.set_parameters(named)
    return net


LOSSES: list[tuple[Any, Any]] = [
    ("categorical_cross_entropy", Y),
    ({"name": "grouped_cross_entropy", "groups": [2, 1]}, np.array([[1, 0, 1]] * 21)),
    ("binary_cross_entropy", np.ones((21, 3))),
    ("squared_error", X[:, :3]),
    ("poisson", np.abs(X[:, :3])),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_honest_predictions_are_found_right(case: Case, dtype: str) -> None:
    for loss, y in LOSSES:
        report = check(net_of(case.backend, case.kind, dtype, loss=loss), X, y, dtype=dtype)
        assert report.ok, report.summary()
        assert "predicted AL" in {f.tensor for f in report.findings}


def test_several_blocks_of_rows_are_judged() -> None:
    rows = np.resize(X, (BLOCK_ROWS + 7, 5))
    assert check(net_of(kernels="auto"), rows, np.resize(Y, len(rows))).ok


def seen(kernels: type[ReferenceKernels] | None = None, **given: Any) -> Report:
    return check(net_of("numpy" if kernels is None else With(kernels), **given), X, Y)


class ByTheBatch(ReferenceKernels):
    """Normalizes rows that are predicted by their own mean and variance."""

    def batch_norm(self, Z: Any, *args: Any, X: Any, inverse_std: Any, mean: Any, variance: Any, **out: Any) -> None:
        if X is None:
            mean, variance = Z.mean(axis=1, keepdims=True), Z.var(axis=1, keepdims=True)
        super().batch_norm(Z, *args, X=X, inverse_std=inverse_std, mean=mean, variance=variance, **out)


class MovesThem(ReferenceKernels):
    """Counts rows that are predicted among those that the running mean is of."""

    def batch_norm(self, Z: Any, *args: Any, X: Any, mean: Any, **out: Any) -> None:
        super().batch_norm(Z, *args, X=X, mean=mean, **out)
        if X is None:
            mean[...] = normalization.running(np, mean, Z.mean(axis=1, keepdims=True), None)


class WithoutEpsilon(ReferenceKernels):
    def batch_norm(self, Z: Any, *args: Any, X: Any, variance: Any, **out: Any) -> None:
        variance = variance - np.float32(1e-5) if X is None else variance
        super().batch_norm(Z, *args, X=X, variance=variance, **out)


class Alone(ReferenceKernels):
    """Another way for one row, which forgets the bias."""

    def dense(self, W: Any, A_prev: Any, b: Any, *args: Any, **out: Any) -> None:
        super().dense(W, A_prev, b if A_prev.shape[1] > 1 else np.zeros_like(b), *args, **out)


FAULTS: list[tuple[type[ReferenceKernels], str, str]] = [
    (ByTheBatch, "predicted U1", "normalized by the statistics of these rows, not by the running ones"),
    (MovesThem, "mean1 afterwards", "a prediction moves it"),
    (WithoutEpsilon, "predicted U1", ""),
    (Alone, "predicted Z2", "the bias is missing"),
]


@pytest.mark.parametrize(("kernels", "tensor", "said"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_fault_is_named(kernels: type[ReferenceKernels], tensor: str, said: str) -> None:
    report = seen(kernels)
    assert report.first is not None
    assert report.first.tensor == tensor
    assert said in report.first.cause
    assert report.apart[0] == report.first


def change(method: str, after: Callable[[np.ndarray], np.ndarray]) -> Any:
    honest = getattr(DenseNet, method)
    return patched(DenseNet, method, lambda self, rows: after(honest(self, rows)))


def test_what_the_network_makes_of_the_layers_is_judged() -> None:
    with change("predict_proba", lambda AL: AL * np.float32(1 + 1e-5)):
        found = seen().first
    assert found is not None
    assert found.tensor == "predicted AL"
    with change("predict_proba", lambda AL: AL[::-1]):
        found = seen().first
    assert found is not None
    assert found.cause == "columns are in reverse order"
    with change("predict", lambda labels: (labels + 1) % 3):
        found = seen().first
    assert found is not None
    assert found.tensor == "predicted labels"


def test_dropout_in_a_prediction_is_seen() -> None:
    honest = DenseNet.workspace
    with patched(DenseNet, "workspace", lambda self, m, **how: honest(self, m, **how | {"train": True})):
        found = seen(batch_norm=False).first
    assert found is not None
    assert found.tensor == "predicted A1"
    assert "of the entries are 0 and all others times 1.42857: dropout" in found.cause
