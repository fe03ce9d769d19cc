"""The kernels as they are defined: ``out[...] = maths(...)``, on any namespace.

Every other kernel set is tested against this one, and falls back to it for operations that it does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import Array, Before, Program, Replay
from ..maths import batch_ensemble, ledger, normalization, parametric, regularization
from ..maths import dense as affine
from ..maths.activations import Activation, get_activation
from ..maths.losses import Loss, one_hot
from ..maths.optimizers import Optimizer
from .collective import Collective
from .input_stage import InputStageReference, write
from .plan import KernelChoice, StepSpec
from .protocol import Device, Dropout


@dataclass
class Saved:
    """What a layer's forward pass saves for its backward pass: Z, G = g(Z) before dropout, and the dropout mask."""

    Z: Array = None
    G: Array = None
    mask: Array = None


class ReferenceKernels(InputStageReference):
    """See ``protocol.Kernels`` for each operation's equation."""

    examples_contiguous = False
    precision = "fp32"
    repeats = False  # whether arguments have been checked already: those of a captured program that has run

    def __init__(self, backend: Device) -> None:
        self.backend, self.xp = backend, backend.xp
        self._ranges: dict[int, Array] = {}

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Saved:
        """An empty record: the forward pass puts its arrays into it."""
        return Saved()

    def debug_tensors(self, saved: Saved) -> dict[str, Array]:
        """Z, G and, with dropout, the mask."""
        return {name: value for name, value in vars(saved).items() if value is not None}

    def dense(
        self,
        W: Array,
        A_prev: Array,
        b: Array,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: Array,
        saved: Saved,
    ) -> None:
        """A <- drop(g(W A_prev + b))."""
        self._activate(affine.dense(self.xp, W, A_prev, b), activation, dropout, A, saved)

    def _activate(self, Z: Array, activation: Activation, dropout: Dropout | None, A: Array, saved: Saved) -> None:
        saved.Z = Z
        saved.G = activation.forward(self.xp, Z)
        saved.mask = None if dropout is None else self.mask(dropout, A.shape[0])
        A[...] = saved.G if dropout is None else regularization.dropout(self.xp, saved.G, saved.mask, dropout.rate)

    def mask(self, dropout: Dropout, n: int) -> Array:
        """The dropout mask (n, m) of one layer at the step that ``dropout.step`` holds."""
        d = dropout
        return regularization.dropout_mask(self.xp, n, d.rate, d.seed, d.layer, d.quads, d.examples, d.step, d.first)

    def dense_vjp_input(
        self,
        W: Array,
        dZ: Array,
        activation_prev: Activation,
        dropout_prev: Dropout | None,
        A_prev: Array,
        saved_prev: Saved,
        *,
        scale: Array | None,
        dZ_prev: Array,
        db_prev: Array,
        accumulate: bool,
    ) -> None:
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * row sums."""
        dA = affine.dense_vjp_input(self.xp, W, dZ)
        if dropout_prev is not None:
            dA = regularization.dropout_vjp(self.xp, dA, saved_prev.mask, dropout_prev.rate)
        dZ_prev[...] = activation_prev.vjp(self.xp, dA, saved_prev.Z, saved_prev.G)
        self._bias(dZ_prev, scale, db_prev, accumulate)

    def _bias(self, dZ: Array, scale: Array | None, db: Array, accumulate: bool) -> None:
        total = affine.dense_vjp_bias(self.xp, dZ)
        write(db, total if scale is None else scale * total, accumulate)

    def dense_vjp_params(self, dZ: Array, A_prev: Array, *, scale: Array | None, dW: Array, accumulate: bool) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        product = affine.dense_vjp_weights(self.xp, dZ, A_prev)
        write(dW, product if scale is None else scale * product, accumulate)

    def batch_norm(
        self,
        Z: Array,
        gamma: Array,
        beta: Array,
        activation: Activation,
        dropout: Dropout | None,
        weights: Array | None,
        *,
        mean: Array,
        variance: Array,
        A: Array,
        saved: Saved,
        X: Array | None,
        inverse_std: Array | None,
    ) -> None:
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r by the batch's statistics, or by those that are given."""
        xp = self.xp
        if X is None or inverse_std is None:
            U = normalization.batch_norm_inference(xp, Z, gamma, beta, mean, variance)
        else:
            X[...], inverse_std[...], mu, var = normalization.batch_norm(xp, Z, weights)
            mean[...] = normalization.running(xp, mean, mu, weights)
            variance[...] = normalization.running(xp, variance, var, weights)
            U = normalization.affine(X, gamma, beta)
        self._activate(U, activation, dropout, A, saved)

    def batch_norm_vjp(
        self,
        dU: Array,
        X: Array,
        inverse_std: Array,
        gamma: Array,
        weights: Array | None,
        *,
        scale: Array | None,
        dZ: Array,
        dgamma: Array,
        accumulate: bool,
    ) -> None:
        """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X."""
        dZ[...], total = normalization.batch_norm_vjp(self.xp, dU, X, inverse_std, gamma, weights)
        write(dgamma, total if scale is None else scale * total, accumulate)

    def member_weights(self, W: Array, r: Array, s: Array | None, *, out: Array) -> None:
        """out <- diag(s) W diag(r)."""
        out[...] = batch_ensemble.member_weights(self.xp, W, r, s)

    def member_weights_vjp(
        self,
        G: Array,
        W: Array,
        r: Array,
        s: Array | None,
        *,
        dW: Array,
        dr: Array,
        ds: Array | None,
        accumulate: bool,
        accumulate_own: bool,
    ) -> None:
        """dW <- (+) diag(s) G diag(r);  dr <- (+) sum_i s_i W_ij G_ij;  ds <- (+) sum_j W_ij G_ij r_j."""
        new_W, new_r, new_s = batch_ensemble.member_weights_vjp(self.xp, G, W, r, s)
        write(dW, new_W, accumulate)
        write(dr, new_r, accumulate_own)
        if ds is not None:
            write(ds, new_s, accumulate_own)

    def parametric(
        self,
        Z: Array,
        alpha: Array,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: Array,
        saved: Any,
        D: Array | None,
        S: Array | None,
    ) -> None:
        """A <- drop(Z + alpha (g(Z) - Z));  D <- g(Z) - Z, S <- g'(Z)."""
        mixed = self.mix(Z, alpha, activation, D, S)
        self._activate(mixed, get_activation("identity"), dropout, A, saved)

    def mix(self, Z: Array, alpha: Array, activation: Activation, D: Array | None, S: Array | None) -> Array:
        """Z + alpha (g(Z) - Z);  D and S as above."""
        mixed, difference, slope = parametric.parametric(self.xp, Z, alpha, activation)
        if D is not None and S is not None:
            D[...], S[...] = difference, slope
        return mixed

    def parametric_vjp(
        self,
        dA: Array,
        D: Array,
        S: Array,
        alpha: Array,
        *,
        scale: Array | None,
        dZ: Array,
        dalpha: Array,
        db: Array,
        accumulate: bool,
        accumulate_b: bool,
    ) -> None:
        """dZ <- dA (1 + alpha (S - 1));  dalpha <- (+) scale * sum dA D;  db <- (+) scale * row sums."""
        dZ[...], total = parametric.parametric_vjp(self.xp, dA, D, S, alpha)
        write(dalpha, total if scale is None else scale * total, accumulate)
        self._bias(dZ, scale, db, accumulate_b)

    def output_delta(
        self,
        loss: Loss,
        form: str,
        Z: Array,
        Y: Array,
        weights: Array | None,
        *,
        inverse_denominator: Array,
        early: bool,
        dZ: Array,
        db: Array,
        value: Array,
        accumulate: bool,
    ) -> None:
        """dZ <- w dL/dZ (1/D if early);  db <- (+) row sums of dJ/dZ;  value += (1/D) sum w L."""
        xp = self.xp
        Y = self._targets(loss, Z, Y)
        value[...] = value + inverse_denominator * xp.sum(ledger.weigh(xp, weights, loss.value(xp, Z, Y)))

        def weighted(x: Array) -> Array:
            x = ledger.weigh(xp, weights, x)
            return x * inverse_denominator if early else x

        if form == "fused":
            dZ[...] = weighted(loss.delta(xp, Z, Y))
        else:
            AL = loss.link.forward(xp, Z)
            d = loss.link.vjp(xp, weighted(loss.literal_dAL(xp, AL, Y)), Z, AL)
            # g' of a NaN is NaN, so examples of weight 0 have to be set to 0 once more.
            dZ[...] = d if weights is None else xp.where(xp.equal(weights, 0.0), 0.0, d)
        self._bias(dZ, None if early else inverse_denominator, db, accumulate)

    def _targets(self, loss: Loss, Z: Array, Y: Array) -> Array:
        """Class labels (1, m) as one-hot columns; anything else as it is."""
        if loss.labels != "classes" or Y.shape[0] == Z.shape[0]:
            return Y
        classes = self.xp.reshape(self._range(Z.shape[0]), (-1, 1))
        return one_hot(self.xp, Y, classes, Z.dtype)

    def penalty(self, theta: Array, grad: Array, *, l1: Array | None, l2: Array | None, value: Array) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
        if l2 is not None:
            grad[...] = grad + regularization.l2_grad(self.xp, theta, l2)
            value[...] = value + regularization.l2(self.xp, theta, l2)
        if l1 is not None:
            grad[...] = grad + regularization.l1_grad(self.xp, theta, l1)
            value[...] = value + regularization.l1(self.xp, theta, l1)

    def global_norm(self, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        root, scale = regularization.scaled_norm(self.xp, grad)
        norm[...] = root / scale
        factor[...] = regularization.clip_factor(self.xp, root, max_norm, scale)

    def update(
        self,
        optimizer: Optimizer,
        theta: Array,
        grad: Array,
        state: Sequence[Array],
        *,
        scalars: Array,
        factor: Array | None,
        decay: bool,
    ) -> None:
        """theta, state <- optimizer(theta, factor * grad, state; scalars)."""
        numbers: list[Any] = [scalars[i : i + 1] for i in range(scalars.shape[0])]
        scaled = grad if factor is None else grad * factor
        new_theta, new_state = optimizer.step(self.xp, theta, scaled, state, numbers, decay=decay)
        theta[...] = new_theta
        for vector, new in zip(state, new_state, strict=True):
            vector[...] = new

    def gather(self, source: Array, order: Array, counters: Array, stride: int, *, out: Array) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        rows = counters[0:1] * stride + self._range(out.shape[0])
        out[...] = self.xp.take(source, self.xp.take(order, rows, axis=0), axis=0)

    def all_reduce(self, ranks: Collective, grad: Array, *, value: Array, empty: bool) -> None:
        """grad, value <- their sums over the ranks."""
        ranks.all_reduce(self.backend, grad, value, empty)

    def advance(self, counters: Array, table: Array, values: Array, *, step_scalars: Array, value: Array) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  step_scalars <- table[counters[0]]."""
        ended = self.xp.equal(self._range(values.shape[0]), counters[0:1])
        values[...] = self.xp.where(ended, value, values)
        counters[...] = counters + 1
        value[...] = 0.0
        step_scalars[...] = self.xp.reshape(self.xp.take(table, counters[0:1], axis=0), step_scalars.shape)

    def capture(self, program: Program) -> Replay:
        """Nothing is recorded: the replay calls the program, whose arguments are checked the first time.

        NumPy does not warn in it, as no other kernel set does: what diverges is raised as an error.
        """
        has_run = False

        @np.errstate(all="ignore")
        def replay(times: int, before: Before | None = None) -> None:
            nonlocal has_run
            for _ in range(times):
                if before is not None:
                    before()
                self.repeats = has_run
                try:
                    program()
                finally:
                    self.repeats = False
                has_run = True

        return replay

    def dispatch_report(self, spec: StepSpec) -> list[KernelChoice]:
        """Everything by ``maths``."""
        by = f"maths on {self.xp.__name__}"
        return [
            *(KernelChoice(*operation, by) for operation in spec.operations()),
            KernelChoice("capture", None, "Python"),
        ]

    def workspace_bytes(self, spec: StepSpec) -> int | None:
        """What ``maths`` allocates."""
        return None

    def release(self) -> None:
        """Free cached arrays; they are created again when needed."""
        self._ranges.clear()

    def _range(self, n: int) -> Array:
        """0 .. n - 1, int64, cached."""
        if n not in self._ranges:
            self._ranges[n] = self.backend.asarray(range(n), "int64")
        return self._ranges[n]
