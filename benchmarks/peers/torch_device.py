"""PyTorch on a device, its table there too: eager, through torch.compile, or one CUDA graph a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from backprop_gpu.errors import DeviceError

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer


class TorchOnDevice(Peer):
    """``mode``: "eager", "compile" (reduce-overhead: CUDA graphs of its own) or "graph"; fused Adam in all.

    ``precision``: "fp32", "tf32", or "bf16" through autocast.
    """

    def __init__(self, device: str, mode: str = "eager", precision: str = "fp32") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("this PyTorch sees no CUDA device")
        if mode == "graph" and device != "cuda":
            raise DeviceError("CUDA graphs need CUDA")
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self.device, self.mode, self.low = device, mode, precision == "bf16"
        self.loss: Any = self._loss
        if mode == "compile":
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            self.loss = torch.compile(self._loss, dynamic=False, mode="reduce-overhead")

    def _loss(self, net: nn.Module, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            Z = net(X)
        if y.ndim == 2:
            return 0.5 * nn.functional.mse_loss(Z.float(), y)
        return nn.functional.cross_entropy(Z.float(), y)

    def prepare(self, task: Task) -> None:
        """The table and the network with the task's weights, on the device; the graph, from the same state."""
        self.task = task
        self.X, self.y = (torch.from_numpy(x).to(self.device) for x in (task.X, task.y))
        layers: list[nn.Module] = []
        for W, b in zip(task.W, task.b, strict=True):
            linear = nn.Linear(W.shape[1], W.shape[0])
            linear.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(b)})
            layers += [linear, nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1]).to(self.device)
        capturable = self.mode == "graph"
        parameters = self.net.parameters()
        self.adam = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPSILON, fused=True, capturable=capturable)
        if self.mode == "graph":
            self._capture()

    def _step(self, rows: torch.Tensor) -> torch.Tensor:
        if self.mode == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.loss(self.net, self.X[rows], self.y[rows])
        loss.backward()
        self.adam.step()
        return loss.detach()

    def _capture(self) -> None:
        """Warm up on a stream of its own, put everything back to where it was, and record a step."""
        self.rows = torch.arange(self.task.work.batch_size, device=self.device)
        before = [p.detach().clone() for p in self.net.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.adam.zero_grad(set_to_none=True)
                self._step(self.rows)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for p, old in zip(self.net.parameters(), before, strict=True):
                p.copy_(old)
                for value in self.adam.state[p].values():
                    value.zero_()
        self.adam.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.last = self._step(self.rows)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Losses are brought together once, at the end."""
        losses = []
        for rows in torch.from_numpy(order).to(self.device).split(self.task.work.batch_size):
            if self.mode == "graph":
                self.rows.copy_(rows)
                self.graph.replay()
                losses.append(self.last.clone())
            else:
                self.adam.zero_grad(set_to_none=True)
                losses.append(self._step(rows).clone())
        return torch.stack(losses).cpu().numpy()

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        """Probabilities, or values."""
        with torch.inference_mode():
            Z = self.net(torch.from_numpy(X).to(self.device))
            return (Z if self.task.y.ndim == 2 else Z.softmax(dim=1)).cpu().numpy()
