"""Nothing slips from a device to the host unseen: training on arrays that refuse every silent conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from support.standin import SilentConversion, StandInBackend

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.base import Backend
from backprop_gpu.gradcheck import gradcheck
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import load_model, save_model
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.trainer import Trainer

CONVERSIONS = ("__float__", "__int__", "__bool__", "__index__", "__complex__", "__iter__")


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """array_api_strict's second device, which besides mixing devices refuses to become Python numbers; NumPy's view of
    an array is for ``to_host`` alone.
    """
    backend = get_backend("array_api_strict:device1")
    kind: Any = type(backend.zeros((1,), "float32"))
    allowed: list[bool] = []
    as_array, to_host = kind.__array__, backend.to_host

    def refuse(self: Any, *unused: Any) -> Any:
        raise SilentConversion("an array of the device became a number of the host")

    def guarded(self: Any, *given: Any, **options: Any) -> np.ndarray:
        assert allowed, "an array of the device became a NumPy array"
        return as_array(self, *given, **options)

    def counted_transfer(x: Any) -> np.ndarray:
        allowed.append(True)
        try:
            return to_host(x)
        finally:
            allowed.pop()

    for name in CONVERSIONS:
        monkeypatch.setattr(kind, name, refuse, raising=False)
    monkeypatch.setattr(kind, "__array__", guarded)
    monkeypatch.setattr(backend, "to_host", counted_transfer)
    return backend


@pytest.fixture(params=["strict", "standin"])
def device(request: pytest.FixtureRequest) -> Backend:
    return StandInBackend() if request.param == "standin" else request.getfixturevalue("strict")


def test_the_guards_are_up(device: Backend) -> None:
    x = device.asarray([1.0], "float32")
    for convert in (float, int, bool, list, np.asarray, np.array):
        with pytest.raises((SilentConversion, AssertionError)):
            convert(x)
    with pytest.raises(TypeError):
        x + np.ones(1, np.float32)
    assert device.to_host(x) == [1.0]


NETWORKS: dict[str, dict[str, Any]] = {
    "classes": {"loss": "categorical_cross_entropy", "activation": "relu", "dropout": 0.2},
    "binary": {"loss": "binary_cross_entropy", "activation": ["gelu", "tanh"]},
    "values": {"loss": "huber", "activation": ["silu", "softplus"], "dropout": [0.0, 0.3]},
    "counts": {"loss": "poisson", "activation": ["sigmoid", {"name": "elu", "alpha": 0.7}]},
}
METRICS = {"classes": ["accuracy"], "binary": ["roc_auc"], "values": ["r2"], "counts": []}


def data(name: str, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    if name == "classes":
        return X, rng.integers(0, 3, n)
    return X, rng.integers(0, 2, n).astype(float) if name == "binary" else rng.poisson(2.0, n).astype(float)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["plain", "everything", "streamed"])
def test_training_and_judging(device: Backend, name: str, how: str, tmp_path: Path) -> None:
    X, y = data(name)
    net = DenseNet([4, 9, 7, 3 if name == "classes" else 1], device=device, **NETWORKS[name])
    before = net.parameters()
    everything: dict[str, Any] = {
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "schedule": "cosine",
        "l1": 1e-3,
        "l2": 1e-3,
        "clip_norm": 1.0,
        "micro_batch": 5,
        "delta": "literal" if name == "classes" else "fused",
        "one_over_m": "late",
        "early_stopping": EarlyStopping(patience=2),
        "metrics": METRICS[name],
    }
    settings = {"plain": {}, "everything": everything, "streamed": {"data_on": "host"}}[how]
    trainer = Trainer(net, epochs=3, batch_size=16, progress=False, **settings)
    weights = None if how == "plain" else np.linspace(0.0, 1.0, len(X))
    trainer.fit(X, y, sample_weight=weights, validation=data(name, 20))
    assert any(np.any(before[key] != value) for key, value in net.parameters().items())
    assert net.predict(X).shape == (len(X),)
    assert np.isfinite(net.cost(X, y, weights))
    assert trainer.evaluate(X, y)["cost"] == net.cost(X, y)
    save_model(tmp_path / "model.safetensors", net)
    again, _ = load_model(DenseNet, tmp_path / "model.safetensors", device)
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))


def test_gradcheck(device: Backend) -> None:
    X, y = data("values", 6)
    net = DenseNet([4, 5, 1], loss="squared_error", activation="gelu", dropout=0.2, dtype="float64", device=device)
    assert gradcheck(net, X, y, l2=0.1).ok


def test_the_guard_of_this_test_is_needed() -> None:
    """The second device of array_api_strict lets its numbers go by ``float``."""
    x = array_api_strict.ones(1, device=array_api_strict.Device("device1"))
    assert float(x[0]) == 1.0
