"""The kernel set that calls compiled code: float32 runs here, anything else falls back to NumPy's kernels.

An operation is a compiled kernel and a row of int64: addresses and sizes. Called outright, it is run; while a program
is being captured it is written down instead, and the replay is one compiled loop over what was written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...._typing import Program, Replay
from ....maths.activations import Activation
from ....maths.losses import Loss
from ....maths.optimizers import Optimizer
from ...plan import Choice, StepSpec
from ...protocol import Device, Dropout
from ..kernels import BLOCK, HostKernels, in_place
from ..openblas import OpenBlas
from ..plan import host_temporaries
from . import data, layers, losses, updates
from .calling import play
from .plan import choices, layer_obstacle

CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this
# Below this many floating-point operations in its largest product, a network is faster with one BLAS thread.
SMALL_PRODUCT = 10_000_000


class NotRecordableError(Exception):
    """An operation has no compiled form, so the program that holds it is played by Python."""


@dataclass
class CompiledSaved:
    """What a layer keeps for its backward: g' (times drop) where A alone does not give it, and which units survived."""

    derivative: np.ndarray | None = None
    kept: np.ndarray | None = None
    words: np.ndarray | None = None
    parameter: np.ndarray | None = None
    scale: np.ndarray | None = None
    key: np.ndarray | None = None


@dataclass
class _Recording:
    kernels: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)  # arrays whose addresses the rows hold


def _address(x: np.ndarray | None) -> int:
    assert x is None or x.flags.c_contiguous, "a row holds an address and no strides"
    return 0 if x is None else x.ctypes.data


def _single(*arrays: np.ndarray | None) -> bool:
    """Whether all are float32 (or left out)."""
    return all(x is None or x.dtype == np.float32 for x in arrays)


class CompiledKernels(HostKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def __init__(self, backend: Device, blas: OpenBlas) -> None:
        super().__init__(backend)
        self.blas = blas
        self._recording: _Recording | None = None
        self._scratch: dict[int, np.ndarray] = {}
        self._largest_product = 0

    # -- calling and recording -----------------------------------------------------------------------------------

    def _run(self, kernel: Any, *arguments: int | np.ndarray | None) -> None:
        row = np.array([a if isinstance(a, int) else _address(a) for a in arguments], np.int64)
        if self._recording is None:
            kernel.ctypes(row.ctypes.data)
            return
        self._recording.kernels.append(kernel.address)
        self._recording.rows.append(row)
        self._recording.kept.append(arguments)

    def _fall_back(self) -> None:
        """Called before NumPy's kernel is used: fine outright, the end of a recording."""
        if self._recording is not None:
            raise NotRecordableError

    def capture(self, program: Program) -> Replay:
        """One compiled loop over the program's kernels, in chunks; the Python itself if something is not compiled."""
        self._recording = recording = _Recording()
        try:
            program()
        except NotRecordableError:
            return super().capture(program)
        finally:
            self._recording = None
        kernels = np.array(recording.kernels, np.int64)
        rows = np.array([row.ctypes.data for row in recording.rows], np.int64)
        threads = 1 if self._largest_product < SMALL_PRODUCT else self.blas.threads

        def replay(times: int) -> None:
            assert recording.kept is not None  # the arrays behind the addresses live as long as the replay
            with self.blas.using_threads(threads):
                _play_in_chunks(kernels, rows, times)

        return replay

    def explain(self, spec: StepSpec) -> list[Choice]:
        """Compiled, or NumPy's kernels; one that is not compiled leaves the whole step to Python."""
        return choices(spec)

    def temporaries(self, spec: StepSpec) -> int | None:
        """The output's scratch, and what is left to NumPy."""
        left = [(choice.operation, choice.layer) for choice in choices(spec)[:-1] if choice.why]
        return 5 * 4 * spec.m + host_temporaries(spec, left, in_place, BLOCK)

    # -- layers --------------------------------------------------------------------------------------------------

    def saved(self, n: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """The derivative's buffer where it is needed; NumPy's buffers for another dtype."""
        if layer_obstacle(dtype, activation):
            return super().saved(n, m, dtype, activation, dropout)
        saved = CompiledSaved(parameter=np.array([v for _, v in activation.parameters] or [0.0], np.float32))
        if dropout is not None or layers.CODES[activation.name] > layers.LAST_FROM_A:
            saved.derivative = np.zeros((n, m), np.float32)
        if dropout is not None:
            saved.kept, saved.words = np.zeros((n, m), np.bool_), np.zeros((4, m), np.uint32)
            saved.scale = np.array([1.0 / (1.0 - dropout.rate)], np.float32)
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
        stored = _stored(A_prev)
        if stored is None and isinstance(saved, CompiledSaved):
            self._fall_back()
            stored = 0, np.ascontiguousarray(A_prev, np.float32)
        if not isinstance(saved, CompiledSaved) or stored is None:
            self._fall_back()
            super().dense(W, A_prev, b, activation, dropout, A=A, saved=saved)
            return
        (n, k), m = W.shape, A_prev.shape[1]
        self._largest_product = max(self._largest_product, 2 * n * k * m)
        self._run(
            layers.dense,
            *(self.blas.sgemm, W, *stored, b, A, n, k, m),
            *(layers.CODES[activation.name], saved.parameter, saved.derivative),
            *(saved.kept, None if dropout is None else dropout.step, saved.key, saved.scale, saved.words),
            None if dropout is None else dropout.first,
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
        (n, k), m = W.shape, dZ.shape[1]
        self._run(
            layers.dense_vjp_input,
            *(self.blas.sgemm, W, dZ, A_prev, dZ_prev, db_prev, n, k, m),
            *(layers.CODES[activation_prev.name], saved_prev.parameter, saved_prev.derivative),
            *(scale, int(accumulate), saved_prev.kept),
        )

    def dense_vjp_params(
        self, dZ: np.ndarray, A_prev: np.ndarray, *, scale: np.ndarray | None, dW: np.ndarray, accumulate: bool
    ) -> None:
        """dW <- (+) scale * dZ A_prev^T."""
        stored = _stored(A_prev)
        if not _single(dZ, A_prev, dW) or stored is None:
            self._fall_back()
            super().dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
            return
        (n, k), m = dW.shape, dZ.shape[1]
        self._run(layers.dense_vjp_params, self.blas.sgemm, dZ, *stored, dW, n, k, m, scale, int(accumulate))

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
        rows = Y.T  # examples contiguous, as batches are gathered
        if not rows.flags.c_contiguous or not (weights is None or weights.flags.c_contiguous):
            self._fall_back()
            rows, weights = np.ascontiguousarray(rows), None if weights is None else np.ascontiguousarray(weights)
        fits = labels or (_single(Y) and Y.shape == Z.shape)
        if form != "fused" or not _single(Z, weights) or not fits:
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
        n, m = Z.shape
        if m not in self._scratch:
            self._scratch[m] = np.zeros((5, m), np.float32)
        scratch = self._scratch[m]
        parameter = np.array([next(iter(vars(loss).values()), 0.0)], np.float32)
        self._run(
            losses.output_delta,
            *(losses.CODES[loss.name], Z, dZ, rows, int(labels), weights),
            *(inverse_denominator, int(early), db, int(accumulate), *scratch[:4], value, n, m, parameter, scratch[4]),
        )

    # -- the flat vector -----------------------------------------------------------------------------------------

    def penalty(
        self, theta: np.ndarray, grad: np.ndarray, *, l1: np.ndarray | None, l2: np.ndarray | None, value: np.ndarray
    ) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
        if l1 is None and l2 is None:
            return
        if not _single(theta):
            self._fall_back()
            super().penalty(theta, grad, l1=l1, l2=l2, value=value)
            return
        self._run(updates.penalty, theta, grad, l1, l2, value, theta.shape[0])

    def global_norm(self, grad: np.ndarray, max_norm: float, *, norm: np.ndarray, factor: np.ndarray) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""
        if not _single(grad):
            self._fall_back()
            super().global_norm(grad, max_norm, norm=norm, factor=factor)
            return
        self._run(updates.global_norm, grad, grad.shape[0], np.array([max_norm], np.float32), norm, factor)

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
        if not _single(theta):
            self._fall_back()
            super().update(optimizer, theta, grad, slots, scalars=scalars, factor=factor, decay=decay)
            return
        code, constants = _rule(optimizer)
        three = (*slots, None, None, None)[:3]
        self._run(
            updates.update,
            *(code, theta, grad, *three, scalars, np.array(constants, np.float32)),
            *(factor, int(decay), theta.shape[0]),
        )

    # -- batches -------------------------------------------------------------------------------------------------

    def gather(
        self, source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, *, out: np.ndarray
    ) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]."""
        kernel = {np.dtype(np.float32): data.gather, np.dtype(np.int64): data.gather_labels}.get(source.dtype)
        if kernel is None:
            self._fall_back()
            super().gather(source, order, counters, stride, out=out)
            return
        self._run(kernel, source, order, counters, stride, out, out.shape[0], out.shape[1])

    def advance(
        self, counters: np.ndarray, table: np.ndarray, values: np.ndarray, *, hyper: np.ndarray, value: np.ndarray
    ) -> None:
        """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
        if not _single(table):
            self._fall_back()
            super().advance(counters, table, values, hyper=hyper, value=value)
            return
        self._run(data.advance, counters, table, values, hyper, value, table.shape[1])


def _stored(A: np.ndarray) -> tuple[int, np.ndarray] | None:
    """(0, A), or (1, A^T) for a transposed view of contiguous examples; None for any other layout or dtype."""
    if A.dtype != np.float32:
        return None
    if A.flags.c_contiguous:
        return 0, A
    return (1, A.T) if A.T.flags.c_contiguous else None


def _rule(optimizer: Optimizer) -> tuple[int, list[float]]:
    """The code of an optimizer and up to five constants, each rounded once from float64."""
    o: Any = optimizer
    code = updates.CODES[o.name]
    if o.name == "momentum" and o.variant == "average":
        return updates.MOMENTUM_AVERAGE, [o.momentum, 1.0 - o.momentum, 0.0, 0.0, 0.0]
    if o.name in ("sgd", "momentum", "nesterov"):
        return code, [getattr(o, "momentum", 0.0), 0.0, 0.0, 0.0, 0.0]
    if o.name == "lion":
        return code, [o.beta1, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2, 0.0]
    if o.name in ("rmsprop", "adagrad"):
        rho = getattr(o, "rho", 0.0)
        return code, [rho, 1.0 - rho, 0.0, 0.0, o.epsilon]
    return code, [o.beta1, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2, o.epsilon]


def _play_in_chunks(kernels: np.ndarray, rows: np.ndarray, times: int) -> None:
    """Play, a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
    chunk = 1
    while times > 0:
        now = min(chunk, times)
        start = time.perf_counter()
        play(kernels, rows, now)
        seconds = (time.perf_counter() - start) / now
        times -= now
        chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
