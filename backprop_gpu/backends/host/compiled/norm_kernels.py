"""The two operations of batch normalization of ``CompiledKernels``, which gives them the calling and recording."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....maths.activations import Activation
from ...protocol import Dropout
from ..kernels import HostKernels, HostSaved
from . import layers, norms


class NormKernels(HostKernels):
    """Float32 where the layer's ``saved`` is of the compiled kind, NumPy's kernels elsewhere."""

    def _run(self, kernel: Any, *arguments: int | np.ndarray | None) -> None:
        raise NotImplementedError

    def _fall_back(self) -> None:
        raise NotImplementedError

    def _scratch_of(self, m: int) -> np.ndarray:
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
        n, m = Z.shape
        self._run(
            norms.batch_norm,
            *(Z, gamma, beta, self._contiguous(weights), mean, variance, A, X, inverse_std, n, m),
            self._scratch_of(m)[0],
        )
        self._run(
            norms.activate,
            *(0, 0, 0, 0, 0, A, n, 0, m, layers.CODES[activation.name], saved.parameter, saved.derivative, saved.kept),
            *(None if dropout is None else dropout.step, saved.key, saved.scale, saved.words),
            None if dropout is None else dropout.first,
        )

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
        if dU.dtype != np.float32:
            self._fall_back()
            out: dict[str, Any] = {"scale": scale, "dZ": dZ, "dgamma": dgamma}
            super().batch_norm_vjp(dU, X, inverse_std, gamma, weights, accumulate=accumulate, **out)
            return
        n, m = dU.shape
        self._run(
            norms.batch_norm_vjp,
            *(dU, X, inverse_std, gamma, self._contiguous(weights), scale, dZ, dgamma, int(accumulate), n, m),
            self._scratch_of(m)[0],
        )

    def _contiguous(self, weights: np.ndarray | None) -> np.ndarray | None:
        if weights is None or weights.flags.c_contiguous:
            return weights
        self._fall_back()
        return np.ascontiguousarray(weights)
