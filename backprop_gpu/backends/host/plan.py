"""What NumPy's kernel sets say of a step beforehand (``backends/plan.py``)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from ..plan import Choice, StepSpec, choose, layer_of
from ..rehearsal import rehearse
from ..shapes import ShapeArray, ShapeBackend
from ..shipped import shipped
from . import inplace
from .calls import Calls

LOSSES = ("squared_error", "binary_cross_entropy", "categorical_cross_entropy", "grouped_cross_entropy")


def layer_obstacle(activation: Activation) -> str:
    """Why a layer's activation is left to ``maths``, in blocks; empty if there are calls for it."""
    known = shipped(activation) and activation.name in inplace.FORWARD
    return "" if known else f"activation {activation.name} is computed by its formula in blocks"


def output_obstacle(loss: Loss, form: str) -> str:
    """Why the loss is left to ``maths``; empty if there are calls for it."""
    if form != "fused":
        return f"delta: {form} is not written in place, fused is"
    return "" if shipped(loss) and loss.name in LOSSES else f"loss {loss.name} is not written in place"


def update_obstacle(optimizer: Optimizer) -> str:
    """Why an optimizer is left to ``maths``, in blocks; empty if there are calls for it."""
    if shipped(optimizer) and not optimizer.average and (optimizer.name, False) in inplace.UPDATES:
        return ""
    average = " with average" if optimizer.average else ""
    return f"optimizer {optimizer.name}{average} is computed by its formula in blocks"


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and how the step is recorded."""

    def reason(operation: str, layer: int | None) -> str:
        if operation in ("dense", "dense_vjp_input", "batch_norm") and layer is not None:
            return layer_obstacle(spec.activations[layer_of(operation, layer)])
        if operation == "output_delta":
            return output_obstacle(spec.loss, spec.form)
        return update_obstacle(spec.optimizer) if operation == "update" else ""

    found = choose(spec, "NumPy in place", reason, "NumPy, through maths")
    return [*found, Choice("capture", None, "a list of NumPy's calls")]


class _ShapeCalls(Calls):
    """Calls that are made on shapes, each kept, as a tape keeps its own."""

    def __init__(self, device: ShapeBackend) -> None:
        super().__init__(device.zeros)
        self.made: list[Any] = []

    def do(self, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """A function that works in blocks is given the first: the others take no more."""
        given = [_first_block(x) for x in arguments] if function in inplace.IN_BLOCKS else arguments
        function(*given, **named)
        self.made.append((arguments, named))


def _first_block(x: Any) -> Any:
    if isinstance(x, list):
        return [_first_block(part) for part in x]
    return x.reshape(-1)[: inplace.BLOCK] if isinstance(x, ShapeArray) else x


def host_temporaries(
    kernels: Callable[..., Any], spec: StepSpec, operations: Collection[tuple[str, int | None]]
) -> int:
    """What ``HostKernels`` take for some operations of a step: scratch, which stays, and the most beyond it at once."""
    device = ShapeBackend()
    return rehearse(kernels(device, calls=_ShapeCalls(device)), spec, operations)
