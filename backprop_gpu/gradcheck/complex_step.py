"""The complex step: for an analytic J, Im J(theta + i h d) / h = grad J . d + O(h^2), with no subtraction.

With h = 1e-170 there is no step size to choose (Squire & Trapp 1998). The network runs in complex128 on a namespace
whose comparisons, ``abs``, ``maximum`` and ``minimum`` look at the real part: the step is right even at a kink.
"""

from __future__ import annotations

from typing import Any

import numpy as np

STEP = 1e-170  # its square is 0, so that it leaves no trace in a real part, where it would break exact ties


class ComplexStepNamespace:
    """NumPy with the functions that a derivative along the imaginary axis needs to see by their real part.

    At a tie each takes the side that the formulas take: ``maximum`` its second argument (ReLU is 0 at 0), ``minimum``
    its first, ``abs`` the derivative 0 (the sign of 0).
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def abs(x: np.ndarray) -> np.ndarray:
        """|x| as sign(Re x) x."""
        return np.sign(np.real(x)) * x

    @staticmethod
    def sign(x: np.ndarray) -> np.ndarray:
        """The sign of the real part."""
        return np.sign(np.real(x)).astype(x.dtype)

    @staticmethod
    def maximum(x: Any, y: Any) -> np.ndarray:
        """Whichever has the larger real part."""
        return np.where(np.real(x) > np.real(y), x, y)

    @staticmethod
    def minimum(x: Any, y: Any) -> np.ndarray:
        """Whichever has the smaller real part."""
        return np.where(np.real(x) > np.real(y), y, x)

    @staticmethod
    def max(x: np.ndarray, axis: int | None = None, keepdims: bool = False) -> np.ndarray:
        """The largest real part; only ever used as a shift, whose derivative cancels."""
        return np.max(np.real(x), axis=axis, keepdims=keepdims)

    @staticmethod
    def greater(x: Any, y: Any) -> np.ndarray:
        """Re x > Re y."""
        return np.real(x) > np.real(y)

    @staticmethod
    def log1p(x: np.ndarray) -> np.ndarray:
        """log1p(a + ib) to first order in b; NumPy's own of complex numbers loses the digits of a small a."""
        a = np.real(x)
        return np.log1p(a) + 1j * np.imag(x) / (1.0 + a)

    @staticmethod
    def expm1(x: np.ndarray) -> np.ndarray:
        """expm1(a + ib) to first order in b."""
        a = np.real(x)
        return np.expm1(a) + 1j * np.imag(x) * np.exp(a)

    @staticmethod
    def erf(x: np.ndarray) -> np.ndarray:
        """erf(a + ib) to first order in b: erf(a) + i b 2/sqrt(pi) e^(-a^2)."""
        from ..maths.special import erf

        a = np.real(x)
        return erf(np, a) + 1j * np.imag(x) * (2.0 / np.sqrt(np.pi)) * np.exp(-a * a)
