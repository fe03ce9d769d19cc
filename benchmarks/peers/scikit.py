"""scikit-learn's MLPClassifier. Its loss and gradient are those of the others, its Adam has epsilon beside sqrt(v)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer


class _OneColumnEach(LabelBinarizer):
    """One-hot columns for two classes too, so that the output is a softmax over n_L units as in the other peers."""

    def transform(self, y: Any) -> np.ndarray:
        return np.eye(len(self.classes_), dtype=np.int64)[np.asarray(y)]


class Scikit(Peer):
    """Trained by ``partial_fit``, an epoch a call: ``fit`` with ``warm_start`` forgets Adam's moments each time."""

    def _model(self, task: Task, **settings: Any) -> Any:
        w = task.work
        name = {"sigmoid": "logistic"}.get(w.activation, w.activation)
        adam = {"learning_rate_init": RATE, "beta_1": BETA1, "beta_2": BETA2, "epsilon": EPSILON}
        never = {"n_iter_no_change": 10**9, "tol": 0.0, "random_state": 0}
        return MLPClassifier(
            w.sizes[1:-1], activation=name, alpha=0.0, batch_size=w.batch_size, **adam, **never, **settings
        )

    def prepare(self, task: Task) -> None:
        """One step makes the arrays; then they get the task's weights, and the optimizer is made anew."""
        self.task, self.model = task, self._model(task)
        binarizer = _OneColumnEach().fit(np.arange(task.work.sizes[-1]))
        binarizer.y_type_ = "multiclass"
        self.model._label_binarizer, self.model.classes_ = binarizer, binarizer.classes_
        m = task.work.batch_size
        self.model.partial_fit(task.X[:m], task.y[:m])
        for view, given in zip([*self.model.coefs_, *self.model.intercepts_], [*task.W, *task.b], strict=True):
            view[...] = given.T
        del self.model._optimizer

    def _loss(self, X: np.ndarray, y: np.ndarray) -> float:
        return float(self.model.partial_fit(X, y).loss_)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """In an order of its own, the one that it draws; gives the mean loss of the epoch."""
        return np.array([self._loss(self.task.X, self.task.y)])

    def checked_epoch(self, order: np.ndarray) -> np.ndarray:
        """The same call on one batch at a time: a batch is then the whole table, whose inner order does not matter."""
        return np.array([self._loss(self.task.X[rows], self.task.y[rows]) for rows in self.cut(order)])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """``predict_proba``, all rows at once."""
        return np.asarray(self.model.predict_proba(X))

    def fit(self, task: Task) -> None:
        """``fit`` from its own initial weights."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped after as many epochs as it was told to
            self._model(task, max_iter=task.work.epochs).fit(task.X, task.y)
