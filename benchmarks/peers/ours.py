"""This package: the trainer's own pass over the data, with one of its kernel sets."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch
from backprop_gpu.training.trainer import Trainer

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer

ADAM: dict[str, Any] = {"name": "adam", "learning_rate": RATE, "beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON}


class _Ordered(Batches):
    """Batches in a given order."""

    order_now: np.ndarray

    def permutation(self, epoch: int) -> np.ndarray:
        return self.order_now


class Ours(Peer):
    """``kernels``, ``device``: see ``DenseNet``. ``eager``: no step is recorded, each is called by Python."""

    def __init__(self, kernels: str, device: str = "cpu", eager: bool = False) -> None:
        self.kernels, self.device, self.eager = kernels, device, eager
        DenseNet([1, 2], loss="categorical_cross_entropy", device=device, kernels=kernels)  # raises if not available

    def _net(self, task: Task) -> DenseNet:
        w = task.work
        net = DenseNet(w.sizes, activation=w.activation, loss=w.loss, device=self.device, kernels=self.kernels)
        if self.eager:
            net.kernels.capture = partial(ReferenceKernels.capture, net.kernels)  # type: ignore[method-assign, arg-type]
        W, b = enumerate(task.W, 1), enumerate(task.b, 1)
        net.set_parameters({f"W{l}": x for l, x in W} | {f"b{l}": x[:, None] for l, x in b})
        return net

    def prepare(self, task: Task) -> None:
        """Network, step, buffers and programs, as ``Trainer.fit`` makes them."""
        self.net = self._net(task)
        y = task.y if task.y.ndim == 2 else task.y[:, None]
        self.batches = _Ordered(self.net, task.X, y, None, batch_size=task.work.batch_size, shuffle=True, seed=0)
        self.passes = CapturedEpoch(TrainingStep(self.net, ADAM), self.batches, None)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """``CapturedEpoch.run``."""
        self.batches.order_now = order
        return self.passes.run(0)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """``DenseNet.predict_proba``."""
        return self.net.predict_proba(X)

    def fit(self, task: Task) -> None:
        """``Trainer.fit``."""
        w = task.work
        trainer = Trainer(self._net(task), optimizer=ADAM, epochs=w.epochs, batch_size=w.batch_size, progress=False)
        trainer.fit(task.X, task.y)
