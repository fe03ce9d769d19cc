"""Elementary functions in float32 that LLVM can turn into vector code: polynomials, no branches, no library calls.

Worst errors in units in the last place (``tests/backends/test_compiled_functions.py`` measures them): exp 1.1, tanh
1.2, sigmoid 2.2, erf 1.2, log 0.9, log1p of [0, 1] 1.5, expm1 of x <= 0 1.5. NaN gives NaN, infinities their limits.
The coefficients interpolate at Chebyshev points in 40-digit arithmetic and are rounded to float32.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# No reassociation here: the reductions of the argument rely on the order of operations. "contract" allows FMA.
_jit = nb.njit(forceinline=True, fastmath={"contract"}, error_model="numpy", cache=True)
f = np.float32

_LOG2E = f(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = f(0.693359375), f(-2.1219444005469057e-4)


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typingctx: Any, x: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@_jit
def exp(x: Any) -> Any:
    """e^x: x = n log 2 + r, |r| <= (log 2)/2; e^r = 1 + r + r^2 P(r); times 2^n.

    In two halves, so that results below the smallest normal number and above the largest come out right.
    """
    x = f(89.0) if x > f(89.0) else x  # e^89 is infinite; written so that NaN stays NaN
    x = f(-104.0) if x < f(-104.0) else x  # e^-104 is 0
    n = np.floor(x * _LOG2E + f(0.5))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = f(1.39269268e-3)
    p = p * r + f(8.36377405e-3)
    p = p * r + f(4.16665487e-2)
    p = p * r + f(1.66665733e-1)
    p = p * r + f(0.5)
    p = (p * (r * r) + r) + f(1.0)
    k = np.int32(n)
    half = k >> np.int32(1)
    first: Any = float_of_bits(np.int32((half + np.int32(127)) << np.int32(23)))
    second = float_of_bits(np.int32((k - half + np.int32(127)) << np.int32(23)))
    return (p * first) * second


@_jit
def tanh(x: Any) -> Any:
    """x + x^3 P(x^2) below 0.625, else 1 - 2/(e^(2|x|) + 1) with the sign of x."""
    size = -x if x < f(0.0) else x
    u = x * x
    p = f(-6.09671418e-3)
    p = p * u + f(2.09971797e-2)
    p = p * u + f(-5.38509078e-2)
    p = p * u + f(1.33327693e-1)
    p = p * u + f(-3.33333284e-1)
    small = p * u * x + x
    large = f(1.0) - f(2.0) / (exp(f(2.0) * size) + f(1.0))
    large = -large if x < f(0.0) else large
    return large if size > f(0.625) else small


@_jit
def sigmoid(x: Any) -> Any:
    """1/(1 + e^-|x|), or e^-|x| times that for x <= 0."""
    e = exp(-x if x > f(0.0) else x)
    s = f(1.0) / (f(1.0) + e)
    return s if x > f(0.0) else e * s


@_jit
def erf(x: Any) -> Any:
    """x + x P(x^2) up to 1, beyond it 1 - e^(-x^2) Q(t), t = 1/(1 + |x|/2), with the sign of x."""
    size = -x if x < f(0.0) else x
    u = x * x
    p = f(7.87587487e-5)
    p = p * u + f(-8.0168643e-4)
    p = p * u + f(5.18908724e-3)
    p = p * u + f(-2.68542115e-2)
    p = p * u + f(1.12835944e-1)
    p = p * u + f(-3.7612626e-1)
    p = p * u + f(1.28379166e-1)
    small = p * x + x
    tail = f(4.0) if size > f(4.0) else size  # erf(4) rounds to 1
    t = f(1.0) / (f(1.0) + f(0.5) * tail)
    q = f(1.08398192e-1)
    q = q * t + f(-4.33586568e-1)
    q = q * t + f(5.08515835e-1)
    q = q * t + f(-5.98443784e-2)
    q = q * t + f(3.27061713e-1)
    q = q * t + f(2.65512943e-1)
    q = q * t + f(2.8401491e-1)
    q = q * t + f(-9.56533331e-5)
    large = f(1.0) - exp(-(tail * tail)) * q
    large = -large if x < f(0.0) else large
    return large if size > f(1.0) else small


@_jit
def log1p_unit(e: Any) -> Any:
    """log(1 + e) for e in [0, 1]: e + e^2 P(e)."""
    p = f(-4.46621142e-3)
    p = p * e + f(2.52240542e-2)
    p = p * e + f(-6.67577237e-2)
    p = p * e + f(1.15618452e-1)
    p = p * e + f(-1.58475652e-1)
    p = p * e + f(1.9854106e-1)
    p = p * e + f(-2.49865264e-1)
    p = p * e + f(3.33328426e-1)
    p = p * e + f(-4.9999997e-1)
    return p * (e * e) + e


@_jit
def log(x: Any) -> Any:
    """log x for normal positive x: x = 2^n (1 + d), log(1 + d) = d - d^2/2 + d^3 P(d); 0 gives -inf."""
    bits = bits_of_float(x) - np.int32(0x3F3504F3)  # so that 1 + d lies in [sqrt(1/2), sqrt 2)
    n = f(bits >> np.int32(23))
    d = float_of_bits(np.int32((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))) - f(1.0)
    p = f(6.97161183e-2)
    p = p * d + f(-1.14797339e-1)
    p = p * d + f(1.16854198e-1)
    p = p * d + f(-1.24256872e-1)
    p = p * d + f(1.42490581e-1)
    p = p * d + f(-1.66678026e-1)
    p = p * d + f(2.00007156e-1)
    p = p * d + f(-2.4999997e-1)
    p = p * d + f(3.33333313e-1)
    u = d * d
    y = (p * d * u + n * _LN2_LOW) - f(0.5) * u
    y = (d + y) + n * _LN2_HIGH
    y = f(-np.inf) if x == f(0.0) else y
    return y if x < f(np.inf) else x


@_jit
def expm1_negative(x: Any) -> Any:
    """e^x - 1 for x <= 0: x + x^2 P(x) from -1/2 on, e^x - 1 below, where nothing cancels."""
    p = f(1.16428698e-3)
    p = p * x + f(8.23822152e-3)
    p = p * x + f(4.16499302e-2)
    p = p * x + f(1.66665629e-1)
    p = p * x + f(0.5)
    near = p * (x * x) + x
    return near if x > f(-0.5) else exp(x) - f(1.0)
