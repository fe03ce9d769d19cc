"""Which operations of a step are compiled, and why the others are not."""

from __future__ import annotations

from ....maths.activations import Activation
from ...plan import Choice, StepSpec
from ..plan import explain, layer_of
from . import layers


def layer_obstacle(dtype: str, activation: Activation) -> str:
    """Why a layer is left to NumPy; empty if it is compiled."""
    if dtype != "float32":
        return f"{dtype} is not compiled, float32 is"
    if activation.name not in layers.CODES:
        return f"activation {activation.name} is not compiled"
    # It would hide the side of the kink, which is read off A.
    negative = any(value < 0.0 for _, value in activation.parameters)
    return f"activation {activation.name} with a negative parameter is not compiled" if negative else ""


def _reason(spec: StepSpec, operation: str, layer: int | None) -> str:
    """Why an operation of a step is left to NumPy; empty if it is compiled."""
    if operation in ("dense", "dense_vjp_input") and layer is not None:
        return layer_obstacle(spec.dtype, spec.activations[layer_of(operation, layer)])
    if spec.dtype != "float32":
        return f"{spec.dtype} is not compiled, float32 is"
    return "delta: literal is not compiled, fused is" if operation == "output_delta" and spec.form != "fused" else ""


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and whether the step is recorded: one that is not compiled leaves all of it to Python."""
    found = explain(spec, "compiled", lambda operation, layer: _reason(spec, operation, layer), "NumPy's kernels")
    first = next((choice for choice in found if choice.why), None)
    if first is None:
        return [*found, Choice("capture", None, "one compiled loop")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    return [*found, Choice("capture", None, "Python", f"{first.operation}{where}: {first.why}")]
