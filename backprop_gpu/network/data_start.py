"""Initial weights and biases from training rows (RealMLP): ``maths.initializers.on_data``, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._typing import Array
from ..errors import ConfigError, ShapeError
from ..maths.initializers import on_data
from ..maths.periodic import periodic
from ..maths.random import host_generator

if TYPE_CHECKING:
    from .dense_net import DenseNet

MOST_EXAMPLES = 1024  # enough for deviations; more rows are drawn from
STREAM = 5  # the part of the seed's randomness that this uses


def initialize_on_data(net: DenseNet, X: np.ndarray) -> None:
    """Give a network that is not trained yet weights and biases that suit the rows: see ``maths.initializers.on_data``.

    Of the output layer too. What comes before the first layer (scaling, periodic embeddings) keeps its start. Computed
    on the host in float64 from at most 1024 of the rows, so that every device starts alike.

    Parameters
    ----------
    net : DenseNet
        Each member of an ensemble with ``adapters="none"`` gets weights of its own.
    X : ndarray of shape (m, n_0)

    Raises
    ------
    ConfigError
        For a network with normalized layers, and for members that share weights.
    ShapeError
        For rows that are not the network's, or none.
    """
    if any(net.batch_norm):
        raise ConfigError("batch_norm scales what rows give by itself; leave it out, or do not initialize on data")
    if net.ensemble.adapted:
        raise ConfigError('members that share weights cannot be initialized on data; use adapters "none", or 1 member')
    X = np.asarray(X, np.float64)
    if X.ndim != 2 or X.shape[1] != net.sizes[0] or not len(X):
        raise ShapeError(f"rows of shape {X.shape} do not fit a network of {net.sizes[0]} inputs")
    rng = host_generator(net.seed, STREAM)
    if len(X) > MOST_EXAMPLES:
        X = X[np.sort(rng.choice(len(X), MOST_EXAMPLES, replace=False))]
    named = net.parameters()
    H = _entering(net, named, X.T)
    starts = [_member(net, named, H, rng) for _ in range(net.members)]
    for l in range(1, net.L + 1):
        named[f"W{l}"] = np.concatenate([W for W, _ in (start[l - 1] for start in starts)])
        named[f"b{l}"] = np.concatenate([b for _, b in (start[l - 1] for start in starts)])
    net.set_parameters(named)


def _entering(net: DenseNet, named: dict[str, np.ndarray], X: Array) -> Array:
    """What enters the first dense layer, (k, m)."""
    if "frequency0" in named:
        w, b, V, c = (named[f"{kind}0"].astype(np.float64) for kind in ("frequency", "phase", "mixing", "offset"))
        X = np.concatenate([X, periodic(np, X[: len(w)], w, b, V, c)[0]])
    return X * named["scale0"] if "scale0" in named else X


def _member(
    net: DenseNet, named: dict[str, np.ndarray], A: Array, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """W and b of each layer of one member."""
    found = []
    for l in range(1, net.L + 1):
        W, b = on_data(rng, net.sizes[l], A)
        found.append((W, b))
        if l < net.L:
            Z = W @ A + b
            A = net.activations[l].forward(np, Z)
            A = Z + named[f"alpha{l}"] * (A - Z) if net.parametric[l] else A
    return found
