"""The CUDA kernels before the first dense layer (``native/cuda/input_stage.cu``)."""

from __future__ import annotations

from typing import Any

from ..._typing import Array
from .grids import sum_tiles, tiles
from .plan import CUDA
from .recording import RecordingKernels, dtype_name


class InputStageKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def scaling(self, X: Array, s: Array, *, H: Array) -> None:
        """H <- s X."""
        if reason := CUDA.dtype_reason(dtype_name(X)):
            self._falls_back("scaling", reason)
            super().scaling(X, s, H=H)
            return
        grid, width = tiles(*X.shape)
        self._run("scaling_forward", X, grid, self._matrix(X), s, self._matrix(H), *X.shape, width)

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
        """dX <- s dH;  ds <- (+) scale * sum dH X, in one pass."""
        if reason := CUDA.dtype_reason(dtype_name(X)):
            self._falls_back("scaling_vjp", reason)
            how: dict[str, Any] = {"scale": scale, "dX": dX, "ds": ds, "accumulate": accumulate}
            super().scaling_vjp(dH, X, s, **how)
            return
        k, m = X.shape
        (across, _), width = sum_tiles(k, m)
        given = self._matrix(dH), self._matrix(X), s, scale
        counts = int(accumulate), k, m, width, self._partial(X, k, m)
        self._run("scaling_vjp", X, (across, 1), *given, self._matrix(dX), ds, *counts)

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
        """P <- cos z, Q <- -sin z;  E <- V P + c."""
        if reason := CUDA.dtype_reason(dtype_name(X)):
            self._falls_back("periodic", reason)
            super().periodic(X, w, b, V, c, E=E, P=P, Q=Q)
            return
        (J, h), outputs, m = w.shape, V.shape[0], X.shape[1]
        grid, width = tiles(J * h, m)
        of_waves = self._matrix(X), w, b, self._matrix(P), self._matrix(Q)
        self._run("periodic_waves", X, grid, *of_waves, h, J * h, m, width)
        grid, width = tiles(outputs, m)
        of_outputs = self._matrix(P), V, c, self._matrix(E)
        self._run("periodic_outputs", X, grid, *of_outputs, h, outputs // J, outputs, m, width)

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
        """The derivatives by the tensors of ``periodic``: of offset, mixing, and frequencies with phases."""
        if reason := CUDA.dtype_reason(dtype_name(X)):
            self._falls_back("periodic_vjp", reason)
            out: dict[str, Any] = {"dw": dw, "db": db, "dV": dV, "dc": dc}
            super().periodic_vjp(dE, X, P, Q, V, scale=scale, accumulate=accumulate, **out)
            return
        (J, h), outputs, m = dw.shape, V.shape[0], X.shape[1]
        n, how = outputs * h, (int(accumulate), h, outputs // J)
        grid, width = sum_tiles(outputs, m)
        sums = self._partial(X, outputs, m), self._counters(grid[0]), scale, dc, int(accumulate)
        self._run("bias_gradient", X, grid, self._matrix(dE), outputs, m, width, *sums)
        (across, _), width = sum_tiles(n, m)
        given = self._matrix(dE), self._matrix(P), scale
        self._run("periodic_vjp_mixing", X, (across, 1), *given, dV, *how, n, m, width, self._partial(X, n, m))
        (across, _), width = sum_tiles(J * h, m)
        read = self._matrix(dE), self._matrix(X), self._matrix(Q), V, scale
        own = J * h, m, width, self._partial(X, J * h, m)
        self._run("periodic_vjp_waves", X, (across, 1), *read, dw, db, *how, *own)
