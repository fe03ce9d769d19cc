"""PyTorch: a Sequential, cross_entropy and fused Adam; eager, or with forward and loss through torch.compile."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer

_MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


def _loss(net: nn.Module, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(net(X), y)


def _probabilities(net: nn.Module, X: torch.Tensor) -> torch.Tensor:
    return net(X).softmax(dim=1)


class Torch(Peer):
    """``compiled``: through torch.compile; backward then comes from it too, Adam is fused already."""

    def __init__(self, compiled: bool = False) -> None:
        self.loss, self.probabilities = _loss, _probabilities
        if compiled:  # once a process: networks are arguments, so that one of the same structure is not compiled again
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            self.loss, self.probabilities = (torch.compile(f, dynamic=False) for f in (_loss, _probabilities))

    def prepare(self, task: Task) -> None:
        """The table as tensors that share its memory, and the network with the task's weights."""
        self.task = task
        self.X, self.y = torch.from_numpy(task.X), torch.from_numpy(task.y)
        layers: list[nn.Module] = []
        for W, b in zip(task.W, task.b, strict=True):
            linear = nn.Linear(W.shape[1], W.shape[0])
            linear.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(b)})
            layers += [linear, _MODULES[task.work.activation]()]
        self.net = nn.Sequential(*layers[:-1])
        self.adam = torch.optim.Adam(self.net.parameters(), RATE, (BETA1, BETA2), EPSILON, fused=True)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """The usual loop; losses are brought together once, at the end."""
        losses = []
        for rows in torch.from_numpy(order).split(self.task.work.batch_size):
            self.adam.zero_grad()
            loss = self.loss(self.net, self.X[rows], self.y[rows])
            loss.backward()
            self.adam.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    def predict_batch(self, X: np.ndarray) -> torch.Tensor:
        """Forward without a graph."""
        with torch.inference_mode():
            return self.probabilities(self.net, torch.from_numpy(X))
