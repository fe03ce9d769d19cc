"""Gradients with a mistake in them, made by a small backpropagation of its own: what ``diagnose`` has to find out.

NumPy alone, rows are examples; it shares nothing with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOSSES = ("binary_cross_entropy", "categorical_cross_entropy", "squared_error")
G: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0.0).astype(z.dtype)),
    "tanh": (np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    "sigmoid": (
        lambda z: 1.0 / (1.0 + np.exp(-z)),
        lambda z: 1.0 / (1.0 + np.exp(-z)) * (1.0 / (1.0 + np.exp(z))),
    ),
}


@dataclass
class Case:
    """A network, a batch and everything that belongs to its cost."""

    sizes: list[int]
    loss: str
    activation: str
    m: int
    seed: int = 0
    weighted: bool = False
    l2: float = 0.0
    keep_prob: float = 1.0
    dtype: str = "float64"
    scale: float = 1.0
    parameters: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.parameters = {}
        for l, (k, n) in enumerate(zip(self.sizes, self.sizes[1:], strict=False), start=1):
            self.parameters[f"W{l}"] = rng.normal(size=(n, k)) / np.sqrt(k) * 1.3 * self.scale
            self.parameters[f"b{l}"] = rng.normal(size=(n, 1)) * 0.3
        n = self.sizes[-1]
        self.X = rng.normal(size=(self.m, self.sizes[0]))
        if self.loss == "squared_error":
            self.y = rng.normal(size=(self.m, n))
        elif self.loss == "categorical_cross_entropy":
            self.y = np.eye(n)[rng.integers(0, n, self.m)]
        else:
            self.y = rng.integers(0, 2, (self.m, n)) * 1.0
        self.w = rng.uniform(0.5, 3.0, self.m) if self.weighted else np.ones(self.m)
        hidden = range(1, len(self.sizes) - 1)
        self.masks = {l: (rng.uniform(size=(self.m, self.sizes[l])) < self.keep_prob) * 1.0 for l in hidden}
        self.parameters = {name: x.astype(self.dtype) for name, x in self.parameters.items()}
        self.masks = {l: x.astype(self.dtype) for l, x in self.masks.items()}
        self.X, self.y, self.w = (x.astype(self.dtype) for x in (self.X, self.y, self.w))

    @property
    def L(self) -> int:
        return len(self.sizes) - 1

    def options(self) -> dict[str, Any]:
        """What ``diagnose`` is told of it."""
        told: dict[str, Any] = {"loss": self.loss, "activation": self.activation, "l2": self.l2}
        if self.weighted:
            told["sample_weight"] = self.w
        if self.keep_prob < 1.0:
            told |= {"masks": self.masks, "keep_prob": self.keep_prob}
        return told

    @np.errstate(over="ignore", invalid="ignore")  # of e^-z in a sigmoid at its end
    def gradient(self, **slip: Any) -> dict[str, np.ndarray]:
        """``dW1, db1, ...``, right but for the slips that are named."""
        P, L, kp = self.parameters, self.L, self.keep_prob
        g, slope = G[self.activation]
        rows = slip.get("rows", slice(None))
        X, y, w, D = self.X[rows], self.y[rows], self.w[rows], slip.get("D", float(self.w.sum()))
        A, Z = {0: X}, {}
        for l in range(1, L + 1):
            Z[l] = A[l - 1] @ P[f"W{l}"].T + P[f"b{l}"].T
            A[l] = g(Z[l])
            if l < L and kp < 1.0:
                A[l] = A[l] * self.masks[l][rows] / (1.0 if slip.get("never_scaled") else kp)
        out = Z[L]
        if self.loss == "squared_error":
            dZ = (out - y) / self.sizes[-1]
        elif self.loss == "binary_cross_entropy":
            a = G["sigmoid"][0](out)
            dZ = a - y
            if slip.get("output") == "literal":
                tiny = np.finfo(a.dtype).smallest_normal
                dZ = -(y / np.maximum(a, tiny) - (1.0 - y) / np.maximum(1.0 - a, tiny)) * (a * (1.0 - a))
            if slip.get("output") == "missing":
                dZ = -(y / a - (1.0 - y) / (1.0 - a))
            if slip.get("output") == "twice":
                dZ = dZ * a * (1.0 - a)
        else:
            e = np.exp(out - out.max(axis=1, keepdims=True))
            a = e / e.sum(axis=1, keepdims=True)
            dZ = a - y
            if slip.get("output") == "missing":
                dZ = -y / a
            if slip.get("output") == "twice":
                dZ = a * (dZ - (dZ * a).sum(axis=1, keepdims=True))
        dZ = dZ if slip.get("no_weights") else dZ * w[:, None]
        grads: dict[str, np.ndarray] = {}
        for l in range(L, 0, -1):
            if l < L:
                dA = dZ @ (P[f"W{l + 1}"].T if slip.get("no_transpose") == l + 1 else P[f"W{l + 1}"])
                dA = dA / D if slip.get("again") else dA
                if kp < 1.0 and slip.get("mask") != "missing":
                    dA = dA * self.masks[l][rows] / (1.0 if slip.get("mask") or slip.get("never_scaled") else kp)
                here = slip.get("slope_layer") in (None, l)
                kind = slip.get("slope") if here else None
                dZ = dA if kind == "missing" else dA * slope(g(Z[l]) if kind == "of A" else Z[l])
            left = A[l - 1]
            if slip.get("A") == "own" and slip.get("A_layer") == l:
                left = A[l]
            if slip.get("A") == "Z" and l > 1:
                left = Z[l - 1]
            grads[f"dW{l}"] = dZ.T @ left / D
            grads[f"db{l}"] = dZ.sum(axis=0)[:, None] / D
        strength = {"missing": 0.0, "twice": 2.0, "not over m": D, "subtracted": -1.0}.get(slip.get("l2", ""), 1.0)
        for l in range(1, L + 1):
            grads[f"dW{l}"] = grads[f"dW{l}"] + self.l2 / D * strength * P[f"W{l}"]
            if slip.get("l2") == "on biases":
                grads[f"db{l}"] = grads[f"db{l}"] + self.l2 / D * P[f"b{l}"]
        return grads


def times(grads: dict[str, np.ndarray], c: float, only: str = "WbW") -> dict[str, np.ndarray]:
    """Some of the gradients (``"W"``, ``"b"`` or both) times a number."""
    return {name: c * x if name[1] in only else x for name, x in grads.items()}


@dataclass(frozen=True)
class Seeded:
    """A mistake: the name that ``diagnose`` must give it first, how it is made, and what more diagnose is told."""

    name: str
    make: Callable[[Case], dict[str, np.ndarray]]
    told: dict[str, Any] = field(default_factory=dict)
    case: dict[str, Any] = field(default_factory=dict)
    possible: Callable[[Case], bool] = lambda case: True


def _parts(case: Case, sizes: list[int], weights: Callable[[int], float]) -> dict[str, np.ndarray]:
    ends = np.cumsum(sizes)
    pieces = [case.gradient(rows=slice(e - n, e), D=1.0 / weights(n)) for e, n in zip(ends, sizes, strict=True)]
    return {name: sum(p[name] for p in pieces) for name in pieces[0]}


def _uneven(case: Case) -> list[int]:
    return [case.m // 2, case.m // 3, case.m - case.m // 2 - case.m // 3]


def _over_units(case: Case, kinds: str, below: int) -> dict[str, np.ndarray]:
    """A_prev.shape[0] (``below`` 1) or dZ.shape[0] (0) in the place of m."""
    grads = case.gradient()
    return {
        name: x * case.m / case.sizes[int(name[2:]) - below] if name[1] in kinds else x for name, x in grads.items()
    }


def _transposed(case: Case) -> dict[str, np.ndarray]:
    grads = case.gradient()
    return grads | {"dW1": grads["dW1"].T}


SEEDED = (
    Seeded("1/m missing", lambda c: c.gradient(D=1.0)),
    Seeded("1/m twice", lambda c: times(c.gradient(), 1.0 / c.m)),
    Seeded("1/m missing", lambda c: times(c.gradient(), c.m, "b")),
    Seeded("1/m in every layer", lambda c: c.gradient(again=True), possible=lambda c: c.L > 1),
    Seeded("factor 2", lambda c: times(c.gradient(), 2.0)),
    Seeded("n_out", lambda c: times(c.gradient(), c.sizes[-1] if c.loss == "squared_error" else 1 / c.sizes[-1])),
    Seeded("sum of weights", lambda c: c.gradient(D=float(c.m)), case={"weighted": True}),
    Seeded("weights missing", lambda c: c.gradient(no_weights=True), case={"weighted": True}),
    Seeded("weights missing", lambda c: c.gradient(no_weights=True, D=float(c.m)), case={"weighted": True}),
    Seeded("ranks added", lambda c: times(c.gradient(), 3.0), told={"ranks": 3}),
    Seeded("ranks divided twice", lambda c: times(c.gradient(), 1 / 3), told={"ranks": 3}),
    Seeded("micro-batches added", lambda c: times(c.gradient(), 2.0), told={"micro_batches": 2}),
    Seeded(
        "micro-batches averaged",
        lambda c: _parts(c, _uneven(c), lambda n: 1 / (3 * n)),
        told={"micro_batches": "uneven"},
    ),
    Seeded("micro-batches added", lambda c: _parts(c, _uneven(c), lambda n: 1 / n), told={"micro_batches": "uneven"}),
    Seeded("one micro-batch", lambda c: c.gradient(rows=slice(c.m // 2)), told={"micro_batches": 2}),
    Seeded("sign", lambda c: times(c.gradient(), -1.0)),
    Seeded("transpose", _transposed),
    Seeded(
        "W not transposed",
        lambda c: c.gradient(no_transpose=2),
        possible=lambda c: c.L > 2 and c.sizes[1] == c.sizes[2],
    ),
    Seeded(
        "wrong A", lambda c: c.gradient(A="own", A_layer=2), possible=lambda c: c.L > 2 and c.sizes[1] == c.sizes[2]
    ),
    Seeded("wrong A", lambda c: c.gradient(A="Z"), possible=lambda c: c.L > 1),
    Seeded("g' missing", lambda c: c.gradient(slope="missing"), possible=lambda c: c.L > 1),
    Seeded("g' missing", lambda c: c.gradient(slope="missing", slope_layer=1), possible=lambda c: c.L > 1),
    Seeded("g' of A", lambda c: c.gradient(slope="of A"), possible=lambda c: c.activation != "relu" and c.L > 1),
    Seeded("g' missing", lambda c: c.gradient(output="missing"), possible=lambda c: c.loss != "squared_error"),
    Seeded("g' twice", lambda c: c.gradient(output="twice"), possible=lambda c: c.loss != "squared_error"),
    Seeded("dropout scale", lambda c: c.gradient(mask="unscaled"), case={"keep_prob": 0.8}),
    Seeded("dropout scale", lambda c: c.gradient(never_scaled=True), case={"keep_prob": 0.8}),
    Seeded("dropout mask missing", lambda c: c.gradient(mask="missing"), case={"keep_prob": 0.8}),
    Seeded("L2 on biases", lambda c: c.gradient(l2="on biases"), case={"l2": 0.7}),
    Seeded("L2 missing", lambda c: c.gradient(l2="missing"), case={"l2": 0.7}),
    Seeded("L2 twice", lambda c: c.gradient(l2="twice"), case={"l2": 0.7}),
    Seeded("L2 not over m", lambda c: c.gradient(l2="not over m"), case={"l2": 0.7}),
    Seeded("units for m", lambda c: _over_units(c, "Wb", 1), possible=lambda c: c.L > 1),
    Seeded("units for m", lambda c: _over_units(c, "W", 0), possible=lambda c: c.L > 1),
    Seeded("m - 1", lambda c: times(c.gradient(), c.m / (c.m - 1))),
    Seeded("1/m missing", lambda c: c.gradient(D=1.0, l2="x"), case={"l2": 0.7}),
)


def told(seeded: Seeded, case: Case) -> dict[str, Any]:
    """Everything that ``diagnose`` is told."""
    more = dict(seeded.told)
    if more.get("micro_batches") == "uneven":
        more["micro_batches"] = _uneven(case)
    return case.options() | more
