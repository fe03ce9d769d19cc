"""The fast CUDA kernel set: products by cuBLASLt, everything else by the kernels in ``sources/``, steps as CUDA graphs.

**Never ran on a GPU yet**: its tests run the same sources compiled for the host. Chosen with ``kernels: cuda`` only.
What has no kernel falls back to the reference on CuPy, operation by operation; ``reasons`` says what did and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..._typing import Array, Program, Replay
from ...errors import DeviceError
from ...maths.activations import Activation
from ...maths.losses import Loss
from ...maths.optimizers import Optimizer
from ..plan import Choice, StepSpec
from ..protocol import Device, Dropout
from . import codes, plan
from .compile import THREADS
from .gemm import Operand, Product, operand, product
from .graph import Captured, NotRecordableError, Tape
from .grids import BLOCKS, WARP, line, power_of_two, tiles
from .launch import Call, Launcher
from .norms import NormKernels


@dataclass
class CudaSaved:
    """What a layer keeps: Z where g' needs it, G = g(Z) and the mask with dropout; examples contiguous."""

    Z: Array = None
    G: Array = None
    mask: Array = None


class CudaKernels(NormKernels):
    """See ``protocol.Kernels`` for each operation's equation.

    Attributes
    ----------
    reasons : dict of str to str
        Operations that fell back to the reference so far, each with the reason.
    """

    examples_contiguous = True

    def __init__(self, backend: Device, launcher: Launcher) -> None:
        super().__init__(backend)
        self.launcher, self.claim = launcher, launcher.claim
        self.reasons: dict[str, str] = {}
        self._tape: list[Call | Product] | None = None
        self._buffers: dict[tuple[str, int, str], Array] = {}
        self._refused: dict[Product, str] = {}  # shapes that cuBLASLt has no algorithm for, with its reason

    # -- calling and recording -----------------------------------------------------------------------------------

    def _start(self, work: Call | Product) -> None:
        if self._tape is None:
            self.launcher.run(work)
        else:
            self._tape.append(work)

    def _run(self, kernel: str, like: Array, grid: tuple[int, int], *arguments: Any) -> None:
        """Start a kernel; arrays go by address, None is address 0, a matrix (see ``_matrix``) is three numbers."""
        flat = [x for a in arguments for x in (a if isinstance(a, tuple) else (a,))]
        plain = (x if isinstance(x, int | float) else self._address(x) for x in flat)
        self._start(Call(kernel, _dtype(like), grid, tuple(plain)))

    def _address(self, x: Array) -> int:
        return 0 if x is None else self.launcher.address(x)

    def _matrix(self, x: Array) -> tuple[int, int, int]:
        """Address and strides of (units, examples)."""
        return (0, 0, 0) if x is None else (self._address(x), *operand(x, 0).strides)

    def _product(self, a: Array, b: Array, out: Array, *, scale: Array = None, accumulate: bool = False) -> str | None:
        """out <- scale a b (+ out); the reason, and nothing done, if cuBLASLt does not take them as they lie."""
        left, right, result = (operand(x, self._address(x)) for x in (a, b, out))
        if self.claim == "bf16" and _dtype(out) == "float32":
            left, right = self._rounded("left", a, left), self._rounded("right", b, right)
        found = product(left, right, result, alpha=self._address(scale), accumulate=accumulate)
        if found is None:
            return "a matrix without contiguous rows or columns"
        shape = found._replace(a=0, b=0, d=0, alpha=0)
        if shape not in self._refused:
            try:
                self._start(found)
                return None
            except DeviceError as refusal:
                self._refused[shape] = str(refusal)
        return self._refused[shape]

    def _rounded(self, side: str, x: Array, given: Operand) -> Operand:
        """A factor as a bfloat16 copy, laid out as it is; made anew for every product, since nobody says what changed.

        A factor with gaps is left in float32, where it meets one of bfloat16 and is refused.
        """
        if not (x.flags.c_contiguous or x.flags.f_contiguous):
            return given
        n = x.shape[0] * x.shape[1]
        copy = self._buffer("uint16", n, side)
        self._run("round_to_bfloat16", x, line(n), x, copy, n)
        return given._replace(address=self._address(copy), dtype="bfloat16")

    def _buffer(self, dtype: str, size: int, use: str = "sums") -> Array:
        """Scratch of zeros, made once for each size: partial sums, and counters that every kernel leaves at 0."""
        if (dtype, size, use) not in self._buffers:
            if self._tape is not None:
                raise NotRecordableError("a buffer was asked for that no run before had needed")
            self._buffers[dtype, size, use] = self.backend.zeros((size,), dtype)
        return self._buffers[dtype, size, use]

    def _falls_back(self, operation: str, reason: str) -> None:
        """Called before the reference is used: fine outright, the end of a recording."""
        self.reasons[operation] = reason
        if self._tape is not None:
            raise NotRecordableError(f"{operation}: {reason}")

    def trace(self, program: Program) -> Tape:
        """The work of a program, in order, none of it run.

        Raises
        ------
        NotRecordableError
            If an operation falls back to the reference.
        """
        self._tape = []
        try:
            program()
            return tuple(self._tape)
        finally:
            self._tape = None

    def capture(self, program: Program) -> Replay:
        """A CUDA graph, recorded after a few runs; the Python itself if something falls back (see ``Captured``)."""
        return Captured(program, self.trace, self.launcher)

    # -- beforehand ----------------------------------------------------------------------------------------------

    def explain(self, spec: StepSpec) -> list[Choice]:
        """Own kernels and cuBLASLt, or CuPy; one operation left to CuPy keeps the step from being a graph."""
        return plan.choices(spec)

    def temporaries(self, spec: StepSpec) -> int | None:
        """Scratch, what is left to CuPy, and cuBLASLt's workspace."""
        return plan.temporaries(CudaKernels, self.claim, spec)

    def release(self) -> None:
        """Let go of scratch; a step that was captured before finds it moved."""
        super().release()
        self._buffers.clear()

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, k: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """Buffers as far as the layer needs them; the reference's for what has no kernel."""
        if not codes.knows(activation) or dtype not in codes.REALS:
            return super().saved(n, k, m, dtype, activation, dropout)

        def buffer(dtype: str) -> Array:
            return self.backend.zeros((m, n), dtype).T

        return CudaSaved(
            Z=None if activation.name in codes.FROM_A else buffer(dtype),
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
            self._falls_back("dense", f"no CUDA kernel for {activation.name} in {A.dtype}")
            super().dense(W, A_prev, b, activation, dropout, A=A, saved=saved)
            return
        raw = next(x for x in (saved.Z, saved.G, A) if x is not None)
        reason = self._product(W, A_prev, raw)
        if reason is not None:
            self._falls_back("dense", reason)
            raw[...] = self.xp.matmul(W, A_prev)
        n, m = A.shape
        shared = (*self._matrix(raw), int(saved.Z is not None), b, codes.ACTIVATIONS[activation.name])
        if dropout is None:
            grid, width = tiles(n, m)
            self._run("bias_activation", A, grid, *shared, _parameter(activation), self._matrix(A), n, m, width)
            return
        grid, width = tiles(-(-n // 4), m)
        keep = round((1.0 - dropout.rate) * 2**32)
        self._run(
            *("bias_activation_dropout", A, grid, *shared, _parameter(activation)),
            *(self._matrix(saved.G), self._matrix(A), self._matrix(saved.mask), n, m, width),
            *(dropout.seed & 0xFFFFFFFF, dropout.seed >> 32, dropout.layer, dropout.step, dropout.first, keep),
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
            self._falls_back("dense_vjp_input", f"no CUDA kernel for {activation_prev.name} in {dZ.dtype}")
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
        grid, width = tiles(n, m)
        a = A_prev if saved_prev.G is None else saved_prev.G
        self._run(
            *("activation_vjp", dZ_prev, grid, self._matrix(dZ_prev), self._matrix(saved_prev.Z), self._matrix(a)),
            *(self._matrix(saved_prev.mask), 1.0 if dropout_prev is None else 1.0 / (1.0 - dropout_prev.rate)),
            *(codes.ACTIVATIONS[activation_prev.name], _parameter(activation_prev), n, m, width),
            *(*self._sums(dZ_prev, grid[1] * n, grid[0]), scale, db_prev, int(accumulate)),
        )

    def _sums(self, like: Array, size: int, counters: int) -> tuple[Array, Array]:
        """Room for partial sums, and for the counters of those who add them up."""
        return self._buffer(_dtype(like), size), self._buffer("int32", counters)

    def dense_vjp_params(self, dZ: Array, A_prev: Array, *, scale: Array | None, dW: Array, accumulate: bool) -> None:
        """dW <- (+) scale * dZ A_prev^T, in the product itself."""
        reason: str | None = f"no product in {dW.dtype}"
        if _dtype(dW) in codes.REALS:
            reason = self._product(dZ, A_prev.T, dW, scale=scale, accumulate=accumulate)
        if reason is None:
            return
        self._falls_back("dense_vjp_params", reason)
        super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)

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
        labels = loss.labels == "classes" and Y.shape[0] == 1 and _dtype(Y) == "int64"
        fits = labels or (Y.shape == Z.shape and Y.dtype == Z.dtype)
        if form != "fused" or not codes.knows(loss) or _dtype(Z) not in codes.REALS or not fits:
            reason = f"the {form} form of {loss.name} in {Z.dtype} with targets in {Y.dtype}"
            self._falls_back("output_delta", f"no CUDA kernel for {reason}")
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
        group = min(power_of_two(n), WARP)  # lanes that share an example
        blocks = min(-(-m // (THREADS // group)), BLOCKS)
        self._run(
            *("output_delta", Z, (blocks, 1), self._matrix(Z), self._matrix(Y), int(labels)),
            *(weights, 0 if weights is None else operand(weights, 0).strides[1], inverse_denominator, int(early)),
            *(codes.LOSSES[loss.name], *codes.loss_numbers(loss, n), self._matrix(dZ), n, m, group),
            *(*self._sums(Z, blocks, 1), value),
        )
        grid, width = tiles(n, m)
        self._run(
            *("bias_gradient", Z, grid, self._matrix(dZ), n, m, width),
            *(*self._sums(Z, grid[1] * n, grid[0]), None if early else inverse_denominator, db, int(accumulate)),
        )

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(self, theta: Array, grad: Array, *, l1: Array | None, l2: Array | None, value: Array) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1, in one pass."""
        if l1 is None and l2 is None:
            return
        if _dtype(theta) not in codes.REALS:
            self._falls_back("penalty", f"no CUDA kernel in {theta.dtype}")
            super().penalty(theta, grad, l1=l1, l2=l2, value=value)
            return
        n, grid = theta.shape[0], line(theta.shape[0])
        self._run("penalty", theta, grid, theta, grad, l1, l2, n, *self._sums(theta, grid[0], 1), value)

    def global_norm(self, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        if _dtype(grad) not in codes.REALS:
            self._falls_back("global_norm", f"no CUDA kernel in {grad.dtype}")
            super().global_norm(grad, max_norm, norm=norm, factor=factor)
            return
        n, grid = grad.shape[0], line(grad.shape[0])
        self._run("global_norm", grad, grid, grad, n, float(max_norm), *self._sums(grad, 3 * grid[0], 1), norm, factor)

    def update(
        self,
        optimizer: Optimizer,
        theta: Array,
        grad: Array,
        slots: Sequence[Array],
        *,
        scalars: Array,
        factor: Array | None,
        decay: bool,
    ) -> None:
        """theta, slots <- optimizer(theta, factor * grad, slots; scalars), in one pass."""
        if _dtype(theta) not in codes.REALS or not codes.knows(optimizer):
            average = " with average" if optimizer.average else ""
            self._falls_back("update", f"no CUDA kernel for {optimizer.name}{average} in {theta.dtype}")
            super().update(optimizer, theta, grad, slots, scalars=scalars, factor=factor, decay=decay)
            return
        code, places, constants = codes.rule(optimizer, decay)
        n, three = theta.shape[0], (*slots, None, None, None)[:3]
        self._run("update", theta, line(n), code, theta, grad, *three, scalars, *places, *constants, factor, n)

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

    def advance(self, counters: Array, table: Array, values: Array, *, hyper: Array, value: Array) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
        if _dtype(table) not in codes.REALS:
            self._falls_back("advance", f"no CUDA kernel in {table.dtype}")
            super().advance(counters, table, values, hyper=hyper, value=value)
            return
        numbers = (table.shape[1], values, values.shape[0], hyper, value)
        self._run("advance", table, (1, 1), counters, table, *numbers)


def _dtype(x: Array) -> str:
    return str(x.dtype)


def _parameter(activation: Activation) -> float:
    """Slope of leaky_relu, alpha of elu."""
    return next((value for _, value in activation.parameters), 0.0)
