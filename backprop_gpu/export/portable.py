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
from ..model import Model
from ..network.dense_net import DenseNet

# What DenseNet.settings() has that a forward pass needs, or can do without.
_KNOWN_SETTINGS = {"sizes", "activation", "loss", "initializer", "dropout", "batch_norm", "dtype", "seed"}


@dataclass(frozen=True)
class Layer:
    """A = g(X W^T + b): rows are examples. W (n_out, n_in) and b (n_out,) are float64."""

    W: np.ndarray
    b: np.ndarray
    activation: str
    parameters: dict[str, float]


@dataclass(frozen=True)
class Portable:
    """A model as plain data.

    Parameters
    ----------
    layers : tuple of Layer
        From the inputs to the predictions; the last one's activation is the loss's link.
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
    inputs : Preprocessor or None
        How raw columns become inputs; None: the inputs are given.
    """

    layers: tuple[Layer, ...]
    task: str
    labels: tuple[Any, ...] = ()
    threshold: float = 0.5
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    target: tuple[str, ...] = ("target",)
    inputs: Preprocessor | None = None

    @property
    def n_inputs(self) -> int:
        """Inputs of the network."""
        return self.layers[0].W.shape[1]

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return len(self.layers[-1].b)


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
        return _of_codec(layers_of(model.net), codec, model.preprocessor)
    if isinstance(model, DenseNet):
        return Portable(layers_of(model), _task_of(model), labels=_class_numbers(model))
    if hasattr(model, "network") and hasattr(model, "get_params"):
        net = model.network()
        layers, classes = layers_of(net), getattr(model, "classes_", None)
        if classes is None:
            return Portable(layers, "count" if net.loss.name == "poisson" else "regression")
        if net.loss.labels == "groups":
            raise ConfigError("labels of several classes each cannot be exported; fit one estimator for each label")
        if isinstance(classes, np.ndarray) and classes.ndim == 1 and model.out_activation_ in ("logistic", "softmax"):
            several = getattr(model, "_label_binarizer", None) is not None and (
                model._label_binarizer.y_type_ == "multilabel-indicator"
            )
            if several:
                return Portable(layers, "multilabel")
            task = "binary" if len(classes) == 2 and net.sizes[-1] == 1 else "multiclass"
            return Portable(layers, task, labels=tuple(classes.tolist()))
    raise ConfigError(f"a Model, a DenseNet or a fitted estimator can be exported, got {type(model).__name__}")


def layers_of(net: DenseNet) -> tuple[Layer, ...]:
    """The layers of a network, batch normalization multiplied in; ConfigError for a formula of the user's own."""
    settings = net.settings()
    if unknown := settings.keys() - _KNOWN_SETTINGS:
        raise ConfigError(f"a network with {', '.join(sorted(unknown))} cannot be exported")
    held = {name: np.asarray(value, np.float64) for name, value in net.parameters().items()}
    made = []
    for l in range(1, net.L + 1):
        W, b = held[f"W{l}"], held[f"b{l}"]
        if net.batch_norm[l]:  # gamma (W x - mean) r + beta = (gamma r W) x + (beta - gamma r mean)
            factor = held[f"gamma{l}"] / np.sqrt(held[f"variance{l}"] + EPSILON)
            W, b = factor * W, b - factor * held[f"mean{l}"]
        activation = net.loss.link if l == net.L else net.activations[l]
        known = ACTIVATIONS.get(activation.name)
        if known is None or known.forward_function is not activation.forward_function:
            raise ConfigError(f"{activation.name!r} is a formula of your own, which no other format knows")
        made.append(Layer(W, b[:, 0], activation.name, dict(activation.parameters)))
    return tuple(made)


def _of_codec(layers: tuple[Layer, ...], codec: TargetCodec, inputs: Preprocessor) -> Portable:
    labels: tuple[Any, ...] = tuple(int(label) for label in codec.labels) if codec.integers else codec.labels
    return Portable(
        layers,
        codec.task,
        labels=labels,
        threshold=codec.threshold,
        mean=codec.mean,
        scale=codec.scale,
        target=codec.names,
        inputs=inputs,
    )


def _task_of(net: DenseNet) -> str:
    if net.loss.labels == "binary":
        return "binary" if net.sizes[-1] == 1 else "multilabel"
    if net.loss.labels == "groups":
        raise ConfigError("labels of several classes each cannot be exported")
    return "multiclass" if net.loss.labels == "classes" else "count" if net.loss.name == "poisson" else "regression"


def _class_numbers(net: DenseNet) -> tuple[int, ...]:
    return {"binary": (0, 1), "multiclass": tuple(range(net.sizes[-1]))}.get(_task_of(net), ())
