"""Which operations of a step are native, why the others are left to ``maths``, and what a step allocates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from ..plan import Choice, StepSpec, choose, layer_of
from ..reference import ReferenceKernels
from ..rehearsal import rehearse
from ..shapes import ShapeBackend
from ..shipped import shipped

DTYPES = ("float32", "float64")
# Activations whose derivative their output gives; of the others it is saved.
DERIVATIVE_FROM_OUTPUT = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "exponential")
SAVES_DERIVATIVE = ("gelu", "gelu_tanh", "silu", "softplus")
SOFTMAX_LOSSES = ("categorical_cross_entropy", "grouped_cross_entropy")
SEPARATE_LOSSES = ("binary_cross_entropy", "squared_error", "absolute_error", "huber", "poisson", "quantile")


def dtype_reason(dtype: str) -> str:
    """Why nothing is native in a dtype; empty if it is."""
    return "" if dtype in DTYPES else f"{dtype} has no native kernels, {' and '.join(DTYPES)} have"


def layer_reason(dtype: str, activation: Activation) -> str:
    """Why a layer is left to ``maths``; empty if it is native."""
    if not shipped(activation) or activation.name not in (*DERIVATIVE_FROM_OUTPUT, *SAVES_DERIVATIVE):
        return f"activation {activation.name} has no native kernel"
    # A negative slope or alpha would hide the side of the kink, which is read off A.
    if any(value < 0.0 for _, value in activation.parameters):
        return f"activation {activation.name} with a negative parameter has no native kernel"
    return dtype_reason(dtype)


def loss_reason(dtype: str, loss: Loss, form: str) -> str:
    """Why the loss is left to ``maths``; empty if it is native."""
    if form != "fused":
        return f"delta: {form} has no native kernel, fused has"
    if not shipped(loss) or loss.name not in (*SOFTMAX_LOSSES, *SEPARATE_LOSSES):
        return f"loss {loss.name} has no native kernel"
    return dtype_reason(dtype)


def update_reason(dtype: str, optimizer: Optimizer) -> str:
    """Why the optimizer is left to ``maths``; empty if it is native."""
    return dtype_reason(dtype) if shipped(optimizer) else f"optimizer {optimizer.name} has no native kernel"


def _reason(spec: StepSpec, operation: str, layer: int | None) -> str:
    if operation in ("dense", "dense_vjp_input", "batch_norm") and layer is not None:
        return layer_reason(spec.dtype, spec.activations[layer_of(operation, layer)])
    if operation == "output_delta":
        return loss_reason(spec.dtype, spec.loss, spec.form)
    return update_reason(spec.dtype, spec.optimizer) if operation == "update" else dtype_reason(spec.dtype)


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and how the step is recorded."""
    found = choose(spec, "native", lambda operation, layer: _reason(spec, operation, layer), "maths on numpy")
    first = next((choice for choice in found if choice.why), None)
    if first is None:
        return [*found, Choice("capture", None, "one native program")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    why = f"{first.operation}{where}: {first.why}"
    return [*found, Choice("capture", None, "native programs with Python calls between them", why)]


def temporaries(spec: StepSpec) -> int:
    """The examples' losses, and what is left to ``maths``."""
    left = [(choice.operation, choice.layer) for choice in choices(spec)[:-1] if choice.why]
    native_loss = not spec.predicting and not any(operation == "output_delta" for operation, _ in left)
    losses = spec.m * np.dtype(spec.dtype).itemsize if native_loss else 0
    return losses + (rehearse(ReferenceKernels(ShapeBackend()), spec, left) if left else 0)


def rule_of(optimizer: Optimizer, decay: bool) -> tuple[str, list[float]]:
    """The kernel that an optimizer needs, by name, and its five constants (``native/formulas/optimizers.h``)."""
    o: Any = optimizer
    if o.name == "momentum" and o.variant == "average":
        return "momentum_average", [o.momentum, 1.0 - o.momentum, 0.0, 0.0, 0.0]
    if o.name in ("sgd", "momentum", "nesterov"):
        return o.name, [getattr(o, "momentum", 0.0), 0.0, 0.0, 0.0, 0.0]
    if o.name in ("rmsprop", "adagrad"):
        rho = getattr(o, "rho", 0.0)
        return o.name, [rho, 1.0 - rho, 0.0, 0.0, o.epsilon]
    constants = [o.beta1, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2, getattr(o, "epsilon", 0.0)]
    if o.name == "adamw":
        return "adamw" if decay else "adam", constants
    return "lion_decaying" if o.name == "lion" and decay else o.name, constants


def loss_parameters(loss: Loss, n: int, dtype: str) -> tuple[np.ndarray, int, np.ndarray, int]:
    """The end of the loss's arguments: pairs p, 1 - p and their number, the sizes of the softmaxes and theirs."""
    named = vars(loss)
    p = named["label_smoothing"] if loss.name in SOFTMAX_LOSSES else next(iter(named.values()), 0.0)
    p, groups = np.atleast_1d(np.array(p, np.float64)), np.array(named.get("groups", (n,)), np.int64)
    return np.stack([p, 1.0 - p], axis=1).astype(dtype), p.size, groups, groups.size
