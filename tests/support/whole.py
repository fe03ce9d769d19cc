"""A whole gradient in float64 with bounds: forward and backward from end to end, nothing recorded in between.

The bounds compound from layer to layer, which makes them useless as tolerances of a device (parity judges step by step
instead) but exact enough to say that two ways of computing one gradient in float64 agree to eleven digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backprop_gpu.parity.oracle import layers, losses
from backprop_gpu.parity.oracle.bounds import Bounded, Bounds
from backprop_gpu.parity.oracle.operations import sum_over

Named = tuple[str, Mapping[str, float]]


def gradient(
    B: Bounds,
    parameters: Mapping[str, np.ndarray],
    activations: Sequence[Named],
    loss: Named,
    X: np.ndarray,
    Y: np.ndarray,
    w: np.ndarray | None = None,
    *,
    late: bool = False,
    form: str = "fused",
    D: float | None = None,
    micro_batch: int | None = None,
    masks: Mapping[int, tuple[np.ndarray, float]] | None = None,
) -> dict[str, Bounded]:
    """``{"W1": dJ/dW1, "b1": ..., ..., "J": J}``; Y is (n_L, m), ``masks`` are dropout's (mask, rate) by layer."""
    m, masks = X.shape[1], masks or {}
    total = D if D is not None else float(m) if w is None else float(w.sum(dtype=np.float64))
    # The weights' own sum may be rounded by the device; where D is given, or is m, it is not.
    rounded = B.gamma(m) if D is None and w is not None else 0.0
    inverse = Bounded(B, np.array([1.0 / total]), 1.0 / total, r=B.rounding + rounded * 1.01, a=B.eta)
    names, size = ["identity", *(name for name, _ in activations), "identity"], micro_batch or m
    settings = [{}, *(dict(p) for _, p in activations), {}]
    L = len(activations) + 1
    p = {name: B.given(x) for name, x in parameters.items()}
    out: dict[str, Bounded] = {"J": B.given(np.zeros(1))}
    for start in range(0, m, size):
        part = slice(start, min(start + size, m))
        weights = None if w is None else w[:, part]
        Z, G, A = [None], [None], [B.given(X[:, part])]
        cut = {l: (mask[:, part], rate) for l, (mask, rate) in masks.items()}
        for l in range(1, L + 1):
            Z.append(p[f"W{l}"] @ A[-1] + p[f"b{l}"])
            G.append(layers.activation(B, names[l], settings[l], Z[l]))
            A.append(layers.dropped(B, G[l], *cut.get(l, (None, 0.0))))
        y = B.given(Y[:, part])
        out["J"] = losses.cost(losses.weighted_loss(B, *loss, Z[L], y, weights), inverse, out["J"])
        dZ = losses.output_delta(B, *loss, form, Z[L], y, weights, None if late else inverse)
        scale = inverse if late else None
        for l in range(L, 0, -1):
            out[f"b{l}"] = _added(sum_over(dZ, axis=1), scale, out.get(f"b{l}"))
            out[f"W{l}"] = _added(dZ @ A[l - 1].T, scale, out.get(f"W{l}"))
            if l > 1:
                dA = layers.dropped(B, p[f"W{l}"].T @ dZ, *cut.get(l - 1, (None, 0.0)))
                dZ = layers.activation_vjp(B, names[l - 1], settings[l - 1], dA, Z[l - 1], G[l - 1])
    return out


def _added(x: Bounded, scale: Bounded | None, old: Bounded | None) -> Bounded:
    """(old +) scale x."""
    x = x if scale is None else scale * x
    return x if old is None else old + x


def agree(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], *allowed: Mapping[str, Bounded]) -> None:
    """Both evaluations are as near to each other as the sum of their bounds (one given twice if they share it)."""
    assert one.keys() == other.keys()
    for name, x in one.items():
        bound = sum((a[name].errors() for a in (allowed if len(allowed) > 1 else allowed * 2)), start=np.zeros(1))
        assert np.isfinite(bound).all(), f"the bound of {name} decides nothing"
        gap = np.abs(x.astype(np.float64) - other[name])
        assert (gap <= bound * (1.0 + 2.0**-30)).all(), f"{name} differs by {gap.max():.3g}, bound {bound.max():.3g}"
