"""State trees: all that an exact resume needs, as nested dicts of plain Python values and NumPy arrays.

A tree holds copies and names no device, so it can be written to a file, and loaded on another device. What is loaded is
checked first: a tree that is not one is a CheckpointError, one of other settings a ConfigError; both name the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, ConfigError, shown
from ..maths.registry import is_number
from .spec import described, step_spec

if TYPE_CHECKING:
    from .step import TrainingStep

State = dict[str, Any]

_MOST_STEPS = 2**53  # which a float tells apart

_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "a text", int: "a whole number", float: "a number"}
_KINDS |= {bool: "true or false", np.ndarray: "an array"}


def plain(value: Any) -> Any:
    """A setting as plain Python: tuples and arrays as lists, NumPy's numbers as Python's, of other objects the type."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"{type(value).__module__}.{type(value).__qualname__}"


def take(state: Any, name: str, kind: type, *, optional: bool = False) -> Any:
    """The value at ``name`` ("step.t": of a tree called "step" its "t").

    Raises
    ------
    CheckpointError
        If it is not there or not of ``kind`` (with ``optional``, nor None); it says which.
    """
    where, _, key = name.rpartition(".")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{where} of the state must be a mapping, got {type(state).__name__}")
    if key not in state:
        raise CheckpointError(f"the state has no {name}: it was cut short, or made by another version of backprop_gpu")
    value = state[key]
    if optional and value is None:
        return None
    fits = is_number(value) if kind is float else isinstance(value, Mapping if kind is dict else kind)
    if not fits or (kind is int and (isinstance(value, bool) or value < 0)):
        got = type(value).__name__ if isinstance(value, Mapping | list | np.ndarray) else shown(value)
        raise CheckpointError(f"{name} of the state must be {_KINDS[kind]}{' from 0' * (kind is int)}, got {got}")
    return value


def take_tensor(state: Any, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """The array at ``name``, which must be of this shape and dtype; else a CheckpointError."""
    x: np.ndarray = take(state, name, np.ndarray)
    if x.shape != tuple(shape) or x.dtype != np.dtype(dtype):
        raise CheckpointError(f"{name} of the state must be {dtype} {tuple(shape)}, got {x.dtype} {x.shape}")
    return x


def take_tensors(state: Any, name: str, shapes: Mapping[str, Sequence[int]], dtype: str) -> dict[str, np.ndarray]:
    """The arrays at ``name``, which must be of these names and shapes and of this dtype; else a CheckpointError."""
    found = take(state, name, dict)
    for key in found:
        if key not in shapes:
            raise CheckpointError(f"{name} of the state has {shown(key)}, which is not among {', '.join(shapes)}")
    return {key: take_tensor(found, f"{name}.{key}", shape, dtype) for key, shape in shapes.items()}


def check_same(there: Any, here: Any, name: str, *, fix: str = "") -> None:
    """That what a state was made with (``there``) is what is there now, both plain values.

    Raises
    ------
    ConfigError
        Names the first field that is not; ``fix`` says what to do if its value cannot be what it was.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*here, *there]):
            check_same(there.get(key), here.get(key), f"{name}.{key}" if name else key, fix=fix)
    elif plain(there) != here:
        alternative = fix and f", or {fix}"
        raise ConfigError(
            f"the state does not fit: {shown(name, quoted=False)} is {shown(there)} in it and {shown(here)} here;"
            f" set it to that{alternative}"
        )


ALLOW = "pass allow_change=True (--allow-change on the command line)"


def step_settings(step: TrainingStep) -> State:
    """What a step and its network were made with, as plain values."""
    return {key: plain(value) for key, value in described(step_spec(step)).items() if key != "total_steps"}


def _layout(step: TrainingStep) -> State:
    """What no setting can change: which tensors there are."""
    net = step.net
    layout = {"sizes": list(net.sizes), "dtype": net.dtype, "batch_norm": plain(net.batch_norm[1:-1])}
    layout |= plain({**net.inputs.settings(), **net.ensemble.settings()})
    layout |= {"parametric_activation": plain(net.parametric[1:-1])} if any(net.parametric) else {}
    return layout | {"optimizer": {"name": step.optimizer.name, "state": list(step.optimizer.state)}}


def check_layout(step: TrainingStep, state: Any) -> None:
    """That a state has the tensors of a step: of this network, dtype and optimizer."""
    check_same(take(state, "step.layout", dict), _layout(step), "")


def step_state(step: TrainingStep) -> State:
    """See :meth:`TrainingStep.state_dict`."""
    net = step.net
    named = [net.params.named(net.backend.to_host(x)) for x in step.optimizer_state]
    return {
        "layout": _layout(step),
        "settings": step_settings(step),
        "t": step.t,
        "total_steps": step.total_steps,
        "parameters": net.parameters(),
        "optimizer_state": dict(zip(step.optimizer.state, named, strict=True)),
    }


def load_step_state(step: TrainingStep, state: Any, allow_change: bool) -> None:
    """See :meth:`TrainingStep.load_state_dict`."""
    net = step.net
    check_layout(step, state)
    there = take(state, "step.settings", dict)
    if not allow_change:
        check_same(there, step_settings(step), "", fix=ALLOW)
    t, total = take(state, "step.t", int), take(state, "step.total_steps", int)
    if max(t, total) >= _MOST_STEPS:
        raise CheckpointError(f"the state counts {shown(max(t, total))} steps, which nobody has taken; make it again")
    shapes = {name: x.shape for name, x in net.parameters().items()}
    parameters = take_tensors(state, "step.parameters", shapes, net.dtype)
    trained = {name: shape for name, _, _, shape in net.params.spans}
    vectors = take(state, "step.optimizer_state", dict)
    vectors = [
        net.params.flat(take_tensors(vectors, f"step.optimizer_state.{name}", trained, net.dtype))
        for name in step.optimizer.state
    ]
    net.set_parameters(parameters)
    with net.backend.activate():
        for buffer, vector in zip(step.optimizer_state, vectors, strict=True):
            buffer[...] = net.backend.asarray(vector, net.dtype)
    step.t, step.total_steps = t, total
