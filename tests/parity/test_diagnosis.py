"""The denominator family and its relatives: a constant factor is named by what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.orders import With

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check

M, OUTPUTS = 24, 5


@dataclass
class Meddling:
    """The weights' gradients of layer 2, changed by a function."""

    change: Callable[[np.ndarray], np.ndarray]

    def __call__(self, backend: Backend) -> ReferenceKernels:
        kernels, change = ReferenceKernels(backend), self.change
        honest = kernels.dense_vjp_params

        def dense_vjp_params(dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
            honest(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            if dW.shape == (7, 9):
                dW[...] = change(dW)

        kernels.dense_vjp_params = dense_vjp_params  # type: ignore[method-assign]
        return kernels


def cause(change: Callable[[np.ndarray], np.ndarray], *, weighted: bool = False, **settings: Any) -> str:
    """What is said of dW2."""
    net = DenseNet([4, 9, 7, OUTPUTS], loss="squared_error", device=With(Meddling(change)), kernels="reference", seed=3)
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((M, 4)), rng.standard_normal((M, OUTPUTS))
    w = np.arange(M) * 0.25 + 0.5 if weighted else None
    first = check(net, X, y, sample_weight=w, **settings).first
    assert first is not None
    assert first.tensor == "dW2"
    return first.cause


W_SUM = float(np.sum(np.arange(M) * 0.25 + 0.5))


@pytest.mark.parametrize(
    ("factor", "weighted", "settings", "said"),
    [
        (M, False, {}, "the 1/m is missing (got/want 24)"),
        (1 / M, False, {}, "the 1/m is applied twice"),
        (1 / M**2, False, {}, "the 1/m is applied three times"),
        (-M, False, {}, "the 1/m is missing, and the sign is turned"),
        (M / (M - 1), False, {}, "divided by m - 1"),
        ((M - 1) / M, False, {}, "one example of m is lost"),
        (W_SUM, True, {}, "the 1/m is missing"),
        (W_SUM / M, True, {}, "divided by the number of examples, not by the sum of their weights"),
        (OUTPUTS, False, {}, "summed over the 5 outputs, not averaged (got/want 5)"),
        (1 / OUTPUTS, False, {}, "averaged over the 5 outputs, not summed"),
        (2.0, False, {}, "doubled"),
        (0.5, False, {}, "halved"),
        (8.0, False, {}, "added up over 8 ranks without dividing"),
        (1 / 16, False, {}, "divided once too often by 16 ranks"),
        (-1.0, False, {}, "the sign is turned (got/want -1)"),
        (0.0, False, {}, "all 0: never written"),
        (1.2345, False, {}, "a constant factor (got/want 1.2345)"),
        (1 + 3e-5, False, {}, "a constant relative error of 3.0"),
    ],
)
def test_a_constant_factor_is_named(factor: float, weighted: bool, settings: dict[str, Any], said: str) -> None:
    assert said in cause(lambda dW: dW * np.float32(factor), weighted=weighted, **settings)


def test_a_sum_has_no_1_over_m_to_miss() -> None:
    assert "1/m" not in cause(lambda dW: dW * np.float32(M), reduction="sum")


def _with(x: np.ndarray, at: Any, value: Any) -> np.ndarray:
    x = x.copy()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda dW: _with(dW, np.s_[-1], 0.0), "wrong in the last row of 7 alone: not computed, as at the edge"),
        (lambda dW: _with(dW, np.s_[:, -2:], 0.0), "wrong in the last 2 columns of 9 alone: not computed"),
        (lambda dW: _with(dW, np.s_[3], 7.0), "wrong in row 3 of 7 alone: stale, or not written"),
        (lambda dW: np.roll(dW, 1, axis=0), "rows are rolled by 1"),
        (lambda dW: np.roll(dW, -1, axis=1), "columns are rolled by -1"),
        (lambda dW: dW[:, [0, 2, 1, *range(3, 9)]], "columns 1 and 2 are swapped"),
        (lambda dW: np.ascontiguousarray(dW.T).reshape(dW.shape), "written in the other memory order"),
        (lambda dW: _with(dW, np.s_[2, 2], np.nan), "1 entries are NaN or infinite where the reference is finite"),
        (lambda dW: dW + np.float32(0.25), "0.25 is added to every entry"),
        (lambda dW: dW + np.random.default_rng(1).standard_normal(dW.shape), "63 of 63 entries are too far off"),
    ],
)
def test_an_arrangement_is_named(change: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    assert said in cause(change)


def test_right_tensors_have_no_cause() -> None:
    net = DenseNet([4, 9, 7, OUTPUTS], loss="squared_error", device="numpy", seed=3)
    rng = np.random.default_rng(4)
    report = check(net, rng.standard_normal((M, 4)), rng.standard_normal((M, OUTPUTS)))
    assert not any(f.cause for f in report.findings)
