"""The two operations of batch normalization of ``CudaKernels``: there are no CUDA kernels for them yet."""

from __future__ import annotations

from typing import Any

from ..._typing import Array
from ...maths.activations import Activation
from ..protocol import Dropout
from ..reference import ReferenceKernels
from . import codes


class NormKernels(ReferenceKernels):
    """The reference's on CuPy, with the reason."""

    def _falls_back(self, operation: str, reason: str) -> None:
        raise NotImplementedError

    def batch_norm(
        self,
        Z: Array,
        gamma: Array,
        beta: Array,
        activation: Activation,
        dropout: Dropout | None,
        weights: Array | None,
        *,
        mean: Array,
        variance: Array,
        A: Array,
        saved: Any,
        X: Array | None,
        inverse_std: Array | None,
    ) -> None:
        """A <- drop(g(gamma X + beta)), X <- (Z - mu) r: the reference's, which leaves its arrays in ``saved``."""
        self._falls_back("batch_norm", codes.NO_BATCH_NORM)
        super().batch_norm(
            *(Z, gamma, beta, activation, dropout, weights),
            mean=mean,
            variance=variance,
            A=A,
            saved=saved,
            X=X,
            inverse_std=inverse_std,
        )

    def batch_norm_vjp(
        self,
        dU: Array,
        X: Array,
        inverse_std: Array,
        gamma: Array,
        weights: Array | None,
        *,
        scale: Array | None,
        dZ: Array,
        dgamma: Array,
        accumulate: bool,
    ) -> None:
        """dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum dU X: the reference's."""
        self._falls_back("batch_norm_vjp", codes.NO_BATCH_NORM)
        out: dict[str, Any] = {"scale": scale, "dZ": dZ, "dgamma": dgamma}
        super().batch_norm_vjp(dU, X, inverse_std, gamma, weights, accumulate=accumulate, **out)
