"""Memory that runs out: the micro-batch is halved and the gradient stays; what cannot be helped is said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.backends import Case
from support.memory import memory_of
from support.plans import PLANS
from support.standin import StandInBackend

from backprop_gpu.errors import ConfigError, DeviceError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.step_replay import compare_step
from backprop_gpu.parity.trace import trace_step
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.early_stopping import Best
from backprop_gpu.training.history import History
from backprop_gpu.training.loop import FitState, run_epochs
from backprop_gpu.training.trainer import Trainer

M = 64


def problem(device: Any, **settings: Any) -> tuple[DenseNet, np.ndarray, np.ndarray]:
    """Small whole numbers and powers of two: every sum is exact, so that a split must not change one bit."""
    rng = np.random.default_rng(6)
    net = DenseNet([5, 24, 16, 2], loss="squared_error", device=device, **settings)
    start = {k: rng.integers(-1, 2, v.shape).astype(float) for k, v in net.parameters().items()}
    net.set_parameters({k: np.ones_like(v) if k.startswith("variance") else v for k, v in start.items()})
    return net, rng.integers(-2, 3, (M, 5)).astype(float), rng.integers(-3, 4, (M, 2)).astype(float)


def fit(net: DenseNet, X: Any, y: Any, **settings: Any) -> History:
    given = {"optimizer": {"name": "sgd", "learning_rate": 2.0**-6}, "epochs": 1, "batch_size": M, "progress": False}
    return Trainer(net, **(given | settings)).fit(X, y)


def needed(micro_batch: int | None, **settings: Any) -> int:
    """Bytes of a fit."""
    device = StandInBackend()
    fit(*problem(device), micro_batch=micro_batch, **settings)
    return device.memory.peak


def test_the_gradient_in_little_memory_is_the_gradient() -> None:
    whole, X, y = problem(StandInBackend())
    assert fit(whole, X, y).notes == []
    everything, least = needed(None), needed(1)
    wanted, moved = whole.backend.to_host(whole.params.grad), whole.backend.to_host(whole.params.theta)
    found = set()
    for share in (0.9, 0.6, 0.3, 0.1):
        device = StandInBackend(int(least + share * (everything - least)))
        net, X, y = problem(device)
        history = fit(net, X, y, data_on="device")
        np.testing.assert_array_equal(device.to_host(net.params.grad), wanted)
        np.testing.assert_array_equal(device.to_host(net.params.theta), moved)
        (note,) = history.notes
        assert note.startswith(f"memory ran out with {M} examples at a time: each step takes ")
        found.add(int(re.findall(r"micro_batch: (\d+)", note)[0]))
        assert device.memory.peak <= device.memory.limit
    assert len(found) >= 3
    assert found < {32, 16, 8, 4, 2, 1}


def test_where_the_gradient_is_another_the_note_does_not_say_otherwise() -> None:
    """Batch normalization has the statistics of a part, not of the batch, and needs two examples for them."""
    whole, X, y = problem(StandInBackend(), batch_norm=True)
    fit(whole, X, y)
    device = StandInBackend(int(0.7 * whole.backend.memory.peak))
    net, X, y = problem(device, batch_norm=True)
    (note,) = fit(net, X, y, data_on="device").notes
    assert "same gradient" not in note
    assert "and batch normalization the statistics of so many, not of the batch (training.micro_batch: " in note
    assert not np.array_equal(device.to_host(net.params.grad), whole.backend.to_host(whole.params.grad))
    pairs, X, y = problem(StandInBackend(), batch_norm=True)
    fit(pairs, X, y, micro_batch=2)
    net, X, y = problem(StandInBackend(pairs.backend.memory.peak - 100), batch_norm=True)
    with pytest.raises(DeviceError, match="even with two examples, which batch normalization needs, at a time: "):
        fit(net, X, y, data_on="device")


@pytest.mark.parametrize("plan", ["relu-bce-adam-dropout", "tanh-gelu-categorical-momentum-l2-clip-weights"])
def test_every_tensor_of_the_halved_step_is_within_its_bound(plan: str) -> None:
    recipe = PLANS[plan]

    class Little(Case):
        backend = StandInBackend()

    case = Little("numpy", "auto")
    X, Y, w = recipe.batch(0)
    rows = [None if x is None else np.ascontiguousarray(x.T) for x in (X, Y, w)]
    step = recipe.step(case)
    batches = Batches(step.net, *rows, batch_size=recipe.m, shuffle=False, seed=0)
    before = case.backend.to_host(step.net.params.theta)
    whole = memory_of(
        recipe.sizes, recipe.m, "float32", recipe.optimizer, kernels=step.net.kernels, step=recipe.training,
        activation=list(recipe.activations), loss=recipe.loss, dropout=list(recipe.dropout), weighted=recipe.weighted,
    )  # fmt: skip
    case.backend.memory.limit = int(whole.model + 0.75 * (whole.total - whole.model))
    fit_state = FitState(step, batches, Best(None, 1), epochs=1, settings=dict)
    run_epochs([fit_state])
    micro_batch = fit_state.micro_batch.size
    assert micro_batch < recipe.m
    assert len(fit_state.history.notes) == 1
    halved = case.backend.to_host(step.net.params.theta)

    case.backend.memory.limit = None
    again = recipe.step(case)
    np.testing.assert_array_equal(case.backend.to_host(again.net.params.theta), before)
    on_device = [None if x is None else case.put(x) for x in (X, Y, w)]
    trace = trace_step(again, *on_device, micro_batch=micro_batch)
    np.testing.assert_array_equal(trace.theta_after, halved)  # the very step that was taken in little memory
    replace(recipe, micro_batch=micro_batch).assert_asked(trace.spec)
    for found in compare_step(trace, "fp32").findings:
        assert found.ratio <= 1.0, found


def test_later_steps_are_those_of_that_micro_batch() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, 5)), rng.normal(size=(150, 2))
    settings: dict[str, Any] = {"optimizer": "adamw", "epochs": 3, "batch_size": 64}

    def net(device: StandInBackend) -> DenseNet:
        return DenseNet([5, 40, 30, 2], loss="squared_error", dropout=0.25, activation="gelu", device=device)

    free, small = StandInBackend(), StandInBackend()
    fit(net(small), X, y, micro_batch=8, **settings)
    little = StandInBackend(int(1.05 * small.memory.peak))
    trained = net(little)
    history = fit(trained, X, y, data_on="device", **settings)
    micro = int(re.findall(r"micro_batch: (\d+)", history.notes[0])[0])
    assert 8 <= micro < 64
    expected = net(free)
    plain = fit(expected, X, y, micro_batch=micro, **settings)
    np.testing.assert_array_equal(little.to_host(trained.params.theta), free.to_host(expected.params.theta))
    assert [e.cost for e in history.epochs] == [e.cost for e in plain.epochs]


def test_one_example_at_a_time_is_the_end() -> None:
    device = StandInBackend(needed(1, optimizer="adam") - 100)
    net, X, y = problem(device)
    with pytest.raises(DeviceError, match=r"even with one example at a time: .* make model\.hidden narrower") as caught:
        fit(net, X, y, optimizer="adam", data_on="device")
    assert "\n" not in str(caught.value)
    assert "training.data_on: host" in str(caught.value)
    with pytest.raises(DeviceError, match=r"narrower$"):
        fit(net, X, y, optimizer="adam", data_on="host")


def test_memory_that_runs_out_later_is_not_hidden() -> None:
    device = StandInBackend()
    net, X, y = problem(device)
    step = TrainingStep(net, "adam")
    batches = Batches(net, X, y, None, batch_size=16, shuffle=False, seed=0)

    class Fill(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            device.memory.limit = device.memory.live

    with pytest.raises(DeviceError, match=r"out of memory on standin:0 in the middle of training; lower training"):
        run_epochs([FitState(step, batches, Best(None, 2), epochs=2, settings=dict, callbacks=[Fill()])])


@pytest.mark.parametrize("device", ["cpu", "array_api_strict:device1", None])
def test_too_many_parameters_are_not_blamed_on_the_batch(device: str | None) -> None:
    backend = device or StandInBackend(10**9)
    with pytest.raises(DeviceError, match=r"the parameters and gradients of 8 - 1000000 - 1000000 - 1 do not fit on "):
        DenseNet([8, 10**6, 10**6, 1], device=backend)


def test_too_many_slots_are_not_blamed_on_the_batch() -> None:
    device = StandInBackend(int(3.3 * 4 * 200 * 200))
    net = DenseNet([200, 199, 1], device=device)
    with pytest.raises(DeviceError, match=r"the adam state vectors of 200 - 199 - 1 do not fit on standin:0: 5 x 4"):
        Trainer(net, optimizer="adam", progress=False)
    Trainer(net, optimizer="sgd", progress=False)


def test_the_command_line_says_it_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from backprop_gpu.cli import main

    hidden = "model.hidden=[1000000, 1000000]"
    assert main(["train", "--device", "cpu", "--set", hidden, "--set", "kernels=native"]) == 2
    error = capsys.readouterr().err
    assert "the parameters and gradients of 30 - 1000000 - 1000000 - 1 do not fit on numpy" in error
    assert "batch" not in error
    assert error.count("\n") == 1


def test_where_the_data_may_be() -> None:
    with pytest.raises(ConfigError, match=r"data_on must be auto or device or host, got 'hots' \(did you mean 'host'"):
        Trainer(DenseNet([2, 1], device="cpu"), data_on="hots")


def test_available_memory(tmp_path: Any) -> None:
    from backprop_gpu.backends.cpu.memory import available_bytes

    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    5000 kB\nSwapFree:  1000 kB\nHugePages_Total:       0\n")
    assert available_bytes(str(meminfo), [str(limit)]) == 6000 * 1024
    limit.write_text("max\n")
    assert available_bytes(str(meminfo), [str(limit)]) == 6000 * 1024
    limit.write_text("1000000\n")
    assert available_bytes(str(meminfo), [str(limit)]) == 1_000_000
    assert available_bytes(str(tmp_path / "nothing")) is None
