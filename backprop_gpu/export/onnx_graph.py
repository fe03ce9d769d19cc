"""An ONNX graph while it is written: nodes, constants, inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MissingDependencyError

OPSET, STRING_OPSET, ML_OPSET = 17, 20, 2  # StringSplit and RegexFullMatch, which read dates, are new in opset 20
_IR_VERSIONS = {OPSET: 8, STRING_OPSET: 9}


class Graph:
    """Nodes as they are added. Names of the graph's own begin with a slash, so that they are no column's."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingDependencyError("an ONNX file is written by the package onnx; pip install onnx") from None
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.opset = OPSET

    def input(self, name: str, kind: str, width: int) -> str:
        """An input (n, width)."""
        self.inputs.append(
            self.onnx.helper.make_tensor_value_info(name, getattr(self.onnx.TensorProto, kind), ["n", width])
        )
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of an array; of texts with ``dtype=str``."""
        name = f"/c{len(self.constants)}"
        array = np.array([str(v) for v in value], dtype=object) if dtype is str else np.asarray(value, dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operation: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """The name of what an operation gives."""
        return self._add(operation, inputs, [output or f"/t{len(self.nodes)}"], domain=domain, **attributes)

    def add_two(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """The name of the first of two outputs."""
        return self._add(operation, inputs, [f"/t{len(self.nodes)}", f"/u{len(self.nodes)}"], **attributes)

    def _add(self, operation: str, inputs: tuple[str, ...], outputs: list[str], **attributes: Any) -> str:
        if "name" in attributes:
            attributes["name"] += f" (node {len(self.nodes)})"  # names may not repeat
        self.nodes.append(self.onnx.helper.make_node(operation, list(inputs), outputs, **attributes))
        return outputs[0]

    def cast(self, x: str, kind: str) -> str:
        """An array in another type."""
        return self.add("Cast", x, to=getattr(self.onnx.TensorProto, kind))

    def join(self, parts: list[str]) -> str:
        """Arrays (n, k) side by side."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=1)

    def refuse(self, mask: str, problem: str) -> str:
        """0, float64 (1,), unless a mask holds anywhere: then an error, whose node is named after the problem.

        No operator raises one, but Cast does for a text that is no number.
        """
        count = self.add("ReduceSum", self.cast(mask, "INT64"), keepdims=0)
        none = self.add("Equal", count, self.constant([0], np.int64))
        zero = self.add("Where", none, self.constant(["0"], str), self.constant([problem], str))
        return self.add("Cast", zero, to=self.onnx.TensorProto.DOUBLE, name=problem)

    def output(self, name: str, value: str, kind: str, *shape: int) -> None:
        """Give a value (n, ...) as an output; a name that is an input's gets an underscore."""
        while any(name == given.name for given in self.inputs):
            name += "_"
        self.add("Identity", value, output=name)
        info = self.onnx.helper.make_tensor_value_info
        self.outputs.append(info(name, getattr(self.onnx.TensorProto, kind), ["n", *shape]))

    def model(self) -> Any:
        """The file's content."""
        h = self.onnx.helper
        graph = h.make_graph(self.nodes, "backprop_gpu", self.inputs, self.outputs, self.constants)
        opsets = [h.make_opsetid("", self.opset), h.make_opsetid("ai.onnx.ml", ML_OPSET)]
        version = _IR_VERSIONS[self.opset]
        return h.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="backprop_gpu")
