"""The gradient once more, rightly or with one slip: what a wrong gradient is compared with.

Examples are columns. The chain is that of ``chain.backward``, with example weights, dropout masks and an L2 penalty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from .._typing import Namespace
from ..maths.dense import dense, dense_vjp_bias, dense_vjp_input, dense_vjp_weights
from ..maths.ledger import Denominator, weigh
from .chain import Network, Tensors

EVERY = 0  # the slip is in every layer


@dataclass(frozen=True)
class Given:
    """What a gradient is of.

    Attributes
    ----------
    net : Network
    X, Y : ndarray
        (n_0, m), (n_L, m).
    D : float
        The cost's denominator: m, or the sum of the weights.
    weights : ndarray or None
        (1, m); the cost is then sum w L / sum w.
    l2 : float
        The penalty l2/(2 D) sum W^2 (the course's lambd).
    masks : dict
        ``{l: (n_l, m)}`` of 0 and 1: which units dropout kept.
    keep_prob : float
        Kept units are divided by it.
    """

    net: Network
    X: Any
    Y: Any
    D: float
    weights: Any = None
    l2: float = 0.0
    masks: dict[int, Any] = field(default_factory=dict)
    keep_prob: float = 1.0

    @property
    def m(self) -> int:
        """The number of examples."""
        return int(self.X.shape[1])

    def take(self, columns: slice) -> Given:
        """The same for some of the examples, with a denominator of their own."""
        X, weights = self.X[:, columns], None if self.weights is None else self.weights[:, columns]
        masks, D = {l: mask[:, columns] for l, mask in self.masks.items()}, denominator(X.shape[1], weights)
        return replace(self, X=X, Y=self.Y[:, columns], D=D, weights=weights, masks=masks)


def denominator(m: int, weights: np.ndarray | None) -> float:
    """m, or the sum of the weights."""
    return Denominator.of("mean", m, None if weights is None else float(np.sum(weights))).value


@dataclass(frozen=True)
class Slip:
    """One way to go wrong; as it stands, none.

    Attributes
    ----------
    layer : int
        Where the slip is, ``EVERY`` for all layers that can have it.
    slope : {"right", "missing", "of A"}
        g' of a hidden layer left out, or taken of A in place of Z.
    output : {"right", "missing", "twice", "literal"}
        g' of the last layer left out (dZ = dAL), or multiplied on though dZ = AL - Y has it; "literal": dZ = dAL g'(Z),
        which is the same number but where AL is 0 or 1 to the last digit.
    A : {"right", "own", "Z", "X"}
        What dW is made of in place of A of the layer before: the layer's own A, Z of the layer before, or X.
    W : {"right", "transposed"}
        dA by W in place of W^T.
    again : bool
        dA divided by D once more in every layer on the way down.
    weights : {"right", "missing", "unweighted"}
        Example weights forgotten where the losses are added up; "unweighted": in the denominator too.
    masks : {"right", "missing", "not scaled", "never scaled"}
        Dropout forgotten in the backward pass, or there without 1/keep_prob; or without it both ways.
    penalty : {"right", "missing", "twice", "not over m", "on biases", "subtracted"}
        What is wrong with the penalty's part.
    """

    layer: int = EVERY
    slope: str = "right"
    output: str = "right"
    A: str = "right"
    W: str = "right"
    again: bool = False
    weights: str = "right"
    masks: str = "right"
    penalty: str = "right"

    def at(self, name: str, l: int) -> Any:
        """The setting in layer l."""
        value = getattr(self, name)
        return value if self.layer in (EVERY, l) else "right"


RIGHT = Slip()
SLIPS: dict[str, tuple[str, ...]] = {
    "slope": ("missing", "of A"),
    "output": ("missing", "literal", "twice"),
    "A": ("own", "Z", "X"),
    "W": ("transposed",),
    "weights": ("unweighted", "missing"),
    "masks": ("missing", "not scaled", "never scaled"),
    "penalty": ("missing", "twice", "not over m", "on biases", "subtracted"),
}
OF_A_LAYER = ("slope", "A", "W", "masks")


def slips(given: Given) -> Iterator[Slip]:
    """Every slip that these data can tell of: in all layers first, then in one."""
    assert {f.name for f in fields(Slip)} == {"layer", "again", *SLIPS}
    L = given.net.L
    if L > 1:
        yield Slip(again=True)
    absent = {"weights": given.weights is None, "masks": not given.masks, "penalty": not given.l2}
    named = [(name, kind) for name, kinds in SLIPS.items() if not absent.get(name) for kind in kinds]
    for name, kind in named:
        # Of two layers only one has such a slip: the hidden one its slope and mask, the last one its operands.
        layer = EVERY if L != 2 or kind == "own" else {"slope": 1, "masks": 1, "A": 2, "W": 2}.get(name, EVERY)
        yield Slip(layer=EVERY if kind == "never scaled" else layer, **{name: kind})  # type: ignore[arg-type]
    for name, kind in named:
        for l in range(L, 0, -1) if name in OF_A_LAYER and L > 1 else ():
            yield Slip(layer=l, **{name: kind})  # type: ignore[arg-type]


def forward(given: Given, xp: Namespace = np, slip: Slip = RIGHT) -> dict[str, Any]:
    """``A0, Z1, A1, ..., ZL, AL``, and as ``g1``, ... the activations before dropout."""
    net, found = given.net, {"A0": given.X}
    scale = 1.0 if slip.masks == "never scaled" else 1.0 / given.keep_prob
    for l, g in enumerate(net.activations, start=1):
        Z = dense(xp, net.parameters[f"W{l}"], found[f"A{l - 1}"], net.parameters[f"b{l}"])
        A = g.forward(xp, Z)
        found |= {f"Z{l}": Z, f"g{l}": A, f"A{l}": A * given.masks[l] * scale if l in given.masks else A}
    return found


def gradients(given: Given, xp: Namespace = np, slip: Slip = RIGHT) -> dict[str, Any]:
    """``dW1, db1, ...``; dZ[L] is computed from the logits, which is right for any of them."""
    net, found, grads = given.net, forward(given, xp, slip), {}
    L, inverse = net.L, 1.0 / (given.m if slip.weights == "unweighted" else given.D)
    dA = net.loss.literal_dAL(xp, found[f"A{L}"], given.Y)
    for l in range(L, 0, -1):
        dZ = _dZ(given, xp, slip, found, dA, l)
        if l == L and slip.weights == "right":
            dZ = weigh(xp, given.weights, dZ)
        A_prev = _operand(found, slip, l)
        grads[f"dW{l}"] = inverse * dense_vjp_weights(xp, dZ, A_prev)
        grads[f"db{l}"] = inverse * dense_vjp_bias(xp, dZ)
        if l > 1:
            W = net.parameters[f"W{l}"]
            transposed = slip.at("W", l) == "transposed" and W.shape[0] == W.shape[1]
            dA = dense_vjp_input(xp, W.T if transposed else W, dZ)
            dA = inverse * dA if slip.again else dA
    return _penalized(given, slip, grads)


def _dZ(given: Given, xp: Namespace, slip: Slip, found: dict[str, Any], dA: Any, l: int) -> Any:
    """dZ of layer l from its dA (of the last layer: from dAL, or from the logits)."""
    g, Z, A = given.net.activations[l - 1], found[f"Z{l}"], found[f"g{l}"]
    if l == given.net.L:
        if slip.output == "missing":
            return dA
        if slip.output == "twice":
            return g.vjp(xp, given.net.loss.delta(xp, Z, given.Y), Z, A)
        return g.vjp(xp, dA, Z, A) if slip.output == "literal" else given.net.loss.delta(xp, Z, given.Y)
    if l in given.masks and (kind := slip.at("masks", l)) != "missing":
        scale = 1.0 if kind in ("not scaled", "never scaled") else 1.0 / given.keep_prob
        dA = dA * given.masks[l] * scale
    slope = slip.at("slope", l)
    if slope == "missing":
        return dA
    return g.vjp(xp, dA, A, g.forward(xp, A)) if slope == "of A" else g.vjp(xp, dA, Z, A)


def _operand(found: dict[str, Any], slip: Slip, l: int) -> Any:
    """What dZ[l] is multiplied with for dW[l]; a slip is left out where its shape does not fit."""
    right = found[f"A{l - 1}"]
    name = {"own": f"A{l}", "Z": f"Z{l - 1}", "X": "A0"}.get(slip.at("A", l), "")
    other = found.get(name)
    return right if other is None or other.shape != right.shape else other


def _penalized(given: Given, slip: Slip, grads: dict[str, Any]) -> dict[str, Any]:
    if not given.l2:
        return grads
    strength = given.l2 / given.D
    factor = {"missing": 0.0, "twice": 2.0, "not over m": given.D, "subtracted": -1.0}.get(slip.penalty, 1.0)
    for name, value in given.net.parameters.items():
        if name[0] == "W" or slip.penalty == "on biases":
            grads[f"d{name}"] = grads[f"d{name}"] + (strength * factor) * value
    return grads


def without_penalty(given: Given) -> Tensors:
    """The gradient of the losses alone."""
    return gradients(replace(given, l2=0.0))
