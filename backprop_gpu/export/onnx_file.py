"""A model as an ONNX file, which onnxruntime and others run: raw columns in, labels and probabilities out.

Opset 17 of the standard, 20 where columns are dates, and opset 2 of ``ai.onnx.ml`` (LabelEncoder). Numbers of columns
are float64, since raw values may need its digits; the network computes in float32, also where it was trained in
float64: onnxruntime has no float64 of several operations (Elu, Softplus).
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..atomic_file import replace_file
from ..errors import ConfigError
from .onnx_graph import Graph
from .onnx_inputs import inputs
from .portable import Layer, Network, Portable, portable

_ONE_NODE = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softplus": "Softplus", "exponential": "Exp"}


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file.

    Parameters
    ----------
    model : Model, DenseNet or fitted estimator
        The graph of a ``Model``, and of an estimator with ``preset="tabular"`` that was fitted to a data frame with
        texts or dates, has one input for each column, of shape (n, 1): numbers as float64 (NaN: missing), texts and
        dates as strings (empty: missing). The others' has one, ``X`` (n, n_features): float32, with the preset float64.
    path : path
        The file.

    The outputs are ``label`` (n,) and ``probabilities`` (n, n_classes) of classes, ``labels`` (n, n_labels) and
    ``probabilities`` of several labels, and ``value`` (n, n_targets), float64 in the target's units, else; a
    name that is a column's gets an underscore, ``value_``.

    Raises
    ------
    ConfigError
        For what cannot be exported.
    MissingDependencyError
        Without the package ``onnx``.
    """
    graph = Graph()
    plain = portable(model)
    X = graph.input("X", "FLOAT", plain.n_inputs) if plain.inputs is None else inputs(graph, plain.inputs)
    _outputs(graph, plain, _predictions(graph, plain, X))
    text = graph.model().SerializeToString()
    with replace_file(path) as file:
        file.write(text)


def _predictions(g: Graph, plain: Portable, X: str) -> str:
    """What the model gives: the mean of its networks."""
    found = [_network(g, network, X) for network in plain.networks]
    return found[0] if len(found) == 1 else g.add("Mean", *found)


def _network(g: Graph, network: Network, X: str) -> str:
    """What a network gives: the mean of its members."""
    if network.waves is not None:
        waves = network.waves
        z = g.add("Mul", g.add("Gather", X, g.constant(waves.columns, np.int64), axis=1), g.constant(waves.w))
        cosines = g.add("Cos", g.add("Add", z, g.constant(waves.b)))
        X = g.add("Concat", X, g.add("Gemm", cosines, g.constant(waves.V), g.constant(waves.c), transB=1), axis=1)
    found = [_member(g, layers, X) for layers in network.members]
    return found[0] if len(found) == 1 else g.add("Mean", *found)


def _member(g: Graph, layers: tuple[Layer, ...], X: str) -> str:
    for layer in layers:
        X = g.add("Gemm", X, g.constant(layer.W), g.constant(layer.b), transB=1)
        if layer is layers[-1] and layer.activation == "sigmoid":
            # onnxruntime's Sigmoid is exact to 1e-7 only, which is much for a small probability.
            one = g.constant([1.0])
            return g.add("Div", one, g.add("Add", one, g.add("Exp", g.add("Neg", X))))
        A = _activation(g, layer, X)
        if layer.alpha is not None:
            A = g.add("Add", X, g.add("Mul", g.constant(layer.alpha), g.add("Sub", A, X)))
        X = A
    return X


def _activation(g: Graph, layer: Layer, Z: str) -> str:
    name, given = layer.activation, layer.parameters
    if name == "identity":
        return Z
    if name in _ONE_NODE:
        return g.add(_ONE_NODE[name], Z)
    if name == "softmax":
        return g.add("Softmax", Z, axis=1)
    if name == "leaky_relu":
        return g.add("LeakyRelu", Z, alpha=given["slope"])
    if name == "elu":
        return g.add("Elu", Z, alpha=given["alpha"])
    if name == "selu":
        return g.add("Selu", Z, alpha=1.6732632423543772, gamma=1.0507009873554805)
    if name == "mish":
        return g.add("Mul", Z, g.add("Tanh", g.add("Softplus", Z)))
    if name == "silu":
        return g.add("Mul", Z, g.add("Sigmoid", Z))
    half, one = g.constant([0.5]), g.constant([1.0])
    if name == "gelu":
        inner = g.add("Erf", g.add("Mul", Z, g.constant([math.sqrt(0.5)])))
    elif name == "gelu_tanh":
        cube = g.add("Mul", g.add("Mul", Z, Z), Z)
        inner = g.add("Add", Z, g.add("Mul", cube, g.constant([0.044715])))
        inner = g.add("Tanh", g.add("Mul", inner, g.constant([math.sqrt(2.0 / math.pi)])))
    else:
        raise ConfigError(f"the activation {name!r} has no form in ONNX yet")
    return g.add("Mul", Z, g.add("Mul", half, g.add("Add", one, inner)))


def _outputs(g: Graph, plain: Portable, AL: str) -> None:
    n = plain.n_outputs
    if plain.task in ("regression", "count"):
        value = g.cast(AL, "DOUBLE")
        if plain.mean is not None and plain.scale is not None:
            each = n // len(plain.mean)
            value = g.add("Mul", value, g.constant(np.repeat(plain.scale, each), np.float64))
            value = g.add("Add", value, g.constant(np.repeat(plain.mean, each), np.float64))
        g.output("value", value, "DOUBLE", n)
    elif plain.task == "multilabel":
        g.output("labels", _above(g, plain, AL), "INT64", n)
        g.output("probabilities", AL, "FLOAT", n)
    else:
        _classes(g, plain, AL)


def _above(g: Graph, plain: Portable, AL: str) -> str:
    """1 where a probability is above the threshold, else 0."""
    return g.cast(g.add("Greater", g.cast(AL, "DOUBLE"), g.constant([plain.threshold], np.float64)), "INT64")


def _classes(g: Graph, plain: Portable, AL: str) -> None:
    if plain.task == "binary":
        index = g.add("Reshape", _above(g, plain, AL), g.constant([-1], np.int64))
        AL = g.add("Concat", g.add("Sub", g.constant([1.0]), AL), AL, axis=1)
    else:
        index = g.add("ArgMax", AL, axis=1, keepdims=0)
    kind, dtype = _kind_of(plain.labels)
    g.output("label", g.add("Gather", g.constant(plain.labels, dtype), index), kind)
    g.output("probabilities", AL, "FLOAT", len(plain.labels))


def _kind_of(labels: tuple[Any, ...]) -> tuple[str, Any]:
    """The type of labels, in ONNX and as a constant takes it."""
    if any(isinstance(label, str) for label in labels):
        return "STRING", str
    return ("DOUBLE", np.float64) if any(isinstance(label, float) for label in labels) else ("INT64", np.int64)
