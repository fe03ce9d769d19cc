"""The native kernels before the first dense layer (``native/cpu/input_stage.h``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import ArgumentSlice, Units, columns, pass_time, rows
from .recording import RecordingKernels
from .supports import NATIVE


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
