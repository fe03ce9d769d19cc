"""``check``: its door, what it says, several steps, and that the model stays as it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from parity.faults import EARLY, FAULTS, FaultyBackend, seeded

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import BackpropError, CheckpointError, ConfigError, DataError, ShapeError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import save_model
from backprop_gpu.parity.checking import check


def net(**settings: object) -> DenseNet:
    return DenseNet([7, 8, 5, 3], loss="categorical_cross_entropy", device="numpy", **settings)  # type: ignore[arg-type]


def rows(m: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(m)
    return rng.standard_normal((m, 7)), rng.integers(0, 3, m)


def test_a_good_device_passes_and_says_so() -> None:
    report = check(net(), *rows())
    assert report.ok
    assert report.first is None
    assert report.apart == []
    assert report.summary().startswith("parity ok, worst ratio ")
    assert report.about == {
        "device": "numpy",
        "kernels": report.about["kernels"],
        "dtype": "float32",
        "claim": "fp32",
        "sizes": [7, 8, 5, 3],
        "examples": 12,
        "steps": 1,
    }
    assert [f.tensor for f in report.findings][:2] == ["X", "Y"]
    assert report.drift == []


@pytest.mark.parametrize("kernels", ["reference", "native", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_is_not_changed(kernels: str, dtype: str) -> None:
    model = net(kernels=kernels, dtype=dtype)
    before = {name: x.copy() for name, x in model.parameters().items()}
    assert check(model, *rows(), dtype=dtype, steps=2).ok
    for name, x in model.parameters().items():
        np.testing.assert_array_equal(x, before[name])


def test_a_model_with_a_net_is_taken_by_its_net() -> None:
    assert check(SimpleNamespace(net=net()), *rows()).ok
    for wrong in (SimpleNamespace(), 3, None):
        with pytest.raises(ConfigError, match="a DenseNet, a model with a net"):
            check(wrong, *rows())


def test_a_fresh_network_has_no_zeros_to_hide_behind() -> None:
    """Its biases and the optimizer's state are 0, and a missing bias would not be seen in the first step."""
    model = net()
    assert not model.parameters()["b1"].any()
    trace = check(model, *rows()).trace
    assert trace is not None
    for name, (at, shape) in trace.spec.layout.items():
        assert np.count_nonzero(trace.theta[at : at + shape[0] * shape[1]]) == shape[0] * shape[1], name
        for vector in trace.optimizer_state:
            assert np.all(vector[at : at + shape[0] * shape[1]] > 0.0)
    used = sum(shape[0] * shape[1] for _, shape in trace.spec.layout.values())
    assert np.count_nonzero(trace.theta) == used, "what pads the tensors stays 0"
    assert all(np.count_nonzero(vector) == used for vector in trace.optimizer_state)


def test_a_bias_that_was_trained_is_kept() -> None:
    model = net()
    model.set_parameters(model.parameters() | {"b2": np.arange(5.0)[:, None]})
    trace = check(model, *rows()).trace
    assert trace is not None
    at = trace.spec.layout["b2"][0]
    np.testing.assert_array_equal(trace.theta[at : at + 5], np.arange(5.0))


def test_the_rows_come_in_an_order_of_the_seed() -> None:
    X, y = rows()
    one, same, other = (check(net(), X, y, seed=s).trace for s in (0, 0, 1))
    assert one is not None
    assert same is not None
    assert other is not None
    np.testing.assert_array_equal(one.X, same.X)
    assert not np.array_equal(one.X, other.X)
    for trace in (one, other):
        assert sorted(map(tuple, trace.X.T)) == sorted(map(tuple, X.astype("float32")))


def test_several_steps_are_judged_each_from_the_devices_own_state() -> None:
    report = check(net(activation="relu"), *rows(40), steps=5, optimizer={"name": "adam", "learning_rate": 0.05})
    assert report.ok
    assert len(report.steps) == 5
    assert [d.step for d in report.drift] == [1, 2, 3, 4, 5]
    assert 0.0 < report.drift[-1].theta < 1e-2
    assert all(0 <= d.flips < d.units == 40 * 13 for d in report.drift)


def test_a_run_stops_at_the_first_wrong_step() -> None:
    with seeded(FAULTS["stale_A_in_dW"]) as device:
        report = check(EARLY.net(device), *EARLY.rows(), steps=5)
    assert len(report.steps) == 2
    assert report.trace is not None
    assert report.trace.t == 1


def test_what_is_wrong_is_said_in_one_line() -> None:
    report = check(EARLY.net(FaultyBackend(FAULTS["bias_missing"])), *EARLY.rows())
    assert not report.ok
    assert report.summary().startswith("parity wrong at Z3 (dense), ")
    assert report.summary().endswith("of the bound; the bias is missing")
    assert "\n" not in report.summary()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ConfigError, "steps must be at least 1"),
        ({"claim": "fp23"}, ConfigError, "unknown claim 'fp23'"),
        ({"dtype": "float64", "claim": "fp32"}, ConfigError, "float32 arrays"),
        ({"dtype": "float16"}, ConfigError, "dtype"),
        ({"device": "abacus"}, BackpropError, "abacus"),
        ({"sample_weight": [1.0]}, ShapeError, "sample_weight"),
        ({"optimizer": "adamm"}, ConfigError, "did you mean 'adam'"),
        ({"micro_batch": 0}, ConfigError, "micro_batch"),
        ({"clip_norm": -1.0}, ConfigError, "clip_norm"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(net(), *rows(), **settings)  # type: ignore[arg-type]


def test_rows_that_the_network_would_not_take_are_refused() -> None:
    X, y = rows()
    with pytest.raises(ShapeError, match="n_samples, 7"):
        check(net(), X[:, :-1], y)
    with pytest.raises(DataError, match="nan"):
        check(net(), np.where(X > 1, np.nan, X), y)
    with pytest.raises(DataError, match="class label"):
        check(net(), X, y + 1)


def test_lists_and_one_row_are_taken() -> None:
    X, y = rows(1)
    assert check(net(), X.tolist(), y.tolist()).ok


def test_a_numpy_network_is_checked_on_another_device() -> None:
    report = check(net(kernels="native"), *rows(), device="array_api_strict")
    assert report.ok
    assert report.about["device"].startswith("array_api_strict")


def test_a_run_folder_and_a_model_file_are_models(tmp_path: Path) -> None:
    """X is then what the network takes: rows as the run's preprocessor encodes them."""
    net = DenseNet([3, 5, 2], loss="squared_error", device="numpy", seed=4)
    save_model(tmp_path / "model.safetensors", net)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((16, 3)), rng.standard_normal((16, 2))
    wanted = check(net, X, y, kernels="native")
    for model in (tmp_path, str(tmp_path / "model.safetensors")):
        report = check(model, X, y, kernels="native")
        assert report.ok
        assert [f.got for f in report.findings] == [f.got for f in wanted.findings]
    with pytest.raises(CheckpointError, match="no model file"):
        check(tmp_path / "elsewhere", X, y)
    with pytest.raises(ConfigError, match="or a run folder"):
        check(3, X, y)


class SquaresThatOverflow(ReferenceKernels):
    """The norm as it is written in books: a gradient of 1e19 has none in float32, and is clipped to nothing."""

    def global_norm(self, grad: Any, max_norm: float, *, norm: Any, factor: Any) -> None:
        with np.errstate(over="ignore"):
            norm[...] = np.sqrt(np.sum(grad * grad))
        factor[...] = np.where(norm > max_norm, max_norm / norm, 1.0)


class Overflowing(Backend):
    """NumPy with them."""

    def kernels(self, kind: str = "auto") -> Any:
        return SquaresThatOverflow(self)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 2e19), ("float64", 1e160)])
def test_a_norm_whose_squares_overflow_is_found_out_and_one_that_is_scaled_is_not(dtype: str, size: float) -> None:
    X = np.random.default_rng(0).standard_normal((8, 3))
    model = DenseNet([3, 4, 1], activation="identity", loss="squared_error", device="numpy", dtype=dtype)
    settings = {"optimizer": "sgd", "clip_norm": 1.0, "dtype": dtype}
    with np.errstate(over="ignore"):  # so does J
        assert check(model, X, size * X[:, :1], kernels="reference", **settings).ok
        found = check(model, X, size * X[:, :1], device=Overflowing("numpy", np), **settings)
    assert found.first is not None
    assert found.first.tensor == "norm"
