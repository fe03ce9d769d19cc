"""The native kernel set: C++ kernels in float32 and float64. Operations without a kernel run as formulas of ``maths``.

Each operation calls a kernel with a row of addresses and sizes, in the order of the kernel's struct
(``native/cpu/*.h``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from .. import formula_ids
from ..plan import KernelChoice, StepSpec
from ..protocol import Dropout
from . import supports
from .calls import (
    PARAMETERS,
    Argument,
    ArgumentSlice,
    Blocks,
    Columns,
    FirstUnit,
    Units,
    by_blocks,
    columns,
    pass_time,
    product_cost,
    rows,
    whole,
)
from .input_stage import InputStageKernels
from .members import MemberKernels
from .parametric import ParametricKernels


@dataclass
class NativeSaved:
    """What a layer saves for its backward pass: g' (times drop) if A alone does not give it, and the dropout mask."""

    parameter: np.ndarray
    derivative: np.ndarray | None = None
    mask: np.ndarray | None = None
    scale: np.ndarray | None = None


class NativeKernels(MemberKernels, InputStageKernels, ParametricKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def dispatch_report(self, spec: StepSpec) -> list[KernelChoice]:
        """Native kernels, or formulas of ``maths``."""
        return supports.dispatch_report(spec)

    def workspace_bytes(self, spec: StepSpec) -> int | None:
        """The losses of the examples, and what the formulas allocate."""
        return supports.workspace_bytes(spec)

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """Buffers for g' and the mask if they are needed; the reference kernels' if there is no native kernel."""
        if supports.NATIVE.layer_reason(dtype, activation):
            return super().saved(n, k, m, dtype, activation, dropout)
        saved = NativeSaved(np.array([v for _, v in activation.parameters] or [0.0], dtype))
        if dropout is not None or activation.name in formula_ids.SAVES_DERIVATIVE:
            saved.derivative = self.backend.zeros((n, m), dtype)
        if dropout is not None:
            saved.mask = self.backend.zeros((n, m), "bool")
            saved.scale = np.array([1.0 / (1.0 - dropout.rate)], dtype)
        return saved

    def debug_tensors(self, saved: Any) -> dict[str, np.ndarray]:
        """The dropout mask; Z is not saved."""
        if not isinstance(saved, NativeSaved):
            return super().debug_tensors(saved)
        return {} if saved.mask is None else {"mask": saved.mask}

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
        if not isinstance(saved, NativeSaved):
            self._python(super().dense, W, A_prev, b, activation, dropout, A=A, saved=saved)
            return
        (n, k), m, (given, transposed) = W.shape, A.shape[1], self._stored(A_prev)
        kernel = f"dense_{activation.name}{'_saves' if saved.derivative is not None else ''}_{A.dtype.name}"
        derivative, arguments = saved.derivative, tuple[Argument, ...]()
        # Split along the longer side: every chunk reads all of one factor, which should be the smaller one.
        if n >= m:
            arguments = (rows(W), int(transposed), given, rows(b), rows(A, written=True), Units(n), k, m)
            arguments += (saved.parameter, rows(derivative, written=True), m)
        else:
            part = rows(given) if transposed else columns(given)
            arguments = (W, int(transposed), part, b, columns(A, written=True), n, k, Columns(m))
            arguments += (saved.parameter, columns(derivative, written=True), m)
        self._run(kernel, *arguments, **product_cost(n, k, m, A))
        self._drop(A, saved, dropout)

    def _stored(self, A: np.ndarray) -> tuple[np.ndarray, bool]:
        """A layer's input in C order: (k, m) itself, or its transpose (m, k), and whether it is the transpose."""
        if A.flags.c_contiguous:
            return A, False
        return (A.T, True) if A.T.flags.c_contiguous else (self._contiguous(A), False)

    def _drop(self, A: np.ndarray, saved: NativeSaved, dropout: Dropout | None) -> None:
        """A, g' <- drop(A), drop(g')."""
        if dropout is None:
            return
        (n, m), seed, threshold = A.shape, dropout.seed, round((1.0 - dropout.rate) * 2**32)
        key = np.array([seed & 0xFFFFFFFF, seed >> 32, dropout.layer, threshold], np.int64)
        written = (columns(x, written=True) for x in (A, saved.derivative, saved.mask))
        self._run(
            f"drop_{A.dtype.name}",
            *(*written, dropout.step, key, saved.scale, dropout.first, n, Columns(m), m, FirstUnit(0)),
            nanoseconds=8 * pass_time(A),
            examples=m,
        )

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
        if not isinstance(saved_prev, NativeSaved):
            given = (W, dZ, activation_prev, dropout_prev, A_prev, saved_prev)
            results: dict[str, Any] = {"dZ_prev": dZ_prev, "db_prev": db_prev, "accumulate": accumulate}
            self._python(super().dense_vjp_input, *given, scale=scale, **results)
            return
        (n, k), m, dtype = W.shape, dZ.shape[1], dZ.dtype.name
        derivative, mask = saved_prev.derivative, saved_prev.mask
        how = activation_prev.name if derivative is None else "saved" if mask is None else "dropped"
        how += "_relu" if how == "dropped" and activation_prev.name == "relu" else ""
        db, finish, arguments = rows(db_prev, written=True), (scale, int(accumulate)), tuple[Argument, ...]()
        if k >= m:
            arguments = (columns(W), dZ, rows(A_prev), rows(dZ_prev, written=True), db, n, Units(k), m)
            arguments += (saved_prev.parameter, rows(derivative), *finish, rows(mask), k, m)
            self._run(f"dense_vjp_input_{how}_{dtype}", *arguments, **product_cost(n, k, m, dZ))
            return
        arguments = (W, columns(dZ), columns(A_prev), columns(dZ_prev, written=True), None, n, k, Columns(m))
        arguments += (saved_prev.parameter, columns(derivative), *finish, columns(mask), k, m)
        self._run(f"dense_vjp_input_{how}_{dtype}", *arguments, **product_cost(n, k, m, dZ))
        sums = (rows(dZ_prev), db, Units(k), m, *finish)
        self._run(f"row_sums_{dtype}", *sums, nanoseconds=pass_time(dZ_prev), examples=m)

    def dense_vjp_params(
        self, dZ: np.ndarray, A_prev: np.ndarray, *, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
    ) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        if not _same_dtype(dZ, A_prev, dW):
            self._python(super().dense_vjp_params, dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            return
        (n, k), m, (given, transposed) = dW.shape, dZ.shape[1], self._stored(A_prev)
        finish, arguments = (m, scale, int(accumulate), k), tuple[Argument, ...]()
        # Split along rows of A_prev if those are units: each chunk then transposes only its own rows.
        if transposed or k < 2 * Columns.alignment:
            arguments = (rows(dZ), int(transposed), given, rows(dW, written=True), Units(n), k, *finish)
        else:
            arguments = (dZ, 0, rows(given), columns(dW, written=True), n, Columns(k), *finish)
        self._run(f"dense_vjp_params_{dW.dtype.name}", *arguments, **product_cost(n, k, m, dW))

    # -- batch normalization -------------------------------------------------------------------------------------

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
        if not isinstance(saved, NativeSaved):
            out: dict[str, Any] = {"mean": mean, "variance": variance, "A": A, "saved": saved, "X": X}
            self._python(
                super().batch_norm, Z, gamma, beta, activation, dropout, weights, **out, inverse_std=inverse_std
            )
            return
        (n, m), dtype = A.shape, A.dtype.name
        cost: dict[str, Any] = {"nanoseconds": pass_time(A), "examples": m}
        given = rows(Z), rows(gamma), rows(beta)
        if X is None or inverse_std is None:
            self._run(
                f"batch_norm_inference_{dtype}",
                *(*given, rows(mean), rows(variance), rows(A, written=True), Units(n), m),
                **cost,
            )
        else:
            written = (rows(x, written=True) for x in (mean, variance, A, X, inverse_std))
            weights = None if weights is None else self._in_c_order(weights)
            self._run(f"batch_norm_{dtype}", *given, weights, *written, Units(n), m, **cost)
        self._run(
            f"activate_{activation.name}{'_saves' if saved.derivative is not None else ''}_{dtype}",
            *(rows(A, written=True), Units(n), m, saved.parameter, rows(saved.derivative, written=True)),
            **cost,
        )
        self._drop(A, saved, dropout)

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
        if not _same_dtype(dU, X, dZ):
            out: dict[str, Any] = {"scale": scale, "dZ": dZ, "dgamma": dgamma, "accumulate": accumulate}
            self._python(super().batch_norm_vjp, dU, X, inverse_std, gamma, weights, **out)
            return
        n, m = dU.shape
        weights = None if weights is None else self._in_c_order(weights)
        self._run(
            f"batch_norm_vjp_{dU.dtype.name}",
            *(rows(dU), rows(X), rows(inverse_std), rows(gamma), weights, scale),
            *(rows(dZ, written=True), rows(dgamma, written=True), int(accumulate), Units(n), m),
            nanoseconds=4 * pass_time(dU),
            examples=m,
        )

    def _in_c_order(self, x: np.ndarray) -> np.ndarray:
        return x if x.flags.c_contiguous else self._contiguous(x)

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
        labels = loss.labels == "classes" and Y.shape[0] == 1 and Y.dtype == np.int64
        fits = labels or (Y.dtype == Z.dtype and Y.shape == Z.shape)
        if supports.NATIVE.loss_reason(Z.dtype.name, loss, form) or not fits:
            scaled: dict[str, Any] = {"inverse_denominator": inverse_denominator, "early": early, "dZ": dZ, "db": db}
            self._python(super().output_delta, loss, form, Z, Y, weights, **scaled, value=value, accumulate=accumulate)
            self._cost = None
            return
        (n, m), dtype = Z.shape, Z.dtype.name
        targets = self._in_c_order(Y.T)  # examples contiguous, as batches are gathered
        weights = None if weights is None else self._in_c_order(weights)
        losses = self.backend.zeros((m,), dtype)
        self._cost = self._cost if accumulate and self._cost else (np.zeros(1), inverse_denominator)
        self._run(
            f"output_delta_{loss.name}{'_labels' if labels else ''}_{dtype}",
            *(columns(Z), columns(dZ, written=True), rows(targets), columns(weights), inverse_denominator, int(early)),
            *(columns(losses, written=True), n, Columns(m), m, *formula_ids.loss_parameters(loss, n, dtype)),
            nanoseconds=20 * pass_time(Z),
            examples=m,
        )
        self._run(
            f"output_sums_{dtype}",
            *(losses, dZ, inverse_denominator, int(early), whole(db, written=True), int(accumulate)),
            *(whole(value, written=True), n, m, whole(self._cost[0], written=True)),
            nanoseconds=2 * pass_time(dZ),
            examples=m,
        )

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(
        self, theta: np.ndarray, grad: np.ndarray, *, l1: np.ndarray | None, l2: np.ndarray | None, value: np.ndarray
    ) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
        if l1 is None and l2 is None:
            return
        if not _same_dtype(theta, grad):
            self._python(super().penalty, theta, grad, l1=l1, l2=l2, value=value)
            return
        n, dtype = theta.shape[0], theta.dtype.name
        sums = np.zeros(-(-n // PARAMETERS))
        blocks = by_blocks(theta), by_blocks(grad, written=True), l1, l2, rows(sums, written=True)
        counts = FirstUnit(0), Blocks(sums.size), n
        self._run(f"penalty_{dtype}", *blocks, *counts, nanoseconds=pass_time(theta))
        self._run(f"penalty_value_{dtype}", sums, sums.size, whole(value, written=True))

    def global_norm(self, grad: np.ndarray, max_norm: float, *, norm: np.ndarray, factor: np.ndarray) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        if not _same_dtype(grad):
            self._python(super().global_norm, grad, max_norm, norm=norm, factor=factor)
            return
        n, dtype = grad.shape[0], grad.dtype.name
        sums, scales = np.zeros(-(-n // PARAMETERS)), np.zeros(-(-n // PARAMETERS))
        blocks = by_blocks(grad), rows(sums, written=True), rows(scales, written=True)
        self._run(f"squares_{dtype}", *blocks, FirstUnit(0), Blocks(sums.size), n, nanoseconds=pass_time(grad))
        limit, written = np.array([max_norm], grad.dtype), (whole(norm, written=True), whole(factor, written=True))
        self._run(f"global_norm_{dtype}", sums, scales, sums.size, limit, *written)

    def update(
        self,
        optimizer: Optimizer,
        theta: np.ndarray,
        grad: np.ndarray,
        state: Sequence[np.ndarray],
        *,
        scalars: np.ndarray,
        factor: np.ndarray | None,
        decay: bool,
    ) -> None:
        """theta, state <- optimizer(theta, factor * grad, state; scalars), in one pass."""
        dtype = theta.dtype.name
        if supports.NATIVE.update_reason(dtype, optimizer):
            how: dict[str, Any] = {"scalars": scalars, "factor": factor, "decay": decay}
            self._python(super().update, optimizer, theta, grad, state, **how)
            return
        rule, constants = formula_ids.rule_of(optimizer, decay)
        three = ([*state[: len(optimizer.state_names)]] + 3 * [None])[:3]
        self._run(
            f"update_{rule}_{dtype}",
            *(rows(theta, written=True), rows(grad), *(rows(vector, written=True) for vector in three)),
            *(scalars, np.array(constants, dtype), factor, Units(theta.shape[0])),
            nanoseconds=2 * pass_time(theta),
        )
        if optimizer.average:
            mean = rows(state[-1], written=True)
            self._run(
                f"average_{dtype}", rows(theta), mean, scalars[-1:], Units(theta.shape[0]), nanoseconds=pass_time(theta)
            )

    # -- batches -------------------------------------------------------------------------------------------------

    def gather(
        self, source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, *, out: np.ndarray
    ) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        if source.dtype.name not in (*formula_ids.DTYPES, "int64"):
            self._python(super().gather, source, order, counters, stride, out=out)
            return
        m, width = out.shape
        part = ArgumentSlice(order, order.itemsize)
        arguments = (source, part, counters, stride, rows(out, written=True), Columns(m), width)
        self._run(f"gather_{source.dtype.name}", *arguments, nanoseconds=pass_time(out), examples=m)

    def advance(
        self,
        counters: np.ndarray,
        table: np.ndarray,
        values: np.ndarray,
        *,
        step_scalars: np.ndarray,
        value: np.ndarray,
    ) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  step_scalars <- table[counters[0]]."""
        if not _same_dtype(table, values):
            self._python(super().advance, counters, table, values, step_scalars=step_scalars, value=value)
            return
        written = (whole(x, written=True) for x in (values, step_scalars, value))
        self._run(f"advance_{table.dtype.name}", whole(counters, written=True), table, *written, table.shape[1])


def _same_dtype(*arrays: np.ndarray) -> bool:
    """Whether all are of one floating type that has kernels."""
    names = {x.dtype.name for x in arrays}
    return len(names) == 1 and names <= {*formula_ids.DTYPES}
