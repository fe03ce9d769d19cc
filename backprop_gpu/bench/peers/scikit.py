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
    """One-hot columns for two classes too, so that the output is a softmax over n_L units as everybody else's."""

    def transform(self, y: Any) -> np.ndarray:
        return np.eye(len(self.classes_), dtype=np.int64)[np.asarray(y)]


class Scikit(Peer):
    """Trained by ``partial_fit``, an epoch a call: ``fit`` with ``warm_start`` would forget Adam's moments each time."""

    adam = "epsilon_hat"
    activations = ("relu", "tanh", "sigmoid")

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
        self.X, self.y = task.X, task.y
        self.model = model = self._model(task)
        model._label_binarizer = _OneColumnEach().fit(np.arange(task.work.sizes[-1]))
        model._label_binarizer.y_type_ = "multiclass"
        model.classes_ = model._label_binarizer.classes_
        m = task.work.batch_size
        model.partial_fit(self.X[:m], self.y[:m])
        for mine, given in ((model.coefs_, task.W), (model.intercepts_, task.b)):
            for view, x in zip(mine, given, strict=True):
                view[...] = x.T
        del model._optimizer

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """In an order of its own, the one that it draws; gives the mean loss of the epoch."""
        self.model.partial_fit(self.X, self.y)
        return np.array([self.model.loss_])

    def checked_epoch(self, order: np.ndarray) -> np.ndarray:
        """The same call on one batch at a time: a batch is then the whole table, whose inner order is of no account."""
        losses = []
        for start in range(0, len(order), self.model.batch_size):
            rows = order[start : start + self.model.batch_size]
            losses.append(self.model.partial_fit(self.X[rows], self.y[rows]).loss_)
        return np.array(losses)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """``predict_proba``, all rows at once."""
        return np.asarray(self.model.predict_proba(X))

    def fit(self, task: Task) -> None:
        """``fit`` from its own initial weights."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped after as many epochs as it was told to
            self._model(task, max_iter=task.work.epochs).fit(task.X, task.y)
