"""A model as one Python file that needs NumPy and nothing else: ``predictor.py`` with the model written into it."""

from __future__ import annotations

import base64
import json
import os
from importlib import resources
from typing import Any

import numpy as np

from ..atomic_file import replace_file
from ..data.cells import MISSING
from ..data.forms import FALSE, TRUE, to_state
from ..errors import ConfigError
from .portable import Layer, Network, Portable, portable
from .predictor import activation
from .raw_inputs import RawInputs

_PLACE = 'MODEL: Any = json.loads("{}")  # backprop_gpu puts the model here\n'
_DATES = "from ..data.date_text import days_of_text, expand\n"  # in whose place is that module's own text


def to_numpy_file(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as a Python file whose ``predict`` and ``predict_proba`` need NumPy alone.

    Parameters
    ----------
    model : Model, DenseNet or fitted estimator
    path : path
        The file, ``rents.py`` say. ``python rents.py rows.csv`` predicts the rows of a file, ``import rents`` gives the
        functions; weights are float32.

    Raises
    ------
    ConfigError
        For what cannot be exported.
    """
    package = resources.files(__package__)
    source = package.joinpath("predictor.py").read_text(encoding="utf-8")
    dates = package.parent.joinpath("data", "date_text.py").read_text(encoding="utf-8")  # type: ignore[attr-defined]
    dates = dates.partition("from __future__ import annotations\n")[2].strip()
    assert _PLACE in source, "predictor.py has the place for the model"
    assert _DATES in source, "predictor.py has the place for the functions of dates"
    saved = json.dumps(_saved(portable(model)), ensure_ascii=True)
    source = source.replace(_DATES, "").replace(_PLACE, f"MODEL: Any = json.loads({saved!r})\n\n{dates}\n")
    with replace_file(path) as file:
        file.write(source.encode())


def _saved(plain: Portable) -> dict[str, Any]:
    if any(not isinstance(label, str | int | float) for label in plain.labels):
        raise ConfigError(f"labels must be texts or numbers to be written, got {plain.labels}")
    return {
        "networks": [_network(network) for network in plain.networks],
        "task": plain.task,
        "labels": list(plain.labels),
        "threshold": plain.threshold,
        "mean": None if plain.mean is None else plain.mean.tolist(),
        "scale": None if plain.scale is None else plain.scale.tolist(),
        "target": list(plain.target),
        "inputs": None if plain.inputs is None else _inputs(plain.inputs),
        "words": {"true": sorted(TRUE), "false": sorted(FALSE), "missing": sorted(MISSING)},
    }


def _inputs(plan: RawInputs) -> dict[str, Any]:
    return {
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "form": None if column.form is None else to_state(column.form),
                "categories": list(column.categories),
            }
            for column in plan.columns
        ],
        "named": plan.named,
        "numbers": [list(number) for number in plan.numbers],
        "fill": None if plan.fill is None else plan.fill.tolist(),
        "centre": plan.centre.tolist(),
        "spread": plan.spread.tolist(),
        "clip": plan.clip,
        "marked": list(plan.marked),
        "edges": [edges.tolist() for edges in plan.edges],
        "unknown": plan.unknown,
    }


def _network(network: Network) -> dict[str, Any]:
    waves = network.waves
    return {
        "members": [[_layer(layer) for layer in layers] for layers in network.members],
        "waves": None
        if waves is None
        else {"columns": waves.columns.tolist(), **{key: _array(getattr(waves, key)) for key in "wbVc"}},
    }


def _layer(layer: Layer) -> dict[str, Any]:
    try:
        activation(layer.activation, np.zeros((1, 1)), **layer.parameters)
    except KeyError:
        raise ConfigError(f"the activation {layer.activation!r} has no form in a NumPy file yet") from None
    return {
        "W": _array(layer.W),
        "b": _array(layer.b),
        "activation": layer.activation,
        "parameters": layer.parameters,
        "alpha": None if layer.alpha is None else _array(layer.alpha),
    }


def _array(x: np.ndarray) -> dict[str, Any]:
    return {"shape": list(x.shape), "data": base64.b64encode(x.astype("<f4").tobytes()).decode()}
