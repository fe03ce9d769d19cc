"""Epochs as training records them: honest kernel sets are found right, and what goes wrong between batches is named."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from parity.faults import patched
from support.backends import Case, cases
from support.orders import With

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.optimizers import Adam
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.exact_step import exact
from backprop_gpu.parity.recorded_epochs import EpochPlan, rows_and_batch
from backprop_gpu.parity.report import Report
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import EpochProgram

EPOCHS = 4
RNG = np.random.default_rng(0)
X, Y, WEIGHTS = RNG.standard_normal((43, 5)), RNG.integers(0, 3, 43), RNG.uniform(0.5, 2.0, 43)


def checked(device: Any = "numpy", kernels: str = "reference", **settings: Any) -> Report:
    """Of two batches of 17 and a tail of 9."""
    own = {key: settings.pop(key) for key in ("batch_norm", "dropout") if key in settings}
    net = DenseNet(
        [5, 6, 4, 3],
        activation=["gelu", "tanh"],
        loss="categorical_cross_entropy",
        device=device,
        kernels=kernels,
        **own,
    )
    return check(net, X, Y, **{"epochs": EPOCHS, **settings})


SETTINGS: list[dict[str, Any]] = [
    {"dropout": 0.3, "sample_weight": WEIGHTS},
    {"micro_batch": 5, "schedule": "cosine", "total_steps": 40, "l2": 0.1, "clip_norm": 0.1, "optimizer": "adamw"},
    {"batch_norm": True, "optimizer": {"name": "momentum", "average": 0.9}, "one_over_m": "late"},
    {"streamed": True, "shuffle": False, "reduction": "sum"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s)))
@pytest.mark.parametrize("case", cases())
def test_honest_kernels_are_found_right(case: Case, settings: dict[str, Any]) -> None:
    report = checked(case.backend, case.kind, **settings)
    assert report.ok, report.summary()
    found = {f.tensor for f in report.findings if f.operation == "recorded step"}
    assert {"X of the batch", "numbers of the step", "theta recorded", "J by batch", "J of the epoch"} <= found


# -- faults between the batches ---------------------------------------------------------------------------------------


def kernels(name: str, wrong: Callable[..., None]) -> Backend:
    """The reference, one operation of which is ``wrong(honest, self, *args, **kwargs)``."""
    honest = getattr(ReferenceKernels, name)
    made = type("Wrong", (ReferenceKernels,), {name: lambda self, *a, **k: wrong(honest, self, *a, **k)})
    return With(made)


def gathered(first: int, shift: int) -> Callable[..., None]:
    """From batch ``first`` on, rows ``shift`` further in the order."""

    def wrong(honest: Any, self: Any, source: Any, order: Any, counters: Any, stride: int, *, out: Any) -> None:
        at = counters[0] * stride + np.arange(out.shape[0]) + shift * (counters[0] >= first)
        out[...] = source[order[np.clip(at, 0, len(order) - 1)]]

    return wrong


def other_batch(honest: Any, self: Any, source: Any, order: Any, counters: Any, stride: int, *, out: Any) -> None:
    honest(self, source, order, np.maximum(counters - 1, 0), stride, out=out)


def in_another_order(honest: Any, self: Any, source: Any, order: Any, counters: Any, *args: Any, out: Any) -> None:
    honest(self, source, order, counters, *args, out=out)
    if counters[0] > 0:
        out[...] = out[::-1].copy()


def one_row_stale(honest: Any, self: Any, source: Any, order: Any, counters: Any, *args: Any, out: Any) -> None:
    before = out[3].copy()
    honest(self, source, order, counters, *args, out=out)
    if counters[0] > 0:
        out[3] = before


def numbers_of(shift: int) -> Callable[..., None]:
    def wrong(honest: Any, self: Any, counters: Any, table: Any, values: Any, *, step_scalars: Any, value: Any) -> None:
        honest(self, counters, table, values, step_scalars=step_scalars, value=value)
        step_scalars[...] = table[np.clip(int(counters[0]) + shift, 0, len(table) - 1)]

    return wrong


def put_away(at: Callable[[int, int], int]) -> Callable[..., None]:
    def wrong(honest: Any, self: Any, counters: Any, table: Any, values: Any, *, step_scalars: Any, value: Any) -> None:
        k, J, before = int(counters[0]), value[0], values.copy()
        honest(self, counters, table, values, step_scalars=step_scalars, value=value)
        values[...] = before
        if k >= 0:
            values[at(k, len(values))] = J

    return wrong


def cost_goes_on(
    honest: Any, self: Any, counters: Any, table: Any, values: Any, *, step_scalars: Any, value: Any
) -> None:
    J = value.copy()
    honest(self, counters, table, values, step_scalars=step_scalars, value=value)
    value[...] = J


class AtOnce(ReferenceKernels):
    """A program that is right played one step at a time, and leaves a step out when it is played several times."""

    def capture(self, program: Any) -> Any:
        honest = super().capture(program)
        return lambda times, before=None: honest(times if times < 2 else times - 1, before)


class Late(ReferenceKernels):
    """A recording that loses what its last call wrote."""

    def capture(self, program: Any) -> Any:
        def replay(times: int, before: Any = None) -> None:
            self.moved = False
            for _ in range(times):
                program()
            if self.moved:  # by a step, and not by a prediction
                self.theta[...] = self.theta * np.float32(1 + 2**-20)

        return replay

    def update(self, optimizer: Any, theta: Any, *args: Any, **kwargs: Any) -> None:
        self.theta, self.moved = theta, True
        super().update(optimizer, theta, *args, **kwargs)


KERNELS: list[tuple[Backend, str, str]] = [
    (kernels("gather", gathered(1, 1)), "X of the batch", "batch 2 of epoch 1: its rows begin 1 too late"),
    (kernels("gather", gathered(2, -1)), "X of the batch", "batch 3 of epoch 1: its rows begin 1 too early"),
    (kernels("gather", other_batch), "X of the batch", "batch 2 of epoch 1: its rows are those of batch 1"),
    (kernels("gather", in_another_order), "X of the batch", "batch 2 of epoch 1: its rows stand in another order"),
    (kernels("gather", one_row_stale), "X of the batch", "batch 2 of epoch 1: 1 of 17 rows are other rows of the data"),
    (kernels("advance", numbers_of(-1)), "numbers of the step", "batch 2 of epoch 1: the numbers of the step before"),
    (kernels("advance", numbers_of(1)), "numbers of the step", "batch 1 of epoch 1: the numbers of the step after"),
    (
        kernels("advance", put_away(lambda k, n: max(k - 1, 0))),
        "J by batch",
        "J of batch 2 stands where that of batch 1",
    ),
    (kernels("advance", put_away(lambda k, n: (k + 1) % n)), "J by batch", "J of batch 1 stands where that of batch 2"),
    (kernels("advance", put_away(lambda k, n: 0)), "J by batch", "J of batch 2 stands where that of batch 1"),
    (kernels("advance", cost_goes_on), "value", "batch 2 of epoch 1"),
    (With(AtOnce), "J of the epoch", " at once: other bits than"),
    (With(Late), "theta recorded", "batch 1 of epoch 1: other bits than the step that is called outright"),
]


@pytest.mark.parametrize(("device", "tensor", "said"), KERNELS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_fault_of_the_kernels_is_named(device: Backend, tensor: str, said: str) -> None:
    report = checked(device, epochs=2, optimizer={"name": "adam", "learning_rate": 0.01})
    assert report.first is not None
    if tensor != "value":  # what it adds to is itself an output of the step that is judged
        assert report.first.tensor == tensor
    assert said in report.first.cause


@contextlib.contextmanager
def order_of_the_last_epoch() -> Iterator[None]:
    honest = Batches.start_epoch

    def start_epoch(self: Batches, epoch: int) -> Any:
        totals = honest(self, epoch)
        if epoch == EPOCHS - 1:
            self._upload(np.roll(self._order, 1))
        return totals

    with patched(Batches, "start_epoch", start_epoch):
        yield


@contextlib.contextmanager
def order_never_changes() -> Iterator[None]:
    honest = Batches.permutation
    with patched(Batches, "permutation", lambda self, epoch: honest(self, 0)):
        yield


@contextlib.contextmanager
def a_row_twice() -> Iterator[None]:
    honest = Batches.permutation

    def permutation(self: Batches, epoch: int) -> np.ndarray:
        order = honest(self, epoch).copy()
        order[-1] = order[0]
        return order

    with patched(Batches, "permutation", permutation):
        yield


@contextlib.contextmanager
def tail_divided_by_the_full_size() -> Iterator[None]:
    with patched(EpochProgram, "_denominators", lambda self, totals: self._plain[:1] * len(self._plain)):
        yield


@contextlib.contextmanager
def state_does_not_start_at_0() -> Iterator[None]:
    honest = TrainingStep._make_buffers

    def make(self: TrainingStep) -> None:
        honest(self)
        for vector in self.optimizer_state:
            vector[...] = 0.1

    with patched(TrainingStep, "_make_buffers", make):
        yield


@contextlib.contextmanager
def epsilon_inside_the_root() -> Iterator[None]:
    def apply(self: Adam, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        (step, c), (m, v) = scalars, self._moments(grad, *state)
        return theta - step * m / xp.sqrt(c * c * v + np.asarray(self.epsilon, v.dtype)), (m, v)

    with patched(Adam, "apply", apply):
        yield


@contextlib.contextmanager
def epsilon_left_out() -> Iterator[None]:
    def apply(self: Adam, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        (step, c), (m, v) = scalars, self._moments(grad, *state)
        return theta - step * m / (c * xp.sqrt(v) + np.finfo(v.dtype).tiny), (m, v)

    with patched(Adam, "apply", apply):
        yield


HOOKS: list[tuple[Callable[[], Any], str, str]] = [
    (order_of_the_last_epoch, "X of the batch", "batch 1 of epoch 4: its rows begin 1 too early"),
    (order_never_changes, "X of the batch", "batch 1 of epoch 2: its rows are in the order of the epoch before"),
    (a_row_twice, "X of the batch", "batch 3 of epoch 1: 1 of 9 rows are other rows of the data"),
    (
        tail_divided_by_the_full_size,
        "numbers of the step",
        "batch 3 of epoch 1: 1/D of a full batch of 17, although this one has 9",
    ),
    (state_does_not_start_at_0, "state 0 at first", ""),
    (epsilon_inside_the_root, "theta", ""),
    (epsilon_left_out, "theta", ""),
]


@pytest.mark.parametrize(("hook", "tensor", "said"), HOOKS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_fault_of_the_training_is_named(hook: Any, tensor: str, said: str) -> None:
    with hook():
        report = checked()
    assert report.first is not None
    assert report.first.tensor == tensor
    assert said in report.first.cause


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_right_epsilon_is_never_accused(dtype: str) -> None:
    for optimizer, seed in itertools.product(("adam", "adamw", "amsgrad", "rmsprop", "adagrad", "lion"), range(3)):
        report = checked(optimizer=optimizer, dtype=dtype, seed=seed, epochs=0, steps=2)
        assert report.ok, report.summary()


@pytest.mark.parametrize(("device", "tensor", "said"), [KERNELS[i] for i in (0, 5, 8, 11)], ids=str)
def test_exact_sees_them_too(device: Backend, tensor: str, said: str) -> None:
    report = exact((5, 6, 2), device)
    assert report.first is not None
    assert report.first.tensor == tensor
    for hook in (tail_divided_by_the_full_size, order_never_changes, state_does_not_start_at_0):
        with hook():
            assert not exact((5, 6, 2), "numpy", kernels="reference").ok


# -- how the rows are cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch"), [(1000, 32), (1000, 50), (64, 32), (33, 32), (43, 1000), (5, 2), (3, 1), (1, 1)]
)
def test_there_are_two_batches_and_a_tail(n: int, batch: int) -> None:
    rows, size = rows_and_batch(n, batch)
    assert rows <= n
    assert size <= batch
    if n >= 5:
        assert 2 * size < rows < 3 * size
    if n >= 3 * batch:
        assert size == batch


def test_the_first_two_epochs_and_the_last_are_judged() -> None:
    assert [EpochPlan(8, epochs=n).checked for n in (1, 2, 3, 50)] == [[0], [0, 1], [0, 1, 2], [0, 1, 49]]


def test_a_training_that_diverges_is_not_the_devices_fault() -> None:
    report = checked(optimizer={"name": "sgd", "learning_rate": 3e38})
    assert report.ok
    found = [f for f in report.findings if f.tensor == "epochs"]
    assert [f.status for f in found] == ["warning"]
    assert "diverges" in found[0].cause


def test_settings_that_are_none_are_refused() -> None:
    for wrong in ({"epochs": -1}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="must be at least"):
            checked(**wrong)
