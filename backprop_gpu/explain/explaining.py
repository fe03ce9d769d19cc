"""From what the reader has (sizes, a network, the course's parameters, rows) to an :class:`Explanation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..maths.losses import Loss, get_loss
from ..network.dense_net import DenseNet
from ..network.settings import check_sizes, per_layer_activations
from ..network.targets import check_rows, check_targets
from .chain import Network, Tensors, forward
from .explanation import Explanation
from .plain import entering, names_of_entering, plain

MOST_LAYERS, MOST_PARAMETERS = 6, 2500
MOST_ROWS, FEW_ROWS, LARGE = 16, 8, 300  # rows that are shown; of a network with more than LARGE parameters, FEW_ROWS

# The network and the eight rows that are shown to who brings none: [2, 3, 1], numbers that can be checked by hand.
_W1, _b1 = [[0.5, -0.4], [-0.3, 0.8], [0.7, 0.2]], [[0.1], [-0.2], [0.0]]
_W2, _b2 = [[0.6, -0.9, 0.4]], [[0.1]]
_X = [[0.5, 1.0], [-1.0, 0.2], [2.0, -1.0], [1.5, 0.5], [-0.5, -1.5], [0.3, 1.2], [-1.2, -0.4], [1.0, 2.0]]
_Y = [0, 1, 1, 1, 0, 0, 1, 1]


def explain(
    model: DenseNet | Mapping[str, Any] | Sequence[int] | None = None,
    X: Any = None,
    y: Any = None,
    *,
    rows: int | None = None,
    split: Sequence[int] | None = None,
    loss: str | dict[str, Any] | Loss = "binary_cross_entropy",
    activation: Any = "relu",
    seed: int = 0,
    title: str | None = None,
    feature_names: Sequence[str] = (),
) -> Explanation:
    """Where the 1/m goes: the whole chain of a small network and batch, with every place where the 1/m can enter.

    Parameters
    ----------
    model : DenseNet, mapping, sequence of int, or None
        A network; the course's parameters ``{"W1": (n_1, n_0), "b1": (n_1, 1), ...}``; sizes such as ``[2, 3, 1]``,
        whose weights are drawn; None: a network [2, 3, 1] with rows of its own. Of an ensemble the first member is
        shown, of input scaling and periodic embeddings what they make of the inputs.
    X, y : array (n_samples, n_features), (n_samples,) or (n_samples, n_outputs)
        Rows are examples. Without X, rows are drawn. The first 16 are taken, or 8 with more than 300 parameters.
    rows : int, default 4
        m: how many of them are the batch at first. The page's slider goes up to all of them.
    split : sequence of int, default (m - 1, 1)
        The sizes of the parts (micro-batches, ranks) that the batch is cut into at first.
    loss, activation
        As of :class:`~backprop_gpu.DenseNet`, where ``model`` is not one.
    seed : int, default 0
        Of what is drawn.
    title : str, optional
        Of the page.
    feature_names : sequence of str, optional
        Of the columns of X.

    Returns
    -------
    Explanation
        ``batch().forward``, ``batch().backward("late")``, ``check()``, ``to_html("page.html")``, ...

    Raises
    ------
    ConfigError
        For a network with batch normalization (whose statistics join the examples before dW does), or one that is too
        large to be looked at: more than 6 layers or 2,500 parameters.
    ShapeError, DataError
        For rows that do not fit the network.
    """
    if model is None and X is None:
        model = {"W1": _W1, "b1": _b1, "W2": _W2, "b2": _b2}
        X, y = _X, _Y
    elif model is None:
        raise ConfigError("explain(None, X, y) has no network; give sizes such as [2, 3, 1], or a DenseNet")
    net, notes = network_of(model, loss, activation, seed)
    X, Y = _rows(net, X, y, seed, model.sizes[0] if isinstance(model, DenseNet) else net.sizes[0])
    m = min(4, X.shape[1]) if rows is None else rows
    if isinstance(m, bool) or not isinstance(m, int | np.integer) or not 1 <= m <= X.shape[1]:
        raise ConfigError(f"rows must be from 1 to {X.shape[1]}, the examples that can be shown; got {rows}")
    cut = tuple(split) if split is not None else (int(m) - 1, 1) if m > 1 else (1,)
    names = tuple(map(str, feature_names))
    if names and len(names) != X.shape[0]:
        raise ConfigError(f"feature_names must name the {X.shape[0]} inputs, got {len(names)}")
    if isinstance(model, DenseNet):
        X = entering(model, X)
        names = names_of_entering(names, X.shape[0])
    sizes, notes = ", ".join(map(str, net.sizes)), (*notes, *_saturated(net, X, Y))
    explanation = Explanation(net, X, Y, int(m), cut, title or f"a network [{sizes}]", notes, names)
    explanation.batch().split(cut)  # says what is wrong with it
    return explanation


def network_of(
    model: Any, loss: Any, activation: Any, seed: int, *, any_size: bool = False
) -> tuple[Network, tuple[str, ...]]:
    """The formulas and float64 numbers of what a reader has, and what of it is left out."""
    if isinstance(model, Mapping):
        named = _parameters(model)
        sizes = (named["W1"].shape[1], *(named[f"W{l}"].shape[0] for l in range(1, len(named) // 2 + 1)))
        if not any_size:
            _check_size(sizes)
        loss, hidden = get_loss(loss), per_layer_activations(activation, len(sizes) - 1)[1:-1]
        return Network((*hidden, loss.link), _from_dAL(loss), named), ()
    if not isinstance(model, DenseNet):
        settings = {"activation": activation, "loss": loss, "dtype": "float64", "seed": seed}
        _check_size(check_sizes(model))
        model = DenseNet(model, device="numpy", kernels="reference", **settings)
    if any(model.batch_norm):
        raise ConfigError(
            "batch normalization is not taken here: its statistics join the examples of a batch before dW does; "
            "set batch_norm=False (model.batch_norm: false)"
        )
    if any_size and (model.members > 1 or any(model.parametric) or model.inputs.there):
        raise ConfigError(
            "the gradients of dense layers alone can be looked at; leave members, parametric_activation, "
            "input_scaling and periodic_embedding out"
        )
    named, hidden, notes = plain(model)
    if not any_size:
        _check_size([named["W1"].shape[1], *model.sizes[1:]])
    if any(model.dropout):
        notes.append("Dropout is left out: every unit is kept, as in prediction.")
    return Network((*hidden, model.loss.link), _from_dAL(model.loss), named), tuple(notes)


def _saturated(net: Network, X: np.ndarray, Y: np.ndarray) -> list[str]:
    """A note if dAL g'(Z) is not the derivative, as the literal division fails."""
    found = forward(net, X, Y)
    Z, A = found[f"Z{net.L}"], found[f"A{net.L}"]
    literal = net.activations[-1].vjp(np, net.loss.literal_dAL(np, A, Y), Z, A)
    apart = np.abs(literal - net.loss.delta(np, Z, Y)) > 1e-6
    if not apart.any():
        return []
    which = ", ".join(str(i + 1) for i in np.flatnonzero(apart.any(axis=0)))
    return [
        f"In example {which} AL is 0 or 1 to the last digit, on the wrong side: dAL ⊙ g′(Z) is no derivative there. "
        "AL - Y is, and the check by the complex step says so."
    ]


def _from_dAL(loss: Loss) -> Loss:
    """The loss, if it says what dL/dAL is."""
    if type(loss).literal_dAL is Loss.literal_dAL:
        raise ConfigError(f"loss {loss.name!r} has no literal_dAL, where the chain begins; give it one")
    return loss


def _check_size(sizes: Sequence[int]) -> None:
    L, n = len(sizes) - 1, sum(k * (j + 1) for j, k in pairwise(sizes))
    if L > MOST_LAYERS or n > MOST_PARAMETERS:
        raise ConfigError(
            f"the network {list(sizes)} has {L} layers and {n:,} parameters, too many to be looked at (at most "
            f"{MOST_LAYERS} and {MOST_PARAMETERS:,}); take fewer units, such as --set model.hidden=[3]"
        )


def _parameters(model: Mapping[str, Any]) -> Tensors:
    """The course's parameters, in float64, once they are known to fit together."""
    L = max(1, len(model) // 2)
    missing = [f"{kind}{l}" for l in range(1, L + 1) for kind in "Wb" if f"{kind}{l}" not in model]
    if missing or len(model) != 2 * L:
        raise ConfigError(f"parameters must be W1, b1, ..., WL, bL and nothing else; got {', '.join(map(str, model))}")
    named = {f"{kind}{l}": np.array(model[f"{kind}{l}"], dtype=np.float64) for l in range(1, L + 1) for kind in "Wb"}
    for l in range(1, L + 1):
        W, b = named[f"W{l}"], named[f"b{l}"]
        if W.ndim != 2 or (l > 1 and W.shape[1] != named[f"W{l - 1}"].shape[0]):
            raise ShapeError(f"W{l} must be (n_{l}, n_{l - 1}), got {W.shape}")
        if b.shape != (W.shape[0], 1):
            raise ShapeError(f"b{l} must be {(W.shape[0], 1)}, got {b.shape}")
    return named


def _rows(net: Network, X: Any, y: Any, seed: int, n_0: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n_0, M) and Y (n_L, M), drawn where they are not given."""
    n_L = net.sizes[-1]
    if (X is None) != (y is None):
        raise ConfigError("give X and y together, or neither")
    if X is None:
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((8, n_0)).round(1)
        kind = net.loss.labels
        if kind in ("binary", "groups"):
            y = rng.integers(0, 2, (8, n_L))
        else:
            y = rng.integers(0, n_L, 8) if kind == "classes" else rng.integers(0, 4, (8, n_L // net.loss.per_target))
    X = check_rows(X, n_0)
    Y = check_targets(y, net.loss, n_L, X.shape[0])
    if net.loss.labels == "classes" and Y.shape[1] == 1 and n_L > 1:
        Y = np.eye(n_L)[Y[:, 0]]
    n_parameters = sum(value.size for value in net.parameters.values())
    most = MOST_ROWS if n_parameters <= LARGE else FEW_ROWS
    return X[:most].T.astype(np.float64), Y[:most].T.astype(np.float64)
