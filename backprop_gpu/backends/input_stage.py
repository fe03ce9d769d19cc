"""The reference kernels before the first dense layer: ``out[...] = maths(...)``."""

from __future__ import annotations

from .._typing import Array, Namespace
from ..maths import periodic, scaling


def write(out: Array, value: Array, accumulate: bool) -> None:
    """Overwrite ``out`` or add to it."""
    out[...] = out + value if accumulate else value


class InputStageReference:
    """See ``protocol.Kernels`` for each operation's equation."""

    xp: Namespace

    def scaling(self, X: Array, s: Array, *, H: Array) -> None:
        """H <- s X."""
        H[...] = scaling.scaling(X, s)

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
        """dX <- s dH, if it is asked for;  ds <- (+) scale * sum over examples of dH X."""
        below, total = scaling.scaling_vjp(self.xp, dH, X, s)
        if dX is not None:
            dX[...] = below
        write(ds, total if scale is None else scale * total, accumulate)

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
        """For each of the first J inputs:  P <- cos z, Q <- -sin z with z = 2 pi w x + b;  E <- V P + c."""
        E[...], P[...], slope = periodic.periodic(self.xp, X[: w.shape[0], :], w, b, V, c)
        if Q is not None:
            Q[...] = slope

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
        """The derivatives of ``periodic`` by its tensors, each times ``scale``."""
        found = periodic.periodic_vjp(self.xp, dE, X[: dw.shape[0], :], P, Q, V)
        for out, total in zip((dw, db, dV, dc), found, strict=True):
            write(out, total if scale is None else scale * total, accumulate)
