"""The recorded step: what is played is what Python would have run, without Python and without memory of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_nets import targets_of

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.errors import DivergedError
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.maths.optimizers import SGD
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.epoch import CapturedEpoch

pytestmark = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())

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


def build(
    kernels: str, settings: dict[str, Any], n: int = 53, batch_size: int = 16, dtype: str = "float32"
) -> CapturedEpoch:
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
    return CapturedEpoch(step, batches, micro_batch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernels", ["reference", "native"])
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
    played, called = build("native", settings, dtype=dtype), build("native", settings, dtype=dtype)
    programs = [
        called.step.program(
            called.program.table, called.program.values, BatchBuffers(called.batches, m), settings.get("micro_batch")
        )
        for m in (16, 53 % 16)
    ]
    counts = [times for _, times in called.replays]
    called.replays = [
        (lambda times, before=None, program=program: [program() for _ in range(times)], times)  # type: ignore[misc]
        for program, times in zip(programs, counts, strict=True)
    ]
    for epoch in range(4):
        np.testing.assert_array_equal(played.run(epoch), called.run(epoch))
    np.testing.assert_array_equal(played.step.net.params.theta, called.step.net.params.theta)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_reference_trains_alike(settings: dict[str, Any], dtype: str, apart: float) -> None:
    """Two epochs apart by rounding alone: costs this near to each other, far below what one wrong operand does."""
    native, reference = (build(kernels, settings, dtype=dtype) for kernels in ("native", "reference"))
    for epoch in range(2):
        np.testing.assert_allclose(native.run(epoch), reference.run(epoch), rtol=apart)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_repeat_bit_for_bit(dtype: str) -> None:
    first, second = (build("native", SETTINGS[1], dtype=dtype) for _ in range(2))
    for epoch in range(5):
        np.testing.assert_array_equal(first.run(epoch), second.run(epoch))
    np.testing.assert_array_equal(first.step.net.params.theta, second.step.net.params.theta)


def test_the_literal_form_is_recorded_between_native_programs() -> None:
    """It has no native kernel: Python's call stands between native programs; the numbers are the reference's."""
    literal, reference = (build(kernels, {"delta": "literal"}) for kernels in ("native", "reference"))
    for epoch in range(3):
        np.testing.assert_allclose(literal.run(epoch), reference.run(epoch), rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_steady_step_allocates_nothing(dtype: str) -> None:
    steady = build("native", SETTINGS[1], n=512, dtype=dtype)
    steady.run(0)
    replay, times = steady.replays[0]
    steady.step.load(steady.program.table, _denominators(steady))
    tracemalloc.start()
    try:
        replay(times)  # once inside, so that what is traced has been made
        steady.step.load(steady.program.table, _denominators(steady))
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        replay(times)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert times == 32
    assert after - before < 1024
    assert peak - before < 8192  # a few Python numbers, whatever the network and the number of steps


def _denominators(epochs: CapturedEpoch) -> list[Any]:
    from backprop_gpu.maths.ledger import Denominator

    return [Denominator(float(m)) for m in epochs.batches.sizes]


def test_a_formula_of_ones_own_is_used_whatever_its_name() -> None:
    """A loss, an optimizer and an activation named like the package's, but with formulas of their own."""

    class Twice(SquaredError):
        def value(self, xp: Any, Z: Any, Y: Any) -> Any:
            return 2.0 * super().value(xp, Z, Y)

        def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
            return 2.0 * super().delta(xp, Z, Y)

    class Backwards(SGD):
        def apply(self, xp: Any, theta: Any, grad: Any, *given: Any, decay: bool) -> Any:
            return theta + grad, ()

    shifted = replace(get_activation("relu"), forward_function=lambda xp, Z: xp.maximum(Z, 0.0) + 1.0)
    X, Y = np.full((3, 2), 0.5, "f4"), np.full((2, 2), 3.0, "f4")
    found = []
    for kind in ("reference", "native"):
        net = DenseNet([3, 4, 2], loss=Twice(), activation=[shifted], device="numpy", kernels=kind)
        step = TrainingStep(net, Backwards())
        step(X, Y)
        found.append((step.cost(), net.params.theta.copy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


def test_nan_is_not_lost() -> None:
    """A NaN in one weight reaches the cost: nothing on the way hides it."""
    for activation in ("relu", "tanh", "gelu", "elu", "silu", "softplus", "gelu_tanh", "leaky_relu", "sigmoid"):
        broken = build("native", {"activation": activation})
        broken.step.net.params.W[1][0, 0] = np.nan
        broken.program.begin(0)
        broken.replays[0][0](1)
        assert np.isnan(broken.step.cost())
        with pytest.raises(DivergedError, match="nan in Z1"):
            broken.run(0)


def test_a_step_of_mixed_kernels_is_played_too() -> None:
    """A negative slope has no native kernel: its layer is the reference's, between native calls."""
    settings = {"activation": [{"name": "leaky_relu", "slope": -0.1}, "tanh"], "weighted": True}
    played, called = build("native", settings), build("native", settings)
    program = called.step.program(called.program.table, called.program.values, BatchBuffers(called.batches, 16), None)
    called.replays[0] = (lambda times, before=None: [program() for _ in range(times)], called.replays[0][1])  # type: ignore[assignment]
    for epoch in range(3):
        np.testing.assert_array_equal(played.run(epoch), called.run(epoch))


def test_decayed_moments_do_not_slow_or_change_the_step() -> None:
    """Dead units' moments decay into denormals; they stay tiny and everything stays finite."""
    dead = build("native", {"optimizer": {"name": "adam", "beta1": 0.5, "beta2": 0.5}})
    dead.step.net.params.b[1][...] = -1e3
    for epoch in range(120):
        dead.run(epoch)
    state = np.concatenate(dead.step.optimizer_state)
    assert np.isfinite(state).all()
    assert np.isfinite(dead.step.net.params.theta).all()
    moments = dead.step.optimizer_state[0][: dead.step.net.params.n_weights]
    assert np.abs(moments[-54:]).max() < 1e-30


def test_ctrl_c_is_answered_between_chunks(tmp_path: Path) -> None:
    """SIGINT in the middle of one long replay ends the process with KeyboardInterrupt."""
    script = tmp_path / "long.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from backprop_gpu import DenseNet, Trainer
            net = DenseNet([64, 256, 256, 10], loss="categorical_cross_entropy", device="numpy", kernels="native")
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
