"""Exported models, run; and what float32 may make of them."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

from backprop_gpu.export.portable import Portable
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.parity.bounded_array import lift, received
from backprop_gpu.parity.claims import arithmetic_of
from backprop_gpu.parity.namespace import BoundedNamespace

FLOAT32 = arithmetic_of("numpy", "fp32")


def run_onnx(path: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name, of a file that the checker accepts as a whole."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([x.name for x in session.get_outputs()], session.run(None, columns), strict=True))


def imported(path: Path) -> ModuleType:
    """The module of a file."""
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bound_of(plain: Portable, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of rows X, which a device rounds to float32, in float64; and how far float32 may be from them."""
    xp, outputs = BoundedNamespace(FLOAT32), []
    for network in plain.networks:
        A: Any = lift(np.ascontiguousarray(X.T), FLOAT32)
        for layer in network.members[0]:
            W, b = (received(FLOAT32, x.astype(np.float32)) for x in (layer.W, layer.b[:, None]))
            g = get_activation({"name": layer.activation, **layer.parameters} if layer.parameters else layer.activation)
            A = g.forward(xp, W @ A + b)
        outputs.append(A)
    mean = sum(outputs[1:], start=outputs[0]) / float(len(outputs))
    return mean.v.T, mean.errors().T
