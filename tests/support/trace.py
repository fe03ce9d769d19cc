"""Recording a training step: a kernel set that passes every call on and keeps copies of what it wrote.

The recorder knows no formula. ``replay.py`` recomputes each operation from what is recorded here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backprop_gpu.backends import Backend
from backprop_gpu.network.step import TrainingStep

# What an operation writes, and the small inputs that change from step to step.
WRITTEN = {
    "dense": ("A",),
    "dense_vjp_input": ("dZ_prev", "db_prev"),
    "dense_vjp_params": ("dW",),
    "output_delta": ("dZ", "db", "value"),
    "penalty": ("grad", "value"),
    "global_norm": ("norm", "factor"),
    "update": ("theta", "slots"),
    "gather": ("out",),
}
NUMBERS = {
    "output_delta": ("inverse_denominator",),
    "dense_vjp_input": ("scale",),
    "dense_vjp_params": ("scale",),
    "penalty": ("l1", "l2"),
    "update": ("scalars",),
}


@dataclass
class Call:
    """One kernel call: host copies of what it wrote, of its numbers, and of ``debug_tensors`` after a forward."""

    name: str
    wrote: dict[str, Any]
    numbers: dict[str, np.ndarray | None]
    revealed: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class StepTrace:
    """One step: theta and slots before and after, the gradient that was applied, J, and every call."""

    theta: np.ndarray
    slots: list[np.ndarray]
    calls: list[Call]
    grad: np.ndarray
    value: np.ndarray
    theta_after: np.ndarray
    slots_after: list[np.ndarray]


class Recorder:
    """A kernel set around another; ``calls`` grows with every call."""

    def __init__(self, kernels: Any, backend: Backend) -> None:
        self.kernels, self.backend = kernels, backend
        self.calls: list[Call] = []
        self._signatures = {name: inspect.signature(getattr(kernels, name)) for name in WRITTEN}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self.kernels, name)
        return self._recorded(name, operation) if name in WRITTEN else operation

    def _recorded(self, name: str, operation: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            given = self._signatures[name].bind(*args, **kwargs).arguments
            numbers = {key: self.copy(given[key]) for key in NUMBERS.get(name, ())}
            operation(*args, **kwargs)
            record = Call(name, {key: self.copy(given[key]) for key in WRITTEN[name]}, numbers)
            if name == "dense":
                record.revealed = {k: self.copy(x) for k, x in self.kernels.debug_tensors(given["saved"]).items()}
            self.calls.append(record)

        return call

    def copy(self, x: Any) -> Any:
        """Host copies of an array or a list of arrays; None stays None."""
        if x is None:
            return None
        return [self.copy(part) for part in x] if isinstance(x, list | tuple) else self.backend.to_host(x)


def traced(step: TrainingStep, X: Any, Y: Any, weights: Any = None, **how: Any) -> StepTrace:
    """Take one step with a recorder in place of the network's kernels, and put them back."""
    net = step.net
    recorder = Recorder(net.kernels, net.backend)
    theta, slots = recorder.copy(net.params.theta), recorder.copy(step.slots)
    inner, net.kernels = net.kernels, recorder  # type: ignore[assignment]
    try:
        step(X, Y, weights, **how)
    finally:
        net.kernels = inner
    grad, value = recorder.copy(net.params.grad), recorder.copy(step.value)
    after = recorder.copy(net.params.theta), recorder.copy(step.slots)
    return StepTrace(theta, slots, recorder.calls, grad, value, *after)
