"""A model as an ONNX file, which onnxruntime and others run: raw columns in, labels and probabilities out.

Opset 17 of the standard and opset 2 of ``ai.onnx.ml`` (LabelEncoder). Numbers of columns are float64, since raw values
may need its digits; the network computes in float32, also where it was trained in float64: onnxruntime has no float64
of several operations (Elu, Softplus).
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..atomic_file import replace_file
from ..errors import ConfigError, MissingDependencyError
from .portable import Layer, Portable, portable

OPSET, ML_OPSET, IR_VERSION = 17, 2, 8
_ONE_NODE = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softplus": "Softplus", "exponential": "Exp"}


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file.

    Parameters
    ----------
    model : Model, DenseNet or fitted estimator
        A ``Model``'s graph has one input for each column, of shape (n, 1): numbers as float64 (NaN: missing), texts as
        strings (empty: missing). The others' has one, ``X`` (n, n_features), float32.
    path : path
        The file.

    The outputs are ``label`` (n,) and ``probabilities`` (n, n_classes) of classes, ``labels`` (n, n_labels) and
    ``probabilities`` of several labels, and ``value`` (n, n_targets), float64 in the target's units, else. A category
    that training did not see cannot raise an error there: it is all zeros, as with ``unknown: ignore``.

    Raises
    ------
    ConfigError
        For what cannot be exported.
    MissingDependencyError
        Without the package ``onnx``.
    """
    graph = _Graph()
    plain = portable(model)
    outputs = _outputs(graph, plain, _predictions(graph, plain, _inputs(graph, plain)))
    text = graph.model(outputs).SerializeToString()
    with replace_file(path) as file:
        file.write(text)


class _Graph:
    """Nodes as they are added, each with an output of its own."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingDependencyError("an ONNX file is written by the package onnx; pip install onnx") from None
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def input(self, name: str, kind: str, width: int) -> str:
        self.inputs.append(
            self.onnx.helper.make_tensor_value_info(name, getattr(self.onnx.TensorProto, kind), ["n", width])
        )
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        array = np.array([str(v) for v in value], dtype=object) if dtype is str else np.asarray(value, dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operation: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operation, list(inputs), [output], domain=domain, **attributes))
        return output

    def cast(self, x: str, kind: str) -> str:
        return self.add("Cast", x, to=getattr(self.onnx.TensorProto, kind))

    def model(self, outputs: list[tuple[str, str, list[Any]]]) -> Any:
        h, types = self.onnx.helper, self.onnx.TensorProto
        named = [h.make_tensor_value_info(name, getattr(types, kind), shape) for name, kind, shape in outputs]
        graph = h.make_graph(self.nodes, "backprop_gpu", self.inputs, named, self.constants)
        opsets = [h.make_opsetid("", OPSET), h.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return h.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="backprop_gpu",
        )


def _inputs(g: _Graph, plain: Portable) -> str:
    """The network's inputs (n, n_0), float32: fill, standardize, mark gaps, one-hot, as ``Preprocessor.transform``."""
    p = plain.inputs
    if p is None:
        return g.input("X", "FLOAT", plain.n_inputs)
    columns = {name: g.input(name, "DOUBLE" if name in p.numeric else "STRING", 1) for name in p.columns}
    numbers, gaps = [], []
    for j, name in enumerate(p.numeric):
        value = columns[name]
        missing = g.add("IsNaN", value)
        if name in p.indicators:
            gaps.append(g.cast(missing, "FLOAT"))
        if p.fill is not None:
            value = g.add("Where", missing, g.constant(p.fill[j : j + 1], np.float64), value)
        centred = g.add("Sub", value, g.constant(p.mean[j : j + 1], np.float64))
        numbers.append(g.cast(g.add("Div", centred, g.constant(p.scale[j : j + 1], np.float64)), "FLOAT"))
    one_hot = []
    for name, known in p.categories.items():
        otherwise = known.index("") if p.unknown == "missing" and "" in known else -1
        number = g.add(
            "LabelEncoder",
            columns[name],
            domain="ai.onnx.ml",
            keys_strings=list(known),
            values_int64s=list(range(len(known))),
            default_int64=otherwise,
        )
        one_hot.append(g.cast(g.add("Equal", number, g.constant(np.arange(len(known))[None], np.int64)), "FLOAT"))
    parts = [*numbers, *gaps, *one_hot]
    return parts[0] if len(parts) == 1 else g.add("Concat", *parts, axis=1)


def _predictions(g: _Graph, plain: Portable, X: str) -> str:
    """What the network gives: the mean of its members."""
    if plain.waves is not None:
        waves = plain.waves
        z = g.add("Mul", g.add("Gather", X, g.constant(waves.columns, np.int64), axis=1), g.constant(waves.w))
        cosines = g.add("Cos", g.add("Add", z, g.constant(waves.b)))
        X = g.add("Concat", X, g.add("Gemm", cosines, g.constant(waves.V), g.constant(waves.c), transB=1), axis=1)
    found = [_network(g, layers, X) for layers in plain.members]
    return found[0] if len(found) == 1 else g.add("Mean", *found)


def _network(g: _Graph, layers: tuple[Layer, ...], X: str) -> str:
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


def _activation(g: _Graph, layer: Layer, Z: str) -> str:
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


def _outputs(g: _Graph, plain: Portable, AL: str) -> list[tuple[str, str, list[Any]]]:
    """What the graph gives: (name, type, shape)."""
    n = plain.n_outputs
    if plain.task in ("regression", "count"):
        value = g.cast(AL, "DOUBLE")
        if plain.mean is not None and plain.scale is not None:
            each = n // len(plain.mean)
            value = g.add("Mul", value, g.constant(np.repeat(plain.scale, each), np.float64))
            value = g.add("Add", value, g.constant(np.repeat(plain.mean, each), np.float64))
        g.add("Identity", value, output="value")
        return [("value", "DOUBLE", ["n", n])]
    if plain.task == "multilabel":
        above = g.add("Greater", g.cast(AL, "DOUBLE"), g.constant([plain.threshold], np.float64))
        g.add("Identity", g.cast(above, "INT64"), output="labels")
        g.add("Identity", AL, output="probabilities")
        return [("labels", "INT64", ["n", n]), ("probabilities", "FLOAT", ["n", n])]
    if plain.task == "binary":
        above = g.add("Greater", g.cast(AL, "DOUBLE"), g.constant([plain.threshold], np.float64))
        index = g.add("Reshape", g.cast(above, "INT64"), g.constant([-1], np.int64))
        AL = g.add("Concat", g.add("Sub", g.constant([1.0]), AL), AL, axis=1)
    else:
        index = g.add("ArgMax", AL, axis=1, keepdims=0)
    g.add("Identity", AL, output="probabilities")
    texts = any(isinstance(label, str) for label in plain.labels)
    labels = g.constant(plain.labels, str if texts else np.int64)
    g.add("Gather", labels, index, output="label")
    return [("label", "STRING" if texts else "INT64", ["n"]), ("probabilities", "FLOAT", ["n", len(plain.labels)])]
