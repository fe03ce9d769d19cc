"""The native kernels for parametric activations (``native/cpu/parametric.h``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...maths.activations import Activation
from ..protocol import Dropout
from .calls import Units, pass_time, rows
from .recording import RecordingKernels
from .supports import NATIVE


class ParametricKernels(RecordingKernels):
    """See ``protocol.Kernels`` for each operation's equation."""

    def _drop(self, A: np.ndarray, saved: Any, dropout: Dropout | None) -> None:
        """A, g' <- drop(A), drop(g'): of the set that has the kernel."""
        raise NotImplementedError

    def parametric(
        self,
        Z: np.ndarray,
        alpha: np.ndarray,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: np.ndarray,
        saved: Any,
        D: np.ndarray | None,
        S: np.ndarray | None,
    ) -> None:
        """A <- Z + alpha (g(Z) - Z) with D and S in one pass, then dropout."""
        dtype = Z.dtype.name
        if NATIVE.dtype_reason(dtype):
            self._python(super().parametric, Z, alpha, activation, dropout, A=A, saved=saved, D=D, S=S)
            return
        if NATIVE.layer_reason(dtype, activation):
            self._python(self._mix_by_formula, Z, alpha, activation, A, D, S)
        else:
            parameter = np.array([value for _, value in activation.parameters] or [0.0], dtype)
            written = (rows(x, written=True) for x in (A, D, S))
            arguments = rows(Z), rows(alpha), parameter, *written, Units(Z.shape[0]), Z.shape[1]
            cost: dict[str, Any] = {"nanoseconds": 4 * pass_time(Z), "examples": Z.shape[1]}
            self._run(f"parametric_{activation.name}_{dtype}", *arguments, **cost)
        if dropout is not None:  # A as a linear layer's, whose g' is 1
            linear = (
                rows(A, written=True),
                Units(A.shape[0]),
                A.shape[1],
                saved.parameter,
                rows(saved.derivative, written=True),
            )
            self._run(f"activate_identity_saves_{dtype}", *linear, nanoseconds=pass_time(A), examples=A.shape[1])
        self._drop(A, saved, dropout)

    def _mix_by_formula(
        self,
        Z: np.ndarray,
        alpha: np.ndarray,
        activation: Activation,
        A: np.ndarray,
        D: np.ndarray | None,
        S: np.ndarray | None,
    ) -> None:
        A[...] = self.mix(Z, alpha, activation, D, S)

    def parametric_vjp(
        self,
        dA: np.ndarray,
        D: np.ndarray,
        S: np.ndarray,
        alpha: np.ndarray,
        *,
        scale: np.ndarray | None,
        dZ: np.ndarray,
        dalpha: np.ndarray,
        db: np.ndarray,
        accumulate: bool,
        accumulate_b: bool,
    ) -> None:
        """dZ, dalpha and db in one pass over units."""
        if NATIVE.dtype_reason(dA.dtype.name):
            out: dict[str, Any] = {"dZ": dZ, "dalpha": dalpha, "db": db, "accumulate": accumulate}
            self._python(super().parametric_vjp, dA, D, S, alpha, scale=scale, accumulate_b=accumulate_b, **out)
            return
        (n, m), written = dA.shape, (rows(x, written=True) for x in (dZ, dalpha, db))
        given = (*(rows(x) for x in (dA, D, S, alpha)), scale, *written, int(accumulate), int(accumulate_b))
        self._run(f"parametric_vjp_{dA.dtype.name}", *given, Units(n), m, nanoseconds=4 * pass_time(dA), examples=m)
