"""Whether a formula is the package's own: kernels that know it by name must not answer for someone's variant of it."""

from __future__ import annotations

from ..maths.activations import ACTIVATIONS, Activation
from ..maths.losses import LOSSES, GroupedCrossEntropy, Loss
from ..maths.optimizers import OPTIMIZERS, Optimizer
from ..maths.schedules import SCHEDULES, Schedule

_FUNCTIONS = {a.name: (a.forward_function, a.vjp_function) for a in ACTIVATIONS.values()}


def is_builtin(formula: Activation | Loss | Optimizer | Schedule) -> bool:
    """False for a subclass, or an activation with functions of its own, that goes by the name of a built-in."""
    if isinstance(formula, Activation):
        functions = formula.forward_function, formula.vjp_function
        return type(formula) is Activation and _FUNCTIONS.get(formula.name) == functions
    known: dict[str, type] = {**LOSSES, GroupedCrossEntropy.name: GroupedCrossEntropy, **OPTIMIZERS}
    return type(formula) is (SCHEDULES if isinstance(formula, Schedule) else known).get(formula.name)
