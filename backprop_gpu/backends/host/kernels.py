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
from ...maths.optimizers import Optimizer
from ..plan import Choice, StepSpec
from ..protocol import Dropout
from ..reference import ReferenceKernels
from .plan import explain, host_temporaries, layer_of

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


class HostKernels(ReferenceKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def saved(self, n: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> HostSaved:  # type: ignore[override]
        """Z, G and scratch as far as the layer needs them."""
        kept_z = not in_place(activation)

        def buffer() -> np.ndarray:
            return np.zeros((n, m), dtype)

        return HostSaved(
            G=buffer() if dropout is not None or kept_z else None,
            Z=buffer() if kept_z else None,
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
        G = A if saved.G is None else saved.G
        Z = G if saved.Z is None else saved.Z
        np.matmul(W, A_prev, out=Z)
        Z += b
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

    def explain(self, spec: StepSpec) -> list[Choice]:
        """NumPy in place, or ``maths`` where that allocates."""

        def reason(operation: str, layer: int | None) -> str:
            if operation in ("dense", "dense_vjp_input") and layer is not None:
                g = spec.activations[layer_of(operation, layer)]
                return "" if in_place(g) else f"activation {g.name} is not written in place"
            if operation == "dense_vjp_params":
                return "the gradients of several passes are added up" if spec.accumulating else ""
            return "no version of its own" if operation in ("output_delta", "penalty") else ""

        found = explain(spec, "NumPy in place", reason, "NumPy, through maths")
        return [*found, Choice("capture", None, "Python")]

    def temporaries(self, spec: StepSpec) -> int | None:
        """What the operations that are not in place allocate."""
        return host_temporaries(spec, spec.operations(), in_place, BLOCK)


def in_place(activation: Activation) -> bool:
    """Whether an activation and its derivative are written over their operands."""
    return activation.name in _FORWARD
