"""The affine map of one layer (course week 4, ``linear_forward`` and ``linear_backward``)."""

from __future__ import annotations

from .._typing import Array, Namespace


def dense(xp: Namespace, W: Array, A_prev: Array, b: Array) -> Array:
    """Z = W A_prev + b.  W (n, k), A_prev (k, m), b (n, 1) -> Z (n, m)."""
    return xp.matmul(W, A_prev) + b


def dense_vjp_input(xp: Namespace, W: Array, dZ: Array) -> Array:
    """dA_prev = W^T dZ.  W (n, k), dZ (n, m) -> (k, m)."""
    return xp.matmul(W.T, dZ)


def dense_vjp_weights(xp: Namespace, dZ: Array, A_prev: Array) -> Array:
    """dW = dZ A_prev^T: (n, m), (k, m) -> (n, k); where a 1/m is due, see ``ledger``."""
    return xp.matmul(dZ, A_prev.T)


def dense_vjp_bias(xp: Namespace, dZ: Array) -> Array:
    """db = sum over examples of dZ: (n, m) -> (n, 1)."""
    return xp.sum(dZ, axis=1, keepdims=True)
