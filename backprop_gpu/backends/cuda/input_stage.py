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
