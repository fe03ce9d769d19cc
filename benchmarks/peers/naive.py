"""A network as one would write it by hand for CuPy (or NumPy): every line makes new arrays, every one a launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backprop_gpu.backends import get_backend

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer


class Naive(Peer):
    """Examples are rows; relu only. The table is on the device."""

    def __init__(self, device: str) -> None:
        self.backend = get_backend(device)

    def prepare(self, task: Task) -> None:
        """Everything onto the device."""
        put, work = self.backend.asarray, task.work
        self.task, self.t, self.classes = task, 0, work.loss == "categorical_cross_entropy"
        with self.backend.activate():
            self.X, self.y = put(task.X), put(task.y)
            self.parameters = [put(w.T) for w in task.W] + [put(b) for b in task.b]
            self.m, self.v = ([p * 0 for p in self.parameters] for _ in range(2))

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Losses are brought together once, at the end."""
        with self.backend.activate():
            losses = [self._step(rows) for rows in self.cut(self.backend.asarray(order))]
            return self.backend.to_host(self.backend.xp.stack(losses))

    def _forward(self, X: Any) -> list[Any]:
        W, b = self.parameters[: len(self.task.W)], self.parameters[len(self.task.W) :]
        A = [X]
        for l, (w, c) in enumerate(zip(W, b, strict=True), 1):
            Z = A[-1] @ w + c
            A.append(self.backend.xp.maximum(Z, 0) if l < len(W) else Z)
        return A

    def _loss(self, Z: Any, y: Any) -> tuple[Any, Any]:
        """The mean loss and its derivative."""
        xp = self.backend.xp
        if not self.classes:
            return 0.5 * xp.mean((Z - y) ** 2), (Z - y) / Z.size
        Z = Z - Z.max(axis=1, keepdims=True)
        log_p = Z - xp.log(xp.exp(Z).sum(axis=1, keepdims=True))
        at = xp.arange(len(y))
        d = xp.exp(log_p)
        d[at, y] -= 1
        return -log_p[at, y].mean(), d / len(y)

    def _step(self, rows: Any) -> Any:
        A = self._forward(self.X[rows])
        loss, d = self._loss(A[-1], self.y[rows])
        L = len(self.task.W)
        grads: list[Any] = [None] * (2 * L)
        for l in range(L, 0, -1):
            grads[l - 1], grads[L + l - 1] = A[l - 1].T @ d, d.sum(axis=0)
            if l > 1:
                d = (d @ self.parameters[l - 1].T) * (A[l - 1] > 0)
        self._adam(grads)
        return loss

    def _adam(self, grads: list[Any]) -> None:
        self.t += 1
        rate, c = RATE / (1 - BETA1**self.t), 1 / math.sqrt(1 - BETA2**self.t)
        for i, g in enumerate(grads):
            self.m[i] = BETA1 * self.m[i] + (1 - BETA1) * g
            self.v[i] = BETA2 * self.v[i] + (1 - BETA2) * g * g
            self.parameters[i] = self.parameters[i] - rate * self.m[i] / (c * self.backend.xp.sqrt(self.v[i]) + EPSILON)
