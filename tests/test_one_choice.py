"""A configuration, a ``DenseNet``, an estimator and a saved model run one network on one device with one kernel set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier as SklearnMLPClassifier

from backprop_gpu import DenseNet, load
from backprop_gpu.backends import Backend
from backprop_gpu.backends.cuda import device as cuda_device
from backprop_gpu.backends.cuda import probe as cuda_probe
from backprop_gpu.backends.cuda.probe import Probe
from backprop_gpu.backends.select import select
from backprop_gpu.build import prepare, run
from backprop_gpu.config import Config, validate
from backprop_gpu.estimators import MLPClassifier, MLPRegressor
from backprop_gpu.estimators.fitted_network import device_state
from backprop_gpu.training.callbacks import Callback, Epoch

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).standard_normal((60, 2))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


class AnyCuda(Backend):
    """Stands for a card where only the choice is tested."""

    def __init__(self, index: int = 0, reason: str = "") -> None:
        super().__init__(f"cupy:{index}", np, None, reason)


def config(hidden: list[int], batch_size: int, epochs: int, **more: Any) -> Config:
    training = {"epochs": epochs, "batch_size": batch_size}
    data = {"source": "moons", "options": {"n": 100}}
    return validate({"data": data, "model": {"hidden": hidden}, "training": training, **more})


def ran(net: DenseNet) -> tuple[str, str, str]:
    return net.backend.name, net.kernels_kind, type(net.kernels).__name__


class Seen(Callback):
    """Keeps the network that an estimator is fitting."""

    def __init__(self) -> None:
        self.estimator: Any = None
        self.nets: list[DenseNet] = []

    def on_epoch(self, epoch: Epoch) -> None:
        engine = device_state(self.estimator).fitting
        assert engine is not None
        self.nets.append(engine.net)


def estimators(hidden: list[int], batch_size: int, max_iter: int, **more: Any) -> list[DenseNet]:
    """The networks that fitted, and those that predict afterwards."""
    more = {"hidden_layer_sizes": hidden, "batch_size": batch_size, "max_iter": max_iter, "dtype": "float32"} | more
    found = []
    for make in (MLPClassifier, MLPRegressor):
        seen = Seen()
        seen.estimator = fitted = make(**more, callbacks=[seen])
        fitted.fit(X, Y)
        found += [seen.nets[-1], fitted.network()]
    return found


@pytest.mark.parametrize("device", [None, "auto", "array_api_strict"])
def test_short_and_long_runs_from_every_entry_point_agree(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if device:
        monkeypatch.setenv("BACKPROP_GPU_DEVICE", device)
    chosen = select([2, 16, 1])
    expected = {(chosen.backend.name, chosen.kernels, type(chosen.backend.kernels(chosen.kernels)).__name__)}
    nets = [DenseNet([2, 16, 1]), DenseNet([2, 16, 1], device="auto")]
    for batch_size, epochs in [(1, 1), (60, 1), (7, 30)]:
        nets.append(prepare(config([16], batch_size, epochs), progress=False).model.net)
        nets += estimators([16], batch_size, epochs)
    assert {ran(net) for net in nets} == expected


@pytest.mark.parametrize(("hidden", "name"), [([16], "numpy"), ([4096, 4096], "cupy:0")])
def test_beside_a_card_too(hidden: list[int], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_probe, "probe", lambda device=0: Probe(True, "CUDA works on a card"))
    monkeypatch.setattr(cuda_device, "CudaBackend", AnyCuda)
    nets = [prepare(config(hidden, batch, 1), progress=False).model.net for batch in (1, 100)]
    nets.append(DenseNet([2, *hidden, 1]))
    if hidden == [16]:
        nets += estimators(hidden, 60, 1) + estimators(hidden, 1, 1)
    assert {net.backend.name for net in nets} == {name}


def test_a_network_predicts_with_what_it_was_trained_with() -> None:
    experiment = prepare(config([16], 32, 1), progress=False)
    net = run(experiment, Path("run")).model.net
    assert ran(load("run").net) == ran(net) == ran(experiment.trainer.net)
    for settings in ({}, {"solver": "lbfgs"}, {"early_stopping": True}, {"kernels": "native"}):
        found = [ran(net) for net in estimators([16], 20, 2, **settings)]
        assert len(set(found)) == 1
    fitted = MLPClassifier([16], dtype="float32", n_members=2, preset="tabular", max_iter=2).fit(X, Y)
    assert {ran(member._loaded()) for member in fitted.members_} == {ran(net)}


def test_what_comes_from_elsewhere_predicts_with_the_same() -> None:
    expected = ran(DenseNet([2, 16, 1]))
    theirs = SklearnMLPClassifier([16], max_iter=2).fit(X, Y)
    ours = MLPClassifier.from_sklearn(theirs)
    ours.to_safetensors("ours.safetensors")
    for fitted in (ours, MLPClassifier.from_safetensors("ours.safetensors")):
        assert ran(fitted.network()) == expected
    grown = MLPClassifier([16], dtype="float32")
    for rows in (60, 3, 20):
        grown.partial_fit(X[:rows], Y[:rows], classes=[0, 1])
        assert ran(device_state(grown).kept.net) == ran(grown.network()) == expected  # type: ignore[union-attr]
