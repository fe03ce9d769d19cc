"""Memory that is predicted against memory that is allocated."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from support.memory import memory_of
from support.standin import StandInBackend

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.plan import MemoryPlan, amount
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch

KERNELS = ["reference"] + ([] if unavailable_reason() else ["native"])
WIDE = [50, 300, 200, 10]
SEVERAL = {"name": "grouped_cross_entropy", "groups": [180, 20, 100], "label_smoothing": 0.1}

# name -> sizes, batch size, rows, micro-batch, dtype, weighted, settings of the step, settings of the network
CASES: dict[str, tuple[list[int], int, int, int | None, str, bool, dict[str, Any], dict[str, Any]]] = {
    "plain": (WIDE, 256, 600, None, "float32", False, {}, {}),
    "wide": ([100, 512, 512, 10], 64, 300, None, "float32", True, {"optimizer": "amsgrad"}, {}),
    "many examples": ([20, 32, 32, 3], 4096, 5000, None, "float32", False, {"l2": 0.1, "clip_norm": 1.0}, {}),
    "gelu": (WIDE, 256, 600, None, "float32", False, {}, {"activation": "gelu"}),
    "dropout": (WIDE, 256, 600, None, "float32", True, {}, {"activation": "tanh", "dropout": 0.3}),
    "passes": (WIDE, 256, 600, 100, "float32", False, {}, {"activation": "gelu", "dropout": 0.3}),
    "float64": (WIDE, 256, 512, None, "float64", False, {"optimizer": "sgd"}, {"activation": "sigmoid"}),
    "literal": (WIDE, 512, 600, 128, "float32", False, {"delta": "literal"}, {"loss": "categorical_cross_entropy"}),
    "normalized": (WIDE, 256, 600, None, "float32", True, {}, {"activation": "tanh", "batch_norm": [True, False]}),
    "several labels": ([60, 300], 512, 600, None, "float32", True, {"optimizer": "sgd"}, {"loss": SEVERAL}),
    "one layer": ([700, 30], 512, 1024, None, "float32", False, {"optimizer": "lion"}, {}),
}  # fmt: skip


def rows_of(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """X, Y and weights on the host, which are the caller's."""
    sizes, _, rows, _, dtype, weighted, _, network = CASES[case]
    classes = network.get("loss") == "categorical_cross_entropy"
    Y = np.zeros((rows, 1), np.int64) if classes else np.zeros((rows, sizes[-1]), dtype)
    return np.zeros((rows, sizes[0]), dtype), Y, np.ones((rows, 1)) if weighted else None


def trained(backend: Backend | str, kernels: str, case: str, rows: Any) -> tuple[DenseNet, CapturedEpoch]:
    """A network and two epochs of its pass over the data."""
    sizes, m, _, micro, dtype, _, step, network = CASES[case]
    net = DenseNet(sizes, dtype=dtype, device=backend, kernels=kernels, **({"loss": "squared_error"} | network))
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()  # what building a network takes on the host is no part of a step
    batches = Batches(net, *rows, batch_size=m, shuffle=False, seed=0)
    passes = CapturedEpoch(TrainingStep(net, **step), batches, micro)
    for epoch in range(2):
        passes.run(epoch)
    return net, passes


def predicted(net: DenseNet, case: str) -> MemoryPlan:
    sizes, m, rows, micro, dtype, weighted, step, network = CASES[case]
    step = dict(step)
    optimizer = step.pop("optimizer", "adam")
    settings = {"loss": "squared_error"} | network
    return memory_of(
        sizes, m, dtype, optimizer, kernels=net.kernels, rows=rows, weighted=weighted, micro_batch=micro, step=step,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("case", CASES)
def test_numpy_allocates_what_was_predicted(case: str, kernels: str) -> None:
    rows = rows_of(case)
    trained("cpu", kernels, case, rows)  # imports, caches and NumPy's own tables are not counted
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        net, passes = trained("cpu", kernels, case, rows)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert passes.step.t == 2 * len(passes.batches)
    assert predicted(net, case).total == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("case", CASES)
def test_a_counting_device_allocates_what_was_predicted(case: str) -> None:
    device = StandInBackend()
    net, passes = trained(device, "auto", case, rows_of(case))
    plan = predicted(net, case)
    assert plan.total == pytest.approx(device.memory.peak, rel=0.02)
    kept = plan.model + plan.workspace + plan.batches + plan.data
    assert kept <= device.memory.live < kept + plan.passing + 20_000
    assert passes.step.t == 2 * len(passes.batches)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_optimizer_and_loss(loss: str, optimizer: str) -> None:
    device = StandInBackend()
    net = DenseNet([30, 40, 20], loss=loss, device=device)
    Y = np.zeros((64, 1), np.int64) if loss == "categorical_cross_entropy" else np.zeros((64, 20))
    batches = Batches(net, np.zeros((64, 30)), Y, None, batch_size=64, shuffle=False, seed=0)
    CapturedEpoch(TrainingStep(net, optimizer), batches, None).run(0)
    plan = memory_of(net.sizes, 64, "float32", optimizer, kernels=net.kernels, loss=loss)
    assert plan.total == pytest.approx(device.memory.peak, rel=0.02)


@pytest.mark.parametrize("activation", [name for name, g in ACTIVATIONS.items() if not g.output_only])
def test_every_activation(activation: str) -> None:
    device = StandInBackend()
    net = DenseNet([30, 40, 20], loss="squared_error", activation=activation, device=device)
    batches = Batches(net, np.zeros((999, 30)), np.zeros((999, 20)), None, batch_size=999, shuffle=False, seed=0)
    passes = CapturedEpoch(TrainingStep(net, "sgd"), batches, None)
    passes.run(0)
    passes.run(1)  # what the first step has left is there when the second begins
    plan = memory_of(net.sizes, 999, "float32", "sgd", kernels=net.kernels, loss="squared_error", activation=activation)
    assert plan.total == pytest.approx(device.memory.peak, rel=0.02)


def test_the_parts() -> None:
    net = DenseNet([64, 128, 32], loss="squared_error", device="cpu", kernels="native")
    settings: dict[str, Any] = {"kernels": net.kernels, "loss": "squared_error"}
    plan = memory_of([64, 128, 32], 256, rows=1000, **settings)
    P = 4 * (64 * 128 + 128 * 32 + 128 + 64)  # each padded to 256 bytes: b2 takes 64 numbers for its 32
    # Adam's two vectors, and the copy of them and the parameters that a step which is not finite is undone with.
    assert (plan.parameters, plan.gradients, plan.optimizer, plan.model) == (P, P, 5 * P, 7 * P)
    assert plan.data == 1000 * (4 * (64 + 32) + 8)
    assert memory_of([64, 128, 32], 256, rows=1000, resident=False, **settings).data == 0
    half = memory_of([64, 128, 32], 256, micro_batch=128, **settings)
    assert half.workspace == pytest.approx(memory_of([64, 128, 32], 256, **settings).workspace / 2, rel=0.01)
    evaluated = memory_of([64, 128, 32], 16, evaluated=5000, **settings)
    assert evaluated.passing >= 4 * 2048 * (64 + 128 + 32)  # one block of rows: inputs, A of each layer
    assert evaluated.passing == memory_of([64, 128, 32], 16, evaluated=2048, **settings).passing


def test_nothing_is_allocated_to_say_it() -> None:
    net = DenseNet([2, 2], loss="squared_error", device="cpu", kernels="native")
    tracemalloc.start()
    try:
        plan = memory_of([2**15, 2**15, 2**15], 2**20, rows=2**30, kernels=net.kernels, loss="squared_error")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert plan.total > 2**45


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.23 kB"), (999_700, "1 MB"), (5 * 10**12, "5e+03 GB")]
)
def test_amounts_are_read_by_people(n: int, text: str) -> None:
    assert amount(n) == text
