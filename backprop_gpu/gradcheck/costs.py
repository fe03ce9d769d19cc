"""J as a function of one parameter tensor, through the network's own layer loop, and its derivative by two ways."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..maths.losses import one_hot
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from .complex_step import STEP, ComplexStepNamespace
from .derivative import WITNESS, Slope, central

Function = Callable[[Any, np.ndarray], np.ndarray]
AGREEMENT = 1e-6  # of a function's complex step and its differences
NEGLIGIBLE = 1e-9  # an error that hides nothing, where functions and costs are of size 1
FIRST_STEP = 1e-2  # of a central difference, relative to max(1, |theta|)


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


def network_copy(net: DenseNet, dtype: str, device: Any, kernels: str) -> DenseNet:
    """The same network and parameters in another dtype, on another device."""
    copy = DenseNet(**(net.settings() | {"dtype": dtype, "initializer": "zeros"}), device=device, kernels=kernels)
    copy.set_parameters(net.parameters())
    return copy


class _Cost:
    """J by the reference kernels, with one parameter tensor moved."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any], dtype: str, backend: Backend) -> None:
        self.net = network_copy(net, dtype, backend, "reference")
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
    """The derivative by the complex step; ``backend``: in place of NumPy with :class:`ComplexStepNamespace`."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any], backend: Backend | None = None) -> None:
        super().__init__(net, rows, settings, "complex128", backend or Backend("numpy", ComplexStepNamespace()))

    def derivative(self, name: str, direction: np.ndarray) -> float:
        """d/dh J(theta + h d) at 0, ``direction`` in the shape of the tensor ``name``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a function that drops imaginary parts is found out beforehand
            return float(np.imag(self.at(name, self.theta[name] + 1j * STEP * direction))) / STEP


class CentralCost(_Cost):
    """The derivative by central differences, which no function can mislead, with what it may be off by."""

    def __init__(self, net: DenseNet, rows: Rows, settings: dict[str, Any]) -> None:
        super().__init__(net, rows, settings, "float64", Backend("numpy", np))
        self.value = self._value(*next(iter(self.theta.items())))

    def slope(self, name: str, direction: np.ndarray) -> Slope:
        """d/dh J(theta + h d) at 0, ``direction`` in the shape of the tensor ``name``."""
        theta = self.theta[name]
        scale = FIRST_STEP * max(1.0, float(np.max(np.abs(theta))))
        return central(lambda h: self._value(name, theta + h * direction), scale, abs(self.value))

    def functions(self) -> Iterator[tuple[int, Function, np.ndarray]]:
        """(layer, g, what g is given) of each hidden activation and, as of layer L, of the loss, without a cost's mean.

        Examples of weight 0 are left out: J does not look at them.
        """
        heard = slice(None) if self.weights is None else self.weights[0] != 0.0
        net, ws = self.net, self.net.workspace(self.X.shape[1])
        net.set_parameters(self.theta)
        ws.A[0], ws.weights = self.X, self.weights
        Z_out = net.forward(ws)
        for l in range(1, net.L):
            own = ws.parametric[l]
            Z = net.kernels.debug_tensors(ws.saved[l])["Z"] if own is None else own.Z
            yield l, net.activations[l].forward, Z[:, heard]
        Y = self.Y[:, heard]
        if net.loss.labels == "classes" and Y.shape[0] != Z_out.shape[0]:
            Y = one_hot(np, Y, np.arange(Z_out.shape[0])[:, None], float)
        yield net.L, lambda xp, Z: net.loss.value(xp, Z, Y), Z_out[:, heard]

    def _value(self, name: str, moved: np.ndarray) -> float:
        return float(self.at(name, moved))


def takes_complex_step(f: Function, Z: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether f(xp, Z) carries an imaginary part as a derivative does, as differences along a direction bear witness.

    ``abs``, ``np.linalg.norm`` or ``np.real`` drop it without a word; at a tie, and in noise, nothing can be told.
    """
    direction, weigh = rng.standard_normal(Z.shape), rng.standard_normal(np.shape(f(np, Z)))

    def along(t: float) -> float:
        return float(np.sum(weigh * f(np, Z + t * direction)))

    value, error = central(along, FIRST_STEP, float(np.sum(np.abs(weigh * f(np, Z)))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            moved = f(ComplexStepNamespace(), Z + 1j * STEP * direction)
            known = float(np.sum(weigh * np.imag(moved))) / STEP
    except Exception:  # someone's own function may do anything with a complex number
        return False
    size = max(abs(known), abs(value))
    decided = 4.0 * error <= max(WITNESS * size, NEGLIGIBLE * float(np.sum(np.abs(weigh))))
    return decided and abs(known - value) <= 4.0 * error + AGREEMENT * size
