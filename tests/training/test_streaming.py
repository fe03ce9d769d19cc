"""A data set that stays on the host: the same batches, the same bits, whatever the device; larger than memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.standin import StandInBackend

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.errors import DeviceError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.history import History
from backprop_gpu.training.trainer import Trainer

DEVICES: list[tuple[str, str]] = [
    ("cpu", "reference"),
    *([("cpu", "native")] if not unavailable_reason() else []),
    ("array_api_strict", "auto"),
    ("array_api_strict:device1", "auto"),
    ("standin", "auto"),
]


def backend_of(device: str) -> Any:
    return StandInBackend() if device == "standin" else device


def trained(device: Any, kernels: str, data_on: str, X: Any, y: Any, **settings: Any) -> tuple[np.ndarray, History]:
    classes = y.dtype.kind == "i"
    loss, outputs = ("categorical_cross_entropy", 3) if classes else ("squared_error", 2)
    net = DenseNet([X.shape[1], 9, outputs], loss=loss, dropout=0.2, device=device, kernels=kernels)
    given = {"epochs": 3, "batch_size": 16, "progress": False, "data_on": data_on} | settings
    weights = given.pop("sample_weight", None)
    history = Trainer(net, **given).fit(X, y, sample_weight=weights, validation=(X[:10], y[:10]))
    return net.backend.to_host(net.params.theta), history


def table(n: int = 75, classes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 4)), rng.integers(0, 3, n) if classes else rng.normal(size=(n, 2))


@pytest.mark.parametrize(("device", "kernels"), DEVICES)
@pytest.mark.parametrize("classes", [False, True])
def test_the_bits_are_those_of_a_resident_data_set(device: str, kernels: str, classes: bool) -> None:
    X, y = table(classes=classes)
    weights = np.random.default_rng(4).integers(0, 3, len(X)) + 0.5
    for settings in ({}, {"shuffle": False, "micro_batch": 7}, {"sample_weight": weights, "batch_size": 1000}):
        theta, history = trained(backend_of(device), kernels, "device", X, y, **settings)
        streamed, history_streamed = trained(backend_of(device), kernels, "host", X, y, **settings)
        np.testing.assert_array_equal(streamed, theta)
        assert [(e.step, e.cost, e.validation) for e in history_streamed.epochs] == [
            (e.step, e.cost, e.validation) for e in history.epochs
        ]
        assert history_streamed.notes == history.notes


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_memory_mapped_rows(tmp_path: Path, dtype: str, order: str) -> None:
    X, y = table()
    X = (10.0 * X).astype(dtype)
    mapped = np.memmap(tmp_path / "X", dtype, "w+", shape=X.shape, order=order)  # type: ignore[call-overload]
    mapped[:] = X
    theta, _ = trained("cpu", "auto", "device", X, y)
    streamed, _ = trained("cpu", "auto", "host", mapped, y)
    np.testing.assert_array_equal(streamed, theta)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_table_larger_than_what_is_allocated(tmp_path: Path, order: str) -> None:
    shape = (80_000, 100)  # 32 MB
    X = np.memmap(tmp_path / "X", "float32", "w+", shape=shape, order=order)  # type: ignore[call-overload]
    X[::7] = 1.0
    y = np.zeros((shape[0], 1), np.float32)
    net = DenseNet([100, 4, 1], loss="squared_error", device="cpu", kernels="native")
    trainer = Trainer(net, epochs=1, batch_size=8192, data_on="host", progress=False)
    tracemalloc.start()
    try:
        trainer.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert X.nbytes == 32_000_000
    assert peak < 14_000_000  # a batch's buffer is 3.3 MB: those of full batches and of the tail, and a copy of rows


def test_auto_follows_the_memory_that_is_available() -> None:
    X, y = table(4000)
    resident = StandInBackend(10**6)
    theta, history = trained(resident, "auto", "auto", X, y, epochs=1)
    assert history.notes == []
    little = StandInBackend(150_000)
    streamed, history = trained(little, "auto", "auto", X, y, epochs=1)
    assert history.notes == ["the data set (128 kB) stays on the host; each batch is copied to standin:0"]
    np.testing.assert_array_equal(streamed, theta)
    with pytest.raises(DeviceError, match=r"the data set \(128 kB\) does not fit on standin:0; set training.data_on"):
        trained(StandInBackend(100_000), "auto", "device", X, y, epochs=1)


def test_auto_streams_where_uploading_fails() -> None:
    X, y = table(4000)

    class Boaster(StandInBackend):
        def available(self) -> int | None:
            return 10**9

    assert "stays on the host" in trained(Boaster(100_000), "auto", "auto", X, y, epochs=1)[1].notes[0]


def test_only_what_a_step_needs_is_uploaded() -> None:
    X, y = table(640)
    counts = []
    for epochs in (1, 2):
        device = StandInBackend()
        net = DenseNet([4, 9, 2], loss="squared_error", device=device)
        Trainer(net, epochs=epochs, batch_size=16, data_on="host", progress=False).fit(X, y)
        counts.append((device.uploads, device.downloads))
    batches = 640 // 16
    assert counts[1][0] - counts[0][0] == 2 * batches + 2  # X and Y of each batch; the table of numbers, the counters
    assert counts[1][1] - counts[0][1] == 3  # the costs of the epoch, and whether all is finite
