"""What the CUDA kernels know, by number: activations, losses and optimizers. ``compile.py`` writes these numbers into
every source, so that Python and the kernels cannot disagree. :func:`fallbacks` says what is left to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from ..shipped import shipped

_HIDDEN = ("identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus")
ACTIVATIONS = {name: code for code, name in enumerate((*_HIDDEN, "exponential"))}
FROM_A = ("identity", "sigmoid", "tanh", "relu", "exponential")  # g' is had from a = g(z): z need not be kept

LOSSES = {
    name: code
    for code, name in enumerate(
        (
            "binary_cross_entropy",
            "categorical_cross_entropy",
            "squared_error",
            "absolute_error",
            "huber",
            "poisson",
        )
    )
}
SUMMED = ("binary_cross_entropy", "categorical_cross_entropy")  # over outputs; the others are averaged

RULES = {
    name: code
    for code, name in enumerate(
        ("sgd", "momentum", "momentum_average", "nesterov", "rmsprop", "adagrad", "adam", "amsgrad", "lion")
    )
}

NO_BATCH_NORM = "no CUDA kernel for batch normalization"

REALS = {"float32": "float", "float64": "double"}
# The decay's place among the step's scalars (Optimizer.scalars).
_SHRINKS = {"adamw": 2, "lion": 1}


def rule(optimizer: Optimizer, decay: bool) -> tuple[int, tuple[int, int], tuple[float, ...]]:
    """The code of an optimizer; the places of its scalars, 0 for none: (correction of sqrt v, shrink of theta);
    and its constants (b1, 1 - b1, b2, 1 - b2, epsilon) in float64.
    """
    o: Any = optimizer
    corrects = 1 if o.name in ("adam", "adamw", "amsgrad") else 0
    places = corrects, _SHRINKS.get(o.name, 0) if decay else 0
    name = {"adamw": "adam"}.get(o.name, o.name)
    if o.name == "momentum" and o.variant == "average":
        name = "momentum_average"
    b1 = getattr(o, "momentum", getattr(o, "rho", getattr(o, "beta1", 0.0)))
    b2 = getattr(o, "beta2", 0.0)
    return RULES[name], places, (b1, 1.0 - b1, b2, 1.0 - b2, getattr(o, "epsilon", 0.0))


def loss_numbers(loss: Loss, n: int) -> tuple[float, float, float]:
    """(huber's threshold or s/2, 1 - s, what each term is multiplied with or s/n) for n outputs; s: label smoothing."""
    o: Any = loss
    if loss.name == "categorical_cross_entropy":
        return 0.0, 1.0 - o.label_smoothing, o.label_smoothing / n
    if loss.name == "binary_cross_entropy":
        return 0.5 * o.label_smoothing, 1.0 - o.label_smoothing, 1.0
    return getattr(o, "threshold", 0.0), 1.0, 1.0 if loss.name in SUMMED else 1.0 / n


def knows(formula: Activation | Loss | Optimizer) -> bool:
    """Whether a kernel computes it: a formula of the package that has a code, and no average of the parameters."""
    if isinstance(formula, Optimizer) and formula.average:
        return False
    return shipped(formula) and formula.name in (*ACTIVATIONS, *LOSSES, *RULES, "adamw")


def fallbacks(
    dtype: str,
    activations: Sequence[Activation],
    loss: Loss,
    form: str,
    optimizer: Optimizer,
    batch_norm: Sequence[bool] = (),
) -> dict[str, str]:
    """Operations that have no CUDA kernel for these settings, with the reason; empty: every step can be captured."""
    if dtype not in REALS:
        return {"everything": f"the kernels compute in float32 and float64, not in {dtype}"}
    found = {}
    for g in activations:
        if not knows(g):
            found["dense, dense_vjp_input"] = f"activation {g.name!r} has no CUDA kernel"
    if any(batch_norm):
        found["batch_norm, batch_norm_vjp"] = NO_BATCH_NORM
    if form != "fused":
        found["output_delta"] = "the literal form is computed by CuPy; delta: fused has a kernel"
    elif not knows(loss):
        found["output_delta"] = f"loss {loss.name!r} has no CUDA kernel"
    if not knows(optimizer):
        average = " with average" if optimizer.average else ""
        found["update"] = f"optimizer {optimizer.name!r}{average} has no CUDA kernel"
    return found
