"""The recorded step: what is played is what Python would have run, without Python and without memory of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_nets import targets_of

from backprop_gpu.backends import get_backend
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.passes import Pass

pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")

SETTINGS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "dropout": 0.3, "activation": "gelu", "l2": 0.1, "clip_norm": 0.5},
    {"optimizer": "nesterov", "activation": "tanh", "one_over_m": "late", "micro_batch": 5, "weighted": True},
    {"optimizer": "lion", "activation": ["elu", "silu"], "l1": 0.01, "schedule": "cosine"},
    {"optimizer": {"name": "amsgrad", "average": 0.9}},
    {"optimizer": {"name": "adamw", "average": 0.99}, "weighted": True},
    {"loss": {"name": "grouped_cross_entropy", "groups": [1, 3], "label_smoothing": 0.1}, "weighted": True},
    {"optimizer": "sgd", "activation": "softplus", "micro_batch": 7, "dropout": [0.2, 0.5], "reduction": "sum"},
]


DTYPES = ("float32", "float64")


def build(kernels: str, settings: dict[str, Any], n: int = 53, batch_size: int = 16, dtype: str = "float32") -> Pass:
    s = dict(settings)
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((n, 6)), rng.integers(0, 4, (n, 1))
    weights = rng.integers(0, 3, (n, 1)) + 0.5 if s.pop("weighted", False) else None
    micro_batch = s.pop("micro_batch", None)
    loss = s.pop("loss", "categorical_cross_entropy")
    net = DenseNet(
        [6, 9, 7, 4],
        activation=s.pop("activation", "relu"),
        dropout=s.pop("dropout", 0.0),
        loss=loss,
        dtype=dtype,
        device="numpy",
        kernels=kernels,
        seed=5,
    )
    step = TrainingStep(net, s.pop("optimizer", "adam"), total_steps=40, **s)
    batches = Batches(net, X, targets_of(loss, y), weights, batch_size=batch_size, shuffle=True, seed=1)
    return Pass(step, batches, micro_batch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernels", ["reference", "host", "compiled"])
def test_a_penalty_that_is_left_out_does_not_touch_infinite_weights(kernels: str, dtype: str) -> None:
    """0 times infinity would be NaN."""
    theta, strength = np.array([np.inf, -np.inf, 2.0], dtype), np.array([0.5], dtype)
    for l1, l2, want in ((strength, None, [0.5, -0.5, 0.5]), (None, strength, [np.inf, -np.inf, 1.0])):
        grad, value = np.zeros(3, dtype), np.zeros(1, dtype)
        get_backend("numpy").kernels(kernels).penalty(theta, grad, l1=l1, l2=l2, value=value)
        np.testing.assert_array_equal(grad, want)
        assert value[0] == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_replay_is_what_python_would_have_run(settings: dict[str, Any], dtype: str) -> None:
    """Bit for bit: the same kernels, called one by one by Python."""
    played, called = build("compiled", settings, dtype=dtype), build("compiled", settings, dtype=dtype)
    programs = [
        called.step.program(called.table, called.values, BatchBuffers(called.batches, m), settings.get("micro_batch"))
        for m in (16, 53 % 16)
    ]
    counts = [times for _, times in called.replays]
    called.replays = [
        (lambda times, program=program: [program() for _ in range(times)], times)  # type: ignore[misc]
        for program, times in zip(programs, counts, strict=True)
    ]
    for epoch in range(4):
        np.testing.assert_array_equal(played.run(epoch), called.run(epoch))
    np.testing.assert_array_equal(played.step.net.params.theta, called.step.net.params.theta)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_numpys_kernels_train_alike(settings: dict[str, Any], dtype: str, apart: float) -> None:
    """Two epochs apart by rounding alone: costs this near to each other, far below what one wrong operand does."""
    compiled, host = (build(kernels, settings, dtype=dtype) for kernels in ("compiled", "host"))
    for epoch in range(2):
        np.testing.assert_allclose(compiled.run(epoch), host.run(epoch), rtol=apart)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_repeat_bit_for_bit(dtype: str) -> None:
    first, second = (build("compiled", SETTINGS[1], dtype=dtype) for _ in range(2))
    for epoch in range(5):
        np.testing.assert_array_equal(first.run(epoch), second.run(epoch))
    np.testing.assert_array_equal(first.step.net.params.theta, second.step.net.params.theta)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [5, 16, 24, 70])
def test_how_near_arrays_lie_changes_no_bit_of_a_sum(dtype: str, m: int) -> None:
    """Compiled loops look at how far apart arrays lie: one that stores must not be one that sums."""
    from backprop_gpu.backends.host.compiled import norms

    n, given, found = 3, np.random.default_rng(0).standard_normal((3, m)).astype(dtype), set()
    for gap in range(9):
        room = np.zeros(2**16, np.uint8)
        at = -room.ctypes.data % 64

        def array(*shape: int) -> np.ndarray:
            nonlocal at
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            made = room[at : at + size].view(dtype).reshape(shape)  # noqa: B023
            at += -(-size // 64) * 64 + 64 * gap  # noqa: B023
            return made

        weights, shares, Z, X, A, inverse_std, mean, variance, gamma, beta = (
            *(array(m), array(m)),
            *(array(n, m) for _ in range(3)),
            *(array(n, 1) for _ in range(5)),
        )
        weights[...], Z[...], gamma[...] = 1, given, 1
        arrays = [Z, gamma, beta, weights, mean, variance, A, X, inverse_std]
        row = [*(x.ctypes.data for x in arrays), n, m, shares.ctypes.data, 0, 0]
        norms.batch_norm(dtype, "relu", False)(np.array(row, np.int64).ctypes.data)
        found.add(b"".join(x.tobytes() for x in arrays))
    assert len(found) == 1


def test_the_literal_form_is_played_by_python() -> None:
    """It has no compiled form, so the program is Python's; the numbers are NumPy's kernels'."""
    literal, host = (build(kernels, {"delta": "literal"}) for kernels in ("compiled", "host"))
    for epoch in range(3):
        np.testing.assert_allclose(literal.run(epoch), host.run(epoch), rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_steady_step_allocates_nothing(dtype: str) -> None:
    steady = build("compiled", SETTINGS[1], n=512, dtype=dtype)
    steady.run(0)
    replay, times = steady.replays[0]
    steady.step.load(steady.table, _denominators(steady))
    tracemalloc.start()
    try:
        replay(times)  # once inside, so that what is traced has been made
        steady.step.load(steady.table, _denominators(steady))
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        replay(times)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert times == 32
    assert after - before < 1024
    assert peak - before < 8192  # a few Python numbers, whatever the network and the number of steps


def _denominators(epochs: Pass) -> list[Any]:
    from backprop_gpu.maths.ledger import Denominator

    return [Denominator(float(m)) for m in epochs.batches.sizes]


def test_nan_is_not_lost() -> None:
    """A NaN in one weight reaches the cost: nothing on the way hides it."""
    for activation in ("relu", "tanh", "gelu", "elu", "silu", "softplus", "gelu_tanh", "leaky_relu", "sigmoid"):
        broken = build("compiled", {"activation": activation})
        broken.step.net.params.W[1][0, 0] = np.nan
        assert np.isnan(broken.run(0)).all(), activation


def test_a_step_of_mixed_kernels_is_played_too() -> None:
    """A negative slope has no compiled form: its layer is NumPy's calls between compiled ones, bit for bit the same."""
    settings = {"activation": [{"name": "leaky_relu", "slope": -0.1}, "tanh"], "weighted": True}
    played, called = build("compiled", settings), build("compiled", settings)
    program = called.step.program(called.table, called.values, BatchBuffers(called.batches, 16), None)
    called.replays[0] = (lambda times: [program() for _ in range(times)], called.replays[0][1])  # type: ignore[assignment]
    for epoch in range(3):
        np.testing.assert_array_equal(played.run(epoch), called.run(epoch))


def test_only_what_a_network_uses_is_made() -> None:
    """A kernel is compiled when its address is first asked for, once for all networks of a process."""
    layers = pytest.importorskip("backprop_gpu.backends.host.compiled.layers")
    layers.dense.cache_clear()
    kernel = layers.dense("float64", "relu", False)
    assert kernel is layers.dense("float64", "relu", False)
    assert kernel._function is None
    build("compiled", {"activation": ["relu", "tanh"]}, dtype="float64")
    assert kernel._function is not None
    assert layers.dense("float64", "silu", True)._function is None


def test_decayed_moments_do_not_slow_or_change_the_step() -> None:
    """Dead units' moments decay into denormals; they stay tiny and everything stays finite."""
    dead = build("compiled", {"optimizer": {"name": "adam", "beta1": 0.5, "beta2": 0.5}})
    dead.step.net.params.b[1][...] = -1e3
    for epoch in range(120):
        dead.run(epoch)
    slots = np.concatenate(dead.step.slots)
    assert np.isfinite(slots).all()
    assert np.isfinite(dead.step.net.params.theta).all()
    moments = dead.step.slots[0][: dead.step.net.params.n_weights]
    assert np.abs(moments[-54:]).max() < 1e-30


def test_ctrl_c_is_answered_between_chunks(tmp_path: Path) -> None:
    """SIGINT in the middle of one long replay ends the process with KeyboardInterrupt."""
    script = tmp_path / "long.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from backprop_gpu import DenseNet, Trainer
            net = DenseNet([64, 256, 256, 10], loss="categorical_cross_entropy", device="numpy", kernels="compiled")
            rng = np.random.default_rng(0)
            X, y = rng.standard_normal((200_000, 64)).astype("f4"), rng.integers(0, 10, 200_000)
            print("started", flush=True)
            Trainer(net, epochs=50, batch_size=128, progress=False).fit(X, y)
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
