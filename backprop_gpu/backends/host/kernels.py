"""Kernels for NumPy that write into buffers: a steady step allocates nothing that grows with the network.

An operation is a list of NumPy calls (``inplace``). Called outright, they are made; while a program is being captured
they are written down, with their views, and the replay makes one after the other: the network loop costs nothing per
step. What has no form in place is the reference's own, or its formula over small blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._typing import Before, Program, Replay
from ...maths import regularization
from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from ..plan import Choice, StepSpec
from ..protocol import Device, Dropout
from ..reference import ReferenceKernels
from . import inplace, normalizing
from .calls import Calls, Tape
from .openblas import OpenBlas
from .plan import choices, host_temporaries, layer_obstacle, output_obstacle, update_obstacle

# Below this many floating-point operations in its largest product, a network is faster with one BLAS thread.
SMALL_PRODUCT = 10_000_000


@dataclass
class HostSaved:
    """Buffers of one layer, where needed: g(Z) before dropout, Z or g' for the backward pass, which units survived."""

    G: np.ndarray | None = None
    Z: np.ndarray | None = None
    slope: np.ndarray | None = None
    mask: np.ndarray | None = None


def _before_activation(A: np.ndarray, saved: HostSaved) -> np.ndarray:
    """The buffer of what the activation is applied to."""
    if saved.Z is not None:
        return saved.Z
    return A if saved.G is None else saved.G


class HostKernels(ReferenceKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def __init__(self, backend: Device, blas: OpenBlas | None = None, calls: Calls | None = None) -> None:
        super().__init__(backend)
        self.blas, self._largest_product = blas, 0
        self._calls = Calls(backend.zeros) if calls is None else calls
        self._do, self._scratch = self._calls.do, self._calls.scratch

    def capture(self, program: Program) -> Replay:
        """The program's calls, one after the other."""
        tape: Tape = []
        self._calls.tape, self._largest_product = tape, 0
        try:
            program()
        finally:
            self._calls.tape = None
        largest = self._largest_product

        def replay(times: int, before: Before | None = None) -> None:
            with self._blas_threads(largest):
                for _ in range(times):
                    if before is not None:
                        before()
                    for made in tape:
                        made()

        return replay

    def _blas_threads(self, largest: int) -> contextlib.AbstractContextManager[None]:
        """As many threads as are worth it for a program's largest product, where the BLAS lets us say so."""
        if self.blas is None or largest >= SMALL_PRODUCT:
            return contextlib.nullcontext()
        return self._one_thread()

    def _one_thread(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.blas is None else self.blas.one_thread()

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """Z, G, g' and the mask as far as the layer needs them."""
        in_place = not layer_obstacle(activation)
        keeps = in_place and activation.name in inplace.KEEPS_SLOPE

        def buffer(needed: bool, kind: str = dtype) -> np.ndarray | None:
            return self.backend.zeros((n, m), kind) if needed else None

        dropped = dropout is not None
        return HostSaved(
            G=buffer(dropped or not in_place),
            Z=buffer(not in_place),
            slope=buffer(keeps),
            mask=buffer(dropped, "bool"),
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
        saved: Any,
    ) -> None:
        """A <- drop(g(W A_prev + b))."""
        U = _before_activation(A, saved)
        self._largest_product = max(self._largest_product, 2 * W.shape[0] * W.shape[1] * A_prev.shape[1])
        self._do(np.matmul, W, A_prev, out=U)
        self._do(np.add, U, b, out=U)
        self._activated(activation, dropout, A, saved)

    def _activated(self, activation: Activation, dropout: Dropout | None, A: np.ndarray, saved: HostSaved) -> None:
        """The rest of a layer, from what lies where ``_before_activation`` says."""
        G = A if saved.G is None else saved.G
        if saved.Z is None:
            inplace.FORWARD[activation.name](self._calls, G, saved.slope)
        else:
            self._do(inplace.forward_in_blocks, activation, saved.Z, G)
        if dropout is not None:
            self._do(self._drop, dropout, G, A, saved.mask)
        elif G is not A:
            self._do(np.copyto, A, G)

    def _drop(self, dropout: Dropout, G: np.ndarray, A: np.ndarray, mask: np.ndarray) -> None:
        mask[...] = self.mask(dropout, A.shape[0])
        A[...] = regularization.dropout(np, G, mask, dropout.rate)

    def dense_vjp_input(
        self,
        W: np.ndarray,
        dZ: np.ndarray,
        activation_prev: Activation,
        dropout_prev: Dropout | None,
        A_prev: np.ndarray,
        saved_prev: Any,
        *,
        scale: np.ndarray | None,
        dZ_prev: np.ndarray,
        db_prev: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * row sums."""
        self._do(np.matmul, W.T, dZ, out=dZ_prev)
        if dropout_prev is not None:
            self._do(_undrop, dZ_prev, saved_prev.mask, dropout_prev.rate)
        G = A_prev if saved_prev.G is None else saved_prev.G
        if saved_prev.Z is None:
            inplace.VJP[activation_prev.name](self._calls, dZ_prev, G, saved_prev.slope)
        else:
            self._do(inplace.vjp_in_blocks, activation_prev, dZ_prev, saved_prev.Z, G)
        self._bias(dZ_prev, scale, db_prev, accumulate)

    def _bias(self, dZ: np.ndarray, scale: np.ndarray | None, db: np.ndarray, accumulate: bool) -> None:
        # As a product with ones, which BLAS makes several times faster than NumPy sums rows.
        self._product(dZ, self._calls.ones((dZ.shape[1], 1), dZ.dtype), scale, db, accumulate)

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
        saved: Any,
        X: np.ndarray | None,
        inverse_std: np.ndarray | None,
    ) -> None:
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r by the batch's statistics, or by those that are given."""
        U = _before_activation(A, saved)
        if X is None or inverse_std is None:
            normalizing.normalize_by(self._calls, Z, mean, variance, U)
            self._do(np.multiply, U, gamma, out=U)
        else:
            normalizing.normalize(self._calls, Z, weights, mean, variance, X, inverse_std)
            self._do(np.multiply, X, gamma, out=U)
        self._do(np.add, U, beta, out=U)
        self._activated(activation, dropout, A, saved)

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
        along = self._scratch("product", dgamma.shape, dgamma.dtype) if accumulate else dgamma
        normalizing.vjp(self._calls, dU, X, inverse_std, gamma, weights, dZ, along)
        self._finish(along, scale, dgamma, accumulate)

    def dense_vjp_params(
        self, dZ: np.ndarray, A_prev: np.ndarray, *, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
    ) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        self._product(dZ, A_prev.T, scale, dW, accumulate)

    def _product(
        self, P: np.ndarray, Q: np.ndarray, scale: np.ndarray | None, out: np.ndarray, accumulate: bool
    ) -> None:
        """out <- (+) scale * P Q."""
        target = self._scratch("product", out.shape, out.dtype) if accumulate else out
        self._do(np.matmul, P, Q, out=target)
        self._finish(target, scale, out, accumulate)

    def _finish(self, target: np.ndarray, scale: np.ndarray | None, out: np.ndarray, accumulate: bool) -> None:
        """out <- (+) scale * target, which is ``out`` itself unless it accumulates."""
        if scale is not None:
            self._do(np.multiply, target, scale.reshape(()), out=target)
        if accumulate:
            self._do(np.add, out, target, out=out)

    # -- the loss ------------------------------------------------------------------------------------------------

    def output_delta(
        self,
        loss: Loss,
        form: str,
        Z: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray | None,
        *,
        inverse_denominator: np.ndarray,
        early: bool,
        dZ: np.ndarray,
        db: np.ndarray,
        value: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dZ <- w dL/dZ (1/D if early);  db <- (+) row sums of dJ/dZ;  value += (1/D) sum w L."""
        if output_obstacle(loss, form):
            numbers: dict[str, Any] = {"inverse_denominator": inverse_denominator, "early": early}
            outputs: dict[str, Any] = {"dZ": dZ, "db": db, "value": value, "accumulate": accumulate}
            self._do(super().output_delta, loss, form, Z, Y, weights, **numbers, **outputs)
            return
        each, one = self._scratch("losses", (1, Z.shape[1]), Z.dtype), self._scratch("one", (1,), Z.dtype)
        inverse = inverse_denominator.reshape(())
        self._losses(loss, Z, Y, dZ, each)
        if weights is not None:
            self._weigh(weights, dZ, each)
        self._do(np.add.reduce, each, axis=1, out=one)
        self._do(np.multiply, one, inverse, out=one)
        self._do(np.add, value, one, out=value)
        if early:
            self._do(np.multiply, dZ, inverse, out=dZ)
        self._bias(dZ, None if early else inverse_denominator, db, accumulate)

    def _losses(self, loss: Any, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, each: np.ndarray) -> None:
        """dZ <- dL/dZ and each <- L, unweighted."""
        if loss.name == "squared_error":
            inplace.squared_error(self._calls, Z, Y, dZ, each)
            return
        if loss.name == "grouped_cross_entropy":
            inplace.grouped_cross_entropy(self._calls, loss, Z, Y, dZ, each)
            return
        classes, T, labels = Z.shape[0], Y, Y.shape[0] != Z.shape[0]
        if labels:
            hot, T = self._scratch("hot", Z.shape, np.bool_), self._scratch("targets", Z.shape, Z.dtype)
            self._do(np.equal, self._range(classes)[:, None], Y, out=hot)
            self._do(np.copyto, T, hot)
        T = inplace.smoothed(self._calls, T, loss.label_smoothing, 2 if loss.labels == "binary" else classes)
        if loss.name == "binary_cross_entropy":
            inplace.binary_cross_entropy(self._calls, Z, T, dZ, each)
        else:
            one_hot = labels and not loss.label_smoothing
            inplace.categorical_cross_entropy(self._calls, Z, T, dZ, each, one_hot=one_hot)

    def _weigh(self, weights: np.ndarray, dZ: np.ndarray, each: np.ndarray) -> None:
        """Times the example weights; an example of weight 0 contributes 0 whatever it holds."""
        silent = self._scratch("silent", weights.shape, np.bool_)
        self._do(np.equal, weights, 0.0, out=silent)
        for x in (dZ, each):
            self._do(np.multiply, x, weights, out=x)
            self._do(np.copyto, x, 0.0, where=silent)

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(
        self, theta: np.ndarray, grad: np.ndarray, *, l1: np.ndarray | None, l2: np.ndarray | None, value: np.ndarray
    ) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
        if l1 is None and l2 is None:
            return
        s, one = self._scratch("vector", theta.shape, theta.dtype), self._scratch("one", (1,), theta.dtype)
        if l2 is not None:
            self._do(np.multiply, theta, l2, out=s)
            self._do(np.add, grad, s, out=grad)
            self._do(np.multiply, theta, theta, out=s)
            self._do(np.add.reduce, s, keepdims=True, out=one)
            self._do(np.multiply, one, 0.5, out=one)
            self._do(np.multiply, one, l2, out=one)
            self._do(np.add, value, one, out=value)
        if l1 is not None:
            self._do(np.sign, theta, out=s)
            self._do(np.multiply, s, l1, out=s)
            self._do(np.add, grad, s, out=grad)
            self._do(np.abs, theta, out=s)
            self._do(np.add.reduce, s, keepdims=True, out=one)
            self._do(np.multiply, one, l1, out=one)
            self._do(np.add, value, one, out=value)

    def global_norm(self, grad: np.ndarray, max_norm: float, *, norm: np.ndarray, factor: np.ndarray) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        s = self._scratch("vector", grad.shape, grad.dtype)
        root, scale = (self._scratch(name, (1,), grad.dtype) for name in ("one", "scale"))
        self._do(np.abs, grad, out=s)
        self._do(np.maximum.reduce, s, keepdims=True, out=root)
        self._do(inplace.norm_scale, root, scale)
        self._do(np.multiply, s, scale, out=s)
        self._do(np.multiply, s, s, out=s)
        self._do(np.add.reduce, s, keepdims=True, out=root)
        self._do(np.sqrt, root, out=root)
        self._do(np.divide, root, scale, out=norm)
        self._do(inplace.clip_factor, root, max_norm, scale, factor)

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
        """theta, slots <- optimizer(theta, factor * grad, slots; scalars)."""
        numbers = [scalars[i : i + 1].reshape(()) for i in range(scalars.shape[0])]
        if update_obstacle(optimizer):
            self._do(inplace.update_in_blocks, optimizer, theta, grad, list(slots), numbers, factor, decay)
            return
        if factor is not None:
            scaled = self._scratch("scaled", grad.shape, grad.dtype)
            self._do(np.multiply, grad, factor, out=scaled)
            grad = scaled
        rule = inplace.UPDATES[optimizer.name, decay and optimizer.decays]
        rule(self._calls, optimizer, theta, grad, list(slots), numbers)

    # -- batches -------------------------------------------------------------------------------------------------

    def gather(
        self, source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, *, out: np.ndarray
    ) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        self._do(inplace.gather, source, order, counters, stride, out)

    def advance(
        self, counters: np.ndarray, table: np.ndarray, values: np.ndarray, *, hyper: np.ndarray, value: np.ndarray
    ) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
        self._do(inplace.advance, counters, table, values, hyper, value)

    # -- beforehand ----------------------------------------------------------------------------------------------

    def explain(self, spec: StepSpec) -> list[Choice]:
        """NumPy's calls into buffers, or ``maths`` where there is no such form."""
        return choices(spec)

    def temporaries(self, spec: StepSpec) -> int | None:
        """Scratch, and what ``maths`` allocates."""
        return host_temporaries(HostKernels, spec, spec.operations())

    def release(self) -> None:
        """Let go of scratch."""
        super().release()
        self._calls.release()


def _undrop(dZ: np.ndarray, mask: np.ndarray, rate: float) -> None:
    dZ[...] = regularization.dropout_vjp(np, dZ, mask, rate)
