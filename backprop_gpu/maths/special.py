"""The error function, which neither NumPy nor the array API standard has."""

from __future__ import annotations

from .._typing import Array, Namespace

# erf(x) = x + x P(x^2) for |x| <= 1: P by interpolation of erf(sqrt u)/sqrt u - 1 at the 12 Chebyshev points of
# [0, 1] in 40-digit arithmetic; relative error 4.4e-17 before rounding.
INNER = (
    0.12837916709551257,
    -0.37612638903183543,
    0.11283791670945006,
    -0.02686617064323777,
    0.0052239776071164225,
    -0.0008548325975389692,
    0.00012055294904839707,
    -1.492473690741966e-05,
    1.6447424703317362e-06,
    -1.6208483801871705e-07,
    1.3720064546777686e-08,
    -7.795898827002142e-10,
)
# erfc(x) = e^(-x^2) Q(t), t = 1/(1 + x/2), for 1 < x <= 6: Q by interpolation at 15 Chebyshev points of t in
# [1/4, 2/3]; error 1.1e-17 in erf before rounding. Beyond 6, erf rounds to 1 in float64.
TAIL = (
    1.6242284740077591e-07,
    0.2820885729320229,
    0.2822051417376623,
    0.24562975816641905,
    0.185316412975862,
    0.03477897668837144,
    0.19483233899524952,
    -0.6720587822190289,
    1.3907243547276613,
    -2.548579515162772,
    3.3141789939074116,
    -2.808469620081249,
    1.4993273861992589,
    -0.4641503100512702,
    0.06417709956997757,
)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Horner's rule, lowest power first."""
    total = coefficients[-1] * x + coefficients[-2]
    for c in coefficients[-3::-1]:
        total = total * x + c
    return total


def erf(xp: Namespace, x: Array) -> Array:
    """The error function, element by element, within 2 ulp in float32 and float64 (tested against 40 digits).

    Uses the namespace's own ``erf`` where it has one (torch, and the complex-step namespace of ``gradcheck``).
    NaN gives NaN; +-inf gives +-1.
    """
    own = getattr(xp, "erf", None)
    if own is not None:
        return own(x)
    magnitude = xp.abs(x)
    inner = xp.minimum(magnitude, 1.0)
    small = inner + inner * _polynomial(INNER, inner * inner)
    tail = xp.minimum(magnitude, 6.0)
    large = 1.0 - xp.exp(-(tail * tail)) * _polynomial(TAIL, 1.0 / (1.0 + 0.5 * tail))
    return xp.sign(x) * xp.where(xp.less_equal(magnitude, 1.0), small, large)
