"""Whether a formula is the package's own: kernels that know it by name must not answer for someone's variant of it."""

from __future__ import annotations

from ..maths.activations import ACTIVATIONS, Activation
from ..maths.losses import LOSSES, GroupedCrossEntropy, Loss
from ..maths.optimizers import OPTIMIZERS, Optimizer

_FUNCTIONS = {a.name: (a.forward_function, a.vjp_function) for a in ACTIVATIONS.values()}


def shipped(formula: Activation | Loss | Optimizer) -> bool:
    """False for a subclass, or an activation with functions of its own, that goes by the name of a built-in."""
    if isinstance(formula, Activation):
        return _FUNCTIONS.get(formula.name) == (formula.forward_function, formula.vjp_function)
    known: dict[str, type] = {**LOSSES, GroupedCrossEntropy.name: GroupedCrossEntropy, **OPTIMIZERS}
    return type(formula) is known.get(formula.name)
