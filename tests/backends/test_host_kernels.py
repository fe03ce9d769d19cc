"""NumPy's kernels: what is played is what would have been called, and a steady step allocates nothing that grows."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.small_nets import targets_of

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.host.calls import Calls
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.maths.optimizers import SGD, get_optimizer
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.passes import Pass

KIB = 1024
SETTINGS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "dropout": 0.3, "activation": "gelu", "l2": 0.1, "clip_norm": 0.5},
    {"optimizer": "nesterov", "activation": "tanh", "one_over_m": "late", "micro_batch": 5, "weighted": True},
    {"optimizer": "lion", "activation": ["elu", "silu"], "l1": 0.01, "schedule": "cosine"},
    {"optimizer": "sgd", "activation": "sigmoid", "micro_batch": 7, "delta": "literal", "reduction": "sum"},
    {"loss": {"name": "categorical_cross_entropy", "label_smoothing": 0.1}, "activation": "leaky_relu"},
    {"loss": {"name": "grouped_cross_entropy", "groups": [3, 1], "label_smoothing": 0.1}, "weighted": True},
    {"batch_norm": [True, False], "dropout": 0.3, "activation": ["tanh", "gelu"]},
    {"batch_norm": True, "activation": ["elu", "relu"], "one_over_m": "late", "micro_batch": 5, "weighted": True},
]


def build(settings: dict[str, Any], sizes: list[int], n: int, batch_size: int, dtype: str = "float32") -> Pass:
    s = dict(settings)
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((n, sizes[0])), rng.integers(0, sizes[-1], (n, 1))
    weights = rng.integers(0, 3, (n, 1)) + 0.5 if s.pop("weighted", False) else None
    micro_batch = s.pop("micro_batch", None)
    loss = s.pop("loss", "categorical_cross_entropy")
    net = DenseNet(
        sizes,
        activation=s.pop("activation", "relu"),
        dropout=s.pop("dropout", 0.0),
        batch_norm=s.pop("batch_norm", False),
        loss=loss,
        dtype=dtype,
        device="numpy",
        kernels="host",
        seed=5,
    )
    step = TrainingStep(net, s.pop("optimizer", "adam"), total_steps=40, **s)
    batches = Batches(net, X, targets_of(loss, y), weights, batch_size=batch_size, shuffle=True, seed=1)
    return Pass(step, batches, micro_batch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_replay_is_what_python_would_have_run(settings: dict[str, Any], dtype: str) -> None:
    """Bit for bit: the same operations, called one by one by the network loop."""
    played, called = (build(settings, [6, 9, 7, 4], 53, 16, dtype) for _ in range(2))
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
    others = called.step.net.parameters()
    for name, value in played.step.net.parameters().items():
        np.testing.assert_array_equal(value, others[name])


def peak_of_a_replay(steady: Pass) -> int:
    """Bytes at most allocated at one moment of a replay of every full batch, after one that made what is made once."""
    steady.run(0)
    replay, times = steady.replays[0]
    denominators = [Denominator(float(m)) for m in steady.batches.sizes]
    steady.step.load(steady.table, denominators)
    tracemalloc.start()
    try:
        replay(times)
        steady.step.load(steady.table, denominators)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        replay(times)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * KIB  # of the interpreter, once; an array kept by each of the steps would be more
    return peak - before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_a_steady_step_allocates_nothing(activation: str, optimizer: str, dtype: str) -> None:
    """But NumPy's iterators their buffer of 8,192 numbers (64 KiB); a layer's activations here are 2 or 4 MiB."""
    settings = {"activation": activation, "optimizer": optimizer, "l2": 0.1, "clip_norm": 1.0}
    assert peak_of_a_replay(build(settings, [20, 1024, 16, 4], 1024, 512, dtype)) < 80 * KIB


@pytest.mark.parametrize("weighted", [False, True])
def test_nor_does_a_normalized_layer(weighted: bool) -> None:
    settings = {"batch_norm": True, "activation": "relu", "weighted": weighted}
    assert peak_of_a_replay(build(settings, [20, 1024, 16, 4], 1024, 512)) < 80 * KIB


@pytest.mark.parametrize("sizes", [[20, 256, 4], [20, 1024, 4]])
def test_gelu_works_in_blocks(sizes: list[int]) -> None:
    """Its temporaries, a dozen at most, are blocks of 64 KiB, whatever the width."""
    assert peak_of_a_replay(build({"activation": "gelu"}, sizes, 1024, 512)) < 768 * KIB


def test_calls_are_made_at_once_or_written_down() -> None:
    calls, x = Calls(), np.zeros(2)
    calls.do(np.add, x, 1.0, out=x)
    calls.tape = []
    calls.do(np.add, x, 1.0, out=x)
    np.testing.assert_array_equal(x, [1.0, 1.0])
    for made in calls.tape * 3:
        made()
    np.testing.assert_array_equal(x, [4.0, 4.0])


def test_scratch_is_shared_by_what_uses_it_alike() -> None:
    calls = Calls()
    large = calls.scratch("layer", (4, 5), "float32")
    assert np.shares_memory(large, calls.scratch("layer", (3, 2), "float32"))
    assert not np.shares_memory(large, calls.scratch("other", (3, 2), "float32"))
    assert not np.shares_memory(large, calls.scratch("layer", (3, 2), "float64"))
    large[...] = 7.0
    np.testing.assert_array_equal(calls.zeros(large), np.zeros((4, 5)))
    np.testing.assert_array_equal(calls.ones((9, 1), "float64"), np.ones((9, 1)))


@pytest.mark.parametrize("kernels", ["host", "compiled"])
def test_a_formula_of_ones_own_is_used_whatever_its_name(kernels: str) -> None:
    """A loss, an optimizer and an activation named like the package's, but with formulas of their own."""
    if kernels == "compiled":
        pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")

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
    for kind in ("reference", kernels):
        net = DenseNet([3, 4, 2], loss=Twice(), activation=[shifted], device="numpy", kernels=kind)
        step = TrainingStep(net, Backwards())
        step(X, Y)
        found.append((step.cost(), net.params.theta.copy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_updates_in_place_have_the_bits_of_maths(name: str, dtype: str) -> None:
    """So that an optimizer with an average, which has no calls of its own, takes the very same steps."""
    rng, optimizer = np.random.default_rng(0), get_optimizer(name)
    theta, grad = rng.standard_normal((2, 1000)).astype(dtype)
    slots = [np.abs(rng.standard_normal(1000)).astype(dtype) for _ in optimizer.slots]
    scalars, found = np.array(optimizer.numbers(7, 1e-3), dtype), []
    for kernels in ("reference", "host"):
        copies = [x.copy() for x in (theta, *slots)]
        how = {"scalars": scalars, "factor": None, "decay": True}
        get_backend("numpy").kernels(kernels).update(optimizer, copies[0], grad, copies[1:], **how)
        found.append(copies)
    for want, got in zip(*found, strict=True):
        np.testing.assert_array_equal(got, want)
