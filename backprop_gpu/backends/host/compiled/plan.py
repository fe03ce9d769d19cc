"""Which operations of a step are compiled, and why the others are not."""

from __future__ import annotations

import numpy as np

from ....maths.activations import Activation
from ...plan import Choice, StepSpec, choose, layer_of
from ...shipped import shipped
from ..kernels import HostKernels
from ..plan import host_temporaries
from . import activations, losses
from .calling import REALS


def dtype_obstacle(dtype: str) -> str:
    """Why nothing is compiled in a dtype; empty if it is."""
    return "" if dtype in REALS else f"{dtype} is not compiled, {' and '.join(REALS)} are"


def layer_obstacle(dtype: str, activation: Activation) -> str:
    """Why a layer is left to NumPy; empty if it is compiled."""
    if not shipped(activation) or activation.name not in (*activations.FROM_A, *activations.KEEPING):
        return f"activation {activation.name} is not compiled"
    # A negative slope or alpha would hide the side of the kink, which is read off A.
    if any(value < 0.0 for _, value in activation.parameters):
        return f"activation {activation.name} with a negative parameter is not compiled"
    return dtype_obstacle(dtype)


def _reason(spec: StepSpec, operation: str, layer: int | None) -> str:
    """Why an operation of a step is left to NumPy; empty if it is compiled."""
    if operation in ("dense", "dense_vjp_input", "batch_norm") and layer is not None:
        return layer_obstacle(spec.dtype, spec.activations[layer_of(operation, layer)])
    if operation == "output_delta" and spec.form != "fused":
        return f"delta: {spec.form} is not compiled, fused is"
    if operation == "output_delta" and not losses.known(spec.loss):
        return f"loss {spec.loss.name} is not compiled"
    if operation == "update" and not shipped(spec.optimizer):
        return f"optimizer {spec.optimizer.name} is not compiled"
    return dtype_obstacle(spec.dtype)


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and how the step is recorded: with one that is not compiled, as calls among NumPy's."""
    found = choose(spec, "compiled", lambda operation, layer: _reason(spec, operation, layer), "NumPy's kernels")
    first = next((choice for choice in found if choice.why), None)
    if first is None:
        return [*found, Choice("capture", None, "one compiled loop")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    why = f"{first.operation}{where}: {first.why}"
    return [*found, Choice("capture", None, "a list of compiled and NumPy's calls", why)]


def temporaries(spec: StepSpec) -> int:
    """The loss's scratch, and what is left to NumPy."""
    left = [(choice.operation, choice.layer) for choice in choices(spec)[:-1] if choice.why]
    fused = not spec.predicting and not any(operation == "output_delta" for operation, _ in left)
    scratch = 5 * spec.m * np.dtype(spec.dtype).itemsize if fused else 0
    return scratch + host_temporaries(HostKernels, spec, left)
