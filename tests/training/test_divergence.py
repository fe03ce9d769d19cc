"""A run that diverges ends with an error and leaves weights of before: never NaN or infinity, and never no word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits
from support.small_nets import two_moons

from backprop_gpu.errors import DivergedError, NonFiniteError
from backprop_gpu.maths.schedules import Constant
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.memory import all_finite
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.epoch import CapturedEpoch, EpochProgram, JointEpoch
from backprop_gpu.training.trainer import Trainer

RNG = np.random.default_rng(0)
X = (1e3 * RNG.standard_normal((60, 4))).astype("f4")
Y = 10.0 * X[:, 0]


def net_of(case: Case, **settings: Any) -> DenseNet:
    return DenseNet([4, 6, 1], loss="squared_error", device=case.backend, kernels=case.kind, **settings)


def finite(net: DenseNet) -> bool:
    return all(np.isfinite(x).all() for x in net.parameters().values())


class Watched(Callback):
    """The parameters after every epoch."""

    def __init__(self, net: DenseNet) -> None:
        self.net, self.seen = net, [net.parameters()]

    def on_epoch(self, epoch: Epoch) -> None:
        self.seen.append(self.net.parameters())


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "learning_rate": 1e38},  # the first update overflows, with a finite cost and gradient
        {"name": "sgd", "learning_rate": 1e-2},  # the cost does, sooner or later
        {"name": "sgd", "learning_rate": 1.0, "average": 0.9},
        {"name": "adam", "learning_rate": 1e30},  # finite weights that are of no use
        {"name": "rmsprop", "learning_rate": 1e38},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [60, 16])
@pytest.mark.parametrize("case", cases())
def test_weights_stay_finite_and_of_use(
    case: Case, batch_size: int, optimizer: dict[str, Any], settings: dict[str, Any]
) -> None:
    for epochs in (1, 30):
        net = net_of(case, **settings)
        trainer = Trainer(net, optimizer=optimizer, epochs=epochs, batch_size=batch_size, progress=False)
        message = None
        try:
            trainer.fit(X, Y)
        except NonFiniteError as error:
            message = str(error)
        if message is not None:
            assert trainer.history.stopped == "diverged"
            assert f"lower optimizer.learning_rate (now {optimizer['learning_rate']:g}), or set clip_norm" in message
            assert all(
                np.isfinite(trainer.net.backend.to_host(vector)).all() for vector in trainer.step.optimizer_state
            )
        else:
            assert epochs == 1 or optimizer["name"] != "sgd" or settings  # that diverges
        assert finite(net)
        assert np.isfinite(net.predict(X)).all()


@pytest.mark.parametrize("case", cases())
def test_the_weights_are_those_of_before_the_step_that_was_not_finite(case: Case) -> None:
    net, other = net_of(case), net_of(case)
    settings = {"optimizer": {"name": "adam", "learning_rate": 1e-3}, "batch_size": 20, "shuffle": False}
    trainer = Trainer(net, epochs=5, progress=False, **settings)
    trainer.fit(X[:40], Y[:40])
    spoiled = np.concatenate([X[:40], np.full((20, 4), 3e38, "f4")])  # in the last batch of the epoch
    with pytest.raises(NonFiniteError, match=r"in Z1\[\d, 0\] .* of training row 40 at step 13 \(batch 3\) in epoch 1"):
        trainer.fit(spoiled, Y)
    Trainer(other, epochs=6, progress=False, **settings).fit(X[:40], Y[:40])
    assert trainer.step.t == 12
    for name, value in net.parameters().items():
        same_bits(value, other.parameters()[name])


def test_the_best_weights_come_back() -> None:
    net = net_of(Case("numpy"))
    watched = Watched(net)

    class Warming(Constant):
        """A rate that grows until the run diverges."""

        def factor(self, t: int, total: int) -> float:
            return 10.0**t

    settings = {"epochs": 40, "batch_size": 60, "callbacks": [watched], "progress": False}
    trainer = Trainer(net, optimizer={"name": "sgd", "learning_rate": 1e-10}, schedule=Warming(), **settings)
    with pytest.raises(NonFiniteError):
        trainer.fit(X, Y, validation=(X, Y))
    costs = [e.validation["cost"] for e in trainer.history.epochs]
    assert trainer.history.best_epoch == 1 + int(np.argmin(costs)) < len(costs)
    for name, value in net.parameters().items():
        same_bits(value, watched.seen[trainer.history.best_epoch][name])


def test_what_no_learning_rate_helps_is_said() -> None:
    net = net_of(Case("numpy"))
    start = net.parameters()
    with pytest.raises(NonFiniteError) as caught:
        Trainer(net, epochs=3, progress=False).fit(X, 1e30 * Y)
    assert str(caught.value) == (
        "inf in L[0, 0] (loss, layer 2) of training row 20 at step 1 (batch 1) before the first step; "
        "scale targets (data.standardize_target), or use dtype float64"
    )
    for name, value in net.parameters().items():
        same_bits(value, start[name])
    wide = net_of(Case("numpy"), dtype="float64")
    Trainer(wide, epochs=3, progress=False).fit(X, 1e30 * Y)  # as it says


def test_a_fit_after_one_that_diverged_is_a_fit() -> None:
    """The optimizer starts afresh, since its state was spoiled too."""
    moons, labels = two_moons(100, seed=0)
    net, other = (DenseNet([2, 8, 1], device="cpu", seed=1) for _ in range(2))
    settings = {"epochs": 5, "progress": False}
    trainer = Trainer(net, optimizer={"name": "adam", "learning_rate": 0.01}, **settings)
    with pytest.raises(NonFiniteError):
        trainer.fit(np.full((8, 2), 3e38), np.ones(8))
    trainer.fit(moons, labels)
    Trainer(other, optimizer={"name": "adam", "learning_rate": 0.01}, **settings).fit(moons, labels)
    for name, value in net.parameters().items():
        same_bits(value, other.parameters()[name])


def test_of_several_steps_in_one_program_each_stays_finite() -> None:
    one = DenseNet([4, 6, 1], loss="squared_error", device="cpu")
    nets = [one, *(DenseNet([4, 6, 1], loss="squared_error", share_with=one, seed=s) for s in (1, 2))]
    rates = (1e-12, 1e38, 1e38)
    programs = []
    for net, rate in zip(nets, rates, strict=True):
        step = TrainingStep(net, {"name": "sgd", "learning_rate": rate})
        programs.append(
            EpochProgram(step, Batches(net, X, Y[:, None], None, batch_size=60, shuffle=False, seed=0), None)
        )
    with pytest.raises(DivergedError, match=r"-inf in W1\[0, 0\] \(update, layer 1\) at step 1 \(batch 1\)"):
        JointEpoch(programs).train(0)
    assert all(finite(net) for net in nets)
    assert programs[0].step.t == 1
    assert programs[1].step.t == programs[2].step.t == 0


@pytest.mark.parametrize("case", cases())
def test_ctrl_c_leaves_no_weights_that_are_not_numbers(case: Case) -> None:
    net = net_of(case)
    step = TrainingStep(net, {"name": "sgd", "learning_rate": 1e38})
    epochs = CapturedEpoch(step, Batches(net, X, Y[:, None], None, batch_size=60, shuffle=False, seed=0), None)
    played, start = epochs.replays[0][0], net.parameters()

    def stopped(times: int, before: Any = None) -> None:
        played(times)
        raise KeyboardInterrupt

    epochs.replays = [(stopped, 1)]
    with pytest.raises(KeyboardInterrupt):
        epochs.run(0)
    for name, value in net.parameters().items():
        same_bits(value, start[name])


def test_large_numbers_are_no_divergence() -> None:
    """Their squares overflow, which is the quick look; they do not."""
    net = DenseNet([1, 1], loss="squared_error", device="cpu")
    net.set_parameters({"W1": np.array([[1e30]]), "b1": np.array([[0.0]])})
    assert all_finite(net)
    net.set_parameters({"W1": np.array([[np.inf]]), "b1": np.array([[0.0]])})
    assert not all_finite(net)
