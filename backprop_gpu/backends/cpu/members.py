"""The native kernels for the weights of an ensemble's members (``native/cpu/members.h``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calls import Columns, Units, columns, pass_time, rows
from .recording import RecordingKernels
from .supports import NATIVE


class MemberKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def member_weights(self, W: np.ndarray, r: np.ndarray, s: np.ndarray | None, *, out: np.ndarray) -> None:
        """out <- diag(s) W diag(r), in one pass."""
        if NATIVE.dtype_reason(W.dtype.name):
            self._python(super().member_weights, W, r, s, out=out)
            return
        n, k = W.shape
        arguments = rows(W), r, rows(s), rows(out, written=True), Units(n), k
        self._run(f"member_weights_{W.dtype.name}", *arguments, nanoseconds=pass_time(W))

    def member_weights_vjp(
        self,
        G: np.ndarray,
        W: np.ndarray,
        r: np.ndarray,
        s: np.ndarray | None,
        *,
        dW: np.ndarray,
        dr: np.ndarray,
        ds: np.ndarray | None,
        accumulate: bool,
        accumulate_own: bool,
    ) -> None:
        """dW and dr in one pass over G and W, and ds in another."""
        if NATIVE.dtype_reason(W.dtype.name):
            how: dict[str, Any] = {"accumulate": accumulate, "accumulate_own": accumulate_own}
            self._python(super().member_weights_vjp, G, W, r, s, dW=dW, dr=dr, ds=ds, **how)
            return
        (n, k), dtype = W.shape, W.dtype.name
        given, written = (columns(G), columns(W), columns(r), s), (columns(dW, written=True), columns(dr, written=True))
        counts = int(accumulate), int(accumulate_own), n, Columns(k), k
        self._run(f"member_weights_vjp_{dtype}", *given, *written, *counts, nanoseconds=2 * pass_time(W))
        if ds is not None:
            arguments = rows(G), rows(W), r, rows(ds, written=True), int(accumulate_own), Units(n), k
            self._run(f"member_outputs_vjp_{dtype}", *arguments, nanoseconds=pass_time(W))
