"""What a peer does: take a task, train epochs of it in a given order, predict."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..workloads import Task


class Peer:
    """Base class of the peers. A timed call counts from its start to its end."""

    task: Task

    def prepare(self, task: Task) -> None:
        """Build the network with the task's weights, and store the table as training needs it."""
        raise NotImplementedError

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Train one epoch, batches being consecutive parts of ``order``; the loss of each before its update."""
        raise NotImplementedError

    def checked_epoch(self, order: np.ndarray) -> np.ndarray:
        """``epoch``, one loss a batch, in just this order; for a peer whose ``epoch`` cannot do that."""
        return self.epoch(order)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Probabilities (n, n_L) of rows (n, n_0), a batch of rows at a time."""
        return np.concatenate([np.asarray(self.predict_batch(rows)) for rows in self.cut(X)])

    def predict_batch(self, X: np.ndarray) -> Any:
        """Probabilities of one batch."""
        raise NotImplementedError

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """Consecutive parts of the task's batch size."""
        m = self.task.work.batch_size
        return [rows[start : start + m] for start in range(0, len(rows), m)]

    def fit(self, task: Task) -> None:
        """A whole fit of ``task.work.epochs`` epochs."""
        rng = np.random.default_rng(0)
        self.prepare(task)
        for _ in range(task.work.epochs):
            self.epoch(rng.permutation(len(task.X)))
