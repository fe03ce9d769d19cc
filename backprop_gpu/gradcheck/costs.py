"""J as a function of one parameter tensor, through the network's own layer loop, and its derivative by two ways."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from .complex_step import STEP, ComplexStepNamespace

STEPS = (1e-5, 1e-6, 1e-7)  # of a central difference, relative to max(1, |theta|); smaller ones where kinks are near
ROUNDINGS = 16  # of J, a sum of many terms that are themselves rounded
EPS = float(np.finfo(np.float64).eps)
JUMP = 0.05  # a derivative that changes by this part between theta + h d and theta - h d has a kink in between


@dataclass(frozen=True)
class Rows:
    """Host rows of examples: X (m, n_0), Y (m, n_L) or labels (m, 1), weights (m, 1) or None."""

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None

    @property
    def weights_sum(self) -> float | None:
        """The sum of the weights, where there are any."""
        return None if self.weights is None else float(self.weights.sum())


def twin(net: DenseNet, dtype: str, device: Any, kernels: str) -> DenseNet:
    """The same network and parameters in another dtype, on another device."""
    copy = DenseNet(**(net.settings() | {"dtype": dtype, "initializer": "zeros"}), device=device, kernels=kernels)
    copy.set_parameters(net.parameters())
    return copy


class _Cost:
    """J by the reference kernels, with one parameter tensor moved."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any], dtype: str, backend: Backend) -> None:
        self.net = twin(net, dtype, backend, "reference")
        self.theta = {name: value.copy() for name, value in self.net.parameters().items()}
        self.step = TrainingStep(self.net, "sgd", **settings)
        upload = self.net.upload_columns
        self.X, self.Y = upload(rows.X), upload(rows.Y)
        self.weights = None if rows.weights is None else upload(rows.weights)
        self.weights_sum = rows.weights_sum

    def at(self, name: str, moved: np.ndarray) -> Any:
        """J, penalty included, with ``moved`` in the place of the tensor ``name``."""
        self.net.set_parameters(self.theta | {name: moved})
        self.step.gradient(self.X, self.Y, self.weights, weights_sum=self.weights_sum)
        self.step.penalty()
        return self.step.value[0]


class ComplexCost(_Cost):
    """The derivative by the complex step."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any]) -> None:
        super().__init__(net, rows, settings, "complex128", Backend("numpy", ComplexStepNamespace()))

    def derivative(self, name: str, direction: np.ndarray) -> float:
        """d/dh J(theta + h d) at 0, ``direction`` in the shape of the tensor ``name``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a function that drops imaginary parts is found out by the differences
            return float(np.imag(self.at(name, self.theta[name] + 1j * STEP * direction))) / STEP


class CentralCost(_Cost):
    """The derivative by central differences, (J(theta + h d) - J(theta - h d)) / 2h, away from kinks."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any]) -> None:
        super().__init__(net, rows, settings, "float64", Backend("numpy", np))
        self.l1 = self.step.l1

    def derivative(self, name: str, direction: np.ndarray) -> float:
        """d/dh J(theta + h d) at 0; NaN where a kink lies on the way with every step."""
        return self.slope(name, direction)[0]

    def slope(self, name: str, direction: np.ndarray) -> tuple[float, float]:
        """The derivative, and what rounding of J may put it off by."""
        theta = self.theta[name]
        unit = np.maximum(1.0, np.max(np.abs(theta[direction != 0.0]), initial=0.0))
        for h in STEPS:
            ahead, behind = (theta + side * h * unit * direction for side in (1.0, -1.0))
            if self.l1 and name.startswith("W") and np.any(np.sign(ahead) != np.sign(behind)):
                continue
            J_ahead, slopes_ahead = float(self.at(name, ahead)), list(self._slopes())
            J_behind, slopes_behind = float(self.at(name, behind)), list(self._slopes())
            if not any(_kink(a, b) for a, b in zip(slopes_ahead, slopes_behind, strict=True)):
                rounding = ROUNDINGS * EPS * max(abs(J_ahead), abs(J_behind)) / (h * unit)
                return (J_ahead - J_behind) / (2.0 * h * unit), rounding
        return math.nan, math.nan

    def _slopes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(Z, derivative there) of every hidden activation and of the loss, at the parameters that are set.

        Examples of weight 0 are left out: J does not look at them.
        """
        heard = slice(None) if self.weights is None else self.weights[0] != 0.0
        net, ws = self.net, self.net.workspace(self.X.shape[1])
        ws.A[0], ws.weights = self.X, self.weights
        Z_out = net.forward(ws)
        for l in range(1, net.L):
            Z = net.kernels.reveal(ws.saved[l])["Z"][:, heard]
            g = net.activations[l]
            yield Z, g.vjp(np, np.ones_like(Z), Z, g.forward(np, Z))
        dZ, db, value = np.zeros_like(Z_out), np.zeros((Z_out.shape[0], 1)), np.zeros(1)
        late: dict[str, Any] = {"inverse_denominator": np.ones(1), "early": False, "accumulate": False}
        net.kernels.output_delta(net.loss, "fused", Z_out, self.Y, None, dZ=dZ, db=db, value=value, **late)
        yield np.ones_like(dZ[:, heard]), dZ[:, heard]


def _kink(ahead: tuple[np.ndarray, np.ndarray], behind: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether the sign of Z, where the kinks of the field's activations are, or a derivative jumps in between."""
    (Z, slope), (Z_other, slope_other) = ahead, behind
    size = np.maximum(np.maximum(np.abs(slope), np.abs(slope_other)), 1.0)
    return bool(np.any((Z > 0.0) != (Z_other > 0.0)) or np.any(np.abs(slope - slope_other) > JUMP * size))
