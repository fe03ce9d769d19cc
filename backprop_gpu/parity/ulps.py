"""The arithmetic of a namespace's own functions: what ``claims`` says of a device, for everything a user may call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import ConfigError
from .bounds import Bounds
from .claims import bounds_of

# In ulp, beside the table of ``claims``, which has what a network calls.
# numpy: at most 4 for its SIMD loops; its square root and its square are correctly rounded, as the standard asks.
# torch: SLEEF's _u10 functions; its vectorized square root is not correctly rounded: measured 0.75 on an AVX-512 CPU.
# cupy: CUDA C++ Programming Guide; its power is CUDA's pow for every exponent, the square among them.
# jax: XLA documents nothing. Measured on the CPU, 3.1 at most in float32 and 3.9 in float64, where log1p misses by 120.
_NUMPY = {"sin": 4, "cos": 4, "pow": 4, "sqrt": 0.5, "square": 0.5}
_MORE: Mapping[str, Mapping[str, float]] = {
    "numpy": _NUMPY,
    "array_api_strict": _NUMPY,  # it computes with NumPy
    "torch": {"sin": 1, "cos": 1, "pow": 1, "sqrt": 1, "square": 0.5},
    "cupy": {"sin": 2, "cos": 2, "pow": 4, "sqrt": 0.5, "square": 4},
    "jax": dict.fromkeys(("exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "pow"), 8)
    | {"sqrt": 0.5, "square": 0.5},
}
_KIND = {"torch": "torch", "cupy": "cuda"}
# Namespaces in which an array divided by a Python number, or a number by an array, may go through the reciprocal.
_RECIPROCAL_FIRST = ("torch", "jax")


def arithmetic_of(namespace: str, claim: str) -> Bounds:
    """What errors a namespace's functions may make under a claim.

    Raises
    ------
    ConfigError
        If nothing is known of it.
    """
    if namespace not in _MORE:
        raise ConfigError(f"the errors of {namespace}'s functions are not known; known are {', '.join(_MORE)}")
    bounds = bounds_of(_KIND.get(namespace, "numpy"), claim)
    ulps = {**bounds.ulps, **_MORE[namespace]}
    if (namespace, claim) == ("jax", "fp64"):
        ulps["log1p"] = 256
    return replace(bounds, ulps=ulps, reciprocal_first=namespace in _RECIPROCAL_FIRST)
