"""Kernel sets that compute honestly, each in a way of its own: orders of summation, and layers stored as fp16."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise as neighbours
from typing import Any

import numpy as np

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels, write


def sequential(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """One term after the other."""
    out = np.zeros((P.shape[0], Q.shape[1]), P.dtype)
    for k in range(P.shape[1]):
        out += P[:, k : k + 1] * Q[k : k + 1]
    return out


def backwards(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """From the last term to the first."""
    return sequential(P[:, ::-1], Q[::-1])


def pairwise(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Halves of halves."""
    if P.shape[1] <= 2:
        return sequential(P, Q)
    half = P.shape[1] // 2
    return pairwise(P[:, :half], Q[:half]) + pairwise(P[:, half:], Q[half:])


def fused(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Fused multiply-add: the product is not rounded before it is added (float32; its product is exact in float64)."""
    out = np.zeros((P.shape[0], Q.shape[1]), P.dtype)
    for k in range(P.shape[1]):
        term = P[:, k : k + 1].astype(np.float64) * Q[k : k + 1].astype(np.float64)
        out = (out.astype(np.float64) + term).astype(P.dtype)
    return out


def split(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Split-K: three partial products, added up."""
    edges = [round(P.shape[1] * part / 3) for part in range(4)]
    parts = [sequential(P[:, a:b], Q[a:b]) for a, b in neighbours(edges)]
    return (parts[2] + parts[0]) + parts[1]


ORDERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    f.__name__: f for f in (sequential, backwards, pairwise, fused, split)
}


class WithProduct:
    """NumPy with another matrix product."""

    def __init__(self, matmul: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.matmul = matmul

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def with_product(matmul: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Backend:
    """NumPy's reference kernels with another matrix product."""
    return Backend("numpy", WithProduct(matmul))


class With(Backend):
    """NumPy, whose kernel set is made by ``make(backend)``."""

    def __init__(self, make: Callable[[Backend], Any]) -> None:
        super().__init__("numpy", np)
        self.make = make

    def kernels(self, kind: str = "auto") -> Any:
        return self.make(self)


def half(x: np.ndarray) -> np.ndarray:
    """float32 numbers that fp16 can hold."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


class HalfKernels(ReferenceKernels):
    """Layers stored as fp16, products of fp16 operands summed in float32, master weights and gradients in float32."""

    def dense(self, W: Any, A_prev: Any, b: Any, activation: Any, dropout: Any, *, A: Any, saved: Any) -> None:
        saved.Z = half(half(W) @ half(A_prev) + b)
        saved.G = half(activation.forward(np, saved.Z))
        saved.mask = None if dropout is None else self.mask(dropout, A.shape[0])
        scale = 1.0 if dropout is None else 1.0 / (1.0 - dropout.rate)
        A[...] = saved.G if dropout is None else np.where(saved.mask, half(saved.G * scale), 0.0)

    def dense_vjp_input(
        self,
        W: Any,
        dZ: Any,
        activation_prev: Any,
        dropout_prev: Any,
        A_prev: Any,
        saved_prev: Any,
        *,
        scale: Any,
        dZ_prev: Any,
        db_prev: Any,
        accumulate: bool,
    ) -> None:
        dA = half(half(W).T @ half(dZ))
        if dropout_prev is not None:
            dA = np.where(saved_prev.mask, half(dA * (1.0 / (1.0 - dropout_prev.rate))), 0.0)
        dZ_prev[...] = half(activation_prev.vjp(np, dA.astype(np.float32), saved_prev.Z, saved_prev.G))
        self._bias(dZ_prev, scale, db_prev, accumulate)

    def dense_vjp_params(self, dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
        product = half(dZ) @ half(A_prev).T
        write(dW, product if scale is None else scale * product, accumulate)

    def output_delta(
        self,
        loss: Any,
        form: str,
        Z: Any,
        Y: Any,
        weights: Any,
        *,
        inverse_denominator: Any,
        early: bool,
        dZ: Any,
        db: Any,
        value: Any,
        accumulate: bool,
    ) -> None:
        numbers = {"inverse_denominator": inverse_denominator, "early": early, "value": value}
        super().output_delta(loss, form, Z, Y, weights, **numbers, dZ=dZ, db=np.zeros_like(db), accumulate=False)
        dZ[...] = half(dZ)
        self._bias(dZ, None if early else inverse_denominator, db, accumulate)
