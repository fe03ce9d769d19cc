"""Hundreds of networks: where the gradient is right, none may be accused; where it is wrong, all must fail.

Among them: normalized batches whose terms cancel, rows far from 0 and of large scale, saturated units, batches of two,
exact ties, and functions of one's own that drop imaginary parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.gradcheck import gradcheck
from backprop_gpu.maths.activations import ACTIVATIONS, Activation
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.network.dense_net import DenseNet

HIDDEN = [name for name, a in ACTIVATIONS.items() if not a.output_only]
ROWS_LIKE = {"standard": (1.0, 0.0), "times 100": (100.0, 0.0), "around 1e4": (1.0, 1e4), "raw": (1e3, 1e3)}
NORMALIZED = [([1, 8, 1], [True]), ([3, 1, 6, 1], [False, True]), ([4, 5, 3, 2], [True, True])]
SHAPES = [*NORMALIZED, ([3, 4, 1], [False])]
BATCHES = (2, 16)
LONG = bool(os.environ.get("BACKPROP_GPU_LONG_TESTS"))  # every combination, not each value of each once or twice


def table(like: str, m: int, n: int, seed: int) -> np.ndarray:
    scale, shift = ROWS_LIKE[like]
    return np.random.default_rng(seed).standard_normal((m, n)) * scale + shift


@pytest.mark.parametrize("like", ROWS_LIKE)
def test_right_gradients_are_not_accused(like: str) -> None:
    for i, activation in enumerate(HIDDEN):
        for k, (sizes, norm) in enumerate(SHAPES):
            for m in BATCHES if LONG else BATCHES[(i + k + list(ROWS_LIKE).index(like)) % 2 :][:1]:
                seed = 1000 * i + 10 * k + m
                kernels = ("native", "reference")[(i + k // 2) % 2]
                settings = {"loss": "squared_error", "batch_norm": norm, "dtype": "float64", "kernels": kernels}
                net = DenseNet(sizes, activation=activation, seed=seed, device="cpu", **settings)
                y = np.random.default_rng(seed + 1).standard_normal((m, sizes[-1]))
                report = gradcheck(net, table(like, m, sizes[0], seed), y)
                assert report.ok, (activation, sizes, m, seed, report.summary())


@pytest.mark.parametrize("like", ROWS_LIKE)
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_saturated_outputs_are_not_accused(loss: str, like: str) -> None:
    for seed, activation in enumerate(HIDDEN):
        outputs = 1 if loss == "binary_cross_entropy" else 3
        net = DenseNet([3, 4, outputs], activation=activation, loss=loss, seed=seed, device="cpu", dtype="float64")
        y = np.random.default_rng(seed).integers(0, max(outputs, 2), 9)
        report = gradcheck(net, table(like, 9, 3, seed), y)
        assert report.ok, (activation, seed, report.summary())


class Spoilt(Backend):
    """NumPy whose dW of one layer, or dZ and dgamma of a normalized one, is off by a factor in one entry."""

    def __init__(self, where: str, factor: float) -> None:
        super().__init__("numpy", np)
        self.where, self.factor = where, factor

    def kernels(self, kind: str = "auto") -> Any:
        where, factor = self.where, self.factor

        class Kernels(ReferenceKernels):
            def dense_vjp_params(self, dZ: Any, A_prev: Any, *, dW: Any, **given: Any) -> None:
                super().dense_vjp_params(dZ, A_prev, dW=dW, **given)
                if where == "dW":
                    dW[np.unravel_index(np.argmax(np.abs(dW)), dW.shape)] *= factor

            def batch_norm_vjp(self, *given: Any, dZ: Any, dgamma: Any, **more: Any) -> None:
                super().batch_norm_vjp(*given, dZ=dZ, dgamma=dgamma, **more)
                if where == "dgamma":
                    dgamma[np.argmax(np.abs(dgamma))] *= factor
                if where == "centre":  # the derivative through the mean left out
                    dZ += (1.0 - factor) * np.mean(np.abs(dZ))

        return Kernels(self)


@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.0 + 1e-4])
@pytest.mark.parametrize("where", ["dW", "dgamma", "centre"])
def test_wrong_gradients_of_the_packages_own_functions_are_seen(where: str, factor: float) -> None:
    for i, activation in enumerate(HIDDEN):
        for k, (sizes, norm) in enumerate(NORMALIZED):
            if not LONG and k != i % len(NORMALIZED):
                continue
            seed = 100 * i + k
            settings = {"loss": "squared_error", "batch_norm": norm, "dtype": "float64", "seed": seed}
            net = DenseNet(sizes, activation=activation, device=Spoilt(where, factor), **settings)
            y = np.random.default_rng(seed).standard_normal((9, sizes[-1]))
            report = gradcheck(net, table("standard", 9, sizes[0], seed), y)
            assert not report.ok, (activation, sizes, seed)


# -- functions of one's own -------------------------------------------------------------------------------------------

Forward = Callable[[Any, Any], Any]
Vjp = Callable[[Any, Any, Any, Any], Any]


def real_only(f: Callable[[Any], Any]) -> Forward:
    def forward(xp: Any, Z: Any) -> Any:
        if np.iscomplexobj(Z):
            raise TypeError("real numbers only")
        return f(Z)

    return forward


def normed_vjp(xp: Any, dA: Any, Z: Any, A: Any) -> Any:
    n = np.linalg.norm(Z, axis=0)
    return dA / (1e-3 + n) - Z * np.sum(dA * Z, axis=0) / ((1e-3 + n) ** 2 * np.where(n == 0.0, 1.0, n))


OWN: dict[str, tuple[Forward, Vjp, Vjp]] = {  # forward, right, wrong in the way that the complex step is
    "np.abs": (
        lambda xp, Z: Z / (1.0 + np.abs(Z)),
        lambda xp, dA, Z, A: dA / (1.0 + np.abs(Z)) ** 2,
        lambda xp, dA, Z, A: dA / (1.0 + np.abs(Z)),
    ),
    "abs": (lambda xp, Z: abs(Z), lambda xp, dA, Z, A: dA * np.sign(Z), lambda xp, dA, Z, A: 0.0 * dA),
    "np.linalg.norm": (
        lambda xp, Z: Z / (1e-3 + np.linalg.norm(Z, axis=0)),
        normed_vjp,
        lambda xp, dA, Z, A: dA / (1e-3 + np.linalg.norm(Z, axis=0)),
    ),
    "np.real": (
        lambda xp, Z: Z * np.real(Z) * 0.1,
        lambda xp, dA, Z, A: dA * Z * 0.2,
        lambda xp, dA, Z, A: dA * Z * 0.1,
    ),
    "np.maximum": (
        lambda xp, Z: np.maximum(Z, 0.0),
        lambda xp, dA, Z, A: dA * (Z > 0.0),
        lambda xp, dA, Z, A: dA * (Z < 0.0),
    ),
    "np.maximum, 1 at 0": (
        lambda xp, Z: np.maximum(Z, 0.0),
        lambda xp, dA, Z, A: dA * (Z >= 0.0),
        lambda xp, dA, Z, A: dA * 0.9 * (Z >= 0.0),
    ),
    "refuses": (
        real_only(lambda Z: np.logaddexp(0.0, Z)),
        lambda xp, dA, Z, A: dA * (1.0 - np.exp(-A)),
        lambda xp, dA, Z, A: dA * np.exp(-A),
    ),
    "analytic": (
        lambda xp, Z: Z / np.sqrt(1.0 + Z * Z),
        lambda xp, dA, Z, A: dA * (1.0 + Z * Z) ** -1.5,
        lambda xp, dA, Z, A: (dA * (1.0 + Z * Z) ** -1.5).astype(np.float32),
    ),
}


def own_net(name: str, vjp: Vjp, norm: bool, seed: int) -> DenseNet:
    own = Activation("own", OWN[name][0], vjp)
    settings = {"loss": "squared_error", "batch_norm": norm, "dtype": "float64", "kernels": "reference"}
    return DenseNet([2, 3, 1], activation=own, seed=seed, device="cpu", **settings)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_right_functions_of_ones_own_are_not_accused(name: str, norm: bool) -> None:
    for seed, like in enumerate(ROWS_LIKE):
        m = (2, 9)[(seed + norm) % 2]
        X, y = table(like, m, 2, seed), np.random.default_rng(seed).standard_normal(m)
        X[0] *= seed // 2  # a row of zeros: with biases of 0 its units lie on a tie exactly
        report = gradcheck(own_net(name, OWN[name][1], norm, seed), X, y)
        assert report.ok, (seed, like, report.summary())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_wrong_functions_of_ones_own_are_seen(name: str, norm: bool) -> None:
    for seed in range(2) if LONG else [int(norm)]:
        X, y = table("standard", 9, 2, seed), np.random.default_rng(seed).standard_normal(9)
        X[0] *= seed % 2
        report = gradcheck(own_net(name, OWN[name][2], norm, seed), X, y)
        assert not report.ok, seed
        assert report.first is not None
        assert report.first.layer == 1


@dataclass(frozen=True)
class Distance(SquaredError):
    """|Z - Y| or its norm, as someone would write it."""

    name = "distance"
    form: str = "abs"
    right: bool = True

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        if self.form == "abs":
            return np.mean(np.abs(Z - Y), axis=0, keepdims=True)
        return np.linalg.norm(Z - Y, axis=0, keepdims=True)

    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        d = Z - Y
        n = np.linalg.norm(d, axis=0, keepdims=True)
        g = np.sign(d) / Z.shape[0] if self.form == "abs" else d / np.where(n == 0.0, 1.0, n)
        return g if self.right else 0.0 * g


@pytest.mark.parametrize("form", ["abs", "norm"])
def test_losses_of_ones_own(form: str) -> None:
    for seed in range(4 if LONG else 2):
        X, y = table("standard", 7, 2, seed), np.random.default_rng(seed).standard_normal((7, 2))
        if seed % 3 == 0:
            X[0], y[0] = 0.0, 0.0  # on the kink
        for right in (True, False):
            loss = Distance(form, right)
            net = DenseNet([2, 3, 2], activation="tanh", loss=loss, seed=seed, device="cpu", kernels="reference")
            report = gradcheck(net, X, y)
            assert report.ok == right, (seed, report.summary())
