"""A model as one Python file that needs NumPy and nothing else: ``predictor.py`` with the model written into it."""

from __future__ import annotations

import base64
import json
import os
from importlib import resources
from typing import Any

import numpy as np

from ..atomic_file import replace_file
from ..data.dates import DateForm
from ..data.forms import FALSE, TRUE, to_state
from ..errors import ConfigError
from .portable import Layer, Portable, portable

_PLACE = 'MODEL: Any = json.loads("{}")  # backprop_gpu puts the model here\n'


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
    source = resources.files(__package__).joinpath("predictor.py").read_text(encoding="utf-8")
    before, place, after = source.partition(_PLACE)
    assert place, "predictor.py has the place for the model"
    saved = json.dumps(_saved(portable(model)), ensure_ascii=True)
    with replace_file(path) as file:
        file.write(f"{before}MODEL: Any = json.loads({saved!r})\n{after}".encode())


def _saved(plain: Portable) -> dict[str, Any]:
    p = plain.inputs
    if any(not isinstance(label, str | int | float) for label in plain.labels):
        raise ConfigError(f"labels must be texts or numbers to be written, got {plain.labels}")
    forms = {} if p is None else p.schema.forms
    for name, form in forms.items():
        if isinstance(form, DateForm) and name in p.numeric:  # type: ignore[union-attr]
            raise ConfigError(f"column {name!r} holds dates, which that file cannot read; leave it out, or write ONNX")
    return {
        "true": sorted(TRUE),
        "false": sorted(FALSE),
        "members": [[_layer(layer) for layer in layers] for layers in plain.members],
        "waves": None
        if plain.waves is None
        else {"columns": plain.waves.columns.tolist(), **{key: _array(getattr(plain.waves, key)) for key in "wbVc"}},
        "task": plain.task,
        "labels": list(plain.labels),
        "threshold": plain.threshold,
        "mean": None if plain.mean is None else plain.mean.tolist(),
        "scale": None if plain.scale is None else plain.scale.tolist(),
        "target": list(plain.target),
        "inputs": None
        if p is None
        else {
            "columns": list(p.columns),
            "numeric": list(p.numeric),
            "indicators": list(p.indicators),
            "fill": None if p.fill is None else p.fill.tolist(),
            "mean": p.mean.tolist(),
            "scale": p.scale.tolist(),
            "categories": [[name, list(known)] for name, known in p.categories.items()],
            "unknown": p.unknown,
            "forms": {name: to_state(form) for name, form in forms.items() if name in p.numeric},
        },
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "W": _array(layer.W),
        "b": _array(layer.b),
        "activation": layer.activation,
        "parameters": layer.parameters,
        "alpha": None if layer.alpha is None else _array(layer.alpha),
    }


def _array(x: np.ndarray) -> dict[str, Any]:
    return {"shape": list(x.shape), "data": base64.b64encode(x.astype("<f4").tobytes()).decode()}
