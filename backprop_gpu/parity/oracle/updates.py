"""What happens once per training step, in float64 with bounds: schedules, penalty, clipping, every optimizer's update.

Written apart from ``maths``, as ``layers`` is; see there for what the arguments are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .bounds import Bounded, Bounds
from .elementary import sqrt
from .layers import Parameters
from .operations import maximum, sign, sum_over, where

State = Callable[[int], Bounded]
"""Vector k of an optimizer's state."""


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * part)) / 2.0


def schedule_factor(name: str, p: Parameters, t: int, steps: int) -> float:
    """What the learning rate is multiplied with at step t (from 0) of ``steps``."""
    if name == "constant":
        return 1.0
    if name == "step":
        return float(p["gamma"] ** math.floor(t / p["every"]))
    if name == "exponential":
        return float(p["gamma"] ** t)
    if name == "inverse_scaling":
        return float(1.0 / (t + 1) ** p["power"])
    if name == "cosine":
        return _half_cosine(1.0, p["floor"], min(t, steps) / max(steps, 1))
    if name == "linear_warmup":
        warmup = p["warmup"]
        if t < warmup:
            return float((t + 1) / warmup)
        rest = max(steps - warmup, 0)
        return _half_cosine(1.0, p["floor"], min(t - warmup, rest) / max(rest, 1))
    if name == "one_cycle":
        peak = p["rise"] * max(steps - 1, 1)
        if t < peak:
            return _half_cosine(1.0 / p["initial_div"], 1.0, t / peak)
        return _half_cosine(1.0, 1.0 / p["final_div"], min((t - peak) / max(steps - 1 - peak, 1e-12), 1.0))
    if name == "coslog":  # sin^2(pi c): whole cycles c of waves that double in length
        part = min((t + 0.5) / max(steps, 1), 1.0)
        return math.sin(math.pi * math.log2(1.0 - part + 2.0 ** p["cycles"] * part)) ** 2
    if name == "flat_cosine":
        flat = p["flat"] * steps
        return 1.0 if t < flat else _half_cosine(1.0, 0.0, min((t - flat) / max(steps - flat, 1e-12), 1.0))
    raise LookupError(name)


def penalized(B: Bounds, theta: Bounded, grad: Bounded, l1: Bounded | None, l2: Bounded | None) -> Bounded:
    """grad + l2 theta + l1 sign(theta)."""
    terms = [grad]
    if l2 is not None:
        terms.append(l2 * theta)
    if l1 is not None:
        terms.append(l1 * sign(theta))
    return B.total(*terms)


def penalty_cost(B: Bounds, theta: Bounded, value: Bounded, l1: Bounded | None, l2: Bounded | None) -> Bounded:
    """value + l2/2 |theta|^2 + l1 |theta|_1."""
    value = value if l2 is None else value + sum_over(theta * theta) * (0.5 * l2)
    return value if l1 is None else value + sum_over(abs(theta)) * l1


def global_norm(B: Bounds, grad: np.ndarray) -> Bounded:
    """|grad|_2, (1,), of any finite gradient: scaled by a power of two, which rounds nothing, before it is squared.

    A norm that the device's precision cannot hold keeps its bound here; ``checked`` takes it away.
    """
    top = float(np.max(np.abs(grad), initial=0.0))
    exponent = math.frexp(top)[1] if math.isfinite(top) else 0
    scaled = B.given(np.ldexp(grad.astype(np.float64), -exponent))
    root = sqrt(sum_over(scaled * scaled))
    with np.errstate(over="ignore"):
        v, e = np.ldexp(root.v, exponent), np.ldexp(root.error(), exponent)
    return Bounded(B, v, float(v[0]), a=B.eta, e=e)


def clip_factor(B: Bounds, norm: Bounded, max_norm: float) -> Bounded:
    """min(1, max_norm / norm)."""
    return where(norm > max_norm, max_norm / maximum(norm, max_norm), 1.0, B)


def step_numbers(optimizer: str, p: Parameters, t: int, learning_rate: float) -> list[float]:
    """What changes from step to step (t from 1), in float64: the rule's numbers, then the share of the newest weights.

    Their average with decay d is m_t/(1 - d^t), m_t = (1 - d) sum of d^(t - i) theta_i, so that share is
    (1 - d)/(1 - d^t).
    """
    numbers, d = _rule_numbers(optimizer, p, t, learning_rate), p.get("average", 0.0)
    return [*numbers, (1.0 - d) / (1.0 - d**t)] if d else numbers


def _rule_numbers(optimizer: str, p: Parameters, t: int, learning_rate: float) -> list[float]:
    """The step size, then what the rule multiplies with."""
    if optimizer in ("adam", "adamw", "amsgrad"):
        first, second = 1.0 - p["beta1"] ** t, math.sqrt(1.0 - p["beta2"] ** t)
        hat = p["variant"] == "epsilon_hat"
        numbers = [learning_rate * second / first, 1.0] if hat else [learning_rate / first, 1.0 / second]
        return [*numbers, 1.0 - learning_rate * p["weight_decay"]] if optimizer == "adamw" else numbers
    if optimizer == "lion":
        return [learning_rate, 1.0 - learning_rate * p["weight_decay"]]
    return [learning_rate]


def _mix(B: Bounds, rate: float, old: Bounded, new: Bounded, same_sign: bool = False) -> Bounded:
    """rate old + (1 - rate) new."""
    return B.total(rate * old, B.constant(1.0 - rate) * new, same_sign=same_sign)


def new_state_vector(
    B: Bounds, optimizer: str, p: Parameters, k: int, g: Bounded, state: State, lr: Bounded
) -> Bounded:
    """Vector k of the optimizer's state after the step, from the state before it."""
    if optimizer == "momentum" and p["variant"] == "average":
        return _mix(B, p["momentum"], state(0), g)
    if optimizer in ("momentum", "nesterov"):
        return p["momentum"] * state(0) - lr * g
    if optimizer == "rmsprop":
        return _mix(B, p["rho"], state(0), g * g, same_sign=True)
    if optimizer == "adagrad":
        return B.total(state(0), g * g, same_sign=True)
    if optimizer == "lion":
        return _mix(B, p["beta2"], state(0), g)
    if optimizer not in ("adam", "adamw", "amsgrad"):
        raise LookupError(optimizer)
    if k == 0:
        return _mix(B, p["beta1"], state(0), g)
    second = _mix(B, p["beta2"], state(1), g * g, same_sign=True)
    return second if k == 1 else maximum(state(2), second)


def new_average(B: Bounds, average: Bounded, theta: Bounded, share: Bounded) -> Bounded:
    """The average of the parameters after the step, from what it was and the parameters after the step."""
    return average + share * (theta - average)


def new_theta(
    B: Bounds,
    optimizer: str,
    p: Parameters,
    theta: Bounded,
    g: Bounded,
    old: State,
    new: State,
    numbers: Sequence[Bounded],
    decay: bool,
) -> Bounded:
    """theta after the step, from the state before it (``old``) and after it (``new``); ``decay``: of these entries."""
    lr = numbers[0]
    if optimizer == "sgd":
        return theta - lr * g
    if optimizer == "momentum":
        return theta - lr * new(0) if p["variant"] == "average" else theta + new(0)
    if optimizer == "nesterov":
        return B.total(theta, p["momentum"] * new(0), -(lr * g))
    if optimizer in ("rmsprop", "adagrad"):
        return theta - lr * g / B.total(sqrt(new(0)), p["epsilon"], same_sign=True)
    if optimizer == "lion":
        direction = sign(_mix(B, p["beta1"], old(0), g))
        return (numbers[1] * theta if decay else theta) - lr * direction
    if optimizer not in ("adam", "adamw", "amsgrad"):
        raise LookupError(optimizer)
    kept = numbers[2] * theta if optimizer == "adamw" and decay else theta
    root = numbers[1] * sqrt(new(2 if optimizer == "amsgrad" else 1))
    return kept - lr * new(0) / B.total(root, p["epsilon"], same_sign=True)
