"""The CUDA kernels for parametric activations (``native/cuda/parametric.cu``)."""

from __future__ import annotations

from typing import Any

from ..._typing import Array
from ...maths.activations import Activation
from .. import formula_ids
from ..protocol import Dropout
from .grids import sum_tiles, tiles
from .plan import CUDA
from .recording import RecordingKernels, dtype_name


class ParametricKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def _drop_linear(self, raw: Array, A: Array, saved: Any, dropout: Dropout | None) -> None:
        """A <- drop(raw), with what the identity saves; of the set that has the dropout kernel."""
        raise NotImplementedError

    def _undropped(self, A: Array, saved: Any) -> Array:
        """The buffer of what is dropped, A itself without dropout; of that set, too."""
        raise NotImplementedError

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
        """A <- Z + alpha (g(Z) - Z) with D and S in one pass, then dropout."""
        if reason := CUDA.dtype_reason(dtype_name(Z)):
            self._falls_back("parametric", reason)
            super().parametric(Z, alpha, activation, dropout, A=A, saved=saved, D=D, S=S)
            return
        raw = self._undropped(A, saved)
        if reason := CUDA.layer_reason(dtype_name(Z), activation):
            self._falls_back("parametric", reason)
            raw[...] = self.mix(Z, alpha, activation, D, S)
        else:
            grid, width = tiles(*Z.shape)
            how = formula_ids.ACTIVATION_IDS[activation.name], next((float(v) for _, v in activation.parameters), 0.0)
            written = self._matrix(raw), self._matrix(D), self._matrix(S)
            self._run("parametric_forward", Z, grid, self._matrix(Z), alpha, *how, *written, *Z.shape, width)
        self._drop_linear(raw, A, saved, dropout)

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
        """dZ, dalpha and db in one pass over units."""
        if reason := CUDA.dtype_reason(dtype_name(dA)):
            self._falls_back("parametric_vjp", reason)
            out: dict[str, Any] = {"dZ": dZ, "dalpha": dalpha, "db": db, "accumulate": accumulate}
            super().parametric_vjp(dA, D, S, alpha, scale=scale, accumulate_b=accumulate_b, **out)
            return
        n, m = dA.shape
        (across, _), width = sum_tiles(n, m)
        given = self._matrix(dA), self._matrix(D), self._matrix(S), alpha, scale, self._matrix(dZ)
        counts = int(accumulate), int(accumulate_b), n, m, width, self._partial(dA, n, m)
        self._run("parametric_vjp", dA, (across, 1), *given, dalpha, db, *counts)
