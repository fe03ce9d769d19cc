"""Optimizers as pure recurrences over a vector.

One step is split where the device begins: ``scalars(t, learning_rate)`` gives the few numbers that change from step to
step, in float64 on the host (so that 1 - beta^t keeps its digits in float32), and ``apply`` is elementwise array code
that returns the new theta and the new state. ``t`` counts steps from 1.

Weight decay is a number in ``scalars`` as well; ``apply`` is called with ``decay=False`` for biases.

Any of them may keep an average of the parameters over the steps (``average``): ``state``, ``numbers`` and ``step`` are
``state_names``, ``scalars`` and ``apply`` with it, and are what a training step uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from .._typing import Array, Namespace
from ..errors import ConfigError, did_you_mean
from .registry import create, is_number

Vectors = tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer:
    """Base. ``state_names`` are those of the vectors that it keeps, which start at 0.

    One of your own is a frozen dataclass with a ``name``.

    ``average`` d, if it is not 0, keeps the exponential moving average of the parameters, corrected for its start: with
    m <- d m + (1 - d) theta from m = 0, it is m/(1 - d^t), which is the plain mean of the first few steps (Polyak &
    Juditsky 1992; the correction of Kingma & Ba 2015, section 7.2). It is what is evaluated and saved in the end.
    """

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]] = ()
    decays: ClassVar[bool] = False  # whether ``apply`` looks at ``decay``
    # The power of the gradient's size with which the step grows: 1 or, but for epsilon, 0; None: not said.
    gradient_power: ClassVar[int | None] = None
    learning_rate: float = 1e-3
    average: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not is_number(f.default):  # a variant, or something of a subclass of one's own
                continue
            if not is_number(value):
                raise ConfigError(f"optimizer {self.name}: {f.name} must be a number, got {value!r}")
            lowest_allowed = f.name not in ("learning_rate", "epsilon")
            below_one = f.name in ("momentum", "beta1", "beta2", "rho", "average")
            fine = math.isfinite(value) and (value >= 0.0 if lowest_allowed else value > 0.0)
            if not fine or (below_one and value >= 1.0):
                limits = f"{'at least 0' if lowest_allowed else 'positive'}{' and below 1' if below_one else ''}"
                raise ConfigError(f"optimizer {self.name}: {f.name} must be {limits}, got {value}")

    def scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        """The numbers of step t (from 1), at most three, in the order in which ``apply`` unpacks them."""
        return (learning_rate,)

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """One step: (theta, grad, state) -> (theta, state), all of one shape, nothing written in place."""
        raise NotImplementedError

    @property
    def state(self) -> tuple[str, ...]:
        """``state_names``, and the average where one is kept."""
        return (*self.state_names, "average") if self.average else self.state_names

    def step_scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        """``scalars``, and the share of the newest parameters in their average: (1 - d)/(1 - d^t), 1 at first."""
        own = self.scalars(t, learning_rate)
        return (*own, (1.0 - self.average) / (1.0 - self.average**t)) if self.average else own

    def step(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], numbers: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """``apply``, then average <- average + share (theta - average)."""
        n = len(self.state_names)
        if not self.average:
            return self.apply(xp, theta, grad, state, numbers, decay=decay)
        theta, own = self.apply(xp, theta, grad, state[:n], numbers[:-1], decay=decay)
        return theta, (*own, state[n] + numbers[-1] * (theta - state[n]))

    def spec(self) -> dict[str, Any]:
        """What :func:`get_optimizer` takes back."""
        return {"name": self.name, **vars(self)}


@dataclass(frozen=True)
class SGD(Optimizer):
    """theta <- theta - lr g (course week 4, ``update_parameters``)."""

    name = "sgd"
    gradient_power = 1
    learning_rate: float = 1e-2

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """theta - lr g."""
        (lr,) = scalars
        return theta - lr * grad, ()


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Heavy ball, in both published forms (``variant``).

    * ``"velocity"``: v <- mu v - lr g; theta <- theta + v (Polyak 1964 as in Sutskever et al. 2013, equations 1-2;
      scikit-learn).
    * ``"average"``: v <- mu v + (1 - mu) g; theta <- theta - lr v (course 2, week 2).
    """

    name = "momentum"
    gradient_power = 1
    state_names = ("v",)
    learning_rate: float = 1e-2
    momentum: float = 0.9
    variant: str = "velocity"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(self, "variant", ("velocity", "average"))

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """The recurrence of the variant."""
        (lr,), (v,) = scalars, state
        if self.variant == "velocity":
            v = self.momentum * v - lr * grad
            return theta + v, (v,)
        v = self.momentum * v + (1.0 - self.momentum) * grad
        return theta - lr * v, (v,)


@dataclass(frozen=True)
class Nesterov(Optimizer):
    """v <- mu v - lr g; theta <- theta + mu v - lr g (Nesterov 1983, in Bengio et al. 2013's form; scikit-learn)."""

    name = "nesterov"
    gradient_power = 1
    state_names = ("v",)
    learning_rate: float = 1e-2
    momentum: float = 0.9

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """v <- mu v - lr g; theta + (mu v - lr g)."""
        (lr,), (v,) = scalars, state
        step = lr * grad
        v = self.momentum * v - step
        return theta + (self.momentum * v - step), (v,)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s <- rho s + (1 - rho) g^2; theta <- theta - lr g / (sqrt s + eps) (Hinton 2012, lecture 6e)."""

    name = "rmsprop"
    gradient_power = 0
    state_names = ("s",)
    rho: float = 0.9
    epsilon: float = 1e-8

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """The recurrence."""
        (lr,), (s,) = scalars, state
        s = self.rho * s + (1.0 - self.rho) * (grad * grad)
        return theta - lr * grad / (xp.sqrt(s) + self.epsilon), (s,)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s <- s + g^2; theta <- theta - lr g / (sqrt s + eps) (Duchi, Hazan & Singer 2011, diagonal form)."""

    name = "adagrad"
    gradient_power = 0
    state_names = ("s",)
    learning_rate: float = 1e-2
    epsilon: float = 1e-8

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """The recurrence."""
        (lr,), (s,) = scalars, state
        s = s + grad * grad
        return theta - lr * grad / (xp.sqrt(s) + self.epsilon), (s,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2 (Kingma & Ba 2015, algorithm 1).

    ``variant``:

    * ``"paper"``: theta <- theta - lr m/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps) (algorithm 1; PyTorch);
    * ``"epsilon_hat"``: theta <- theta - lr sqrt(1 - b2^t)/(1 - b1^t) m / (sqrt v + eps) (end of section 2;
      scikit-learn, TensorFlow).
    """

    name = "adam"
    gradient_power = 0
    state_names: ClassVar[tuple[str, ...]] = ("m", "v")
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    variant: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(self, "variant", ("paper", "epsilon_hat"))

    def scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        """(step size, factor of sqrt v): the bias corrections of the variant."""
        first, second = 1.0 - self.beta1**t, math.sqrt(1.0 - self.beta2**t)
        if self.variant == "paper":
            return learning_rate / first, 1.0 / second
        return learning_rate * second / first, 1.0

    def _moments(self, grad: Array, m: Array, v: Array) -> tuple[Array, Array]:
        return self.beta1 * m + (1.0 - self.beta1) * grad, self.beta2 * v + (1.0 - self.beta2) * (grad * grad)

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """theta - step m / (c sqrt v + eps)."""
        step, c = scalars
        m, v = self._moments(grad, state[0], state[1])
        return theta - step * m / (c * xp.sqrt(v) + self.epsilon), (m, v)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: theta <- theta (1 - lr lambda) first (Loshchilov & Hutter 2019, algorithm 2).

    The decay is scaled by the learning rate, as in PyTorch; biases are not decayed.
    """

    name = "adamw"
    decays = True
    weight_decay: float = 1e-2

    def scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        """Adam's two, and 1 - lr lambda."""
        return (*super().scalars(t, learning_rate), 1.0 - learning_rate * self.weight_decay)

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """Decay, then Adam's step."""
        step, c, shrink = scalars
        return super().apply(xp, shrink * theta if decay else theta, grad, state, (step, c), decay=decay)


@dataclass(frozen=True)
class AMSGrad(Adam):
    """Adam whose second moment never falls: v_max <- max(v_max, v) in its place (Reddi et al. 2018, algorithm 2).

    Bias corrections as in Adam (the paper leaves them out; PyTorch applies them to v_max, as here).
    """

    name = "amsgrad"
    state_names = ("m", "v", "v_max")

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """theta - step m / (c sqrt v_max + eps)."""
        step, c = scalars
        m, v = self._moments(grad, state[0], state[1])
        v_max = xp.maximum(state[2], v)
        return theta - step * m / (c * xp.sqrt(v_max) + self.epsilon), (m, v, v_max)


@dataclass(frozen=True)
class Lion(Optimizer):
    """theta <- theta (1 - lr lambda) - lr sign(b1 m + (1 - b1) g); m <- b2 m + (1 - b2) g.

    Source: Chen et al. 2023, algorithm 2.
    """

    name = "lion"
    gradient_power = 0
    decays = True
    state_names = ("m",)
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        """lr, and 1 - lr lambda."""
        return learning_rate, 1.0 - learning_rate * self.weight_decay

    def apply(
        self, xp: Namespace, theta: Array, grad: Array, state: Sequence[Array], scalars: Sequence[Any], *, decay: bool
    ) -> tuple[Array, Vectors]:
        """The recurrence."""
        (lr, shrink), (m,) = scalars, state
        direction = xp.sign(self.beta1 * m + (1.0 - self.beta1) * grad)
        m = self.beta2 * m + (1.0 - self.beta2) * grad
        return (shrink * theta if decay else theta) - lr * direction, (m,)


def _one_of(optimizer: Optimizer, field: str, known: tuple[str, ...]) -> None:
    value = getattr(optimizer, field)
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise ConfigError(f"optimizer {optimizer.name}: {field} must be {' or '.join(known)}, got {value!r}{hint}")


OPTIMIZERS: dict[str, type[Optimizer]] = {
    c.name: c for c in (SGD, Momentum, Nesterov, RMSprop, Adagrad, Adam, AdamW, AMSGrad, Lion)
}


def get_optimizer(spec: str | dict[str, Any] | Optimizer) -> Optimizer:
    """Look an optimizer up: ``"adam"``, ``{"name": "adam", "learning_rate": 3e-4}`` or an Optimizer.

    Raises
    ------
    ConfigError
        For an unknown name or parameter, or a value out of its range.
    """
    return create("optimizer", Optimizer, ("name", "apply"), OPTIMIZERS, spec)
