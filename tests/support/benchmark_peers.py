"""Peers for the bench's tests, each with a fault; and what stands at the other end of a worker's pipe."""

from __future__ import annotations

import os

import numpy as np

from benchmarks.peers.plain_numpy import PlainNumpy


class WrongRate(PlainNumpy):
    """Its learning rate is 1% too large: every step is followed by a hundredth of itself."""

    def _update(self) -> None:
        before = self.flat[0].copy()
        super()._update()
        self.flat[0] += 0.01 * (self.flat[0] - before)


class LeavesOutTheLast(PlainNumpy):
    """The last example of each batch is not trained on."""

    def _step(self, rows: np.ndarray) -> float:
        return super()._step(rows[:-1])


class WrongBias(PlainNumpy):
    """Predicts without the first layer's bias."""

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        self.b[0][...] = 0.0
        return super().predict_batch(X)


class Breaks(PlainNumpy):
    """Ends the process in its first epoch."""

    def epoch(self, order: np.ndarray) -> np.ndarray:
        os._exit(3)


class Echo:
    """Answers a worker's questions about its process."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def greet(self, name: str) -> str:
        return f"{self.greeting} {name}"

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def fail(self) -> None:
        raise ValueError("two\nlines")
