"""The complex step in one page: numpy for complex arguments, where order and size look at the real part alone.

f'(x) = Im f(x + ih) / h with h = 1e-30 has no cancellation and no step size to choose. It needs every comparison,
``abs``, ``maximum`` and so on to act on the real part and carry the imaginary part along, as a derivative does. This
namespace is written for the tests of single formulas and shares nothing with the package's own gradient checker.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-30
_real_erf = np.vectorize(math.erf, otypes=[float])


def _pick(take_first: Any, a: Any, b: Any) -> Any:
    return np.where(take_first, a, b)


class RealPart:
    """Everything numpy has, but order by the real part, and erf by its derivative."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def greater(self, a: Any, b: Any) -> Any:
        return np.real(a) > np.real(b)

    def greater_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) >= np.real(b)

    def less(self, a: Any, b: Any) -> Any:
        return np.real(a) < np.real(b)

    def less_equal(self, a: Any, b: Any) -> Any:
        return np.real(a) <= np.real(b)

    def abs(self, a: Any) -> Any:
        return _pick(np.real(a) < 0.0, -a, a)

    def maximum(self, a: Any, b: Any) -> Any:
        return _pick(np.real(a) >= np.real(b), a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return _pick(np.real(a) <= np.real(b), a, b)

    def sign(self, a: Any) -> Any:
        return np.sign(np.real(a)) + 0j

    def max(self, a: Any, *, axis: int, keepdims: bool) -> Any:
        assert keepdims
        return np.take_along_axis(a, np.expand_dims(np.argmax(np.real(a), axis=axis), axis), axis=axis)

    def erf(self, a: Any) -> Any:
        x = np.real(a)
        return _real_erf(x) + 1j * np.imag(a) * (2.0 / math.sqrt(math.pi) * np.exp(-x * x))


REAL_PART = RealPart()


def slope(f: Callable[[Any, Any], Any], x: np.ndarray) -> np.ndarray:
    """f'(x), element by element, of an elementwise ``f(xp, x)``."""
    return np.imag(f(REAL_PART, x + 1j * STEP)) / STEP


def gradient(f: Callable[[Any, Any], Any], x: np.ndarray) -> np.ndarray:
    """The gradient at x of ``f(xp, x)``, which is summed first if it is not a scalar: one complex step per entry."""
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * STEP
        out[index] = np.imag(np.sum(f(REAL_PART, moved))) / STEP
    return out
