"""What the laws compare kernels with: parity's float64 oracle, from numbers on the host, with the derived bounds.

What witnesses the oracle itself is in ``parity/test_oracle.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from backprop_gpu.parity.comparator import ratios
from backprop_gpu.parity.oracle import layers
from backprop_gpu.parity.oracle.bounds import Bounded, Bounds
from backprop_gpu.parity.oracle.products import Product, Recorded, row_sums


def ratio(device: Any, reference: Bounded) -> float:
    """max |device - v| / bound: at most 1 if the device computed what it should.

    Infinite where shapes, NaN or infinities differ, and where there is no bound: such a comparison decides nothing.
    """
    x = np.asarray(device, np.float64)
    if x.shape != reference.shape:
        return math.inf
    if x.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        found, without_bound = ratios(np.asarray(np.abs(x - reference.v)), x, reference)
    return math.inf if without_bound else float(found.max()) / reference.bounds.slack


def product(B: Bounds, P: np.ndarray, Q: np.ndarray, plus: np.ndarray | None = None, scale: Any = None) -> Bounded:
    """(plus +) scale P Q: Z of W, A_prev and b; dW of dZ and A_prev^T; dA of W^T and dZ."""
    numbers = {"plus": plus, "scale": 1.0 if scale is None else float(scale[0])}
    return Product(B, Recorded(P), Recorded(Q), **numbers)[:]  # type: ignore[arg-type]


def summed(B: Bounds, dZ: np.ndarray, scale: Any = None, plus: np.ndarray | None = None) -> Bounded:
    """db = (plus +) scale times the sum of each row."""
    return row_sums(Recorded(dZ), B, plus=plus, scale=1.0 if scale is None else float(scale[0]))


def state_of(
    B: Bounds,
    g: Any,
    revealed: Mapping[str, np.ndarray],
    A: np.ndarray,
    rate: float,
    z: Bounded,
) -> tuple[Bounded | None, Bounded]:
    """z and a = g(z) of a layer for its vjp: as the kernel set keeps them, else worked out with their own bound.

    A set that keeps neither finds g' from A (before dropout), or with g: z is then known to its own bound alone.
    """
    if "Z" in revealed:
        return B.given(revealed["Z"]), B.given(revealed.get("G", A))
    if not rate and g.name in ("identity", "relu", "tanh", "sigmoid"):
        return None, B.given(A)
    if "G" in revealed:
        return z, B.given(revealed["G"])
    return z, layers.activation(B, g.name, dict(g.parameters), z) if rate else B.given(A)
