"""Networks with more than dense layers, as the network of dense layers that the pages show: every dW and db is theirs.

What comes before the first layer is a part of the inputs, a parametric activation is an activation whose alpha is kept,
and of an ensemble one member is shown, with the weights that it computes with.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._typing import Array, Namespace
from ..maths.activations import Activation
from ..maths.periodic import periodic
from ..network.dense_net import DenseNet
from .chain import Tensors

ALPHA = "_α"


def plain(net: DenseNet) -> tuple[Tensors, list[Activation], list[str]]:
    """W1, b1, ... in float64, the activations of the hidden layers, and what of the network is shown otherwise."""
    held = {name: value.astype(np.float64) for name, value in net.parameters().items()}
    layers = range(1, net.L + 1)
    named = {f"{kind}{l}": _of_first_member(net, held, kind, l) for l in layers for kind in "Wb"}
    hidden = [_activation(net, held, l) for l in layers[:-1]]
    notes = []
    if net.members > 1:
        notes.append(f"Member 1 of {net.members} is shown, with its factors in its weights; J of all is the mean.")
    if net.inputs.there:
        embedded = ", with their periodic embeddings" if "frequency0" in held else ""
        scaled = ", each times its scale" if "scale0" in held else ""
        notes.append(f"The inputs are shown as they enter the first layer{embedded}{scaled}.")
    if any(net.parametric):
        notes.append(f"g{ALPHA}(Z) = Z + α ⊙ (g(Z) - Z) is a parametric activation g; its dα is left out.")
    return named, hidden, notes


def entering(net: DenseNet, X: np.ndarray) -> np.ndarray:
    """What the first layer gets of inputs X (n_0, m): H = s ⊙ [X; E]."""
    held = {name: value.astype(np.float64) for name, value in net.parameters().items() if name.endswith("0")}
    if "frequency0" in held:
        w, b, V, c = (held[name] for name in ("frequency0", "phase0", "mixing0", "offset0"))
        X = np.concatenate([X, periodic(np, X[: len(w)], w, b, V, c)[0]])
    return X * held["scale0"] if "scale0" in held else X


def names_of_entering(names: Sequence[str], width: int) -> tuple[str, ...]:
    """A name for each row of what the first layer gets."""
    return (*names, *(f"embedding {j + 1}" for j in range(width - len(names)))) if names else ()


def _of_first_member(net: DenseNet, held: Tensors, kind: str, l: int) -> np.ndarray:
    """W or b of a layer."""
    value = held[f"{kind}{l}"][: net.sizes[l]]
    if kind == "W" and f"R{l}" in held:
        value = value * held[f"R{l}"][:1]
    return value * held[f"S{l}"][0][:, None] if kind == "W" and f"S{l}" in held else value


def _activation(net: DenseNet, held: Tensors, l: int) -> Activation:
    g = net.activations[l]
    if f"alpha{l}" not in held:
        return g
    own: dict[str, Any] = {"g": g, "alpha": held[f"alpha{l}"]}
    return Activation(g.name + ALPHA, functools.partial(_mixed, **own), functools.partial(_mixed_vjp, **own))


def _mixed(xp: Namespace, Z: Array, *, g: Activation, alpha: Array) -> Array:
    return Z + alpha * (g.forward(xp, Z) - Z)


def _mixed_vjp(xp: Namespace, dA: Array, Z: Array, A: Array, *, g: Activation, alpha: Array) -> Array:
    slope = g.vjp(xp, 0.0 * Z + 1.0, Z, g.forward(xp, Z))
    return dA * (1.0 + alpha * (slope - 1.0))
