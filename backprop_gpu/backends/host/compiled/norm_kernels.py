"""The two operations of batch normalization of ``CompiledKernels``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....maths.activations import Activation
from ...protocol import Dropout
from ..kernels import HostSaved
from . import norms
from .calling import REALS
from .recorder import RecordingKernels
from .recording import Cut, Units, pass_time, rows, shares


class NormKernels(RecordingKernels):
    """Compiled where the layer's ``saved`` is, NumPy's kernels elsewhere."""

    def _dropped(self, A: np.ndarray, saved: Any, dropout: Dropout | None) -> None:
        raise NotImplementedError

    def batch_norm(
        self,
        Z: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        activation: Activation,
        dropout: Dropout | None,
        weights: np.ndarray | None,
        *,
        mean: np.ndarray,
        variance: np.ndarray,
        A: np.ndarray,
        saved: Any,
        X: np.ndarray | None,
        inverse_std: np.ndarray | None,
    ) -> None:
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r by the batch's statistics, or by those that are given."""
        if isinstance(saved, HostSaved):
            self._fall_back()
            out: dict[str, Any] = {"mean": mean, "variance": variance, "A": A, "saved": saved}
            out |= {"X": X, "inverse_std": inverse_std}
            super().batch_norm(Z, gamma, beta, activation, dropout, weights, **out)
            return
        (n, m), variant = A.shape, (A.dtype.name, activation.name, saved.derivative is not None)
        kept, given = (saved.parameter, rows(saved.derivative, written=True)), (rows(gamma), rows(beta))
        if X is None or inverse_std is None:
            self._run(
                norms.inference(*variant),
                *(rows(Z), *given, rows(mean), rows(variance), rows(A, written=True), Units(n), m, *kept),
                nanoseconds=pass_time(A),
            )
        else:
            counted, written = self._counted(weights, m, A.dtype), (mean, variance, A, X, inverse_std)
            self._run(
                norms.batch_norm(*variant),
                *(rows(Z), *given, counted, *(rows(x, written=True) for x in written), Units(n), m),
                *(self._shares(m, A.dtype), *kept),
                nanoseconds=4 * pass_time(A),
            )
        self._dropped(A, saved, dropout)

    def batch_norm_vjp(
        self,
        dU: np.ndarray,
        X: np.ndarray,
        inverse_std: np.ndarray,
        gamma: np.ndarray,
        weights: np.ndarray | None,
        *,
        scale: np.ndarray | None,
        dZ: np.ndarray,
        dgamma: np.ndarray,
        accumulate: bool,
    ) -> None:
        """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X."""
        if dU.dtype.name not in REALS:
            self._fall_back()
            out: dict[str, Any] = {"scale": scale, "dZ": dZ, "dgamma": dgamma}
            super().batch_norm_vjp(dU, X, inverse_std, gamma, weights, accumulate=accumulate, **out)
            return
        n, m = dU.shape
        counted = self._counted(weights, m, dU.dtype)
        self._run(
            norms.batch_norm_vjp(dU.dtype.name),
            *(rows(dU), rows(X), rows(inverse_std), rows(gamma), counted, scale, rows(dZ, written=True)),
            *(rows(dgamma, written=True), int(accumulate), Units(n), m, self._shares(m, dU.dtype)),
            nanoseconds=4 * pass_time(dU),
        )

    def _shares(self, m: int, dtype: np.dtype) -> Cut:
        """Room for the examples' shares of the weight, for each part of a call."""
        return shares(np.zeros((self._crew.size, m), dtype))

    def _counted(self, weights: np.ndarray | None, m: int, dtype: np.dtype) -> np.ndarray:
        """The weights as a kernel takes them: contiguous, all 1 where none are given."""
        if weights is None:
            return self._calls.ones((1, m), dtype)
        if weights.flags.c_contiguous:
            return weights
        self._fall_back()
        return self._contiguous(weights, dtype)
