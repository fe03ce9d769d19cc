"""Settings of a network and of a step, checked: sizes, what is given for all hidden layers or for each, penalties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..backends.collective import Collective
from ..errors import ConfigError, did_you_mean
from ..maths.activations import Activation, get_activation
from ..maths.ledger import REDUCTIONS, split_scale
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from ..maths.registry import is_number

FORMS = ("fused", "literal")  # of the backward pass's start


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Units per layer, n_0 .. n_L."""
    if not isinstance(sizes, Iterable):
        raise ConfigError(f"sizes must be a list of units per layer, such as [30, 16, 1]; got {sizes!r}")
    given = tuple(sizes)
    if len(given) < 2:
        raise ConfigError(f"sizes needs inputs and outputs at least, such as [30, 16, 1]; got {list(given)}")
    for n in given:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"every layer needs at least one unit; sizes is {list(given)}")
    for k, n in itertools.pairwise(given):
        if int(n) * int(k) > 2**40:
            raise ConfigError(f"a layer of {k} x {n} weights is beyond any device; sizes is {list(given)}")
    return tuple(int(n) for n in given)


def _for_each(given: Any, L: int, what: str) -> list[Any]:
    """One setting for each hidden layer: the one that was given for all, or the list as it is."""
    hidden = list(given) if isinstance(given, list | tuple) else [given] * (L - 1)
    if len(hidden) != L - 1:
        raise ConfigError(f"{L - 1} hidden layers need {L - 1} {what}, got {len(hidden)}")
    return hidden


def per_layer_activations(given: Any, L: int) -> list[Activation]:
    """[identity for the input, g_1 .. g_{L-1}, identity for the logits]."""
    found = [get_activation(a) for a in _for_each(given, L, "activations")]
    for a in found:
        if a.output_only:
            raise ConfigError(f"activation {a.name!r} is for outputs; it comes with the loss, not in a hidden layer")
    return [get_activation("identity"), *found, get_activation("identity")]


def per_layer_dropout(given: float | Sequence[float], L: int) -> list[float]:
    """[0 for the input, the hidden layers' rates, 0 for the logits]."""
    hidden = _for_each(given, L, "dropout rates")
    for rate in hidden:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {rate!r}")
    return [0.0, *(float(rate) for rate in hidden), 0.0]


def per_layer_choice(name: str, given: bool | Sequence[bool], L: int) -> list[bool]:
    """[False for the input, which hidden layers have it (batch_norm, say), False for the logits]."""
    hidden = _for_each(given, L, f"entries in {name}")
    for choice in hidden:
        if not isinstance(choice, bool | np.bool_):
            raise ConfigError(f"{name} must be true or false for each hidden layer, got {choice!r}")
    return [False, *(bool(choice) for choice in hidden), False]


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """That a setting is one of those that are known."""
    if value not in known:
        raise ConfigError(f"{name} must be {' or '.join(known)}, got {value!r}{did_you_mean(str(value), known)}")


def check_penalties(l1: float, l2: float, clip_norm: float | None) -> None:
    """That a step's penalties and the limit of its gradient are in their range."""
    for name, number in (("l1", l1), ("l2", l2)):
        if not (is_number(number) and 0.0 <= number < math.inf):
            raise ConfigError(f"{name} must be at least 0, got {number!r}")
    if clip_norm is not None and not (is_number(clip_norm) and 0.0 < clip_norm < math.inf):
        raise ConfigError(f"clip_norm must be positive, got {clip_norm!r}")


def check_step_choices(loss: Loss, delta: str, one_over_m: str, penalty_over: str, reduction: str) -> None:
    """ConfigError for a choice of ``TrainingStep`` that is none."""
    check_choice("delta", delta, FORMS)
    check_choice("penalty_over", penalty_over, ("examples", "none"))
    check_choice("reduction", reduction, REDUCTIONS)
    split_scale(one_over_m, None)  # rejects an unknown convention
    if delta == "literal" and type(loss).literal_dAL is Loss.literal_dAL:
        raise ConfigError(f"loss {loss.name!r} has no literal_dAL; use delta='fused'")


def check_epsilon(optimizer: Optimizer, dtype: str) -> None:
    """ConfigError for an epsilon that the dtype rounds to 0."""
    epsilon = getattr(optimizer, "epsilon", None)
    if epsilon is not None and not np.dtype(dtype).type(epsilon):
        raise ConfigError(f"optimizer {optimizer.name}: epsilon {epsilon} is 0 in {dtype}; raise it")


def check_ranks(ranks: Collective, kernels: str, batch_norm: Sequence[bool]) -> None:
    """ConfigError for what several ranks cannot train."""
    if ranks.size > 1 and kernels.startswith("cuda"):
        raise ConfigError("kernels: cuda trains on one rank; several take kernels: reference, which is plain CuPy")
    if ranks.size > 1 and any(batch_norm):
        problem = "batch_norm would take the statistics of each rank's own examples"
        raise ConfigError(f"{problem}: leave it out, or train on one rank")
