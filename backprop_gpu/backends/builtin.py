"""Whether a formula is built in: a user's formula with the name of a built-in one must not get its kernel."""

from __future__ import annotations

from ..maths.activations import ACTIVATIONS, Activation
from ..maths.losses import LOSSES, GroupedCrossEntropy, Loss
from ..maths.optimizers import OPTIMIZERS, Optimizer
from ..maths.schedules import SCHEDULES, Schedule

_FUNCTIONS = {a.name: (a.forward_function, a.vjp_function) for a in ACTIVATIONS.values()}


def is_builtin(formula: Activation | Loss | Optimizer | Schedule) -> bool:
    """True only for the built-in object itself: False for a subclass, or other functions, of the same name."""
    if isinstance(formula, Activation):
        functions = formula.forward_function, formula.vjp_function
        return type(formula) is Activation and _FUNCTIONS.get(formula.name) == functions
    known: dict[str, type] = {**LOSSES, GroupedCrossEntropy.name: GroupedCrossEntropy, **OPTIMIZERS}
    return type(formula) is (SCHEDULES if isinstance(formula, Schedule) else known).get(formula.name)
