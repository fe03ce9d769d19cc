"""Which way a layer's operations are cut into parts: by units or by examples, each with the row of its kernel.

Two parts of a product both read one factor whole, and BLAS packs it for each of them. Cut along the longer side of the
result, that is the smaller factor. By examples, whole layers follow each other without a core having to wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...protocol import Dropout
from . import layers
from .calling import Kernel
from .dropout import drop
from .products import Gemm
from .recording import Argument, Columns, First, Units, columns, pass_time, product_time, rows

Prepared = tuple[Kernel, tuple[Argument, ...], float]  # a kernel, its arguments and about how many nanoseconds it takes


@dataclass
class CompiledSaved:
    """What a layer keeps for its backward: g' (times drop) where A alone does not give it, and which units survived."""

    derivative: np.ndarray | None = None
    kept: np.ndarray | None = None
    words: np.ndarray | None = None
    parameter: np.ndarray | None = None
    scale: np.ndarray | None = None
    key: np.ndarray | None = None


@dataclass(frozen=True)
class Stored:
    """A layer's input as it lies in memory.

    Attributes
    ----------
    array : ndarray
        (k, m), or the transposed (m, k): examples contiguous.
    flipped : bool
        Whether it is the transposed.
    """

    array: np.ndarray
    flipped: bool = False


def stored(A: np.ndarray, like: np.ndarray) -> Stored | None:
    """How A (k, m) lies; None for another layout or dtype than kernels take."""
    if A.dtype != like.dtype:
        return None
    if A.flags.c_contiguous:
        return Stored(A)
    return Stored(A.T, flipped=True) if A.T.flags.c_contiguous else None


def dense(
    gemm: Gemm, W: np.ndarray, given: Stored, b: np.ndarray, activation: str, A: np.ndarray, saved: CompiledSaved
) -> Prepared:
    """A <- g(W A_prev + b)."""
    (n, k), m, x = W.shape, A.shape[1], given.array
    product = gemm(A.dtype.name, n, m, k, given.flipped)
    kernel = layers.dense(A.dtype.name, activation, saved.derivative is not None)
    written = {"written": True}
    arguments: tuple[Argument, ...]
    if n >= m:
        arguments = (product, rows(W), given.flipped, x, rows(b), rows(A, **written), Units(n), k, m)
        arguments += (saved.parameter, rows(saved.derivative, **written), m)
    else:
        x_part = rows(x) if given.flipped else columns(x)
        arguments = (product, W, given.flipped, x_part, b, columns(A, **written), n, k, Columns(m))
        arguments += (saved.parameter, columns(saved.derivative, **written), m)
    return kernel, arguments, product_time(n, k, m, A)


def dropped(A: np.ndarray, saved: Any, dropout: Dropout) -> Prepared:
    """A, g' <- drop(A), drop(g')."""
    n, m = A.shape
    written = (columns(x, written=True) for x in (A, saved.derivative, saved.kept))
    words = columns(saved.words, written=True)
    arguments = (*written, dropout.step, saved.key, saved.scale, words, dropout.first, n, Columns(m), m, First(0))
    return drop(A.dtype.name), arguments, 8 * pass_time(A)


def dense_vjp_input(
    gemm: Gemm,
    W: np.ndarray,
    dZ: np.ndarray,
    activation_prev: str,
    A_prev: np.ndarray,
    saved_prev: CompiledSaved,
    scale: np.ndarray | None,
    dZ_prev: np.ndarray,
    db_prev: np.ndarray,
    accumulate: bool,
) -> list[Prepared]:
    """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * row sums: by themselves if cut by examples."""
    (n, k), m, dtype = W.shape, dZ.shape[1], dZ.dtype.name
    derivative, kept = saved_prev.derivative, saved_prev.kept
    product = gemm(dtype, k, m, n, False)
    kernel = layers.dense_vjp_input(dtype, activation_prev, derivative is not None, kept is not None)
    bias, finish = rows(db_prev, written=True), (scale, int(accumulate))
    arguments: tuple[Argument, ...]
    if k >= m:
        arguments = (product, columns(W), dZ, rows(A_prev), rows(dZ_prev, written=True), bias, n, Units(k), m)
        arguments += (saved_prev.parameter, rows(derivative), *finish, rows(kept), k, m)
        return [(kernel, arguments, product_time(n, k, m, dZ))]
    arguments = (product, W, columns(dZ), columns(A_prev), columns(dZ_prev, written=True), None, n, k, Columns(m))
    arguments += (saved_prev.parameter, columns(derivative), *finish, columns(kept), k, m)
    sums = layers.row_sums(dtype), (rows(dZ_prev), bias, Units(k), m, *finish), pass_time(dZ_prev)
    return [(kernel, arguments, product_time(n, k, m, dZ)), sums]


def dense_vjp_params(
    gemm: Gemm, dZ: np.ndarray, given: Stored, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
) -> Prepared:
    """dW <- (+) scale * dZ A_prev^T.

    By rows of A_prev where those are the units of the layer before: each part then packs only its own, transposed.
    """
    (n, k), m, x, gradient = dW.shape, dZ.shape[1], given.array, {"written": True}
    finish = m, scale, int(accumulate), k
    product = gemm(dW.dtype.name, n, k, m, not given.flipped)
    arguments: tuple[Argument, ...]
    if given.flipped or k < 2 * Columns.aligned:
        arguments = (product, rows(dZ), given.flipped, x, rows(dW, **gradient), Units(n), k, *finish)
    else:
        arguments = (product, dZ, False, rows(x), columns(dW, **gradient), n, Columns(k), *finish)
    return layers.dense_vjp_params(dW.dtype.name), arguments, product_time(n, k, m, dW)
