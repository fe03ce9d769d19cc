"""The kernel set that calls compiled code, in float32 and float64; what it lacks falls back to NumPy's kernels.

An operation is a compiled kernel and a row of int64: addresses and sizes. Called outright, it is run; while a program
is being captured it is written down instead, and the replay is one compiled loop over what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....maths.activations import Activation
from ....maths.losses import Loss
from ....maths.optimizers import Optimizer
from ...plan import Choice, StepSpec
from ...protocol import Dropout
from ...shipped import shipped
from . import activations, averaging, cuts, data, losses, updates
from .calling import REALS
from .cuts import CompiledSaved
from .norm_kernels import NormKernels
from .plan import choices, layer_obstacle, temporaries
from .recording import Columns, Cut, Units, columns, pass_time, rows, shares


def _one_real(*arrays: np.ndarray | None) -> bool:
    """Whether all (but those left out) are of one floating type that kernels are made for."""
    names = {x.dtype.name for x in arrays if x is not None}
    return len(names) == 1 and names <= REALS.keys()


class CompiledKernels(NormKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def explain(self, spec: StepSpec) -> list[Choice]:
        """Compiled, or NumPy's kernels."""
        return choices(spec)

    def temporaries(self, spec: StepSpec) -> int | None:
        """The loss's scratch, and what is left to NumPy."""
        return temporaries(spec)

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """The derivative's buffer where it is needed; NumPy's buffers for another dtype."""
        if layer_obstacle(dtype, activation):
            return super().saved(n, k, m, dtype, activation, dropout)
        self._expect(n, k, m, dtype)
        saved = CompiledSaved(parameter=np.array([v for _, v in activation.parameters] or [0.0], dtype))
        if dropout is not None or activation.name in activations.KEEPING:
            saved.derivative = self.backend.zeros((n, m), dtype)
        if dropout is not None:
            saved.kept = self.backend.zeros((n, m), "bool")
            saved.words = self.backend.zeros((4, m), "uint32")
            saved.scale = np.array([1.0 / (1.0 - dropout.rate)], dtype)
            seed, threshold = dropout.seed, round((1.0 - dropout.rate) * 2**32)
            saved.key = np.array([seed & 0xFFFFFFFF, seed >> 32, dropout.layer, threshold], np.int64)
        return saved

    def reveal(self, saved: Any) -> dict[str, np.ndarray]:
        """The surviving units as ``mask``; Z is not kept."""
        if not isinstance(saved, CompiledSaved):
            return super().reveal(saved)
        return {} if saved.kept is None else {"mask": saved.kept}

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
        """A <- drop(g(W A_prev + b)): the product, then one pass."""
        if not isinstance(saved, CompiledSaved):
            self._fall_back()
            super().dense(W, A_prev, b, activation, dropout, A=A, saved=saved)
            return
        given = cuts.stored(A_prev, A)
        if given is None:
            self._fall_back()
            given = cuts.Stored(self._contiguous(A_prev, A.dtype))
        m = A.shape[1]
        self._largest_product = max(self._largest_product, 2 * W.size * m)
        self._run_prepared(m, cuts.dense(self._gemm, W, given, b, activation.name, A, saved))
        self._dropped(A, saved, dropout)

    def _dropped(self, A: np.ndarray, saved: Any, dropout: Dropout | None) -> None:
        """A, g' <- drop(A), drop(g')."""
        if dropout is not None:
            self._run_prepared(A.shape[1], cuts.dropped(A, saved, dropout))

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
        if not isinstance(saved_prev, CompiledSaved):
            self._fall_back()
            super().dense_vjp_input(
                W,
                dZ,
                activation_prev,
                dropout_prev,
                A_prev,
                saved_prev,
                scale=scale,
                dZ_prev=dZ_prev,
                db_prev=db_prev,
                accumulate=accumulate,
            )
            return
        numbers = scale, dZ_prev, db_prev, accumulate
        prepared = cuts.dense_vjp_input(self._gemm, W, dZ, activation_prev.name, A_prev, saved_prev, *numbers)
        self._run_prepared(dZ.shape[1], *prepared)

    def dense_vjp_params(
        self, dZ: np.ndarray, A_prev: np.ndarray, *, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
    ) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        given = cuts.stored(A_prev, dW)
        if not _one_real(dZ, dW) or given is None:
            self._fall_back()
            super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            return
        prepared = cuts.dense_vjp_params(self._gemm, dZ, given, scale, dW, accumulate)
        self._run_prepared(dZ.shape[1], prepared)

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
        labels = loss.labels == "classes" and Y.shape[0] == 1 and Y.dtype == np.int64
        targets = Y.T  # examples contiguous, as batches are gathered
        if not targets.flags.c_contiguous or not (weights is None or weights.flags.c_contiguous):
            self._fall_back()
            targets, weights = (
                self._contiguous(targets, targets.dtype),
                weights if weights is None else self._contiguous(weights, weights.dtype),
            )
        fits = labels or (Y.dtype == Z.dtype and Y.shape == Z.shape)
        if form != "fused" or not _one_real(Z, weights) or not fits or not losses.known(loss):
            self._fall_back()
            super().output_delta(
                loss,
                form,
                Z,
                Y,
                weights,
                inverse_denominator=inverse_denominator,
                early=early,
                dZ=dZ,
                db=db,
                value=value,
                accumulate=accumulate,
            )
            return
        (n, m), dtype = Z.shape, Z.dtype.name
        # Of its own while recording: networks that advance in one program do not wait for each other's.
        recorded = self._recording is not None
        scratch = self.backend.zeros((5, m), dtype) if recorded else self._scratch("losses", (5, m), dtype)
        self._run(
            losses.output_delta(dtype, loss.name, labels),
            *(columns(Z), columns(dZ, written=True), rows(targets), columns(weights), inverse_denominator, int(early)),
            *(rows(each, written=True) for each in scratch),
            *(n, Columns(m), *losses.constants(loss, n, dtype), m),
            nanoseconds=20 * pass_time(Z),
        )
        self._run(
            losses.output_sums(dtype),
            *(scratch[2], dZ, inverse_denominator, int(early), Cut(db, written=True), int(accumulate)),
            *(Cut(value, written=True), n, m, Units(1)),
            nanoseconds=2 * pass_time(dZ),
        )

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(
        self, theta: np.ndarray, grad: np.ndarray, *, l1: np.ndarray | None, l2: np.ndarray | None, value: np.ndarray
    ) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
        if l1 is None and l2 is None:
            return
        if not _one_real(theta):
            self._fall_back()
            super().penalty(theta, grad, l1=l1, l2=l2, value=value)
            return
        n, sums = theta.shape[0], np.zeros((self._crew.size, 1))
        self._run(
            updates.penalty(theta.dtype.name),
            *(rows(theta), rows(grad, written=True), l1, l2, shares(sums), Units(n)),
            nanoseconds=pass_time(theta),
            parts=self._parts_of(theta),
        )
        self._run(updates.penalty_value(theta.dtype.name), sums, sums.size, Cut(value, written=True), Units(1))

    def global_norm(self, grad: np.ndarray, max_norm: float, *, norm: np.ndarray, factor: np.ndarray) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        if not _one_real(grad):
            self._fall_back()
            super().global_norm(grad, max_norm, norm=norm, factor=factor)
            return
        limit = np.array([max_norm], grad.dtype)
        sums, dtype = np.zeros((self._crew.size, 2)), grad.dtype.name
        sums[:, 1] = 1.0
        self._run(
            updates.squares(dtype),
            rows(grad),
            Units(grad.shape[0]),
            shares(sums),
            nanoseconds=pass_time(grad),
            parts=self._parts_of(grad),
        )
        written = Cut(norm, written=True), Cut(factor, written=True)
        self._run(updates.global_norm(dtype), sums, len(sums), limit, *written, Units(1))

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
        """theta, slots <- optimizer(theta, factor * grad, slots; scalars), in one pass."""
        if not _one_real(theta) or not shipped(optimizer):
            self._fall_back()
            super().update(optimizer, theta, grad, slots, scalars=scalars, factor=factor, decay=decay)
            return
        rule, constants = updates.rule_of(optimizer, decay)
        three = ([*slots[: len(optimizer.slots)]] + 3 * [None])[:3]
        self._run(
            updates.update(theta.dtype.name, rule),
            *(rows(theta, written=True), rows(grad), *(rows(slot, written=True) for slot in three)),
            *(scalars, np.array(constants, theta.dtype), factor, Units(theta.shape[0])),
            nanoseconds=2 * pass_time(theta),
        )
        if optimizer.average:
            self._run(
                averaging.average(theta.dtype.name),
                *(rows(theta), rows(slots[-1], written=True), scalars[-1:], Units(theta.shape[0])),
                nanoseconds=pass_time(theta),
            )

    # -- batches -------------------------------------------------------------------------------------------------

    def gather(
        self, source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, *, out: np.ndarray
    ) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        if source.dtype.name not in (*REALS, "int64"):
            self._fall_back()
            super().gather(source, order, counters, stride, out=out)
            return
        m, width = out.shape
        self._run(
            data.gather(source.dtype.name),
            *(source, Cut(order, order.itemsize), counters, stride, rows(out, written=True), Columns(m), width),
            nanoseconds=pass_time(out),
        )

    def advance(
        self, counters: np.ndarray, table: np.ndarray, values: np.ndarray, *, hyper: np.ndarray, value: np.ndarray
    ) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
        if not _one_real(table):
            self._fall_back()
            super().advance(counters, table, values, hyper=hyper, value=value)
            return
        written = (Cut(x, written=True) for x in (values, hyper, value))
        self._run(
            data.advance(table.dtype.name), Cut(counters, written=True), table, *written, table.shape[1], Units(1)
        )
