"""What a peer does: take a task, train epochs of it in a given order, predict."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..workloads import Task


class Peer:
    """Base of all peers. Everything between ``prepare`` and the end of a call counts when that call is timed.

    Attributes
    ----------
    adam : {"paper", "epsilon_hat"}
        Where epsilon stands: beside sqrt(v / (1 - b2^t)), or beside sqrt(v) (``maths.optimizers.Adam``).
    activations : tuple of str
        What it can train.
    """

    adam: ClassVar[str] = "paper"
    activations: ClassVar[tuple[str, ...]] = ("relu", "tanh", "sigmoid", "gelu")

    def prepare(self, task: Task) -> None:
        """Build the network with the task's weights, and put the table where training wants it."""
        raise NotImplementedError

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Train one epoch, batches being consecutive parts of ``order``; the loss of each before its update."""
        raise NotImplementedError

    def checked_epoch(self, order: np.ndarray) -> np.ndarray:
        """``epoch``, one loss a batch, in just this order; for a peer whose ``epoch`` cannot do that."""
        return self.epoch(order)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Probabilities (n, n_L) of rows (n, n_0)."""
        raise NotImplementedError

    def fit(self, task: Task) -> None:
        """A whole fit of ``task.work.epochs`` epochs."""
        rng = np.random.default_rng(0)
        self.prepare(task)
        for _ in range(task.work.epochs):
            self.epoch(rng.permutation(len(task.X)))
