"""Where the 1/m lives: one denominator, two places to put it.

The cost is J = (1/D) sum_i w_i L_i (+ penalty), with D = m for the mean. The derivative of an average is the average of
the derivatives, so 1/D may be applied to the first factor of the chain rule or to the last product:

* ``late`` (course week 4): dAL = dL/dAL per example, every dA and dZ is a derivative of L, and
  dW = (1/D) dZ A_prev^T,  db = (1/D) sum dZ;
* ``early`` (the chain rule from J): dAL = (1/D) dL/dAL = dJ/dAL, every dA and dZ is a derivative of J, and
  dW = dZ A_prev^T,  db = sum dZ.

Both give dJ/dW. A :class:`Denominator` is made once per optimizer step from the *whole* batch; every micro-batch,
ragged tail and rank of that step divides by the same number, which is why the split does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .._typing import Array, Namespace
from ..errors import ConfigError, DataError, did_you_mean

CONVENTIONS = ("early", "late")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Denominator:
    """The number D that a step divides by.

    Attributes
    ----------
    value : float
        m for a mean, the sum of the example weights for a weighted mean, 1 for a sum.
    """

    value: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise DataError(
                f"the cost's denominator must be positive and finite, got {self.value}; "
                "a batch needs at least one example with a positive weight"
            )

    @classmethod
    def of(cls, reduction: str, m: int, weights_sum: float | None = None) -> Denominator:
        """The denominator of a batch of ``m`` examples whose weights sum to ``weights_sum`` (None: no weights)."""
        if reduction == "sum":
            return cls(1.0)
        if reduction != "mean":
            raise ConfigError(
                f"unknown reduction {reduction!r}{did_you_mean(str(reduction), REDUCTIONS)}; use mean or sum"
            )
        return cls(float(m) if weights_sum is None else float(weights_sum))

    @property
    def inverse(self) -> float:
        """1/D, in float64."""
        return 1.0 / self.value


def weigh(xp: Namespace, weights: Array | None, x: Array) -> Array:
    """Example weights (1, m) times x (n, m); an example of weight 0 contributes 0 whatever its x, infinite or NaN."""
    return x if weights is None else xp.where(xp.equal(weights, 0.0), 0.0, weights * x)


def split_scale(convention: str, inverse: Any) -> tuple[Any, Any]:
    """Return the factors (of dAL or dZ[L], of dW and db), one of which is ``inverse`` and the other None (one).

    ``early`` scales the first derivative, ``late`` the parameter gradients.
    """
    if convention == "early":
        return inverse, None
    if convention == "late":
        return None, inverse
    raise ConfigError(
        f"one_over_m must be 'early' or 'late', got {convention!r}{did_you_mean(str(convention), CONVENTIONS)}"
    )
