"""The kernel interface: what each operation computes, as equations and laws, and the arguments it is given.

The network loop (``network/``) is written once, against :class:`Kernels`. The laws stated there are tested for every
kernel set in ``tests/laws``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .._typing import Array, Namespace, Program, Replay

if TYPE_CHECKING:
    from ..maths.activations import Activation
    from ..maths.losses import Loss
    from ..maths.optimizers import Optimizer
    from .collective import Collective


class Device(Protocol):
    """As much of a backend as a kernel set needs: its namespace, and new arrays."""

    xp: Namespace

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """A copy on the device."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """A new buffer of zeros, C order."""


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout of one layer, and its Philox counters on the device (``maths.regularization.dropout_mask``).

    ``quads`` (ceil(n/4), 1) and ``examples`` (1, m) are constant; ``step`` (1,) moves on with every optimizer step;
    ``first`` (1,) is the position of the micro-batch's first example in its batch.
    """

    rate: float
    seed: int
    layer: int
    quads: Array
    examples: Array
    step: Array
    first: Array


class Kernels(Protocol):
    """The operations of a training step. Every one writes into buffers it is given.

    Laws, for every kernel set, dtype and shape (``tests/laws``)
        * equal to the function of ``maths/`` of the same name within the bound derived for its operations;
        * outputs are *overwritten*, except gradients with ``accumulate=True`` and ``value``, which are added to;
        * inputs are not written, and outputs do not alias inputs;
        * the same inputs on the same device give the same bits;
        * ``scale`` arguments are None (one) or a one-element buffer that may change between calls.

    Attributes
    ----------
    examples_contiguous : bool
        Whether layers (n, m) are best laid out with each example contiguous (Fortran order); shapes never change.
    precision : str
        The precision of its float32 products: ``"fp32"``, or less where that was asked for (``parity.claims``).
    """

    examples_contiguous: bool
    precision: str

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """Buffers in which ``dense`` saves what its backward pass needs; read by this kernel set alone.

        The network asks for those of all its layers before it computes the first one.
        """

    def debug_tensors(self, saved: Any) -> dict[str, Array]:
        """The tensors in ``saved`` by name (``Z``, ``mask``), for traces and checks; nothing is computed from them."""

    def dense(
        self,
        W: Array,
        A_prev: Array,
        b: Array,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: Array,
        saved: Any,
    ) -> None:
        """A <- drop(g(W A_prev + b)).  W (n, k), A_prev (k, m), b (n, 1), A (n, m)."""

    def dense_vjp_input(
        self,
        W: Array,
        dZ: Array,
        activation_prev: Activation,
        dropout_prev: Dropout | None,
        A_prev: Array,
        saved_prev: Any,
        *,
        scale: Array | None,
        dZ_prev: Array,
        db_prev: Array,
        accumulate: bool,
    ) -> None:
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * sum over examples of dZ_prev."""

    def dense_vjp_params(self, dZ: Array, A_prev: Array, *, scale: Array | None, dW: Array, accumulate: bool) -> None:
        """dW <- (+) scale * dZ A_prev^T."""

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
        saved: Any,
        X: Array | None,
        inverse_std: Array | None,
    ) -> None:
        """X <- (Z - mu) r, inverse_std <- r = 1/sqrt(var + eps), A <- drop(g(gamma X + beta)), as ``dense`` would from
        Z = gamma X + beta, ``saved`` included; mean, variance <- (1 - MOMENTUM) of what they were + MOMENTUM mu, var.

        mu, var are the (weighted) statistics of the examples in Z. Without X and inverse_std, at inference, ``mean``
        and ``variance`` take their place and stay as they are. See ``maths.normalization``.
        """

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
        """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum over examples of dU X."""

    def member_weights(self, W: Array, r: Array, s: Array | None, *, out: Array) -> None:
        """out <- diag(s) W diag(r), a member's weights.  W, out (n, k), r (k,), s (n,) or None for ones."""

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
        """From G (n, k), the derivative by the member's weights:  dW <- (+) diag(s) G diag(r);
        dr <- (+) sum_i s_i W_ij G_ij;  ds <- (+) sum_j W_ij G_ij r_j.

        ``accumulate`` is about dW, to which members and micro-batches add, ``accumulate_own`` about dr and ds, to which
        micro-batches do. See ``maths.batch_ensemble``.
        """

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
        """A <- drop(Z + alpha (g(Z) - Z));  D <- g(Z) - Z, S <- g'(Z), not asked for at inference.

        ``saved`` is what ``dense`` would leave with the identity as its activation. See ``maths.parametric``.
        """

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
        """dZ <- dA (1 + alpha (S - 1));  dalpha <- (+) scale * sum over examples of dA D;  db <- (+) scale * row sums.

        ``accumulate_b`` is about db, ``accumulate`` about dalpha.
        """

    def scaling(self, X: Array, s: Array, *, H: Array) -> None:
        """H <- s X.  X, H (k, m), s (k, 1)."""

    def scaling_vjp(
        self,
        dH: Array,
        X: Array,
        s: Array,
        *,
        scale: Array | None,
        dX: Array | None,
        ds: Array,
        accumulate: bool,
    ) -> None:
        """dX <- s dH, if it is asked for;  ds <- (+) scale * sum over examples of dH X."""

    def periodic(
        self,
        X: Array,
        w: Array,
        b: Array,
        V: Array,
        c: Array,
        *,
        E: Array,
        P: Array,
        Q: Array | None,
    ) -> None:
        """For each of the first J inputs:  P <- cos z, Q <- -sin z with z = 2 pi w x + b;  E <- V P + c.

        X (k, m), k >= J; w, b (J, h), V (J o, h), c (J o, 1); E (J o, m), P, Q (J h, m), Q None at inference. See
        ``maths.periodic``.
        """

    def periodic_vjp(
        self,
        dE: Array,
        X: Array,
        P: Array,
        Q: Array,
        V: Array,
        *,
        scale: Array | None,
        dw: Array,
        db: Array,
        dV: Array,
        dc: Array,
        accumulate: bool,
    ) -> None:
        """dc <- (+) scale * sum dE;  dV <- (+) scale * dE P^T;  with dz = (V^T dE) Q:  db <- (+) scale * sum dz;
        dw <- (+) scale * 2 pi sum dz x, column by column, sums over examples.
        """

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
        """dZ <- w * dL/dZ (times 1/D if ``early``);  db <- (+) row sums of dJ/dZ;  value += (1/D) sum of w * L.

        ``form``: ``"fused"`` (from the logits: the derivative of the reported cost) or ``"literal"`` (dL/dAL, then g').
        """

    def penalty(self, theta: Array, grad: Array, *, l1: Array | None, l2: Array | None, value: Array) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1, over the weights' part only."""

    def global_norm(self, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / |grad|_2).

        For every finite grad, however large or small: its squares neither overflow nor vanish
        (``maths.regularization.norm_scale``), and factor is right even where norm is infinite in its dtype.
        """

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
        """theta, state <- optimizer(theta, factor * grad, state; scalars), in place; ``decay``: decay weights?

        ``state`` and ``scalars`` are the optimizer's ``state`` and ``numbers``: with the average where it keeps one.
        """

    def gather(self, source: Array, order: Array, counters: Array, stride: int, *, out: Array) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]: batch k from example-contiguous storage."""

    def all_reduce(self, ranks: Collective, grad: Array, *, value: Array, empty: bool) -> None:
        """grad, value <- their sums over the ranks, in the order of the examples; ``empty``: this rank has none."""

    def advance(self, counters: Array, table: Array, values: Array, *, step_scalars: Array, value: Array) -> None:
        """Move on to the next batch: values[k] <- value if k = counters[0] >= 0;  counters += 1;  value <- 0;
        step_scalars <- table[counters[0]].  ``counters`` (2,) int64: number of the batch, number of the step."""

    def capture(self, program: Program) -> Replay:
        """Record a program that touches only fixed buffers; the replay runs it a given number of times."""
