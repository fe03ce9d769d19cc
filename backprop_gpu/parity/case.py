"""A recorded step as one safetensors file, which checks the same on any machine, without the device."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackpropError, CheckpointError, shown
from ..safe_files import parse_json
from ..tensor_file import read_tensors, write_tensors
from .own_formulas import given_again
from .trace import Call, StepTrace, TraceSpec

FORMAT = "backprop_gpu/parity-case/1"
GROUPS = ("wrote", "numbers", "revealed")
WHOLE = ("X", "Y", "weights", "theta", "grad", "value", "theta_after")


def save_case(path: str | os.PathLike[str], trace: StepTrace, about: dict[str, Any], summary: str) -> None:
    """Write a recorded step: what was asked and given, every tensor, and what was found.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    tensors, described = _pack(trace)
    content = {
        "recipe": _recipe(trace.spec),
        "t": trace.t,
        "calls": described,
        "about": about,
        "summary": summary,
    }
    write_tensors(Path(path), tensors, json.dumps(content, sort_keys=True), FORMAT)


def read_case(path: str | os.PathLike[str], custom: Any = ()) -> tuple[StepTrace, dict[str, Any]]:
    """The step that :func:`save_case` wrote, and what the report said it was about.

    Raises
    ------
    CheckpointError
        If the file is missing, not a case, damaged or written by another version.
    """
    tensors, description = read_tensors(Path(path), FORMAT, "parity case")
    with of_another_version(path):
        content = parse_json(description, path, CheckpointError, os.stat(path).st_size)
        trace = _unpack(content, tensors)
        names = {l: content["recipe"]["activations"][l - 1][0] for l in content["recipe"].get("own", [])}
        own = given_again(names, custom, path)
        return replace(trace, spec=replace(trace.spec, own=own)), content["about"]


@contextmanager
def of_another_version(path: str | os.PathLike[str]) -> Iterator[None]:
    """What does not fit together in an undamaged case was written by other code."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, BackpropError) as error:
        found = shown(error, 300)
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({found})") from error


def _recipe(spec: TraceSpec) -> dict[str, Any]:
    """What was asked for; of formulas of the user's own the layers."""
    recipe = asdict(replace(spec, own={})) | {"own": list(spec.own)}
    return recipe if spec.own else {key: value for key, value in recipe.items() if key != "own"}


def _pack(trace: StepTrace) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Tensors by name, and what each call consists of."""
    tensors = {name: getattr(trace, name) for name in WHOLE if getattr(trace, name) is not None}
    tensors |= {f"slot{k}": s for k, s in enumerate(trace.optimizer_state)}
    tensors |= {f"slot{k}_after": s for k, s in enumerate(trace.optimizer_state_after)}
    described = []
    for n, call in enumerate(trace.calls):
        for group in GROUPS:
            tensors |= {f"call{n}.{group}.{key}": x for key, x in getattr(call, group).items() if x is not None}
        described.append({"name": call.name} | {group: list(getattr(call, group)) for group in GROUPS})
    return {name: np.ascontiguousarray(x) for name, x in tensors.items()}, described


def _unpack(content: dict[str, Any], tensors: dict[str, np.ndarray]) -> StepTrace:
    spec = {key: value for key, value in content["recipe"].items() if key != "own"}
    spec["sizes"] = tuple(spec["sizes"])
    spec["layout"] = {name: (offset, tuple(shape)) for name, (offset, shape) in spec["layout"].items()}
    spec["activations"] = [(name, parameters) for name, parameters in spec["activations"]]
    calls = []
    for n, d in enumerate(content["calls"]):
        parts = [{key: tensors.get(f"call{n}.{group}.{key}") for key in d[group]} for group in GROUPS]
        calls.append(Call(d["name"], *parts))  # type: ignore[arg-type]
    n_vectors = sum(1 for name in tensors if name.startswith("slot") and not name.endswith("_after"))
    whole = {name: tensors.get(name) for name in WHOLE}
    return StepTrace(
        spec=TraceSpec(**spec),
        t=content["t"],
        optimizer_state=[tensors[f"slot{k}"] for k in range(n_vectors)],
        optimizer_state_after=[tensors[f"slot{k}_after"] for k in range(n_vectors)],
        calls=calls,
        **whole,  # type: ignore[arg-type]
    )
