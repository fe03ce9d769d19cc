"""Formulas that the package does not have, as its users write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backprop_gpu.maths.activations import Activation
from backprop_gpu.maths.losses import Loss
from backprop_gpu.maths.optimizers import Optimizer
from backprop_gpu.maths.schedules import Schedule


def snake(xp: Any, Z: Any, *, a: float = 1.0) -> Any:
    """A = Z + sin^2(a Z)/a (Ziyin, Hartwig & Ueda 2020)."""
    s = xp.sin(a * Z)
    return Z + s * s / a


def snake_vjp(xp: Any, dA: Any, Z: Any, A: Any, *, a: float = 1.0) -> Any:
    """dZ = dA (1 + sin(2 a Z))."""
    return dA * (1.0 + xp.sin(2.0 * a * Z))


SNAKE = Activation("snake", snake, snake_vjp, (("a", 0.5),))


@dataclass(frozen=True)
class LogCosh(Loss):
    """L = sum_k log cosh(s (Z - Y))/s."""

    name = "log_cosh"
    link_name = "identity"
    labels = "values"
    steepness: float = 1.0

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return xp.sum(xp.log(xp.cosh(self.steepness * (Z - Y))), axis=0, keepdims=True) * (1.0 / self.steepness)

    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        return xp.tanh(self.steepness * (Z - Y))


@dataclass(frozen=True)
class SignMomentum(Optimizer):
    """v <- mu v + g; theta <- theta - lr sign v."""

    name = "sign_momentum"
    state_names = ("v",)
    learning_rate: float = 1e-2
    momentum: float = 0.5

    def apply(self, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        v = self.momentum * state[0] + grad
        return theta - scalars[0] * xp.sign(v), (v,)


@dataclass(frozen=True)
class Halving(Schedule):
    """Half the rate after each ``every`` steps."""

    name = "halving"
    every: int = 10

    def factor(self, t: int, total: int) -> float:
        return 0.5 ** (t // self.every)
