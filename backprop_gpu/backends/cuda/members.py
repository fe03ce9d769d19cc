"""The CUDA kernels for the weights of an ensemble's members (``native/cuda/members.cu``)."""

from __future__ import annotations

from typing import Any

from ..._typing import Array
from .grids import sum_tiles, tiles
from .plan import CUDA
from .recording import RecordingKernels, dtype_name


class MemberKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def member_weights(self, W: Array, r: Array, s: Array | None, *, out: Array) -> None:
        """out <- diag(s) W diag(r)."""
        if reason := CUDA.dtype_reason(dtype_name(W)):
            self._falls_back("member_weights", reason)
            super().member_weights(W, r, s, out=out)
            return
        n, k = W.shape
        grid, width = tiles(k, n)
        self._run("member_weights", W, grid, W, r, s, out, n, k, width)

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
        """dW and dr in one pass over G and W, and ds in another."""
        if reason := CUDA.dtype_reason(dtype_name(W)):
            self._falls_back("member_weights_vjp", reason)
            how: dict[str, Any] = {"accumulate": accumulate, "accumulate_own": accumulate_own}
            super().member_weights_vjp(G, W, r, s, dW=dW, dr=dr, ds=ds, **how)
            return
        n, k = W.shape
        (across, _), width = sum_tiles(k, n)
        counts = int(accumulate), int(accumulate_own), n, k, width
        self._run("member_weights_vjp", W, (across, 1), G, W, r, s, dW, dr, *counts, self._partial(W, k, n))
        if ds is not None:
            (across, _), width = sum_tiles(n, k)
            how_many = int(accumulate_own), n, k, width
            self._run("member_outputs_vjp", W, (across, 1), G, W, r, ds, *how_many, self._partial(W, n, k))
