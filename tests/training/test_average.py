"""The average of the weights over the steps: what is validated, kept as the best, and held in the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.small_nets import two_moons

from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import load_model, save_model
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.trainer import Trainer

D = 0.8
X, Y = two_moons(60, seed=0)


def net_of(case: Case, **settings: Any) -> DenseNet:
    return DenseNet([2, 7, 1], activation="tanh", device=case.backend, kernels=case.kind, **settings)


def trainer_of(net: DenseNet, average: float, **settings: Any) -> Trainer:
    optimizer = {"name": "adam", "learning_rate": 0.05, "average": average}
    return Trainer(net, optimizer=optimizer, batch_size=16, progress=False, **settings)


def close(found: dict[str, np.ndarray], want: dict[str, np.ndarray], rtol: float = 1e-4) -> None:
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("case", cases())
def test_the_network_ends_with_the_mean_of_its_steps(case: Case) -> None:
    """Batches of 16, 16, 16 and 12: four steps each epoch, the last in a program of its own. By hand, step by step."""
    epochs = 3
    plain = net_of(case)
    step = TrainingStep(plain, {"name": "adam", "learning_rate": 0.05})
    batches = Batches(plain, X, Y[:, None], None, batch_size=16, shuffle=True, seed=0)
    mean: dict[str, np.ndarray] = {name: 0.0 * value for name, value in plain.parameters().items()}
    t = 0
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        for k, m in enumerate(batches.sizes):
            buffers = BatchBuffers(batches, m)
            buffers.gather(case.put(np.array([k, 0])))
            step(buffers.X, buffers.Y)
            t += 1
            share = (1 - D) / (1 - D**t)
            mean = {name: mean[name] + share * (value - mean[name]) for name, value in plain.parameters().items()}
    net = net_of(case)
    trainer_of(net, D, epochs=epochs).fit(X, Y)
    close(net.parameters(), mean)
    moved = max(float(np.max(np.abs(mean[name] - value))) for name, value in plain.parameters().items())
    assert moved > 1e-2  # the last step alone is something else


@pytest.mark.parametrize("case", cases())
def test_validation_sees_the_average_and_training_does_not(case: Case) -> None:
    nets = [net_of(case), net_of(case)]
    histories = [
        trainer_of(net, average, epochs=4, restore_best=False).fit(X, Y, validation=(X, Y))
        for net, average in zip(nets, (0.0, D), strict=True)
    ]
    assert [e.cost for e in histories[0].epochs] == [e.cost for e in histories[1].epochs]  # bit for bit
    scores = [[e.validation["cost"] for e in h.epochs] for h in histories]
    assert all(a != b for a, b in zip(*scores, strict=True))
    assert scores[1][-1] == nets[1].cost(X, Y)


def test_the_best_epoch_is_the_best_of_the_averages() -> None:
    """A rate so large that costs go up and down: what is restored scores what was written down for it."""
    net = net_of(Case("numpy"))
    optimizer = {"name": "sgd", "learning_rate": 8.0, "average": D}
    rule = EarlyStopping(patience=30)
    trainer = Trainer(net, optimizer=optimizer, batch_size=16, epochs=5, early_stopping=rule, progress=False)
    history = trainer.fit(X, Y, validation=(X, Y))
    costs = [e.validation["cost"] for e in history.epochs]
    assert history.best_epoch == 1 + int(np.argmin(costs)) < 5
    assert net.cost(X, Y) == min(costs)


def test_within_averaged_only_and_before_the_first_step_nothing_changes() -> None:
    net = net_of(Case("numpy"))
    step = TrainingStep(net, {"name": "sgd", "average": D})
    start = net.params.theta.copy()
    with step.averaged():
        np.testing.assert_array_equal(net.params.theta, start)
    step(X.T, Y[None, :])
    step(X.T, Y[None, :])
    now = net.params.theta.copy()
    with contextlib.suppress(RuntimeError), step.averaged():
        np.testing.assert_array_equal(net.params.theta, step.optimizer_state[-1])
        raise RuntimeError("an evaluation that fails")
    np.testing.assert_array_equal(net.params.theta, now)
    assert not np.array_equal(now, step.optimizer_state[-1])
    step.adopt_average()
    np.testing.assert_array_equal(net.params.theta, step.optimizer_state[-1])


def test_what_is_saved_is_the_average(tmp_path: Path) -> None:
    net = net_of(Case("numpy"))
    trainer = trainer_of(net, D, epochs=2)
    trainer.fit(X, Y)
    save_model(tmp_path / "m.safetensors", net)
    loaded, _ = load_model(DenseNet, tmp_path / "m.safetensors", "numpy")
    wanted = net.params.named(trainer.step.optimizer_state[-1])
    for name, value in loaded.parameters().items():
        np.testing.assert_array_equal(value, wanted[name])
