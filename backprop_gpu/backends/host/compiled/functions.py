"""Elementary functions that LLVM can turn into vector code: polynomials, no branches, no library calls.

Worst errors in units in the last place (``tests/backends/test_compiled_functions.py`` measures them), in float32 and
float64: exp 1.1, tanh 1.2, sigmoid 2.2, erf 1.2, log 0.9, log1p of [0, 1] 1.5, expm1 of x <= 0 1.5. NaN gives NaN,
infinities their limits. The coefficients interpolate at Chebyshev points in 40-digit arithmetic, highest power first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....maths.special import INNER, TAIL
from .calling import REALS, Real, bits_of_float, float_of_bits
from .parts import in_order


@dataclass(frozen=True)
class Table:
    """What differs between the floating types: where exp leaves its range, log 2 in two parts, polynomials."""

    exp_range: tuple[float, float]  # e^x is 0 below the first, infinite above the second
    ln2: tuple[float, float]  # of few enough bits that its product with an exponent is exact, and the rest
    erf_is_one: float
    exp: tuple[float, ...]  # (e^r - 1 - r)/r^2, |r| <= (log 2)/2
    tanh: tuple[float, ...]  # (tanh x - x)/x^3 in x^2, x <= 0.625
    erf: tuple[float, ...]  # (erf x - x)/x in x^2, x <= 1
    erfc: tuple[float, ...]  # e^(x^2) erfc x in 1/(1 + x/2), x >= 1
    log1p: tuple[float, ...]  # (log(1 + e) - e)/e^2 on [0, 1]
    log: tuple[float, ...]  # (log(1 + d) - d + d^2/2)/d^3 from sqrt(1/2) - 1 to sqrt 2 - 1
    expm1: tuple[float, ...]  # (e^x - 1 - x)/x^2 on [-1/2, 0]


# fmt: off
TABLES = {
    "float32": Table(
        exp_range=(-104.0, 89.0),
        ln2=(0.693359375, -2.1219444005469057e-4),
        erf_is_one=4.0,
        exp=(1.39269268e-3, 8.36377405e-3, 4.16665487e-2, 1.66665733e-1, 0.5),
        tanh=(-6.09671418e-3, 2.09971797e-2, -5.38509078e-2, 1.33327693e-1, -3.33333284e-1),
        erf=(7.87587487e-5, -8.0168643e-4, 5.18908724e-3, -2.68542115e-2, 1.12835944e-1, -3.7612626e-1, 1.28379166e-1),
        erfc=(
            1.08398192e-1, -4.33586568e-1, 5.08515835e-1, -5.98443784e-2, 3.27061713e-1, 2.65512943e-1, 2.8401491e-1,
            -9.56533331e-5,
        ),
        log1p=(
            -4.46621142e-3, 2.52240542e-2, -6.67577237e-2, 1.15618452e-1, -1.58475652e-1, 1.9854106e-1,
            -2.49865264e-1, 3.33328426e-1, -4.9999997e-1,
        ),
        log=(
            6.97161183e-2, -1.14797339e-1, 1.16854198e-1, -1.24256872e-1, 1.42490581e-1, -1.66678026e-1,
            2.00007156e-1, -2.4999997e-1, 3.33333313e-1,
        ),
        expm1=(1.16428698e-3, 8.23822152e-3, 4.16499302e-2, 1.66665629e-1, 0.5),
    ),
    "float64": Table(
        exp_range=(-746.0, 710.0),
        ln2=(0.693145751953125, 1.4286068203094172e-06),
        erf_is_one=6.0,
        exp=(
            2.0914686968086876e-09, 2.5105217004720745e-08, 2.75572736431103e-07, 2.7557255400206422e-06,
            2.4801587325547743e-05, 0.00019841269874820627, 0.0013888888888883748, 0.008333333333326136,
            0.04166666666666667, 0.1666666666666667, 0.5,
        ),
        tanh=(
            6.485163482793113e-06, -3.12011014257974e-05, 9.257116129556769e-05, -0.0002375906496055562,
            0.0005896606577757043, -0.0014557754120478055, 0.0035921217511549622, -0.008863235103240878,
            0.021869488519008305, -0.05396825396789699, 0.13333333333333042, -0.3333333333333333,
        ),
        erf=INNER[::-1],
        erfc=TAIL[::-1],
        log1p=(
            -2.2938856818471438e-05, 0.000265295970542531, -0.0014569248473329174, 0.005081090478548994,
            -0.012732150528247672, 0.024682950191684934, -0.03912505115233944, 0.053223522460321214,
            -0.06504010366036855, 0.07444817019942226, -0.0825618541627825, 0.09071835292534261,
            -0.09996324347550137, 0.11110571142855806, -0.12499941281507687, 0.14285709745445543,
            -0.1666666643097834, 0.1999999999247163, -0.2499999999987205, 0.33333333333332466, -0.5,
        ),
        log=(
            -0.025061228095282464, 0.0566642324205218, -0.06129561980727906, 0.0537187789066478,
            -0.05368280388050548, 0.05837018351464999, -0.06265031869518063, 0.06671985555271291,
            -0.0714223204915847, 0.0769198812013375, -0.08333345056413204, 0.09090919875998202, -0.0999999999631727,
            0.11111110909841072, -0.12499999997109267, 0.1428571428759174, -0.16666666666697305, 0.19999999999993223,
            -0.2499999999999993, 0.33333333333333337,
        ),
        expm1=(
            2.0367831165025622e-08, 2.7077661631340097e-07, 2.7529613436538965e-06, 2.4800612832459925e-05,
            0.00019841248546681163, 0.0013888888604959755, 0.008333333331155702, 0.04166666666658176,
            0.16666666666666538, 0.5,
        ),
    ),
}
# fmt: on


@dataclass(frozen=True)
class Functions:
    """The functions of one floating type, to be called from compiled code alone."""

    exp: Any
    tanh: Any
    sigmoid: Any
    erf: Any
    log1p_unit: Any
    log: Any
    expm1_negative: Any


@functools.cache
def functions(dtype: str) -> Functions:
    """The functions of ``"float32"`` or ``"float64"``; each is compiled when a kernel first needs it."""
    real, table = REALS[dtype], TABLES[dtype]
    exp = _exp(real, table)
    return Functions(
        exp,
        _tanh(real, table, exp),
        _sigmoid(real, exp),
        _erf(real, table, exp),
        _log1p_unit(real, table),
        _log(real, table),
        _expm1_negative(real, table, exp),
    )


_UNROLLED = 8  # steps of a loop that LLVM unrolls for sure: a loop around one that it does not is no vector code


def _polynomial(real: Real, coefficients: tuple[float, ...]) -> Any:
    """Horner's rule."""
    higher, c = coefficients[:-_UNROLLED], tuple(real.f(x) for x in coefficients[-_UNROLLED:])
    if not higher:

        @in_order
        def polynomial(x: Any) -> Any:
            total = c[0]
            for k in range(1, len(c)):
                total = total * x + c[k]
            return total

        return polynomial
    before = _polynomial(real, higher)

    @in_order
    def longer(x: Any) -> Any:
        total = before(x)
        for k in range(len(c)):
            total = total * x + c[k]
        return total

    return longer


def _exp(real: Real, table: Table) -> Any:
    f, wide, bias, mantissa = real.f, real.integer, real.integer(real.bias), real.integer(real.mantissa)
    log2e, (low, high), (ln2, rest) = f(1.4426950408889634), map(f, table.exp_range), map(f, table.ln2)
    one, P = real.integer(1), _polynomial(real, table.exp)

    @in_order
    def exp(x: Any) -> Any:
        """e^x: x = n log 2 + r, |r| <= (log 2)/2; e^r = 1 + r + r^2 P(r); times 2^n.

        In two halves, so that results below the smallest normal number and above the largest come out right.
        """
        x = high if x > high else x  # written so that NaN stays NaN
        x = low if x < low else x
        n = np.floor(x * log2e + f(0.5))
        r = (x - n * ln2) - n * rest
        p = (P(r) * (r * r) + r) + f(1.0)
        k = wide(np.int32(n))
        half = k >> one
        first: Any = float_of_bits(wide((half + bias) << mantissa))
        second = float_of_bits(wide((k - half + bias) << mantissa))
        return (p * first) * second

    return exp


def _tanh(real: Real, table: Table, exp: Any) -> Any:
    f, P = real.f, _polynomial(real, table.tanh)

    @in_order
    def tanh(x: Any) -> Any:
        """x + x^3 P(x^2) below 0.625, else 1 - 2/(e^(2|x|) + 1) with the sign of x."""
        size = -x if x < f(0.0) else x
        u = x * x
        small = P(u) * u * x + x
        large = f(1.0) - f(2.0) / (exp(f(2.0) * size) + f(1.0))
        large = -large if x < f(0.0) else large
        return large if size > f(0.625) else small

    return tanh


def _sigmoid(real: Real, exp: Any) -> Any:
    f = real.f

    @in_order
    def sigmoid(x: Any) -> Any:
        """1/(1 + e^-|x|), or e^-|x| times that for x <= 0."""
        e = exp(-x if x > f(0.0) else x)
        s = f(1.0) / (f(1.0) + e)
        return s if x > f(0.0) else e * s

    return sigmoid


def _erf(real: Real, table: Table, exp: Any) -> Any:
    f, one, P, Q = real.f, real.f(table.erf_is_one), _polynomial(real, table.erf), _polynomial(real, table.erfc)

    @in_order
    def erf(x: Any) -> Any:
        """x + x P(x^2) up to 1, beyond it 1 - e^(-x^2) Q(t), t = 1/(1 + |x|/2), with the sign of x."""
        size = -x if x < f(0.0) else x
        small = P(x * x) * x + x
        tail = one if size > one else size
        large = f(1.0) - exp(-(tail * tail)) * Q(f(1.0) / (f(1.0) + f(0.5) * tail))
        large = -large if x < f(0.0) else large
        return large if size > f(1.0) else small

    return erf


def _log1p_unit(real: Real, table: Table) -> Any:
    P = _polynomial(real, table.log1p)

    @in_order
    def log1p_unit(e: Any) -> Any:
        """log(1 + e) for e in [0, 1]: e + e^2 P(e)."""
        return P(e) * (e * e) + e

    return log1p_unit


def _log(real: Real, table: Table) -> Any:
    f, wide, mantissa = real.f, real.integer, real.integer(real.mantissa)
    (ln2, rest), P = map(f, table.ln2), _polynomial(real, table.log)
    root = f(np.sqrt(0.5)).view(wide)  # the bits of sqrt(1/2)
    below = wide((1 << real.mantissa) - 1)

    @in_order
    def log(x: Any) -> Any:
        """log x for normal positive x: x = 2^n (1 + d), log(1 + d) = d - d^2/2 + d^3 P(d); 0 gives -inf."""
        bits = wide(bits_of_float(x) - root)  # so that 1 + d lies in [sqrt(1/2), sqrt 2)
        n = f(np.int32(bits >> mantissa))
        d = float_of_bits(wide((bits & below) + root)) - f(1.0)
        u = d * d
        y = (P(d) * d * u + n * rest) - f(0.5) * u
        y = (d + y) + n * ln2
        y = f(-np.inf) if x == f(0.0) else y
        return y if x < f(np.inf) else x

    return log


def _expm1_negative(real: Real, table: Table, exp: Any) -> Any:
    f, P = real.f, _polynomial(real, table.expm1)

    @in_order
    def expm1_negative(x: Any) -> Any:
        """e^x - 1 for x <= 0: x + x^2 P(x) from -1/2 on, e^x - 1 below, where nothing cancels."""
        near = P(x) * (x * x) + x
        return near if x > f(-0.5) else exp(x) - f(1.0)

    return expm1_negative
