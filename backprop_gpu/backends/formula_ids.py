"""Which formulas have C++ and CUDA kernels (names and ids of ``native/formulas/formula_ids.h``); their arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..maths.activations import Activation
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from .builtin import is_builtin
from .plan import StepSpec, layer_of

DTYPES = ("float32", "float64")
NATIVE_SOURCES = Path(__file__).resolve().parents[1] / "native"
_TEXT = (NATIVE_SOURCES / "formulas" / "formula_ids.h").read_text(encoding="utf-8")


def _listed(macro: str) -> tuple[str, ...]:
    """The names of a list ``#define macro(X) X(name, struct) ...``, which may run over several lines."""
    found = re.search(rf"#define {macro}\(X\)((?:.*\\\n)*.*)", _TEXT)
    assert found is not None, macro
    return tuple(re.findall(r"X\((\w+), \w+\)", found[1]))


DERIVATIVE_FROM_OUTPUT = _listed("ACTIVATIONS_FROM_OUTPUT")
SAVES_DERIVATIVE = _listed("ACTIVATIONS_FROM_INPUT")
SEPARATE_LOSSES, OPTIMIZERS = _listed("LOSSES"), _listed("OPTIMIZERS")
SOFTMAX_LOSSES = ("categorical_cross_entropy", "grouped_cross_entropy")

ACTIVATION_IDS = {name: i for i, name in enumerate((*DERIVATIVE_FROM_OUTPUT, *SAVES_DERIVATIVE))}
LOSS_IDS = {name: i for i, name in enumerate(SEPARATE_LOSSES)} | dict.fromkeys(SOFTMAX_LOSSES, len(SEPARATE_LOSSES))
OPTIMIZER_IDS = {name: i for i, name in enumerate(OPTIMIZERS)}


@dataclass(frozen=True)
class Support:
    """Why a formula has no kernel of a ``kind`` ("native", "CUDA") and runs by ``maths``; empty if it has one."""

    kind: str

    def dtype_reason(self, dtype: str) -> str:
        """Of any operation in this dtype."""
        return "" if dtype in DTYPES else f"{dtype} has no {self.kind} kernels, {' and '.join(DTYPES)} have"

    def layer_reason(self, dtype: str, activation: Activation) -> str:
        """Of a layer with this activation."""
        if not is_builtin(activation) or activation.name not in ACTIVATION_IDS:
            return f"activation {activation.name} has no {self.kind} kernel"
        # The kernels tell the side of the kink by the sign of A, which a negative slope or alpha would hide.
        if any(value < 0.0 for _, value in activation.parameters):
            return f"activation {activation.name} with a negative parameter has no {self.kind} kernel"
        return self.dtype_reason(dtype)

    def loss_reason(self, dtype: str, loss: Loss, form: str) -> str:
        """Of a loss in one of its forms."""
        if form != "fused":
            return f"delta: {form} has no {self.kind} kernel, fused has"
        if not is_builtin(loss) or loss.name not in LOSS_IDS:
            return f"loss {loss.name} has no {self.kind} kernel"
        return self.dtype_reason(dtype)

    def update_reason(self, dtype: str, optimizer: Optimizer) -> str:
        """Of an optimizer."""
        return (
            self.dtype_reason(dtype)
            if is_builtin(optimizer)
            else f"optimizer {optimizer.name} has no {self.kind} kernel"
        )

    def reason(self, spec: StepSpec, operation: str, layer: int | None) -> str:
        """Of an operation of a step."""
        if operation in ("dense", "dense_vjp_input", "batch_norm") and layer is not None:
            at = layer_of(operation, layer)
            if spec.parametric and spec.parametric[at]:  # these have the identity there
                return self.dtype_reason(spec.dtype)
            return self.layer_reason(spec.dtype, spec.activations[at])
        if operation == "parametric" and layer is not None:
            return self.layer_reason(spec.dtype, spec.activations[layer])
        if operation == "output_delta":
            return self.loss_reason(spec.dtype, spec.loss, spec.form)
        return (
            self.update_reason(spec.dtype, spec.optimizer) if operation == "update" else self.dtype_reason(spec.dtype)
        )


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
    """The last arguments of a loss kernel: pairs (p, 1 - p), how many, sizes of the softmax groups, how many."""
    named = vars(loss)
    p = named["label_smoothing"] if loss.name in SOFTMAX_LOSSES else next(iter(named.values()), 0.0)
    p, groups = np.atleast_1d(np.array(p, np.float64)), np.array(named.get("groups", (n,)), np.int64)
    return np.stack([p, 1.0 - p], axis=1).astype(dtype), p.size, groups, groups.size
