"""Kernels for NumPy that write in place where that pays: products, bias, common activations, blocked updates.

Everything else is inherited from the reference, which allocates. Formulas are not restated: an update runs the
optimizer's own recurrence block by block, so that its temporaries stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...maths import regularization
from ...maths.activations import Activation
from ...maths.normalization import EPSILON, batch_norm, running, shares
from ...maths.optimizers import Optimizer
from ..protocol import Dropout
from ..reference import ReferenceKernels, write

# Elements of a block: five float32 vectors of 16,384 are 320 KiB, within the second-level cache of current CPUs.
BLOCK = 16_384


def _sigmoid(A: np.ndarray, scratch: np.ndarray) -> None:
    # The reference's own operations in its order, so the bits are the same.
    np.negative(A, out=scratch)
    np.minimum(A, scratch, out=scratch)
    np.exp(scratch, out=scratch)
    positive = np.greater(A, 0.0)
    np.copyto(A, scratch)
    np.copyto(A, 1.0, where=positive)
    scratch += 1.0
    A /= scratch


def _sigmoid_vjp(dA: np.ndarray, A: np.ndarray, scratch: np.ndarray) -> None:
    np.subtract(1.0, A, out=scratch)
    scratch *= A
    dA *= scratch


def _tanh_vjp(dA: np.ndarray, A: np.ndarray, scratch: np.ndarray) -> None:
    np.multiply(A, A, out=scratch)
    np.subtract(1.0, scratch, out=scratch)
    dA *= scratch


def _relu_vjp(dA: np.ndarray, A: np.ndarray, scratch: np.ndarray) -> None:
    # Not a product with the mask: 0 times an infinite dA would be NaN where the definition says 0.
    np.copyto(dA, 0.0, where=~np.greater(A, 0.0))


_FORWARD: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "identity": lambda A, scratch: None,
    "sigmoid": _sigmoid,
    "tanh": lambda A, scratch: np.tanh(A, out=A),
    "relu": lambda A, scratch: np.maximum(A, 0.0, out=A),
}
_VJP: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], object]] = {
    "identity": lambda dA, A, scratch: None,
    "sigmoid": _sigmoid_vjp,
    "tanh": _tanh_vjp,
    "relu": _relu_vjp,
}


@dataclass
class HostSaved:
    """Buffers of one layer. ``G`` is g(Z); it is A itself without dropout. ``Z`` only where g' cannot be had from G."""

    G: np.ndarray | None
    Z: np.ndarray | None
    mask: np.ndarray | None
    scratch: np.ndarray


def _before_activation(A: np.ndarray, saved: HostSaved) -> np.ndarray:
    """The buffer of what the activation is applied to."""
    if saved.Z is not None:
        return saved.Z
    return A if saved.G is None else saved.G


def _normalize(
    Z: np.ndarray, weights: np.ndarray | None, scratch: np.ndarray, X: np.ndarray, inverse_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """X and inverse_std in place; returns the mean and the variance."""
    if weights is not None:
        X[...], inverse_std[...], mean, variance = batch_norm(np, Z, weights)
        return mean, variance
    mean = np.sum(Z, axis=1, keepdims=True)
    mean *= shares(np, Z, None)
    np.subtract(Z, mean, out=X)
    np.multiply(X, X, out=scratch)
    variance = np.sum(scratch, axis=1, keepdims=True)
    variance *= shares(np, Z, None)
    np.divide(1.0, np.sqrt(variance + EPSILON), out=inverse_std)
    X *= inverse_std
    return mean, variance


class HostKernels(ReferenceKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def saved(self, n: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> HostSaved:  # type: ignore[override]
        """Z, G and scratch as far as the layer needs them."""
        in_place = activation.name in _FORWARD

        def buffer() -> np.ndarray:
            return np.zeros((n, m), dtype)

        return HostSaved(
            G=buffer() if dropout is not None or not in_place else None,
            Z=None if in_place else buffer(),
            mask=None,
            scratch=buffer(),
        )

    def dense(
        self,
        W: np.ndarray,
        A_prev: np.ndarray,
        b: np.ndarray,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: np.ndarray,
        saved: HostSaved,  # type: ignore[override]
    ) -> None:
        """A <- drop(g(W A_prev + b))."""
        Z = _before_activation(A, saved)
        np.matmul(W, A_prev, out=Z)
        Z += b
        self._activate(Z, activation, dropout, A, saved)

    def _activate(  # type: ignore[override]
        self, Z: np.ndarray, activation: Activation, dropout: Dropout | None, A: np.ndarray, saved: HostSaved
    ) -> None:
        """The rest of a layer, in place where ``_before_activation`` says."""
        G = A if saved.G is None else saved.G
        if saved.Z is None:
            _FORWARD[activation.name](G, saved.scratch)
        else:
            G[...] = activation.forward(np, Z)
        if dropout is not None:
            saved.mask = self.mask(dropout, A.shape[0])
            A[...] = regularization.dropout(np, G, saved.mask, dropout.rate)
        elif G is not A:
            A[...] = G

    def dense_vjp_input(
        self,
        W: np.ndarray,
        dZ: np.ndarray,
        activation_prev: Activation,
        dropout_prev: Dropout | None,
        A_prev: np.ndarray,
        saved_prev: HostSaved,  # type: ignore[override]
        *,
        scale: np.ndarray | None,
        dZ_prev: np.ndarray,
        db_prev: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * row sums."""
        np.matmul(W.T, dZ, out=dZ_prev)
        if dropout_prev is not None:
            dZ_prev[...] = regularization.dropout_vjp(np, dZ_prev, saved_prev.mask, dropout_prev.rate)
        G = A_prev if saved_prev.G is None else saved_prev.G
        if saved_prev.Z is None:
            _VJP[activation_prev.name](dZ_prev, G, saved_prev.scratch)
        else:
            dZ_prev[...] = activation_prev.vjp(np, dZ_prev, saved_prev.Z, G)
        self._bias(dZ_prev, scale, db_prev, accumulate)

    def batch_norm(
        self,
        Z: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        activation: Activation,
        dropout: Dropout | None,
        weights: np.ndarray | None,
        *,
        mean: np.ndarray,
        variance: np.ndarray,
        A: np.ndarray,
        saved: HostSaved,  # type: ignore[override]
        X: np.ndarray | None,
        inverse_std: np.ndarray | None,
    ) -> None:
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r by the batch's statistics, or by those that are given."""
        U = _before_activation(A, saved)
        if X is None or inverse_std is None:
            np.subtract(Z, mean, out=U)
            U *= 1.0 / np.sqrt(variance + EPSILON)
            U *= gamma
        else:
            mu, var = _normalize(Z, weights, U, X, inverse_std)
            mean[...], variance[...] = running(np, mean, mu, weights), running(np, variance, var, weights)
            np.multiply(X, gamma, out=U)
        U += beta
        self._activate(U, activation, dropout, A, saved)

    def batch_norm_vjp(
        self,
        dU: np.ndarray,
        X: np.ndarray,
        inverse_std: np.ndarray,
        gamma: np.ndarray,
        weights: np.ndarray | None,
        *,
        scale: np.ndarray | None,
        dZ: np.ndarray,
        dgamma: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X."""
        np.multiply(dU, X, out=dZ)
        total = np.sum(dZ, axis=1, keepdims=True)
        np.multiply(X, total, out=dZ)
        dZ += np.sum(dU, axis=1, keepdims=True)
        dZ *= shares(np, X, weights)
        np.subtract(dU, dZ, out=dZ)
        dZ *= gamma * inverse_std
        write(dgamma, total if scale is None else scale * total, accumulate)

    def dense_vjp_params(
        self, dZ: np.ndarray, A_prev: np.ndarray, *, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
    ) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        if accumulate:
            super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=True)
            return
        np.matmul(dZ, A_prev.T, out=dW)
        if scale is not None:
            dW *= scale

    def global_norm(self, grad: np.ndarray, max_norm: float, *, norm: np.ndarray, factor: np.ndarray) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        norm[...] = np.sqrt(np.dot(grad, grad))
        factor[...] = regularization.clip_factor(np, norm, max_norm)

    def update(
        self,
        optimizer: Optimizer,
        theta: np.ndarray,
        grad: np.ndarray,
        slots: Sequence[np.ndarray],
        *,
        scalars: np.ndarray,
        factor: np.ndarray | None,
        decay: bool,
    ) -> None:
        """theta, slots <- optimizer(theta, factor * grad, slots; scalars), block by block."""
        for start in range(0, theta.shape[0], BLOCK):
            part = slice(start, start + BLOCK)
            super().update(
                optimizer,
                theta[part],
                grad[part],
                [slot[part] for slot in slots],
                scalars=scalars,
                factor=factor,
                decay=decay,
            )

    def gather(
        self, source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, *, out: np.ndarray
    ) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        start = int(counters[0]) * stride
        # mode="clip" lets NumPy write straight into out; the order is a permutation, so nothing is out of range.
        np.take(source, order[start : start + out.shape[0]], axis=0, out=out, mode="clip")

    def advance(
        self, counters: np.ndarray, table: np.ndarray, values: np.ndarray, *, hyper: np.ndarray, value: np.ndarray
    ) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
        k = int(counters[0])
        if k >= 0:
            values[k] = value[0]
        counters += 1
        value[0] = 0.0
        hyper[...] = table[k + 1]
