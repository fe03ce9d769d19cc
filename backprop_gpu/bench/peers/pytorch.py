"""PyTorch: a Sequential, cross_entropy and fused Adam; eager, or with forward and loss through torch.compile."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer

_MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


class Torch(Peer):
    """``compiled``: through torch.compile; backward then comes from it too, Adam is fused already."""

    def __init__(self, compiled: bool = False) -> None:
        self.compiled = compiled

    def prepare(self, task: Task) -> None:
        """The table as tensors that share its memory, and the network with the task's weights."""
        self.task = task
        self.X, self.y = torch.from_numpy(task.X), torch.from_numpy(task.y)
        layers: list[nn.Module] = []
        for W, b in zip(task.W, task.b, strict=True):
            linear = nn.Linear(W.shape[1], W.shape[0])
            linear.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(b)})
            layers += [linear, _MODULES[task.work.activation]()]
        net = nn.Sequential(*layers[:-1])
        self.adam_rule = torch.optim.Adam(net.parameters(), RATE, (BETA1, BETA2), EPSILON, fused=True)

        def loss(X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(net(X), y)

        def probabilities(X: torch.Tensor) -> torch.Tensor:
            return net(X).softmax(dim=1)

        compiled = torch.compile(dynamic=False) if self.compiled else lambda function: function
        self.loss, self.probabilities = compiled(loss), compiled(probabilities)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """The usual loop; losses are brought together once, at the end."""
        losses = []
        for rows in torch.from_numpy(order).split(self.task.work.batch_size):
            self.adam_rule.zero_grad()
            loss = self.loss(self.X[rows], self.y[rows])
            loss.backward()
            self.adam_rule.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    def predict_batch(self, X: np.ndarray) -> torch.Tensor:
        """Forward without a graph."""
        with torch.inference_mode():
            return self.probabilities(torch.from_numpy(X))
