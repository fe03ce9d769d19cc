"""Recording a training step: a kernel set that passes every call on and keeps host copies of what it wrote.

The recorder knows no formula and changes nothing of what is computed. ``replay`` recomputes each operation from what is
recorded here and from what was asked for, which :class:`Recipe` says in plain words and numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..backends.builtin import is_builtin
from ..backends.protocol import Kernels
from ..errors import ConfigError
from ..network.spec import described, step_spec
from ..network.step import TrainingStep
from .claims import kind_of
from .oracle.groups import Part, parts
from .oracle.layers import Name
from .own_formulas import OwnActivation, own_activations

# What an operation writes, and the small inputs that change from step to step. The gradient that ``penalty`` writes and
# the vectors that ``update`` writes are recorded once, when the step is over.
WRITTEN: dict[str, tuple[str, ...]] = {
    "dense": ("A",),
    "dense_vjp_input": ("dZ_prev", "db_prev"),
    "dense_vjp_params": ("dW",),
    "batch_norm": ("A", "X", "inverse_std", "mean", "variance"),
    "batch_norm_vjp": ("dZ", "dgamma"),
    "parametric": ("A", "D", "S"),
    "parametric_vjp": ("dZ", "dalpha", "db"),
    "scaling": ("H",),
    "scaling_vjp": ("ds", "dX"),
    "periodic": ("E", "P", "Q"),
    "periodic_vjp": ("dw", "db", "dV", "dc"),
    "member_weights": ("out",),
    "member_weights_vjp": ("dW", "dr", "ds"),
    "output_delta": ("dZ", "db", "value"),
    "penalty": ("value",),
    "global_norm": ("norm", "factor"),
    "update": (),
}
NUMBERS: dict[str, tuple[str, ...]] = {
    "output_delta": ("inverse_denominator",),
    "dense_vjp_input": ("scale",),
    "dense_vjp_params": ("scale",),
    "batch_norm": ("mean", "variance"),
    "scaling_vjp": ("scale",),
    "parametric_vjp": ("scale",),
    "periodic_vjp": ("scale",),
    "penalty": ("l1", "l2"),
    "update": ("scalars",),
}
REVEALED = ("Z", "G", "mask")


@dataclass(frozen=True)
class TraceSpec:
    """What was asked for: a network and how it is trained. Everything here goes into JSON and back.

    ``activations``: [name, parameters] of the hidden layers; ``batch_norm``: which of them are normalized, none if
    empty; ``layout``: name -> [offset, [rows, columns]] in the flat vector; ``kind``: whose functions are called
    (``claims.ULPS``); ``own``: activations that the package does not have, by layer, which no file holds.
    """

    sizes: tuple[int, ...]
    activations: list[tuple[str, dict[str, float]]]
    loss: str
    loss_parameters: dict[str, Any]
    optimizer: str
    optimizer_parameters: dict[str, Any]
    schedule: str
    schedule_parameters: dict[str, float]
    total_steps: int
    layout: dict[str, tuple[int, tuple[int, int]]]
    dropout: list[float]
    seed: int
    form: str
    one_over_m: str
    reduction: str
    l1: float
    l2: float
    penalty_over: str
    clip_norm: float | None
    micro_batch: int | None
    dtype: str
    device: str
    kernels: str
    kind: str
    batch_norm: list[bool] = field(default_factory=list)
    learning_rate_factors: dict[str, float] = field(default_factory=dict)
    parametrization: str = "standard"
    input_scaling: bool = False
    periodic_embedding: dict[str, Any] = field(default_factory=dict)
    parametric: list[bool] = field(default_factory=list)
    members: int = 1
    adapters: str = "first"
    own: dict[int, OwnActivation] = field(default_factory=dict, repr=False, compare=False)

    def activation(self, l: int) -> tuple[Name, dict[str, float]]:
        """The formula of hidden layer l: a name, or one of ``own``, and its parameters."""
        name, parameters = self.activations[l - 1]
        return self.own.get(l, name), parameters

    @property
    def n_weights(self) -> int:
        """Where the biases begin: weights come first in the flat vector."""
        return min(offset for name, (offset, _) in self.layout.items() if name.startswith("b"))

    def groups(self, size: int) -> list[Part]:
        """Which entries of the flat vector of ``size`` numbers are updated with which numbers."""
        how = self.learning_rate_factors, self.parametrization
        return parts(self.layout, size, self.n_weights, self.optimizer, *how)

    def parts(self, m: int) -> list[slice]:
        """The micro-batches of m examples: full ones and the rest, or with a normalized layer as even as can be."""
        size = self.micro_batch or m
        if not any(self.batch_norm):
            return [slice(start, min(start + size, m)) for start in range(0, m, size)]
        parts = max(1, min(-(-m // size), m // 2))
        ends = np.cumsum([m // parts + (k < m % parts) for k in range(parts)]).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class Call:
    """One kernel call: copies of what it wrote, of its numbers, and of what ``debug_tensors`` shows after a forward."""

    name: str
    wrote: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray | None] = field(default_factory=dict)
    revealed: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class StepTrace:
    """One step: what was asked, what was given, and every tensor, as host copies.

    Attributes
    ----------
    t : int
        Optimizer steps that were taken before this one.
    X, Y, weights : (n_0, m), (n_L, m) or (1, m) labels, (1, m) or None
        As they were handed to the step.
    theta, optimizer_state, theta_after, optimizer_state_after : (size,) each
        The parameters and the optimizer's state before and after.
    grad, value : (size,), (1,)
        The gradient that was applied, and J.
    previous : StepTrace, optional
        The step before, where it was recorded too: a stale operand is known by it. No part of a case.
    """

    spec: TraceSpec
    t: int
    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None
    theta: np.ndarray
    optimizer_state: list[np.ndarray]
    calls: list[Call]
    grad: np.ndarray
    value: np.ndarray
    theta_after: np.ndarray
    optimizer_state_after: list[np.ndarray]
    previous: StepTrace | None = field(default=None, repr=False, compare=False)


def layer_calls(calls: Sequence[Call]) -> list[Call]:
    """The calls that left each layer's A, in order: the last one of a layer that has several."""
    found: list[Call] = []
    for call in calls:
        if call.name in ("batch_norm", "parametric"):
            found[-1] = call
        elif call.name == "dense":
            found.append(call)
    return found


class Recorder:
    """A kernel set around another; ``calls`` grows with every call."""

    def __init__(self, kernels: Any, backend: Backend) -> None:
        self.kernels, self.backend = kernels, backend
        self.calls: list[Call] = []
        self._signatures = {name: inspect.signature(getattr(Kernels, name)) for name in WRITTEN}

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.kernels, name)
        return self._recorded(name, operation) if name in WRITTEN else operation

    def _recorded(self, name: str, operation: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            given = self._signatures[name].bind(self, *args, **kwargs).arguments
            numbers = {key: self.copy(given[key]) for key in NUMBERS.get(name, ())}
            operation(*args, **kwargs)
            if name == "penalty" and given["l1"] is None and given["l2"] is None:
                return  # nothing was asked; whatever it wrote all the same shows in the gradient
            record = Call(name, {key: self.copy(given[key]) for key in WRITTEN[name]}, numbers)
            if name in ("dense", "batch_norm", "parametric"):
                found = self.kernels.debug_tensors(given["saved"])
                # A buffer that is A itself is not copied twice.
                record.revealed = {
                    key: self.copy(found[key])
                    for key in REVEALED
                    if found.get(key) is not None and found[key] is not given["A"]
                }
            self.calls.append(record)

        return call

    def copy(self, x: Any) -> Any:
        """A host copy; None stays None."""
        return None if x is None else self.backend.to_host(x)


def trace_spec(step: TrainingStep, micro_batch: int | None = None) -> TraceSpec:
    """What a step was asked to do, read off its settings.

    Raises
    ------
    ConfigError
        For a loss, an optimizer or a schedule of the user's own, which parity has no second version of.
    """
    net = step.net
    for formula in (net.loss, step.optimizer, step.schedule):
        if not is_builtin(formula):
            raise ConfigError(
                f"parity has no bounds for {formula.name!r}: of formulas of your own it takes activations; gradcheck "
                "checks losses too, and parity.check_step any function"
            )
    return TraceSpec(
        **described(step_spec(step)),
        micro_batch=micro_batch,
        layout={name: (offset, shape) for name, _, offset, shape in net.params.spans},
        device=net.backend.name,
        kernels=type(net.kernels).__name__,
        kind=kind_of(net.backend, net.kernels),
        own=own_activations(net.activations[1:-1]),
    )


def trace_step(
    step: TrainingStep,
    X: Any,
    Y: Any,
    weights: Any = None,
    *,
    weights_sum: float | None = None,
    micro_batch: int | None = None,
) -> StepTrace:
    """Take one step with a recorder in place of the network's kernels, and put them back.

    Parameters
    ----------
    step : TrainingStep
        Its parameters move as they would without the recorder, bit for bit.
    X, Y, weights : arrays of the device, as for :class:`TrainingStep`
    weights_sum, micro_batch : as there
    """
    net = step.net
    recorder, spec, t = Recorder(net.kernels, net.backend), trace_spec(step, micro_batch), step.t
    copy = recorder.copy
    batch = copy(X), copy(Y), copy(weights)
    theta, state = copy(net.params.theta), [copy(s) for s in step.optimizer_state]
    inner, net.kernels = net.kernels, recorder
    try:
        step(X, Y, weights, weights_sum=weights_sum, micro_batch=micro_batch)
    finally:
        net.kernels = inner
    grad, value = copy(net.params.grad), copy(step.value)
    after = copy(net.params.theta), [copy(s) for s in step.optimizer_state]
    return StepTrace(spec, t, *batch, theta, state, recorder.calls, grad, value, *after)
