"""Which parameters an optimizer updates together, and with which learning rate: per-tensor factors, NTK.

**NTK parametrization** (Jacot, Gabriel & Hongler 2018): a layer of k inputs computes Z = V A / sqrt(k) + b, and V is
what the optimizer moves. Here the network holds W = V / sqrt(k), so that forward, backward, prediction and model files
are those of any network, and the optimizer's step is taken in V's coordinates. With r = 1/sqrt(k), dJ/dV = r dJ/dW
and W moves by r times what V does, so

* a step proportional to the gradient (SGD, momentum, Nesterov) has the learning rate r^2 lr;
* a step that does not depend on the gradient's size (Adam and its relatives, Lion) has r lr, and epsilon / r in
  the place of epsilon: r m / (sqrt(r^2 v) + eps) = m / (sqrt(v) + eps / r).

This is exact, not an approximation, for every optimizer of the package (abc-parametrizations: Yang & Hu 2021, section
3.2). Decoupled weight decay multiplies V and W by the same number. A penalty and the limit of the gradient's norm stay
those of W. Normal initial weights of V are W ~ N(0, 1/k), the initializer ``lecun_normal``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._typing import Array
from ..backends.protocol import Kernels
from ..errors import ConfigError, did_you_mean
from ..maths.optimizers import Optimizer
from ..maths.registry import is_number
from .memory import FlatParams, kind_of
from .settings import check_choice

PARAMETRIZATIONS = ("standard", "ntk")


@dataclass(frozen=True)
class Rule:
    """How the tensors of one or more groups are updated: ``factor`` times the learning rate, ``r`` as above."""

    factor: float = 1.0
    r: float = 1.0

    def optimizer(self, given: Optimizer) -> Optimizer:
        """The optimizer, with its epsilon in the coordinates of W."""
        epsilon = getattr(given, "epsilon", None)
        if self.r == 1.0 or epsilon is None:
            return given
        changed: Any = {"epsilon": epsilon / self.r}
        return replace(given, **changed)

    def step_scalars(self, given: Optimizer, t: int, learning_rate: float) -> tuple[float, ...]:
        """The optimizer's numbers of step t, of which the first is the step's size."""
        first, *rest = given.step_scalars(t, self.factor * learning_rate)
        return (first * self.r ** (1 + (given.gradient_power or 0)), *rest)


PLAIN = Rule()


@dataclass(frozen=True)
class Group:
    """Adjacent tensors of the flat vector with one rule; ``decay``: whether an optimizer decays them."""

    part: slice
    decay: bool
    rule: int


class ParameterGroups:
    """The groups of a network's parameters.

    Parameters
    ----------
    params : FlatParams
    optimizer : Optimizer
    factors : mapping of str to float
        Of learning rates, by a tensor's name (``"W1"``) or kind (``"b"``); the name has precedence.
    parametrization : {"standard", "ntk"}

    Raises
    ------
    ConfigError
        For a factor out of its range or of no tensor, and for "ntk" with an optimizer of the user's own that does not
        say how its step scales (``gradient_power``).
    """

    def __init__(
        self, params: FlatParams, optimizer: Optimizer, factors: Mapping[str, float], parametrization: str
    ) -> None:
        check_choice("parametrization", parametrization, PARAMETRIZATIONS)
        if parametrization == "ntk" and optimizer.gradient_power is None:
            raise ConfigError(
                f"optimizer {optimizer.name!r} does not say how its step scales with the gradient; set gradient_power "
                "in its class to 1 (proportional) or 0 (of one size for any gradient), or leave parametrization out"
            )
        self.factors, self.parametrization = checked_factors(factors, params), parametrization
        size = int(params.theta.shape[0])
        starts = [offset for _, _, offset, _ in params.spans]
        ends = [*starts[1:], size]  # padding, which stays 0, belongs to the tensor before it
        found: list[tuple[int, int, bool, Rule]] = []
        for (name, _, start, shape), end in zip(params.spans, ends, strict=True):
            factor = self.factors.get(name, self.factors.get(kind_of(name), 1.0))
            r = 1.0 / math.sqrt(shape[1]) if parametrization == "ntk" and kind_of(name) == "W" else 1.0
            # Biases are never decayed; without decay there is one kind of tensor.
            decay, rule = optimizer.decays and start < params.n_weights, Rule(factor, r)
            if found and found[-1][2:] == (decay, rule):
                start = found.pop()[0]
            found.append((start, end, decay, rule))
        self.rules = list(dict.fromkeys(rule for *_, rule in found))
        self.groups = [Group(slice(a, b), decay, self.rules.index(rule)) for a, b, decay, rule in found]

    def step_scalars(self, optimizer: Optimizer, t: int, learning_rate: float) -> list[float]:
        """The optimizer's numbers of step t (from 1) for each rule, one after the other."""
        if self.rules == [PLAIN]:  # an epoch asks for those of all its steps
            return list(optimizer.step_scalars(t, learning_rate))
        return list(itertools.chain(*(rule.step_scalars(optimizer, t, learning_rate) for rule in self.rules)))

    def n_scalars(self, optimizer: Optimizer) -> int:
        """How many numbers that are."""
        return len(self.step_scalars(optimizer, 1, optimizer.learning_rate))

    def update(
        self,
        kernels: Kernels,
        optimizer: Optimizer,
        params: FlatParams,
        state: Sequence[Array],
        *,
        scalars: Array,
        factor: Array | None,
    ) -> None:
        """Take the optimizer's step; ``scalars``: those of :meth:`step_scalars` on the device."""
        n = scalars.shape[0] // len(self.rules)
        for group in self.groups:
            part, of_rule = group.part, scalars[group.rule * n : (group.rule + 1) * n]
            kernels.update(
                *(self.rules[group.rule].optimizer(optimizer), params.theta[part], params.grad[part]),
                [vector[part] for vector in state],
                scalars=of_rule,
                factor=factor,
                decay=group.decay,
            )


def checked_factors(factors: Any, params: FlatParams) -> dict[str, float]:
    """The factors as plain numbers.

    Raises
    ------
    ConfigError
        For a factor below 0, or of a tensor that the network does not have.
    """
    if not isinstance(factors, Mapping):
        raise ConfigError(f"learning_rate_factors must be a mapping such as {{'b': 0.1}}, got {factors!r}")
    names = list(params.tensors)
    known = [*dict.fromkeys(kind_of(name) for name in names), *names]
    for name, value in factors.items():
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ConfigError(f"learning_rate_factors: the network has no {name!r}{hint}; it has {', '.join(known)}")
        if not (is_number(value) and 0.0 <= value < math.inf):
            raise ConfigError(f"learning_rate_factors: {name} must be a number from 0, got {value!r}")
    return {str(name): float(value) for name, value in factors.items()}
