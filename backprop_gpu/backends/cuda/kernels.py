"""The fast CUDA kernel set: products by cuBLASLt, the rest by the kernels in ``native/cuda``, steps as CUDA graphs.

**Never ran on a GPU yet**: its tests run the same sources compiled for the host. Chosen with ``kernels: cuda`` only.
What has no kernel falls back to the reference on CuPy, operation by operation; ``reasons`` says what did and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..._typing import Array
from ...maths.activations import Activation, get_activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from .. import formula_ids
from ..plan import KernelChoice, StepSpec
from ..protocol import Dropout
from . import plan
from .compile import THREADS
from .gemm import operand
from .grids import BLOCKS, WARP, blocks, line, parameter_blocks, sum_tiles, tiles
from .input_stage import InputStageKernels
from .launch import Call
from .members import MemberKernels
from .parametric import ParametricKernels
from .plan import CUDA
from .recording import dtype_name


@dataclass
class CudaSaved:
    """What a layer saves: Z if g' needs it, and with dropout G = g(Z) and the mask; examples contiguous."""

    Z: Array = None
    G: Array = None
    mask: Array = None


class CudaKernels(MemberKernels, InputStageKernels, ParametricKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    examples_contiguous = True

    # -- reports -------------------------------------------------------------------------------------------------

    def dispatch_report(self, spec: StepSpec) -> list[KernelChoice]:
        """CUDA kernels and cuBLASLt, or CuPy; a step with an operation left to CuPy cannot be a CUDA graph."""
        return plan.dispatch_report(spec)

    def workspace_bytes(self, spec: StepSpec) -> int | None:
        """Scratch buffers, what CuPy allocates for the other operations, and cuBLASLt's workspace."""
        return plan.workspace_bytes(CudaKernels, self.precision, spec)

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """The buffers that the layer needs; those of the reference kernels if it has no CUDA kernel."""
        if CUDA.layer_reason(dtype, activation):
            return super().saved(n, k, m, dtype, activation, dropout)

        def buffer(dtype: str) -> Array:
            return self.backend.zeros((m, n), dtype).T

        return CudaSaved(
            Z=buffer(dtype) if activation.name in formula_ids.SAVES_DERIVATIVE else None,
            G=None if dropout is None else buffer(dtype),
            mask=None if dropout is None else buffer("bool"),
        )

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
        """A <- drop(g(W A_prev + b)): the product, then one pass."""
        if not isinstance(saved, CudaSaved):
            self._falls_back("dense", CUDA.layer_reason(dtype_name(A), activation))
            super().dense(W, A_prev, b, activation, dropout, A=A, saved=saved)
            return
        raw = self._before_activation(A, saved)
        reason = self._product(W, A_prev, raw)
        if reason is not None:
            self._falls_back("dense", reason)
            raw[...] = self.xp.matmul(W, A_prev)
        self._pass_activation(raw, b, activation, dropout, A, saved)

    def _before_activation(self, A: Array, saved: CudaSaved) -> Array:
        """The buffer that the product is written to: Z if it is saved, else G or A."""
        return next(x for x in (saved.Z, saved.G, A) if x is not None)

    def _undropped(self, A: Array, saved: CudaSaved) -> Array:
        return A if saved.G is None else saved.G

    def _drop_linear(self, raw: Array, A: Array, saved: CudaSaved, dropout: Dropout | None) -> None:
        if dropout is not None:
            self._pass_activation(raw, None, get_activation("identity"), dropout, A, saved)

    def _pass_activation(
        self, raw: Array, b: Array | None, activation: Activation, dropout: Dropout | None, A: Array, saved: CudaSaved
    ) -> None:
        """A <- drop(g(raw + b)); ``saved`` keeps what its backward needs."""
        n, m = A.shape
        shared = (*self._matrix(raw), int(saved.Z is not None), b, formula_ids.ACTIVATION_IDS[activation.name])
        if dropout is None:
            grid, width = tiles(n, m)
            self._run("bias_activation", A, grid, *shared, _parameter(activation), self._matrix(A), n, m, width)
            return
        grid, width = tiles(-(-n // 4), m)
        threshold = round((1.0 - dropout.rate) * 2**32)
        self._run(
            *("bias_activation_dropout", A, grid, *shared, _parameter(activation)),
            *(self._matrix(saved.G), self._matrix(A), self._matrix(saved.mask), n, m, width),
            *(dropout.seed & 0xFFFFFFFF, dropout.seed >> 32, dropout.layer, dropout.step, dropout.first, threshold),
            1.0 / (1.0 - dropout.rate),
        )

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
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * row sums: the product, then one pass."""
        if not isinstance(saved_prev, CudaSaved):
            self._falls_back("dense_vjp_input", CUDA.layer_reason(dtype_name(dZ), activation_prev))
            super().dense_vjp_input(
                *(W, dZ, activation_prev, dropout_prev, A_prev, saved_prev),
                scale=scale,
                dZ_prev=dZ_prev,
                db_prev=db_prev,
                accumulate=accumulate,
            )
            return
        reason = self._product(W.T, dZ, dZ_prev)
        if reason is not None:
            self._falls_back("dense_vjp_input", reason)
            dZ_prev[...] = self.xp.matmul(W.T, dZ)
        n, m = dZ_prev.shape
        grid, width = sum_tiles(n, m)
        a = A_prev if saved_prev.G is None else saved_prev.G
        self._run(
            *("activation_vjp", dZ_prev, grid, self._matrix(dZ_prev), self._matrix(saved_prev.Z), self._matrix(a)),
            *(self._matrix(saved_prev.mask), 1.0 if dropout_prev is None else 1.0 / (1.0 - dropout_prev.rate)),
            *(formula_ids.ACTIVATION_IDS[activation_prev.name], _parameter(activation_prev), n, m, width),
            *(self._partial(dZ_prev, n, m), self._counters(grid[0]), scale, db_prev, int(accumulate)),
        )

    def dense_vjp_params(self, dZ: Array, A_prev: Array, *, scale: Array | None, dW: Array, accumulate: bool) -> None:
        """dW <- (+) scale * dZ A_prev^T, in the product itself."""
        reason: str | None = CUDA.dtype_reason(dtype_name(dW))
        if not reason:
            reason = self._product(dZ, A_prev.T, dW, scale=scale, accumulate=accumulate)
        if reason is None:
            return
        self._falls_back("dense_vjp_params", reason)
        super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)

    # -- batch normalization -------------------------------------------------------------------------------------

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
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r by the batch's statistics, or by those that are given."""
        if not isinstance(saved, CudaSaved):
            self._falls_back("batch_norm", CUDA.layer_reason(dtype_name(A), activation))
            out: dict[str, Any] = {"mean": mean, "variance": variance, "A": A, "saved": saved, "X": X}
            super().batch_norm(Z, gamma, beta, activation, dropout, weights, **out, inverse_std=inverse_std)
            return
        (n, m), U = A.shape, self._before_activation(A, saved)
        if X is None or inverse_std is None:
            grid, width = tiles(n, m)
            given = self._matrix(Z), gamma, beta, mean, variance
            self._run("batch_norm_inference", A, grid, *given, self._matrix(U), n, m, width)
        else:
            (across, _), width = sum_tiles(n, m)
            self._run(
                *("batch_norm", A, (across, 1), self._matrix(Z), gamma, beta, *self._weights(weights), mean, variance),
                *(self._matrix(U), self._matrix(X), inverse_std, n, m, width, self._partial(A, n, m)),
            )
        self._pass_activation(U, None, activation, dropout, A, saved)

    def _weights(self, weights: Array | None) -> tuple[Array | None, int]:
        """Address and stride of the examples' weights (1, m)."""
        return weights, 0 if weights is None else operand(weights, 0).strides[1]

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
        if reason := CUDA.dtype_reason(dtype_name(dU)):
            self._falls_back("batch_norm_vjp", reason)
            out: dict[str, Any] = {"scale": scale, "dZ": dZ, "dgamma": dgamma, "accumulate": accumulate}
            super().batch_norm_vjp(dU, X, inverse_std, gamma, weights, **out)
            return
        n, m = dU.shape
        (across, _), width = sum_tiles(n, m)
        self._run(
            *("batch_norm_vjp", dU, (across, 1), self._matrix(dU), self._matrix(X), inverse_std, gamma),
            *(*self._weights(weights), scale, self._matrix(dZ), dgamma, int(accumulate), n, m, width),
            self._partial(dU, n, m),
        )

    # -- the loss ------------------------------------------------------------------------------------------------

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
        labels = loss.labels == "classes" and Y.shape[0] == 1 and dtype_name(Y) == "int64"
        fits = labels or (Y.shape == Z.shape and Y.dtype == Z.dtype)
        reason = CUDA.loss_reason(dtype_name(Z), loss, form)
        if reason or not fits:
            self._falls_back("output_delta", reason or f"{loss.name} has no CUDA kernel for targets in {Y.dtype}")
            super().output_delta(
                *(loss, form, Z, Y, weights),
                inverse_denominator=inverse_denominator,
                early=early,
                dZ=dZ,
                db=db,
                value=value,
                accumulate=accumulate,
            )
            return
        n, m = Z.shape
        # One thread goes through a few outputs in turn, as the CPU does; many are shared by the lanes of a warp.
        group = 1 if n <= WARP else WARP
        grid = min(-(-m // (THREADS // group)), BLOCKS), 1
        self._run(
            *("output_delta", Z, grid, self._matrix(Z), self._matrix(Y), int(labels), *self._weights(weights)),
            *(inverse_denominator, int(early), formula_ids.LOSS_IDS[loss.name], *self._loss_arguments(loss, Z)),
            *(self._matrix(dZ), n, m, group, self._buffer(dtype_name(Z), m, "losses")),
            *(self._buffer("float64", blocks(m), "wide sums"), self._counters(1), value),
        )
        grid, width = sum_tiles(n, m)
        self._run(
            *("bias_gradient", Z, grid, self._matrix(dZ), n, m, width, self._partial(Z, n, m), self._counters(grid[0])),
            *(None if early else inverse_denominator, db, int(accumulate)),
        )

    def _loss_arguments(self, loss: Loss, Z: Array) -> tuple[Any, ...]:
        """The loss's parameters and their number, the sizes of its softmaxes and theirs; on the device, made once."""
        key = (repr(loss), Z.shape[0], dtype_name(Z))
        if key not in self._of_losses:
            self._check_allocation()
            parameters, n_parameters, groups, n_groups = formula_ids.loss_parameters(loss, Z.shape[0], dtype_name(Z))
            up = self.backend.asarray
            self._of_losses[key] = (up(parameters, dtype_name(Z)), n_parameters, up(groups, "int64"), n_groups)
        return self._of_losses[key]

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(self, theta: Array, grad: Array, *, l1: Array | None, l2: Array | None, value: Array) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1, in one pass."""
        if l1 is None and l2 is None:
            return
        if reason := CUDA.dtype_reason(dtype_name(theta)):
            self._falls_back("penalty", reason)
            super().penalty(theta, grad, l1=l1, l2=l2, value=value)
            return
        n, (count, room) = theta.shape[0], parameter_blocks(theta.shape[0])
        sums = self._buffer("float64", room, "wide sums"), self._counters(1)
        self._run("penalty", theta, (min(count, BLOCKS), 1), theta, grad, l1, l2, n, *sums, value)

    def global_norm(self, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        if reason := CUDA.dtype_reason(dtype_name(grad)):
            self._falls_back("global_norm", reason)
            super().global_norm(grad, max_norm, norm=norm, factor=factor)
            return
        n, (count, room) = grad.shape[0], parameter_blocks(grad.shape[0])
        sums, scales = self._buffer("float64", room, "wide sums"), self._buffer("float64", count, "scales")
        how = n, float(max_norm), sums, scales, self._counters(1)
        self._run("global_norm", grad, (min(count, BLOCKS), 1), grad, *how, norm, factor)

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
        """theta, state <- optimizer(theta, factor * grad, state; scalars), in one pass."""
        if reason := CUDA.update_reason(dtype_name(theta), optimizer):
            self._falls_back("update", reason)
            super().update(optimizer, theta, grad, state, scalars=scalars, factor=factor, decay=decay)
            return
        rule, constants = formula_ids.rule_of(optimizer, decay)
        n, three = theta.shape[0], ([*state[: len(optimizer.state_names)]] + 3 * [None])[:3]
        how = scalars, *constants, factor, n
        self._run("update", theta, line(n), formula_ids.OPTIMIZER_IDS[rule], theta, grad, *three, *how)
        if optimizer.average:
            self._run("average", theta, line(n), theta, state[-1], scalars[-1:], n)

    # -- batches -------------------------------------------------------------------------------------------------

    def gather(self, source: Array, order: Array, counters: Array, stride: int, *, out: Array) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        rows, words = out.shape[0], out.shape[1] * out.dtype.itemsize // 4
        if out.dtype != source.dtype or out.dtype.itemsize % 4:
            self._falls_back("gather", f"no CUDA kernel for {source.dtype} into {out.dtype}")
            super().gather(source, order, counters, stride, out=out)
            return
        grid, width = tiles(words, rows)
        # A gather moves words, whatever they mean: float32's module holds the one kernel.
        arguments = (*(self._address(x) for x in (source, order, counters)), stride, self._address(out))
        self._start(Call("gather", "float32", grid, (*arguments, rows, words, width)))

    def advance(self, counters: Array, table: Array, values: Array, *, step_scalars: Array, value: Array) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  step_scalars <- table[counters[0]]."""
        if reason := CUDA.dtype_reason(dtype_name(table)):
            self._falls_back("advance", reason)
            super().advance(counters, table, values, step_scalars=step_scalars, value=value)
            return
        numbers = (table.shape[1], values, values.shape[0], step_scalars, value)
        self._run("advance", table, (1, 1), counters, table, *numbers)


def _parameter(activation: Activation) -> float:
    """The activation's parameter, 0 if it has none."""
    return next((value for _, value in activation.parameters), 0.0)
