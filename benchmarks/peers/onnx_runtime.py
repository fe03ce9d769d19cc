"""ONNX Runtime, for prediction: the network as Gemm, Relu and Softmax nodes."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..workloads import Task
from .base import Peer

_NODES = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


class OnnxRuntime(Peer):
    """On its CPU provider, with its default number of threads."""

    def prepare(self, task: Task) -> None:
        """Write the graph and open a session on it."""
        nodes, tensors, last = [], [], len(task.W)
        for l, (W, b) in enumerate(zip(task.W, task.b, strict=True), 1):
            tensors += [numpy_helper.from_array(W, f"W{l}"), numpy_helper.from_array(b, f"b{l}")]
            nodes.append(helper.make_node("Gemm", [f"A{l - 1}", f"W{l}", f"b{l}"], [f"Z{l}"], transB=1))
            kind = "Softmax" if l == last else _NODES[task.work.activation]
            nodes.append(helper.make_node(kind, [f"Z{l}"], [f"A{l}"]))
        values = [
            helper.make_tensor_value_info(f"A{l}", TensorProto.FLOAT, ["m", task.work.sizes[l]]) for l in (0, last)
        ]
        graph = helper.make_graph(nodes, "network", values[:1], values[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.task = task

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        """One run of the session."""
        return np.asarray(self.session.run(None, {"A0": X})[0])
