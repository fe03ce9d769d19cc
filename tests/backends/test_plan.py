"""What a kernel set says of a step beforehand is what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.plan import StepSpec
from backprop_gpu.backends.shapes import ShapeBackend
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.maths.optimizers import SGD
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.spec import step_spec
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches


class _OwnLoss(SquaredError):
    """Somebody's variant under a known name."""


class _OwnRule(SGD):
    """Somebody's variant under a known name."""


native = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())

# settings of the network, of the step, micro-batch, operations (with their layers) that have no native kernel
CASES: list[tuple[dict[str, Any], dict[str, Any], int | None, set[tuple[str, int | None]]]] = [
    ({}, {}, None, set()),
    ({"activation": "gelu", "dropout": 0.2}, {"l1": 0.1, "clip_norm": 1.0}, 7, set()),
    ({"loss": "categorical_cross_entropy"}, {"optimizer": "lion", "one_over_m": "late"}, None, set()),
    ({"loss": {"name": "grouped_cross_entropy", "groups": [2, 1]}}, {"optimizer": "sgd"}, 8, set()),
    ({}, {"delta": "literal"}, None, {("output_delta", 3)}),
    ({"dtype": "float64"}, {"l2": 0.1, "optimizer": {"name": "adam", "average": 0.9}}, None, set()),
    ({"loss": _OwnLoss()}, {"optimizer": _OwnRule()}, None, {("output_delta", 3), ("update", None)}),
    (
        {"activation": ["relu", {"name": "leaky_relu", "slope": -0.5}]},
        {},
        5,
        {("dense", 2), ("dense_vjp_input", 3)},
    ),
]


def watching(found: set[str]) -> Backend:
    """NumPy's device, whose native kernels note each operation that they leave to maths."""
    from backprop_gpu.backends.cpu.kernels import NativeKernels
    from backprop_gpu.backends.cpu.library import native_library

    class Watching(NativeKernels):
        def _python(self, function: Any, *arguments: Any, **named: Any) -> None:
            found.add(function.__name__)
            super()._python(function, *arguments, **named)

    class Device(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Watching(self, native_library())

    return Device("numpy", np)


@native
@pytest.mark.parametrize(("network", "settings", "micro", "expected"), CASES)
def test_native_kernels_do_what_they_say(network: Any, settings: Any, micro: int | None, expected: Any) -> None:
    found: set[str] = set()
    net = DenseNet([4, 8, 6, 3], device=watching(found), **({"loss": "squared_error"} | network))
    step = TrainingStep(net, **settings)
    spec = step_spec(step, 20, micro)
    *choices, capture = net.kernels.dispatch_report(spec)
    assert [(c.operation, c.layer) for c in choices] == spec.operations()
    assert {(c.operation, c.layer) for c in choices if c.why} == expected
    assert all(c.by == ("maths on numpy" if c.why else "native") for c in choices)

    y = np.zeros((20, 1), np.int64) if net.loss.labels == "classes" else np.ones((20, 3))
    batches = Batches(net, np.ones((20, 4)), y, None, batch_size=20, shuffle=False, seed=0)
    table, values = net.backend.zeros((1, step.n_step_scalars), net.dtype), net.backend.zeros((1,), net.dtype)
    batches.start_epoch(0)
    program = step.program(table, values, batches.buffers(20), micro)
    step.rewind()
    program()
    assert found == {operation for operation, _ in expected}
    replay = net.kernels.capture(program)
    step.rewind()
    replay(1)
    assert capture.by == ("native programs with Python calls between them" if expected else "one native program")
    assert bool(capture.why) == bool(expected)


@pytest.mark.parametrize("kind", ["reference", pytest.param("native", marks=native)])
def test_every_operation_is_explained(kind: str) -> None:
    net = DenseNet([4, 8, 6, 3], activation=["tanh", "silu"], device="cpu", kernels=kind)
    spec = step_spec(TrainingStep(net, "adamw", l1=0.1, clip_norm=2.0), 20, 6)
    choices: Any = net.kernels.dispatch_report(spec)
    assert [(c.operation, c.layer) for c in choices] == [*spec.operations(), ("capture", None)]
    expected = {"maths on numpy", "Python"} if kind == "reference" else {"native", "one native program"}
    assert {c.by for c in choices} == expected


def test_the_operations_of_a_step_are_those_that_it_calls() -> None:
    called: list[str] = []
    net = DenseNet([4, 8, 6, 3], loss="squared_error", device="cpu", kernels="reference")
    step = TrainingStep(net, "sgd", l2=0.1, clip_norm=1.0)
    spec: StepSpec = step_spec(step, 5)
    kernels: Any = net.kernels

    class Listening:
        def __getattr__(self, name: str) -> Any:
            called.append(name)
            return getattr(kernels, name)

    net.kernels = Listening()  # type: ignore[assignment]
    batches = Batches(net, np.ones((5, 4)), np.ones((5, 3)), None, batch_size=5, shuffle=False, seed=0)
    table, values = net.backend.zeros((1, step.n_step_scalars), net.dtype), net.backend.zeros((1,), net.dtype)
    batches.start_epoch(0)
    step.reserve(5, None)
    step.rewind()
    called.clear()
    step.program(table, values, batches.buffers(5), None)()
    assert list(dict.fromkeys(called)) == list(dict.fromkeys(name for name, _ in spec.operations()))
    layered = [name for name in called if name.startswith("dense")]
    assert layered == [name for name, _ in spec.operations() if name.startswith("dense")]


def test_arrays_without_numbers_count_what_lives() -> None:
    device = ShapeBackend()
    x = device.zeros((10, 3), "float32")
    assert device.meter.live == 120
    view = x[2:4].T
    del x
    assert (view.shape, device.meter.live) == ((3, 2), 120)  # the view keeps it alive
    del view
    assert device.meter.live == 0
    a, b = device.zeros((4, 1), "float32"), device.zeros((1, 5), "float64")
    assert ((a + b).shape, (a + b).dtype, (2 * a).dtype) == ((4, 5), np.float64, np.float32)
    assert device.xp.matmul(a, a.T).shape == (4, 4)
    assert device.xp.greater(a, 0.0).dtype == np.bool_
    assert [device.xp.sum(b, axis=1, keepdims=k).shape for k in (True, False)] == [(1, 1), (1,)]
    assert device.xp.take(b, device.asarray([1, 2, 2], "int64"), axis=1).shape == (1, 3)
    assert device.passing(lambda: a + b + 1.0) == 2 * 4 * 5 * 8
