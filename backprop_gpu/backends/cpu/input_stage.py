"""The native kernels before the first dense layer (``native/cpu/input_stage.h``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import ArgumentSlice, Blocks, Units, columns, pass_time, rows
from .recording import RecordingKernels
from .supports import NATIVE

SINE_PASSES = 10  # passes over memory that a sine and a cosine take as long as


class InputStageKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def _inputs(self, X: np.ndarray) -> tuple[ArgumentSlice, int, int]:
        """X (k, m), sliced by inputs as it lies in memory, and how far apart units and examples are."""
        k, m = X.shape
        if X.flags.c_contiguous:
            return rows(X), m, 1
        if not X.T.flags.c_contiguous:
            return rows(self._contiguous(X)), m, 1
        return columns(X.T), 1, k

    def scaling(self, X: np.ndarray, s: np.ndarray, *, H: np.ndarray) -> None:
        """H <- s X."""
        if NATIVE.dtype_reason(X.dtype.name) or not H.flags.c_contiguous:
            self._python(super().scaling, X, s, H=H)
            return
        (k, m), (given, unit, example) = X.shape, self._inputs(X)
        arguments = given, rows(s), rows(H, written=True), Units(k), m, unit, example
        self._run(f"scaling_{X.dtype.name}", *arguments, nanoseconds=pass_time(X), examples=m)

    def scaling_vjp(
        self,
        dH: np.ndarray,
        X: np.ndarray,
        s: np.ndarray,
        *,
        scale: np.ndarray | None,
        dX: np.ndarray | None,
        ds: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dX <- s dH;  ds <- (+) scale * sum dH X, in one pass."""
        if NATIVE.dtype_reason(X.dtype.name):
            how: dict[str, Any] = {"scale": scale, "dX": dX, "ds": ds, "accumulate": accumulate}
            self._python(super().scaling_vjp, dH, X, s, **how)
            return
        (k, m), (given, unit, example) = X.shape, self._inputs(X)
        written = rows(dX, written=True), rows(ds, written=True)
        arguments = rows(dH), given, rows(s), scale, *written, int(accumulate), Units(k), m, unit, example
        self._run(f"scaling_vjp_{X.dtype.name}", *arguments, nanoseconds=2 * pass_time(X), examples=m)

    def periodic(
        self,
        X: np.ndarray,
        w: np.ndarray,
        b: np.ndarray,
        V: np.ndarray,
        c: np.ndarray,
        *,
        E: np.ndarray,
        P: np.ndarray,
        Q: np.ndarray | None,
    ) -> None:
        """P <- cos z, Q <- -sin z, E <- V P + c, column by column."""
        if NATIVE.dtype_reason(X.dtype.name):
            self._python(super().periodic, X, w, b, V, c, E=E, P=P, Q=Q)
            return
        (J, h), m, (given, unit, example) = w.shape, X.shape[1], self._inputs(X)
        written = (_by_columns(x, J, written=True) for x in (E, P, Q))
        arguments = given, rows(w), rows(b), _by_columns(V, J), _by_columns(c, J), *written
        counts = Blocks(J), h, V.shape[0] // J, m, unit, example
        self._run(f"periodic_{X.dtype.name}", *arguments, *counts, nanoseconds=SINE_PASSES * pass_time(P), examples=m)

    def periodic_vjp(
        self,
        dE: np.ndarray,
        X: np.ndarray,
        P: np.ndarray,
        Q: np.ndarray,
        V: np.ndarray,
        *,
        scale: np.ndarray | None,
        dw: np.ndarray,
        db: np.ndarray,
        dV: np.ndarray,
        dc: np.ndarray,
        accumulate: bool,
    ) -> None:
        """The derivatives by the tensors of ``periodic``, column by column."""
        if NATIVE.dtype_reason(X.dtype.name):
            out: dict[str, Any] = {"dw": dw, "db": db, "dV": dV, "dc": dc}
            self._python(super().periodic_vjp, dE, X, P, Q, V, scale=scale, accumulate=accumulate, **out)
            return
        (J, h), m, (given, unit, example) = dw.shape, X.shape[1], self._inputs(X)
        dE, P, Q = (x if x.flags.c_contiguous else self._contiguous(x) for x in (dE, P, Q))
        read = _by_columns(dE, J), given, *(_by_columns(x, J) for x in (P, Q, V)), scale
        written = (_by_columns(x, J, written=True) for x in (dw, db, dV, dc))
        counts = int(accumulate), Blocks(J), h, V.shape[0] // J, m, unit, example
        self._run(f"periodic_vjp_{X.dtype.name}", *read, *written, *counts, nanoseconds=4 * pass_time(P), examples=m)


def _by_columns(x: np.ndarray | None, J: int, *, written: bool = False) -> ArgumentSlice:
    """Sliced into the parts of J columns of the table."""
    return ArgumentSlice(x, 0 if x is None else x.nbytes // J, written)
