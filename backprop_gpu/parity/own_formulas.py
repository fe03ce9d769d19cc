"""Activations of the user's own in a replay: their functions run once more, on numbers that carry their bounds.

There is no second version of such a formula, so parity says that the device computed *it* as exactly as its precision
allows, not that it is the right one; ``gradcheck`` says whether the vjp is the derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.builtin import is_builtin
from ..errors import CheckpointError, ConfigError
from ..maths.activations import Activation
from .bounded_array import BoundedArray, Untraceable, lift
from .namespace import BoundedNamespace
from .oracle.bounds import Bounded, Bounds
from .oracle.layers import Parameters


class OwnActivation:
    """An activation that the oracle has no formula for (``oracle.layers.Own``)."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def value(self, B: Bounds, parameters: Parameters, z: Bounded) -> Bounded:
        """g(z)."""
        return self._traced(B, lambda xp, Z: self.activation.forward(xp, Z), z)

    def vjp(self, B: Bounds, parameters: Parameters, dA: Bounded, z: Bounded, a: Bounded) -> Bounded:
        """dA g'(z)."""
        return self._traced(B, lambda xp, *given: self.activation.vjp(xp, *given), dA, z, a)

    def plain(self, z: np.ndarray) -> np.ndarray:
        """g of float64 numbers."""
        return np.asarray(self.activation.forward(np, z))

    def _traced(self, B: Bounds, function: Callable[..., Any], *given: Bounded) -> Bounded:
        entered = [BoundedArray(B, x.v, 0.0 if x.exact else x.errors()) for x in given]
        try:
            found = lift(function(BoundedNamespace(B), *entered), B)
        except Untraceable as error:
            raise ConfigError(
                f"activation {self.activation.name!r}: parity cannot bound {error.what}; write it with other functions "
                "of xp, as maths/activations.py does"
            ) from error
        # an entry whose bound is no number may be anything
        e = np.where(np.isnan(found.e), np.inf, found.e)
        return Bounded(B, found.v, float(np.max(np.abs(found.v), initial=0.0)), e=e)


def own_activations(activations: Sequence[Activation]) -> dict[int, OwnActivation]:
    """Those that the package does not have, by the number of their layer; ``activations``: of the hidden layers."""
    return {l: OwnActivation(a) for l, a in enumerate(activations, start=1) if not is_builtin(a)}


def given_again(names: dict[int, str], custom: Any, path: object) -> dict[int, OwnActivation]:
    """The activations of a case's layers that its reader must give.

    Raises
    ------
    CheckpointError
        If one is not among ``custom``.
    """
    given = {a.name: a for a in (custom if isinstance(custom, Sequence) else (custom,)) if isinstance(a, Activation)}
    if missing := [name for name in names.values() if name not in given]:
        raise CheckpointError(
            f"{path} needs the activation {missing[0]!r}, which is not one of the package's: "
            "parity.replay(path, custom=[...])"
        )
    return {l: OwnActivation(given[name]) for l, name in names.items()}
