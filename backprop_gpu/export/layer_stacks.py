"""Weights from and to other libraries' stacks of dense layers: PyTorch's Linear, Keras's Dense."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..maths.activations import ACTIVATIONS
from ..network.dense_net import DenseNet
from .portable import layers_of

# Classes of torch.nn and names of keras.activations, with ours.
_TORCH = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Softplus": "softplus",
    "SELU": "selu",
    "Mish": "mish",
    "Identity": "identity",
    "Softmax": "softmax",
}
_KERAS = {"linear": "identity", "swish": "silu"}
_LOSSES = {
    "identity": "squared_error",
    "sigmoid": "binary_cross_entropy",
    "softmax": "categorical_cross_entropy",
    "exponential": "poisson",
}


def to_torch_state(net: DenseNet) -> dict[str, np.ndarray]:
    """The weights as ``torch.nn.Sequential(Linear, activation, Linear, ...)`` names them.

    Returns
    -------
    dict of str to ndarray
        ``{"0.weight": (n_1, n_0), "0.bias": (n_1,), "2.weight": ...}`` in the network's dtype, batch normalization
        multiplied in. For PyTorch: ``stack.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})``.
    """
    state = {}
    for l, layer in enumerate(layers_of(net)):
        state[f"{2 * l}.weight"] = layer.W.astype(net.dtype)
        state[f"{2 * l}.bias"] = layer.b.astype(net.dtype)
    return state


def from_torch_state(
    state: Mapping[str, Any], *, activation: Any = "relu", loss: Any = "squared_error", **settings: Any
) -> DenseNet:
    """A network with the weights of a ``state_dict`` of Linear layers.

    Parameters
    ----------
    state : mapping of str to array or tensor
        ``NAME.weight`` (n_out, n_in) and ``NAME.bias`` (n_out,) of each layer: in the order of the numbers in their
        names (``0.weight``, ``2.weight``), since a file of safetensors keeps no order; without numbers in that of the
        mapping.
    activation, loss, settings
        As :class:`~backprop_gpu.DenseNet` takes them: a ``state_dict`` does not tell.

    Raises
    ------
    ConfigError
        For what is not such a stack.
    """
    weights = [(name.rpartition(".")[0], value) for name, value in state.items() if name.endswith("weight")]
    if all(_numbers(name) for name, _ in weights):
        weights.sort(key=lambda each: _numbers(each[0]))
    named = [f"{name}." if name else "" for name, _ in weights]
    used = {f"{name}{kind}" for name in named for kind in ("weight", "bias")}
    if not weights or used != set(state):
        odd = sorted(set(state) ^ used) or ["no weight at all"]
        raise ConfigError(f"a stack of Linear layers has a weight and a bias each, and nothing else; got {odd[0]}")
    arrays = [(_array(value), _array(state[f"{name}bias"])) for name, (_, value) in zip(named, weights, strict=True)]
    return _network(arrays, activation, loss, settings)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def from_torch(stack: Any, *, loss: Any = None, **settings: Any) -> DenseNet:
    """A network that computes what ``torch.nn.Sequential(Linear, activation, ..., Linear[, activation])`` does.

    Parameters
    ----------
    stack : torch.nn.Sequential
        Linear layers with one activation between each; Dropout is read too.
    loss : str or Loss, optional
        Default: the one whose link the last activation is: squared_error without one, binary_cross_entropy of Sigmoid,
        categorical_cross_entropy of Softmax.
    settings
        As :class:`~backprop_gpu.DenseNet` takes them, ``device="cuda"`` say.

    Raises
    ------
    ConfigError
        For a module that this network has not, by its name.
    """
    arrays: list[Any] = []
    activations: list[Any] = []
    dropout: list[float] = []
    for module in stack:
        kind = type(module).__name__
        if kind == "Linear":
            if len(activations) < len(arrays):
                activations.append("identity")
            W = _array(module.weight)
            arrays.append((W, np.zeros(len(W)) if module.bias is None else _array(module.bias)))
            dropout.append(0.0)
        elif not arrays or kind not in {*_TORCH, "LeakyReLU", "ELU", "GELU", "Dropout"}:
            raise ConfigError(f"{kind} has no place in a stack of Linear layers with activations between them")
        elif kind == "Dropout":
            dropout[-1] = float(module.p)
        elif len(activations) == len(arrays):
            raise ConfigError(f"{kind} follows another activation; one a layer can be read")
        else:
            activations.append(_torch_activation(module, kind))
    return _stack(arrays, activations, dropout, loss, settings)


def from_keras(model: Any, *, loss: Any = None, **settings: Any) -> DenseNet:
    """A network that computes what a Keras model of Dense layers does; ``loss`` and ``settings`` as :func:`from_torch`.

    Raises
    ------
    ConfigError
        For a layer that this network has not, by its name.
    """
    arrays: list[Any] = []
    activations: list[Any] = []
    dropout: list[float] = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind == "Dropout" and arrays:
            dropout[-1] = float(layer.rate)
        elif kind == "Dense":
            W, *bias = (np.asarray(value) for value in layer.get_weights())
            arrays.append((W.T, bias[0] if bias else np.zeros(W.shape[1])))
            name = layer.activation.__name__
            activations.append(_known(_KERAS.get(name, name)))
            dropout.append(0.0)
        else:
            raise ConfigError(f"{kind} {layer.name!r} has no place in a stack of Dense layers")
    return _stack(arrays, activations, dropout, loss, settings)


def _torch_activation(module: Any, kind: str) -> Any:
    if kind == "LeakyReLU":
        return {"name": "leaky_relu", "slope": float(module.negative_slope)}
    if kind == "ELU":
        return {"name": "elu", "alpha": float(module.alpha)}
    if kind == "GELU":
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return _TORCH[kind]


def _known(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ConfigError(f"the activation {name!r} is none of this package's: {', '.join(ACTIVATIONS)}")
    return name


def _stack(arrays: list[Any], activations: list[Any], dropout: list[float], loss: Any, settings: dict[str, Any]) -> Any:
    if not arrays:
        raise ConfigError("there is no dense layer in this model")
    last = activations.pop() if len(activations) == len(arrays) else "identity"
    if loss is None:
        if last not in _LOSSES:
            raise ConfigError(f"no loss has the output activation {last!r}; leave it out, or name the loss")
        loss = _LOSSES[last]
    settings = {"dropout": dropout[:-1], **settings} if any(dropout[:-1]) else settings
    return _network(arrays, activations, loss, settings)


def _network(arrays: list[Any], activation: Any, loss: Any, settings: dict[str, Any]) -> DenseNet:
    for W, b in arrays:
        if W.ndim != 2 or b.shape != (len(W),) or not W.size:
            raise ConfigError(f"a layer has a weight (n_out, n_in) and a bias (n_out,), got {W.shape} and {b.shape}")
    for (before, _), (after, _) in pairwise(arrays):
        if after.shape[1] != len(before):
            raise ConfigError(f"layers do not fit: {before.shape} is followed by {after.shape}")
    sizes = [arrays[0][0].shape[1], *(len(W) for W, _ in arrays)]
    settings = {"dtype": "float64" if arrays[0][0].dtype == np.float64 else "float32", **settings}
    net = DenseNet(
        sizes, activation=activation if len(sizes) > 2 else "relu", loss=loss, initializer="zeros", **settings
    )
    named: dict[str, np.ndarray] = {}
    for l, (W, b) in enumerate(arrays, 1):
        named |= {f"W{l}": W, f"b{l}": np.reshape(b, (-1, 1))}
    net.set_parameters(named)
    return net


def _array(value: Any) -> np.ndarray:
    """A tensor of any library on the host."""
    for method in ("detach", "cpu"):
        value = getattr(value, method)() if hasattr(value, method) else value
    return np.asarray(value)
