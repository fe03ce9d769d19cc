"""How compiled kernels are called: one signature, void(row), by address, with every argument in a row of int64.

That form is kept on disk, and lets a recorded step be two vectors: addresses of kernels and of their rows. A kernel is
made for one floating type and one variant (an activation, a loss, an optimizer), and compiled when it is first used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .native import Native
from .parts import Late, inline

PLAIN, TRANSPOSED = 111, 112  # of cblas.h

_HOME = f"{__package__}.intrinsics"  # which says what these do
array: Any = Late(_HOME, "array")
call: Any = Late(_HOME, "call")
gemm: Any = Late(_HOME, "gemm")
float_of_bits: Any = Late(_HOME, "float_of_bits")
bits_of_float: Any = Late(_HOME, "bits_of_float")


@inline
def integers(address: Any, n: Any) -> Any:
    """n int64 at an address."""
    return array(address, n, np.int64)


@dataclass(frozen=True)
class Real:
    """A floating type, and how compiled code reads it.

    Attributes
    ----------
    f : type
        ``np.float32`` or ``np.float64``.
    integer : type
        The integer of the same width.
    size, mantissa, bias : int
        Bytes, bits of the mantissa, bias of the exponent.
    floats : compiled function
        ``floats(address, n)``: n numbers at an address.
    scalar : compiled function
        ``scalar(address, otherwise)``: the number at an address; ``otherwise`` for address 0.
    """

    f: Any
    integer: Any
    size: int
    mantissa: int
    bias: int
    floats: Any
    scalar: Any


def _real(f: Any, integer: Any, mantissa: int, bias: int) -> Real:
    @inline
    def floats(address: Any, n: Any) -> Any:
        return array(address, n, f)

    @inline
    def scalar(address: Any, otherwise: Any) -> Any:
        return array(address, 1, f)[0] if address != 0 else otherwise

    return Real(f, integer, np.dtype(f).itemsize, mantissa, bias, floats, scalar)


REALS = {"float32": _real(np.float32, np.int32, 23, 127), "float64": _real(np.float64, np.int64, 52, 1023)}


class Kernel(Native):
    """Machine code of a ``body(row address)``; ``name`` and ``dtype`` tell it from all others."""

    def __init__(self, name: str, dtype: str, body: Any) -> None:
        super().__init__(f"{name}_{dtype}", 1, lambda: body)
