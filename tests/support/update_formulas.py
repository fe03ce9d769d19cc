"""What happens once per training step, in float64 with bounds: penalty, clipping, and every optimizer's update.

Written apart from ``backprop_gpu.maths``, as ``formulas.py`` is; see there for what the arguments are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from support.bounds import Bounded, Bounds
from support.formulas import Parameters


def penalized(B: Bounds, theta: Bounded, grad: Bounded, l1: Bounded | None, l2: Bounded | None) -> Bounded:
    """grad + l2 theta + l1 sign(theta)."""
    grad = grad if l2 is None else grad + l2 * theta
    return grad if l1 is None else grad + l1 * B.sign(theta)


def penalty_cost(B: Bounds, theta: Bounded, value: Bounded, l1: Bounded | None, l2: Bounded | None) -> Bounded:
    """value + l2/2 |theta|^2 + l1 |theta|_1."""
    value = value if l2 is None else value + B.sum(theta * theta) * (0.5 * l2)
    return value if l1 is None else value + B.sum(B.abs(theta)) * l1


def global_norm(B: Bounds, grad: Bounded) -> Bounded:
    """|grad|_2, (1,), of given numbers: their squares neither overflow nor vanish where the largest is about 1."""
    exponent = int(np.frexp(np.max(np.abs(grad.v), initial=0.0))[1])
    scaled = B.given(np.ldexp(grad.v, -exponent))
    root = B.sqrt(B.sum(scaled * scaled))
    return Bounded(np.ldexp(root.v, exponent), np.ldexp(root.e, exponent) + B.eta, B)


def clip_factor(B: Bounds, norm: Bounded, max_norm: float) -> Bounded:
    """min(1, max_norm / norm)."""
    return B.where(norm > max_norm, B.over(max_norm, B.maximum(norm, max_norm)), 1.0)


def step_numbers(optimizer: str, p: Parameters, t: int, learning_rate: float) -> list[float]:
    """What changes from step to step (t from 1), in float64: the step size first, then further factors."""
    d = p.get("average", 0.0)
    share = [(1.0 - d) / (1.0 - d**t)] if d else []
    return [*_factors(optimizer, p, t, learning_rate), *share]


def _factors(optimizer: str, p: Parameters, t: int, learning_rate: float) -> list[float]:
    if optimizer in ("adam", "adamw", "amsgrad"):
        first, second = 1.0 - p["beta1"] ** t, math.sqrt(1.0 - p["beta2"] ** t)
        hat = p["variant"] == "epsilon_hat"
        numbers = [learning_rate * second / first, 1.0] if hat else [learning_rate / first, 1.0 / second]
        return [*numbers, 1.0 - learning_rate * p["weight_decay"]] if optimizer == "adamw" else numbers
    if optimizer == "lion":
        return [learning_rate, 1.0 - learning_rate * p["weight_decay"]]
    return [learning_rate]


def _mix(B: Bounds, rate: float, old: Bounded, new: Bounded) -> Bounded:
    """rate old + (1 - rate) new."""
    return rate * old + B.constant(1.0 - rate) * new


def update(
    B: Bounds,
    optimizer: str,
    p: Parameters,
    theta: Bounded,
    g: Bounded,
    slots: Sequence[Bounded],
    numbers: Sequence[Bounded],
    decayed: np.ndarray,
) -> tuple[Bounded, list[Bounded]]:
    """theta and slots after one step; ``decayed``: where weight decay applies."""
    if p.get("average", 0.0):
        theta, own = update(B, optimizer, p | {"average": 0.0}, theta, g, slots[:-1], numbers[:-1], decayed)
        return theta, [*own, slots[-1] + numbers[-1] * (theta - slots[-1])]
    lr = numbers[0]
    if optimizer == "sgd":
        return theta - lr * g, []
    if optimizer == "momentum" and p["variant"] == "average":
        v = _mix(B, p["momentum"], slots[0], g)
        return theta - lr * v, [v]
    if optimizer == "momentum":
        v = p["momentum"] * slots[0] - lr * g
        return theta + v, [v]
    if optimizer == "nesterov":
        v = p["momentum"] * slots[0] - lr * g
        return theta + (p["momentum"] * v - lr * g), [v]
    if optimizer in ("rmsprop", "adagrad"):
        s = _mix(B, p["rho"], slots[0], g * g) if optimizer == "rmsprop" else slots[0] + g * g
        return theta - lr * g / (B.sqrt(s) + p["epsilon"]), [s]
    if optimizer == "lion":
        direction = B.sign(_mix(B, p["beta1"], slots[0], g))
        kept = B.where(decayed, numbers[1] * theta, theta)
        return kept - lr * direction, [_mix(B, p["beta2"], slots[0], g)]
    if optimizer not in ("adam", "adamw", "amsgrad"):
        raise LookupError(optimizer)
    m, v = _mix(B, p["beta1"], slots[0], g), _mix(B, p["beta2"], slots[1], g * g)
    largest = [B.maximum(slots[2], v)] if optimizer == "amsgrad" else []
    second = largest[0] if largest else v
    kept = B.where(decayed, numbers[2] * theta, theta) if optimizer == "adamw" else theta
    return kept - lr * m / (numbers[1] * B.sqrt(second) + p["epsilon"]), [m, v, *largest]
