"""Sums that are no products: exact on every honest kernel set, and on none that takes them in a lower precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parity.faults import rounded_to
from support.backends import Case, cases
from support.orders import With

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.findings import Finding
from backprop_gpu.parity.probe_sums import probe_sums
from backprop_gpu.parity.probes import probe, shapes_of

SHAPES = [(16, 30, 600), (3, 16, 600), (1, 7, 1), (5, 3, 64)]


def asked(backend: Any, kernels: Any, shapes: Any = SHAPES, dtype: str = "float32") -> list[Finding]:
    return probe_sums(backend, kernels, shapes, dtype, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_honest_kernels_are_exact(case: Case, dtype: str) -> None:
    net = DenseNet([2, 1], device=case.backend, kernels=case.kind, dtype=dtype)
    with net.backend.activate():
        found = asked(net.backend, net.kernels, dtype=dtype)
    assert not [f for f in found if f.status != "ok"]
    for sum_of in (
        "db of dense_vjp_input",
        "dgamma",
        "db of squared",
        "cost of",
        "penalty of l1",
        "penalty of l2",
        "global",
    ):
        assert any(sum_of in f.tensor for f in found)


def accumulated(dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Row sums (n, 1) one term after the other in this precision."""

    def total(x: np.ndarray) -> np.ndarray:
        out = np.zeros((x.shape[0], 1), dtype)
        for column in x.T.astype(dtype):
            out = (out + column[:, None]).astype(dtype)
        return out.astype(x.dtype)

    return total


def with_operands(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """As a product with ones, whose operands are rounded."""
    return lambda x: rounded_to(x, bits).sum(axis=1, keepdims=True)


def bf16_sums(x: np.ndarray) -> np.ndarray:
    out = np.zeros((x.shape[0], 1), x.dtype)
    for column in x.T:
        out = rounded_to(out + column[:, None], 7)
    return out


LOWER = {"tf32": with_operands(10), "bf16": with_operands(7), "fp16": accumulated(np.float16), "bf16 sums": bf16_sums}


def biases(total: Callable[[np.ndarray], np.ndarray]) -> type[ReferenceKernels]:
    class Lower(ReferenceKernels):
        def _bias(self, dZ: Any, scale: Any, db: Any, accumulate: bool) -> None:
            db[...] = (db if accumulate else 0) + (1 if scale is None else scale) * total(dZ)

    return Lower


def costs(total: Callable[[np.ndarray], np.ndarray]) -> type[ReferenceKernels]:
    class Lower(ReferenceKernels):
        def output_delta(self, loss: Any, form: str, Z: Any, Y: Any, weights: Any, **out: Any) -> None:
            before = out["value"].copy()
            super().output_delta(loss, form, Z, Y, weights, **out)
            each = loss.value(np, Z, self._targets(loss, Z, Y))
            each = each if weights is None else np.where(weights == 0.0, 0.0, weights * each)
            out["value"][...] = before + out["inverse_denominator"] * total(each).reshape(1)

    return Lower


def norms(total: Callable[[np.ndarray], np.ndarray]) -> type[ReferenceKernels]:
    class Lower(ReferenceKernels):
        def global_norm(self, grad: Any, max_norm: float, *, norm: Any, factor: Any) -> None:
            super().global_norm(grad, max_norm, norm=norm, factor=factor)
            norm[...] = np.sqrt(total((grad * grad)[None, :])).reshape(1)
            factor[...] = np.minimum(1.0, max_norm / np.maximum(norm, max_norm))

    return Lower


def penalties(total: Callable[[np.ndarray], np.ndarray]) -> type[ReferenceKernels]:
    class Lower(ReferenceKernels):
        def penalty(self, theta: Any, grad: Any, *, l1: Any, l2: Any, value: Any) -> None:
            before = value.copy()
            super().penalty(theta, grad, l1=l1, l2=l2, value=value)
            value[...] = before
            for strength, terms in ((l2, theta * theta * 0.5), (l1, np.abs(theta))):
                if strength is not None:
                    value += strength * total(terms[None, :].astype(theta.dtype)).reshape(1)

    return Lower


def gammas(total: Callable[[np.ndarray], np.ndarray]) -> type[ReferenceKernels]:
    class Lower(ReferenceKernels):
        def batch_norm_vjp(self, dU: Any, X: Any, *args: Any, dgamma: Any, **out: Any) -> None:
            super().batch_norm_vjp(dU, X, *args, dgamma=dgamma, **out)
            dgamma[...] = total(dU * X)

    return Lower


KINDS = {"db": biases, "cost": costs, "global_norm": norms, "penalty": penalties, "dgamma": gammas}


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_lower_precision_are_seen(kind: str, precision: str) -> None:
    with np.errstate(all="ignore"):
        backend = With(KINDS[kind](LOWER[precision]))
        found = asked(backend, backend.kernels())
        probed = probe(backend, backend.kernels(), SHAPES)
    wrong = [f for f in found if f.status == "wrong"]
    assert wrong
    assert all(kind in f.tensor for f in wrong)
    assert all(f.cause for f in wrong)
    assert any(f.status == "wrong" for f in probed)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("kind", ["db", "cost", "global_norm"])
def test_a_check_of_many_rows_sees_them(kind: str, precision: str) -> None:
    """Whose own bounds hide them: 1,024 rows, 800 parameters and more."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((1024, 20)), rng.integers(0, 3, 1024)
    net = DenseNet([20, 40, 3], loss="categorical_cross_entropy", device=With(KINDS[kind](LOWER[precision])))
    with np.errstate(all="ignore"):
        assert not check(net, X, y, clip_norm=0.1).ok
    assert check(DenseNet([20, 40, 3], loss="categorical_cross_entropy", device="numpy"), X, y, clip_norm=0.1).ok


def test_a_network_of_any_shape_is_asked() -> None:
    net = DenseNet([3, 1], device="numpy")
    assert not [f for f in asked(net.backend, net.kernels, shapes_of(net, 1)) if f.status != "ok"]
