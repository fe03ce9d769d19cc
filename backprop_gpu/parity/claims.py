"""What a device says of its precision, as numbers: a claim (fp32, tf32, ...) and its elementary functions' errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, did_you_mean
from .oracle.bounds import Bounds

# Units in the last place by which functions may miss, from each library's own documents.
# numpy: at most 4 for its SIMD loops (the published figures are 2.52 for exp and 3.83 for log in float32); its square
# root and its square are correctly rounded, as the standard asks.
# native: measured in both dtypes in tests/native; log1p of [0, 1], which is all that it takes.
# torch: SLEEF's _u10 functions (1.0), and the 2 of its own exp_u20; its vectorized square root is not correctly
# rounded: measured 0.75 on an AVX-512 CPU.
# cuda: CUDA C++ Programming Guide, mathematical functions, full range, float32; float64 functions are all within 2. The
# guide counts from the correctly rounded result, which is half a unit more. Its power is pow for every exponent, the
# square among them.
# jax: XLA documents nothing. Measured on the CPU, 3.1 at most in float32 and 3.9 in float64, where log1p misses by 120.
# erf is the package's own where the namespace has none: 2.
_ROOTS = {"sqrt": 0.5, "square": 0.5}
_NUMPY = {"exp": 4, "expm1": 4, "log": 4, "log1p": 4, "tanh": 4, "erf": 2, "sin": 4, "cos": 4, "pow": 4}
ULPS: dict[str, dict[str, float]] = {
    "numpy": _NUMPY | _ROOTS,
    "native": {"exp": 1.1, "expm1": 1.5, "log": 0.9, "log1p": 1.5, "tanh": 1.2, "erf": 1.2, "sin": 1.5, "cos": 1.5}
    | _ROOTS,
    "torch": {"exp": 2, "expm1": 1, "log": 1, "log1p": 1, "tanh": 1, "erf": 2, "sin": 1, "cos": 1, "pow": 1}
    | {"sqrt": 1, "square": 0.5},
    "cuda": {"exp": 2.5, "expm1": 1.5, "log": 1.5, "log1p": 1.5, "tanh": 2.5, "erf": 2.5, "sin": 2.5, "cos": 2.5}
    | {"pow": 4.5, "sqrt": 0.5, "square": 4.5},
    "jax": dict.fromkeys(_NUMPY, 8.0) | {"erf": 2} | _ROOTS,
}
_DOUBLE: dict[str, dict[str, float]] = {
    "cuda": dict.fromkeys(("exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos"), 2.5),
    "jax": {"log1p": 256},
}
# Whose functions a namespace calls; array_api_strict computes with NumPy.
KINDS = {"numpy": "numpy", "array_api_strict": "numpy", "torch": "torch", "cupy": "cuda", "jax": "jax"}
# Those in which an array divided by a Python number, or a number by an array, may go through the reciprocal.
RECIPROCAL_FIRST = ("torch", "jax")


@dataclass(frozen=True)
class Claim:
    """A precision: unit roundoffs of operations, of operands on the way into products, and inside products."""

    dtype: str
    u: float
    u_in: float = 0.0
    eta_in: float = 0.0
    u_sum: float | None = None
    eta: float = 2.0**-126
    largest: float = float(np.finfo("float32").max)


# Tensor cores truncate where they sum, which is 2 u; their operands keep float32's exponent but for fp16's.
# tf32 rounds operands alone; with bf16 and fp16 everything that a layer stores is rounded, while master weights, the
# cost and the optimizer stay float32.
CLAIMS: dict[str, Claim] = {
    "fp32": Claim("float32", 2.0**-24),
    "tf32": Claim("float32", 2.0**-24, u_in=2.0**-11, eta_in=2.0**-126, u_sum=2.0**-23),
    "bf16": Claim("float32", 2.0**-8, u_in=2.0**-8, eta_in=2.0**-126, u_sum=2.0**-23, largest=(2.0 - 2.0**-7) * 2**127),
    "fp16": Claim("float32", 2.0**-11, u_in=2.0**-11, eta_in=2.0**-25, u_sum=2.0**-23, eta=2.0**-14, largest=65504.0),
    "fp64": Claim("float64", 2.0**-53, eta=2.0**-1022, largest=float(np.finfo("float64").max)),
}


def claim_of(dtype: str, claim: str | None = None) -> str:
    """The claim by name, or the one that goes with a dtype.

    Raises
    ------
    ConfigError
        If there is no such claim, or it is not one of this dtype.
    """
    if claim is None:
        return "fp64" if dtype == "float64" else "fp32"
    if claim not in CLAIMS:
        raise ConfigError(f"unknown claim {claim!r}{did_you_mean(claim, CLAIMS)}; known: {', '.join(CLAIMS)}")
    if CLAIMS[claim].dtype != dtype:
        raise ConfigError(f"claim {claim!r} is about {CLAIMS[claim].dtype} arrays, and dtype is {dtype!r}")
    return claim


def kind_of(backend: Any, kernels: Any) -> str:
    """Whose elementary functions a kernel set calls: a key of ``ULPS``."""
    if type(kernels).__name__ in ("NativeKernels", "CudaKernels"):  # one set of formulas, native/formulas
        return "native"
    return KINDS.get(backend.name.partition(":")[0], "numpy")


def arithmetic_of(namespace: str, claim: str) -> Bounds:
    """What errors the functions of a namespace may make under a claim.

    Raises
    ------
    ConfigError
        If nothing is known of it.
    """
    if namespace not in KINDS:
        raise ConfigError(f"the errors of {namespace}'s functions are not known; known are {', '.join(KINDS)}")
    return bounds_of(KINDS[namespace], claim)


def bounds_of(kind: str, claim: str, *, master: bool = False) -> Bounds:
    """The arithmetic of a device whose functions are of ``kind``; ``master``: of what stays float32 under any claim."""
    c = CLAIMS["fp32" if master and claim in ("tf32", "bf16", "fp16") else claim]
    return Bounds(
        c.dtype,
        u=c.u,
        eta=c.eta,
        largest=c.largest,
        u_in=c.u_in,
        eta_in=c.eta_in,
        u_sum=c.u if c.u_sum is None else c.u_sum,
        ulps=ULPS[kind] | (_DOUBLE.get(kind, {}) if c.dtype == "float64" else {}),
        reciprocal_first=kind in RECIPROCAL_FIRST,
    )


def exact_bounds(dtype: str = "float32") -> Bounds:
    """Arithmetic without rounding: every bound is 0, so that every number must be the float64 one bit for bit."""
    return Bounds(dtype, u=0.0, eta=0.0, largest=float(np.finfo(dtype).max), u_sum=0.0)
