"""One estimator in several threads: fits and predictions take turns, and every answer is one of a single thread's."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from backprop_gpu.estimators.classifier import MLPClassifier
from backprop_gpu.estimators.regressor import MLPRegressor
from backprop_gpu.training.callbacks import Callback, Epoch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 8))
y = (X[:, 0] > 0).astype(int)
KINDS = ["reference", "native"]
pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


class Worker(threading.Thread):
    """Calls over and over until it is left; what went wrong is raised then."""

    def __init__(self, work: Any) -> None:
        super().__init__(daemon=True)
        self.work, self.rounds, self.error, self._ended = work, 0, None, threading.Event()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self.work(self.rounds)
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join(120.0)
        assert self.error is None, self.error
        assert self.rounds


@pytest.mark.parametrize("kernels", KINDS)
def test_predictions_while_another_thread_goes_on_fitting(kernels: str) -> None:
    model = MLPClassifier(
        (16, 8), solver="sgd", learning_rate_init=1e-30, random_state=0, device="cpu", kernels=kernels
    )
    model.partial_fit(X[:200], y[:200], classes=[0, 1])
    wanted = model.predict_proba(X)

    def fit(k: int) -> None:  # rows of changing number, as they come in
        rows = slice(k % 100, 120 + k % 37)
        model.partial_fit(X[rows], y[rows])

    with Worker(fit) as worker:
        for _ in range(400):
            np.testing.assert_allclose(model.predict_proba(X), wanted, atol=1e-12)
            assert model.score(X, y) == np.mean(wanted.argmax(axis=1) == y)
            if worker.rounds > 30:
                break


@pytest.mark.parametrize("kernels", KINDS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_prediction_is_of_one_fit_or_the_other(kernels: str, solver: str) -> None:
    """Fits of different widths and numbers of classes: weights of one with the labels of another would not even fit."""
    several = np.digitize(X[:, 1], [-0.5, 0.5])
    model = MLPClassifier(max_iter=3, solver=solver, random_state=0, device="cpu", kernels=kernels)
    tasks = [((5,), X, y), ((9, 4), X[:, :3], several)]

    def fitted(task: int, model: MLPClassifier) -> None:
        hidden, rows, labels = tasks[task]
        model.set_params(hidden_layer_sizes=hidden).fit(rows, labels)

    known = []
    for task, (_, rows, _) in enumerate(tasks):
        fitted(task, model)
        known.append(model.predict_proba(rows))
    right = 0
    with Worker(lambda k: fitted(k % 2, model)) as worker:
        while worker.rounds < 8 and worker.is_alive():
            for (_, rows, _), wanted in zip(tasks, known, strict=True):
                with contextlib.suppress(ValueError):  # it is fitted to the other number of columns
                    np.testing.assert_array_equal(model.predict_proba(rows), wanted)
                    right += 1
    assert right


@pytest.mark.parametrize("preset", [None, "tabular"])
def test_copies_made_meanwhile_are_whole_and_free(preset: str | None) -> None:
    model = MLPRegressor(max_iter=2, random_state=0, device="cpu", preset=preset).fit(X, X[:, 0])
    wanted = model.predict(X)
    with Worker(lambda _: model.fit(X, X[:, 0])):
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            np.testing.assert_array_equal(copied.predict(X), wanted)


def test_fits_of_two_threads_do_not_mix() -> None:
    def trained(threads: int) -> MLPClassifier:
        model = MLPClassifier((8,), random_state=0, shuffle=False, device="cpu").partial_fit(X, y, classes=[0, 1])

        def work() -> None:
            for _ in range(12 // threads):
                model.partial_fit(X, y)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return model

    np.testing.assert_array_equal(trained(1).coefs_[0], trained(3).coefs_[0])


class Asks(Callback):
    """Asks for predictions at every epoch, here and in a thread that is waited for."""

    def __init__(self) -> None:
        self.model: Any = None
        self.answers = 0

    def on_epoch(self, epoch: Epoch) -> None:
        others: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: others.append(self.model.predict(X)), daemon=True)
        thread.start()
        thread.join(60.0)
        np.testing.assert_array_equal(self.model.predict(X), others[0])
        self.answers += 1


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks_may_predict_here_and_in_other_threads(solver: str) -> None:
    asks = Asks()
    asks.model = MLPClassifier((6,), solver=solver, max_iter=4, random_state=0, device="cpu", callbacks=[asks])
    asks.model.fit(X, y)
    assert asks.answers >= 3
