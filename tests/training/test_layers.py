"""Norms and dead units by layer: their values, when they are taken, and that the fit has the same bits with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backprop_gpu import DenseNet, Trainer
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.history import History
from backprop_gpu.training.layers import LayerStatistics

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(40, 3)), RNG.integers(0, 2, 40)


def fitted(statistics: bool, epochs: int = 4, rows: int = 40, **settings: Any) -> tuple[DenseNet, History]:
    """A fit of a network, with or without statistics."""
    of_net = {"dtype": "float64", "device": "cpu", "seed": 1} | settings.pop("net", {})
    net = DenseNet([3, 5, 4, 1], **of_net)
    data = np.resize(X, (rows, 3)), np.resize(Y, rows)
    callbacks = [*settings.pop("callbacks", []), *([LayerStatistics(*data)] if statistics else [])]
    trainer = Trainer(net, epochs=epochs, batch_size=16, callbacks=callbacks, progress=False, **settings)
    return net, trainer.fit(*data)


def by_hand(p: dict[str, np.ndarray], rows: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The same numbers from the formulas of relu, sigmoid and the binary cross-entropy, written out once more."""
    A = [rows.T]
    for l in (1, 2):
        A.append(np.maximum(p[f"W{l}"] @ A[-1] + p[f"b{l}"], 0.0))
    A.append(1.0 / (1.0 + np.exp(-(p["W3"] @ A[-1] + p["b3"]))))
    dZ, found = (A[3] - y) / len(rows), {}
    for l in (3, 2, 1):
        found[f"gradient {l}"] = np.linalg.norm(dZ @ A[l - 1].T)
        found[f"weights {l}"] = np.linalg.norm(p[f"W{l}"])
        found[f"activation {l}"] = np.sqrt(np.mean(A[l] ** 2))
        dZ = (p[f"W{l}"].T @ dZ) * (A[l - 1] > 0.0)
    dead = {f"dead {l}": np.mean([len(set(unit)) == 1 for unit in A[l].tolist()]) for l in (1, 2)}
    return found | dead


class Parameters(Callback):
    """Copies the parameters after each epoch."""

    def __init__(self) -> None:
        self.found: list[dict[str, np.ndarray]] = []

    def on_epoch(self, epoch: Epoch) -> None:
        assert self.trainer is not None
        self.found.append(self.trainer.net.parameters())


@pytest.mark.parametrize("kernels", ["native", "reference"])
def test_they_are_those_of_the_formulas(kernels: str) -> None:
    """Of the sample's gradient without dropout, though the fit has dropout and a penalty; one unit is dead."""
    seen = Parameters()
    settings: dict[str, Any] = {"net": {"dropout": [0.4, 0.0], "kernels": kernels}, "l2": 3.0, "callbacks": [seen]}
    _, history = fitted(True, **settings)
    rows = np.linspace(0, 39, 32).astype(int)
    taken = [e.epoch for e in history.epochs if e.layers]
    assert taken == [1, 4]
    for number in taken:
        want = by_hand(seen.found[number - 1], X[rows], Y[rows])
        got = history.epochs[number - 1].layers
        assert got == pytest.approx(want, rel=1e-10, abs=1e-14)
        assert set(got) == set(want)


def test_a_unit_that_is_0_for_every_row_is_dead() -> None:
    net = DenseNet([3, 4, 1], device="cpu", activation="relu")
    parameters = net.parameters()
    parameters["b1"][[0, 2]] = -100.0
    net.set_parameters(parameters)
    trainer = Trainer(net, epochs=1, optimizer={"name": "sgd", "learning_rate": 1e-6}, progress=False)
    trainer.callbacks = [LayerStatistics(X, Y)]
    assert trainer.fit(X, Y).epochs[0].layers["dead 1"] == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"net": {"dropout": 0.3}, "clip_norm": 0.1, "l1": 0.01},
        {"net": {"batch_norm": [True, False], "dtype": "float32"}, "optimizer": {"name": "adam", "average": 0.9}},
        {"net": {"kernels": "reference", "batch_norm": True}, "micro_batch": 8, "one_over_m": "late"},
        {"net": {"members": 3, "adapters": "all", "dropout": 0.3}},
    ],
    ids=["dropout", "normalized and averaged", "reference", "ensemble"],
)
def test_the_fit_has_the_same_bits_with_them(settings: dict[str, Any]) -> None:
    (with_them, history), (without, other) = fitted(True, **settings), fitted(False, **settings)
    assert any(epoch.layers for epoch in history.epochs)
    mine, others = with_them.parameters(), without.parameters()
    assert all(np.array_equal(mine[name], others[name]) for name in others)
    assert [e.cost for e in history.epochs] == [e.cost for e in other.epochs]


@pytest.mark.parametrize(("rows", "every"), [(40, 80), (400, 8), (3200, 1), (100_000, 1)])
def test_a_hundred_rows_are_trained_on_for_each_that_is_looked_at(rows: int, every: int) -> None:
    found = LayerStatistics(np.resize(X, (rows, 3)), np.resize(Y, rows))
    assert found.epochs_between == every
    assert len(found.X) == {40: 32, 400: 32, 3200: 32, 100_000: 256}[rows]


def test_a_resumed_fit_takes_them_after_the_same_epochs_and_an_old_state_has_none() -> None:
    """In a fit of 400 rows they are due after epochs 1, 9 and the last."""

    class Keeps(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 5:
                assert self.trainer is not None
                self.state = self.trainer.state_dict()

    keeps = Keeps()
    _, history = fitted(True, 11, 400, callbacks=[keeps])
    assert [e.epoch for e in history.epochs if e.layers] == [1, 9, 11]
    net = DenseNet([3, 5, 4, 1], dtype="float64", device="cpu", seed=1)
    data = np.resize(X, (400, 3)), np.resize(Y, 400)
    again = Trainer(net, epochs=11, batch_size=16, callbacks=[LayerStatistics(*data)], progress=False)
    resumed = again.fit(*data, resume=keeps.state)
    assert [e.layers for e in resumed.epochs] == [e.layers for e in history.epochs]
    old = History()
    state = keeps.state["history"]
    old.load_state_dict(
        state | {"epochs": [{k: v for k, v in run.items() if k != "layers"} for run in state["epochs"]]}
    )
    assert [e.layers for e in old.epochs] == [{}] * 5
