"""What NumPy's kernel sets say of a step beforehand (``backends/plan.py``)."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from ...maths import regularization
from ...maths.activations import Activation
from ..plan import Choice, StepSpec
from ..shapes import ShapeBackend


def explain(spec: StepSpec, by: str, reason: Callable[[str, int | None], str], fallback: str) -> list[Choice]:
    """A choice for each operation: ``by``, or ``fallback`` where there is a ``reason``."""
    found = []
    for operation, layer in spec.operations():
        why = reason(operation, layer)
        found.append(Choice(operation, layer, fallback if why else by, why))
    return found


def layer_of(operation: str, layer: int) -> int:
    """The layer whose activation an operation deals with."""
    return layer - 1 if operation == "dense_vjp_input" else layer


def host_temporaries(
    spec: StepSpec, by_numpy: Collection[tuple[str, int | None]], in_place: Callable[[Activation], bool], block: int
) -> int:
    """The most that the operations ``by_numpy`` allocate while they run, and dropout's masks, which stay."""
    device = ShapeBackend()
    most, kept = [0], 0
    for operation, layer in by_numpy:
        if operation == "update":
            most.append(_update(spec, device, block))
        elif operation == "output_delta":
            most.append(_output(spec, device))
        elif operation == "dense_vjp_params" and layer is not None and spec.accumulating:
            most.append(2 * spec.sizes[layer] * spec.sizes[layer - 1] * np.dtype(spec.dtype).itemsize)
        elif operation in ("dense", "dense_vjp_input") and layer is not None:
            most.append(_activation(spec, device, operation, layer_of(operation, layer), in_place))
        if operation == "dense" and layer is not None and spec.dropout[layer]:
            most.append(_mask(device, spec.sizes[layer], spec.m, spec.dropout[layer]))
            kept += spec.sizes[layer] * spec.m
    return kept + max(most)


def _activation(
    spec: StepSpec, device: ShapeBackend, operation: str, layer: int, in_place: Callable[[Activation], bool]
) -> int:
    g, shape = spec.activations[layer], (spec.sizes[layer], spec.m)
    if in_place(g):
        return shape[0] * shape[1] if g.name in ("relu", "sigmoid") else 0  # one truth value each
    Z, dA = device.zeros(shape, spec.dtype), device.zeros(shape, spec.dtype)
    if operation == "dense":
        return device.passing(lambda: g.forward(device.xp, Z))
    return device.passing(lambda: g.vjp(device.xp, dA, Z, Z))


def _update(spec: StepSpec, device: ShapeBackend, block: int) -> int:
    """The optimizer's recurrence on one block of the flat vector, clipped."""
    o, parameters = spec.optimizer, sum((k + 1) * n for k, n in zip(spec.sizes, spec.sizes[1:], strict=False))
    theta = device.zeros((min(block, parameters),), spec.dtype)
    numbers = [device.zeros((1,), spec.dtype) for _ in o.scalars(1, o.learning_rate)]
    slots = [theta for _ in o.slots]
    applied = device.passing(lambda: o.apply(device.xp, theta, theta, slots, numbers, decay=True))
    return applied + (theta.nbytes if spec.clipped else 0)


def _output(spec: StepSpec, device: ShapeBackend) -> int:
    xp, Z = device.xp, device.zeros((spec.sizes[-1], spec.m), spec.dtype)
    delta = spec.loss.delta if spec.form == "fused" else spec.loss.literal_dAL
    passing = [device.passing(lambda: spec.loss.value(xp, Z, Z)), device.passing(lambda: delta(xp, Z, Z) * 1.0)]
    if spec.form == "literal":
        passing.append(Z.nbytes + device.passing(lambda: spec.loss.link.vjp(xp, Z * 1.0, Z, Z)))
    return max(passing) + (Z.nbytes if spec.loss.labels == "classes" else 0)


def _mask(device: ShapeBackend, n: int, m: int, rate: float) -> int:
    quads, examples = device.zeros((-(-n // 4), 1), "int64"), device.zeros((1, m), "int64")
    one = device.zeros((1,), "int64")
    return device.passing(lambda: regularization.dropout_mask(device.xp, n, rate, 0, 1, quads, examples, one, one))
