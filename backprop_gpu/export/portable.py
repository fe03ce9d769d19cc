"""What a fitted model computes, as plain arrays: the same for every format that is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.preprocessing import Preprocessor
from ..data.targets import TargetCodec
from ..errors import ConfigError
from ..maths.activations import ACTIVATIONS
from ..maths.normalization import EPSILON
from ..maths.periodic import TWO_PI
from ..model import Model
from ..network.dense_net import DenseNet
from .raw_inputs import RawInputs, of_preprocessor, of_preset

# What DenseNet.settings() has that a forward pass needs, or can do without.
_KNOWN_SETTINGS = {
    *("sizes", "activation", "loss", "initializer", "dropout", "batch_norm", "dtype", "seed"),
    *("input_scaling", "periodic_embedding", "parametric_activation", "members", "adapters"),
}


@dataclass(frozen=True)
class Layer:
    """A = g(Z), Z = X W^T + b: rows are examples. W (n_out, n_in) and b (n_out,) are float64.

    With ``alpha`` (n_out,) it is a parametric activation, A = Z + alpha (g(Z) - Z).
    """

    W: np.ndarray
    b: np.ndarray
    activation: str
    parameters: dict[str, float]
    alpha: np.ndarray | None = None


@dataclass(frozen=True)
class Waves:
    """Periodic embeddings of the first J inputs, which stand after all inputs (``maths.periodic``).

    E = cos(X[:, columns] * w + b) V^T + c: w and b (J h,), where ``columns`` (J h,) repeats each input for its waves; V
    (J o, J h) is block diagonal, c (J o,).
    """

    columns: np.ndarray
    w: np.ndarray
    b: np.ndarray
    V: np.ndarray
    c: np.ndarray


@dataclass(frozen=True)
class Network:
    """One network, from the inputs to the predictions.

    Parameters
    ----------
    members : tuple of tuple of Layer
        The layers of each member of an ensemble, whose predictions are averaged; of an ordinary network, of one. The
        last one's activation is the loss's link.
    waves : Waves or None
        What is put beside the inputs before the first layer.
    """

    members: tuple[tuple[Layer, ...], ...]
    waves: Waves | None


@dataclass(frozen=True)
class Portable:
    """A model as plain data.

    Parameters
    ----------
    networks : tuple of Network
        Whose predictions are averaged; one, but for ``preset="tabular"``.
    task : str
        binary, multiclass, multilabel, regression or count.
    labels : tuple
        Of classes: what is predicted, in class order; texts or whole numbers.
    threshold : float
        binary, multilabel: see ``TargetCodec``.
    mean, scale : ndarray or None
        regression: value = output * scale + mean.
    target : tuple of str
        The names of the targets.
    inputs : RawInputs or None
        How raw columns become inputs; None: the inputs are given.
    n_inputs : int
        Inputs of the network.
    """

    networks: tuple[Network, ...]
    n_inputs: int
    task: str
    labels: tuple[Any, ...] = ()
    threshold: float = 0.5
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    target: tuple[str, ...] = ("target",)
    inputs: RawInputs | None = None

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return len(self.networks[0].members[0][-1].b)


def portable(model: Any) -> Portable:
    """The plain data of a ``Model``, a ``DenseNet`` or a fitted estimator.

    Raises
    ------
    ConfigError
        For anything else, and for what has a formula of the user's own.
    """
    if isinstance(model, Model):
        codec = model.preprocessor.target
        assert codec is not None, "a model is always trained with a task"
        return _of_codec(model.net, codec, model.preprocessor)
    if isinstance(model, DenseNet):
        return _portable(model, _task_of(model), labels=_class_numbers(model))
    if hasattr(model, "network") and hasattr(model, "get_params"):
        return _of_estimator(model)
    raise ConfigError(f"a Model, a DenseNet or a fitted estimator can be exported, got {type(model).__name__}")


def layers_of(net: DenseNet) -> tuple[Layer, ...]:
    """The layers of an ordinary network, batch normalization multiplied in; ConfigError for one with other parts."""
    if not isinstance(net, DenseNet):
        raise ConfigError(
            f"weights of a DenseNet are written (model.net, estimator.network()), got {type(net).__name__}"
        )
    net_ = network_of(net)
    parts = {"members": len(net_.members) > 1, "periodic_embedding": net_.waves is not None}
    parts["parametric_activation"] = any(layer.alpha is not None for layer in net_.members[0])
    if found := ", ".join(name for name, there in parts.items() if there):
        raise ConfigError(
            f"a network with {found} is no stack of Linear layers; write ONNX or a NumPy file, or train without"
        )
    return net_.members[0]


def network_of(net: DenseNet) -> Network:
    """The layers of each member, and what comes before them; ConfigError for a formula of the user's own."""
    settings = net.settings()
    if unknown := settings.keys() - _KNOWN_SETTINGS:
        raise ConfigError(f"a network with {', '.join(sorted(unknown))} cannot be exported")
    held = {name: np.asarray(value, np.float64) for name, value in net.parameters().items()}
    members = range(settings.get("members", 1))
    layers = tuple(tuple(_layer(net, held, l, j) for l in range(1, net.L + 1)) for j in members)
    return Network(layers, _waves(held))


def _layer(net: DenseNet, held: dict[str, np.ndarray], l: int, member: int) -> Layer:
    """Layer l of a member, with all that is a factor of its weights multiplied in."""
    n, (W, b) = net.sizes[l], (held[f"W{l}"], held[f"b{l}"])
    W = W[member * n : (member + 1) * n] if len(W) > n else W
    b = b[member * n : (member + 1) * n] if len(b) > n else b
    if f"R{l}" in held:
        W = W * held[f"R{l}"][member]
    if f"S{l}" in held:
        W = held[f"S{l}"][member][:, None] * W
    if l == 1 and "scale0" in held:
        W = W * held["scale0"].T
    if net.batch_norm[l]:  # gamma (W x - mean) r + beta = (gamma r W) x + (beta - gamma r mean)
        factor = held[f"gamma{l}"] / np.sqrt(held[f"variance{l}"] + EPSILON)
        W, b = factor * W, b - factor * held[f"mean{l}"]
    activation = net.loss.link if l == net.L else net.activations[l]
    known = ACTIVATIONS.get(activation.name)
    if known is None or known.forward_function is not activation.forward_function:
        raise ConfigError(f"{activation.name!r} is a formula of your own, which no other format knows")
    alpha = held[f"alpha{l}"][:, 0] if f"alpha{l}" in held else None
    return Layer(W, b[:, 0], activation.name, dict(activation.parameters), alpha)


def _waves(held: dict[str, np.ndarray]) -> Waves | None:
    if "frequency0" not in held:
        return None
    w, V = held["frequency0"], held["mixing0"]
    (J, h), o = w.shape, len(V) // len(w)
    blocks = np.zeros((J * o, J * h))
    for j in range(J):
        blocks[j * o : (j + 1) * o, j * h : (j + 1) * h] = V[j * o : (j + 1) * o]
    columns = np.repeat(np.arange(J), h)
    return Waves(columns, TWO_PI * w.ravel(), held["phase0"].ravel(), blocks, held["offset0"][:, 0])


def _portable(net: DenseNet, task: str, **more: Any) -> Portable:
    return Portable((network_of(net),), net.sizes[0], task, **more)


def _of_estimator(e: Any) -> Portable:
    preset = "members_" in vars(e)
    nets = [member.network() for member in e.members_] if preset else [e.network()]
    more: dict[str, Any] = {}
    if preset:
        more = {"inputs": of_preset(e.inputs_, vars(e).get("columns_"))}
    networks, n_inputs, loss = tuple(map(network_of, nets)), nets[0].sizes[0], nets[0].loss
    classes = getattr(e, "classes_", None)
    if classes is None:
        if preset:
            more |= {"mean": e.target_centre_, "scale": e.target_spread_}
        return Portable(networks, n_inputs, "count" if loss.name == "poisson" else "regression", **more)
    if loss.labels == "groups":
        raise ConfigError("labels of several classes each cannot be exported; fit one estimator for each label")
    if isinstance(classes, np.ndarray) and classes.ndim == 1 and e.out_activation_ in ("logistic", "softmax"):
        binarizer = getattr(e, "_label_binarizer", None)
        if binarizer is not None and binarizer.y_type_ == "multilabel-indicator":
            return Portable(networks, n_inputs, "multilabel", **more)
        task = "binary" if len(classes) == 2 and nets[0].sizes[-1] == 1 else "multiclass"
        return Portable(networks, n_inputs, task, labels=tuple(classes.tolist()), **more)
    raise ConfigError("an estimator of several targets of classes cannot be exported; fit one estimator for each")


def _of_codec(net: DenseNet, codec: TargetCodec, inputs: Preprocessor) -> Portable:
    labels: tuple[Any, ...] = tuple(int(label) for label in codec.labels) if codec.integers else codec.labels
    return _portable(
        net,
        codec.task,
        labels=labels,
        threshold=codec.threshold,
        mean=codec.mean,
        scale=codec.scale,
        target=codec.names,
        inputs=of_preprocessor(inputs),
    )


def _task_of(net: DenseNet) -> str:
    if net.loss.labels == "binary":
        return "binary" if net.sizes[-1] == 1 else "multilabel"
    if net.loss.labels == "groups":
        raise ConfigError("labels of several classes each cannot be exported")
    return "multiclass" if net.loss.labels == "classes" else "count" if net.loss.name == "poisson" else "regression"


def _class_numbers(net: DenseNet) -> tuple[int, ...]:
    return {"binary": (0, 1), "multiclass": tuple(range(net.sizes[-1]))}.get(_task_of(net), ())
