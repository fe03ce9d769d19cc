"""Predicting while another thread trains the same network: right numbers, of some step's end, on every kernel set."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.epoch import EpochProgram, JointEpoch
from backprop_gpu.training.trainer import Trainer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 300)
STILL = {"name": "sgd", "learning_rate": 1e-30}  # the weights stay, so that every answer is known
OTHERS = cases(without=("array_api_strict", "emulated", "torch"))


def net_of(case: Case, **more: Any) -> DenseNet:
    given: dict[str, Any] = {"activation": "gelu", "loss": "categorical_cross_entropy", "dropout": 0.1}
    return DenseNet([6, 16, 8, 3], device=case.backend, kernels=case.kind, **(given | more))


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[list[int]]:
    """Another thread works over and over; how often it has, so far."""
    done, stop, errors = [0], threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not stop.is_set():
                work()
                done[0] += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert not errors, errors


@pytest.mark.parametrize("case", OTHERS)
def test_predictions_and_costs_while_a_trainer_trains(case: Case) -> None:
    net = net_of(case)
    wanted, cost = net.predict_proba(X), net.cost(X, Y)
    number = iter(range(10**9))

    def train() -> None:
        trainer = Trainer(net, optimizer=STILL, epochs=2, batch_size=16 + next(number) % 5, progress=False)
        trainer.fit(X, Y, validation=(X[:40], Y[:40]))

    with meanwhile(train) as fits:
        for _ in range(1000):
            np.testing.assert_allclose(net.predict_proba(X), wanted, rtol=1e-6)
            assert net.cost(X, Y) == pytest.approx(cost, rel=1e-6)
            if fits[0] > 4:
                break


@pytest.mark.parametrize("case", OTHERS)
def test_training_is_the_same_when_others_predict(case: Case) -> None:
    alone, watched = net_of(case), net_of(case)
    for net in (alone, watched):
        trainer = Trainer(net, optimizer={"name": "adam", "average": 0.9}, epochs=6, batch_size=32, progress=False)
        with meanwhile(lambda: watched.predict_proba(X)) if net is watched else contextlib.nullcontext():
            trainer.fit(X, Y, validation=(X[:40], Y[:40]))
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(watched.parameters()[name], value)


@pytest.mark.parametrize("case", OTHERS)
def test_predictions_are_of_the_end_of_some_step(case: Case) -> None:
    """The biases of both outputs move alike, so that where they differ a step was seen half done."""
    net = DenseNet(
        [1, 2], loss="squared_error", initializer="zeros", dtype="float64", device=case.backend, kernels=case.kind
    )
    step = TrainingStep(net, {"name": "sgd", "learning_rate": 1.0})
    rows = net.upload_columns(np.zeros((4, 1))), net.upload_columns(np.full((4, 2), 1.0))

    def train() -> None:
        step(*rows)
        net.set_parameters({"W1": np.zeros((2, 1)), "b1": np.zeros((2, 1))})

    with meanwhile(train):
        for _ in range(300):
            AL = net.predict_proba(np.zeros((3, 1)))
            assert (AL[0, 0] == AL).all()


@pytest.mark.parametrize("case", OTHERS)
def test_networks_that_share_a_kernel_set_train_in_threads_of_their_own(case: Case) -> None:
    def trained(net: DenseNet, seed: int) -> dict[str, np.ndarray]:
        Trainer(net, epochs=5, batch_size=32, seed=seed, progress=False).fit(X, Y)
        return net.parameters()

    wanted = [trained(net_of(case, seed=seed), seed) for seed in (1, 2)]
    first = net_of(case, seed=1)
    second = DenseNet(**first.spec() | {"seed": 2}, share_with=first)
    assert second.lock is first.lock
    got: dict[int, dict[str, np.ndarray]] = {}
    threads = [
        threading.Thread(target=lambda net=net, seed=seed: got.update({seed: trained(net, seed)}))  # type: ignore[misc]
        for net, seed in ((first, 1), (second, 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, parameters in zip((1, 2), wanted, strict=True):
        for name, value in parameters.items():
            np.testing.assert_array_equal(got[seed][name], value, err_msg=f"{seed}: {name}")


@pytest.mark.parametrize("case", OTHERS)
def test_a_joint_pass_while_others_predict(case: Case) -> None:
    nets = [net_of(case)]
    nets.append(DenseNet(**nets[0].spec(), share_with=nets[0]))
    wanted = nets[1].predict_proba(X)
    rows = X, Y[:, None], None
    programs = [
        EpochProgram(TrainingStep(net, STILL), Batches(net, *rows, batch_size=32, shuffle=True, seed=0), None)
        for net in nets
    ]
    joint = JointEpoch(programs)
    with meanwhile(lambda: joint.train(0)) as epochs:
        for _ in range(1000):
            np.testing.assert_allclose(nets[1].predict_proba(X), wanted, rtol=1e-6)
            if epochs[0] > 5:
                break


class Asks(Callback):
    """Predicts at every epoch, on the thread that trains and on one that it waits for."""

    def __init__(self, net: DenseNet) -> None:
        self.net, self.answers = net, 0

    def on_epoch(self, epoch: Epoch) -> None:
        mine, others = self.net.predict_proba(X), list[np.ndarray]()
        thread = threading.Thread(target=lambda: others.append(self.net.predict_proba(X)), daemon=True)
        thread.start()
        thread.join(60.0)
        np.testing.assert_array_equal(mine, others[0])
        self.answers += 1


def test_callbacks_may_predict_here_and_in_other_threads() -> None:
    net = DenseNet([6, 8, 3], loss="categorical_cross_entropy", device="cpu")
    asks = Asks(net)
    Trainer(net, epochs=3, callbacks=[asks], progress=False).fit(X, Y, validation=(X, Y))
    assert asks.answers == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("case", OTHERS)
def test_a_process_forked_while_a_network_is_trained_predicts_right(case: Case) -> None:
    if case.namespace == "cupy":
        pytest.skip("CUDA does not survive a fork")
    net = net_of(case)
    wanted = net.predict_proba(X)
    with meanwhile(lambda: Trainer(net, optimizer=STILL, epochs=3, progress=False).fit(X, Y)):
        for _ in range(12):
            child = os.fork()
            if not child:
                signal.alarm(60)
                right = np.allclose(net.predict_proba(X), wanted, rtol=1e-6)
                Trainer(net, optimizer=STILL, epochs=1, progress=False).fit(X, Y)
                os._exit(not (right and np.allclose(net.predict_proba(X), wanted, rtol=1e-6)))
            assert os.waitpid(child, 0)[1] == 0
