"""Take a model elsewhere, and bring one here: ONNX, one file that needs NumPy alone, PyTorch's and Keras's layers.

``to_onnx`` and ``to_numpy_file`` write what predicts from raw columns; ``to_torch_state`` and ``from_torch``,
``from_keras`` move weights. scikit-learn's estimators go both ways by ``to_sklearn`` and ``from_sklearn``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "to_onnx": "onnx_file",
    "to_numpy_file": "numpy_file",
    "to_torch_state": "layer_stacks",
    "from_torch_state": "layer_stacks",
    "from_torch": "layer_stacks",
    "from_keras": "layer_stacks",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .layer_stacks import from_keras as from_keras
    from .layer_stacks import from_torch as from_torch
    from .layer_stacks import from_torch_state as from_torch_state
    from .layer_stacks import to_torch_state as to_torch_state
    from .numpy_file import to_numpy_file as to_numpy_file
    from .onnx_file import to_onnx as to_onnx


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
