"""The course's L-layer network under the course's names (deep learning specialization, course 1, week 4).

The functions are those of "Building your Deep Neural Network: Step by Step" and of the application that follows it:
same arguments, same shapes, same dictionaries, same printed numbers. The formulas are those of ``maths``. Arrays may
be NumPy's or any other array-API library's; results stay in that library and on that device.

``convention`` says where the 1/m of J = (1/m) sum L lives (``maths.ledger``): ``"late"`` is the course, dA and dZ are
derivatives of L and dW, db carry the 1/m; with ``"early"`` dAL carries it and everything is a derivative of J. dW and
db are the same, dA and dZ differ by the factor m.
"""

from __future__ import annotations

from ..maths.ledger import CONVENTIONS
from .application import L_layer_model, check, predict
from .arrays import array_namespace
from .steps import (
    SCALES,
    Cache,
    L_model_backward,
    L_model_forward,
    LinearCache,
    Parameters,
    compute_cost,
    initialize_parameters,
    initialize_parameters_deep,
    linear_activation_backward,
    linear_activation_forward,
    linear_backward,
    linear_forward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    update_parameters,
)

__all__ = [
    "CONVENTIONS",
    "SCALES",
    "Cache",
    "L_layer_model",
    "L_model_backward",
    "L_model_forward",
    "LinearCache",
    "Parameters",
    "array_namespace",
    "check",
    "compute_cost",
    "initialize_parameters",
    "initialize_parameters_deep",
    "linear_activation_backward",
    "linear_activation_forward",
    "linear_backward",
    "linear_forward",
    "predict",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "update_parameters",
]


def __dir__() -> list[str]:
    return __all__
