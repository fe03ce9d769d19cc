"""The training step's settings, its checks, and how its parts fit together. Its numbers are judged in tests/laws."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits

from backprop_gpu.errors import BackpropError, ConfigError, DataError, ShapeError
from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep

SIZES = (4, 6, 3)


def net_of(case: Case | None = None, **settings: Any) -> DenseNet:
    case = case or Case("numpy", "reference")
    return DenseNet(SIZES, **{"loss": "squared_error", **settings}, device=case.backend, kernels=case.kind)


def batch(case: Case, m: int = 8, seed: int = 0) -> tuple[Any, Any, Any]:
    """X (4, m), Y (3, m) and weights (1, m) on the device."""
    rng = np.random.default_rng(seed)
    X, Y, w = rng.standard_normal((4, m)), rng.standard_normal((3, m)), rng.integers(1, 4, (1, m)).astype(float)
    return tuple(case.put(x, "float32") for x in (X, Y, w))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "adm"}, "unknown optimizer 'adm' (did you mean 'adam'?)"),
        ({"optimizer": {"name": "sgd", "learning_rate": -1.0}}, "learning_rate must be positive, got -1.0"),
        ({"optimizer": {"name": "sgd", "learning_rate": 0.0}}, "learning_rate must be positive"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, "optimizer 'sgd' has no parameter 'momentum'"),
        ({"optimizer": {"name": "adam", "beta2": 1.0}}, "beta2 must be at least 0 and below 1"),
        ({"optimizer": {"name": "adam", "variant": "papr"}}, "did you mean 'paper'?"),
        ({"optimizer": {"name": "adam", "epsilon": 0.0}}, "epsilon must be positive"),
        ({"optimizer": {"name": "adam", "epsilon": 1e-60}}, "epsilon"),  # 0 in float32: 0 / 0 for a gradient of 0
        ({"optimizer": {"name": "sgd", "learning_rate": "0.1"}}, "learning_rate must be a number, got '0.1'"),
        ({"optimizer": None}, "optimizer"),
        ({"schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"schedule": {"name": "step", "gamma": 2.0}}, "gamma must be from 0 to 1"),
        ({"delta": "litral"}, "did you mean 'literal'?"),
        ({"one_over_m": "latest"}, "did you mean 'late'?"),
        ({"reduction": "average"}, "reduction must be mean or sum"),
        ({"penalty_over": "batch"}, "penalty_over must be examples or none"),
        ({"l1": -0.1}, "l1 must be at least 0, got -0.1"),
        ({"l2": math.nan}, "l2 must be at least 0, got nan"),
        ({"l2": math.inf}, "l2 must be at least 0, got inf"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"clip_norm": math.nan}, "clip_norm must be positive, got nan"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingStep(net_of(), **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


X, Y, W = np.ones((4, 8), "float32"), np.ones((3, 8), "float32"), np.ones((1, 8), "float32")


@pytest.mark.parametrize(
    ("args", "how", "kind", "words"),
    [
        ((X.T, Y), {}, ShapeError, "X must be (4, m), examples as columns; got (8, 4)"),
        ((X, Y.T), {}, ShapeError, "Y must be (3, 8), examples as columns; got (8, 3)"),
        ((X, Y[:, :5]), {}, ShapeError, "Y must be (3, 8)"),
        ((X, Y[:1]), {}, ShapeError, "Y must be (3, 8)"),
        ((X, Y[0]), {}, ShapeError, "Y must be (3, 8)"),
        ((X, Y, W[0]), {}, ShapeError, "weights must be (1, 8); got (8,)"),
        ((X, Y, W[:, :2]), {}, ShapeError, "weights must be (1, 8); got (1, 2)"),
        ((X[:, :0], Y[:, :0]), {}, DataError, "a batch needs at least one example"),
        ((X, Y, 0 * W), {}, DataError, "at least one example with a positive weight"),
        ((X, Y), {"micro_batch": 0}, ConfigError, "micro_batch must be at least 1, got 0"),
        ((X, Y), {"micro_batch": -3}, ConfigError, "micro_batch must be at least 1, got -3"),
    ],
)
def test_batches_that_are_refused(args: Any, how: dict[str, Any], kind: type[Exception], words: str) -> None:
    step = TrainingStep(net_of())
    before = step.net.parameters()
    with pytest.raises(kind) as caught:
        step(*args, **how)
    assert isinstance(caught.value, BackpropError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert step.t == 0
    for name, value in step.net.parameters().items():
        same_bits(value, before[name])


def test_labels_are_taken_by_a_loss_over_classes_alone() -> None:
    labels = np.zeros((1, 8), np.int64)
    TrainingStep(net_of(loss="categorical_cross_entropy"))(X, labels)
    with pytest.raises(ShapeError, match=r"Y must be \(3, 8\)"):
        TrainingStep(net_of())(X, labels)


@pytest.mark.parametrize("case", cases())
def test_a_step_is_gradient_reduce_penalty_update(case: Case) -> None:
    """Taken in one call or by its parts, the same bits; ``reduce`` sees the flat gradient before the penalty."""
    settings = {"l2": 0.3, "clip_norm": 0.2, "optimizer": "adam"}
    whole, parts = (TrainingStep(net_of(case), **settings) for _ in range(2))
    X, Y, w = batch(case)
    seen: list[np.ndarray] = []

    def doubled(grad: Any) -> None:
        seen.append(case.get(grad))
        grad[...] = grad + grad

    for _ in range(3):
        whole(X, Y, w, micro_batch=3, reduce=doubled)
        parts.gradient(X, Y, w, micro_batch=3)
        same_bits(seen[-1], case.get(parts.net.params.grad))
        doubled(parts.net.params.grad)
        parts.penalty()
        parts.update()
        seen.pop()
        for name, value in whole.net.parameters().items():
            same_bits(value, parts.net.parameters()[name])
        assert whole.cost() == parts.cost()
    assert whole.t == parts.t == 3
    assert len(seen) == 3


@pytest.mark.parametrize("case", cases())
def test_a_gradient_starts_afresh(case: Case) -> None:
    """What an earlier batch, of any size, left in the buffers does not matter, and no step is counted."""
    step, fresh = (TrainingStep(net_of(case, dropout=0.3)) for _ in range(2))
    for m, size in ((5, None), (8, 3), (13, 4)):
        X, Y, w = batch(case, m, seed=m)
        step.gradient(X, Y, w, micro_batch=size)
    X, Y, w = batch(case)
    for a_step in (step, fresh):
        a_step.gradient(X, Y, w, micro_batch=3)
    same_bits(case.get(step.net.params.grad), case.get(fresh.net.params.grad))
    assert step.cost() == fresh.cost()
    assert step.t == 0


@pytest.mark.parametrize("case", cases())
def test_the_sum_of_weights_may_be_given(case: Case) -> None:
    X, Y, w = batch(case)
    read, told = (TrainingStep(net_of(case), "sgd") for _ in range(2))
    read(X, Y, w)
    told(X, Y, w, weights_sum=float(case.get(w).sum()))
    assert read.cost() == told.cost()
    for name, value in read.net.parameters().items():
        same_bits(value, told.net.parameters()[name])


@pytest.mark.parametrize("case", cases())
def test_a_micro_batch_larger_than_the_batch_is_the_batch(case: Case) -> None:
    X, Y, _ = batch(case)
    one, other = (TrainingStep(net_of(case), "sgd") for _ in range(2))
    one(X, Y)
    other(X, Y, micro_batch=1000)
    for name, value in one.net.parameters().items():
        same_bits(value, other.net.parameters()[name])


@pytest.mark.parametrize("case", cases())
def test_the_penalty_over_examples_is_the_penalty_over_nothing_divided_by_them(case: Case) -> None:
    """m = 8, so that the division is exact; J includes it, weights feel it, biases do not."""
    X, Y, _ = batch(case)
    plain, over, none = (
        TrainingStep(net_of(case), "sgd", **how)
        for how in ({}, {"l2": 0.5, "l1": 0.25}, {"l2": 0.5 / 8, "l1": 0.25 / 8, "penalty_over": "none"})
    )
    for step in (plain, over, none):
        step(X, Y)
    assert over.cost() == none.cost() > plain.cost()
    for name, value in over.net.parameters().items():
        same_bits(value, none.net.parameters()[name])
        assert np.array_equal(value, plain.net.parameters()[name]) == (name[0] == "b")


def test_the_learning_rate_follows_the_schedule() -> None:
    """Read before the step that uses it; sgd on one weight shows that it is the one that is used."""
    net = DenseNet((1, 1), loss="squared_error", dtype="float64", device="numpy")
    step = TrainingStep(
        net, {"name": "sgd", "learning_rate": 0.5}, schedule={"name": "step", "every": 2, "gamma": 0.1}, total_steps=6
    )
    for t in range(6):
        assert step.t == t
        assert step.learning_rate == pytest.approx(0.5 * 0.1 ** (t // 2), rel=1e-15)
        rate, before = step.learning_rate, net.params.theta.copy()
        step(np.ones((1, 1)), np.full((1, 1), 3.0))
        same_bits(net.params.theta, before - rate * net.params.grad)


@pytest.mark.parametrize("case", cases())
def test_a_dropped_unit_gives_no_gradient(case: Case) -> None:
    """The masks change from step to step, and the step number and seed are all that they depend on."""
    masks = []
    for seed in (1, 1, 2):
        step = TrainingStep(
            net_of(case, dropout=0.5, seed=seed, activation="sigmoid"), {"name": "sgd", "learning_rate": 1e-3}
        )
        X, Y, _ = batch(case, m=1)
        for _ in range(4):
            step(X, Y)
            masks.append(case.get(step.net.params.db[1])[:, 0] != 0.0)
    runs = np.array(masks).reshape(3, 4, 6)
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert len({row.tobytes() for row in runs[0]}) > 1
    assert 0 < runs.sum() < runs.size


def test_a_batch_of_float64_does_not_change_the_dtype() -> None:
    step = TrainingStep(net_of(), "adam")
    step(X.astype("float64"), Y.astype("float64"))
    assert {x.dtype for x in (step.net.params.theta, step.net.params.grad, step.value, *step.optimizer_state)} == {
        np.dtype("float32")
    }


def test_the_numbers_of_a_step_are_what_load_uploads() -> None:
    step = TrainingStep(net_of(), {"name": "adam", "learning_rate": 0.1}, schedule="inverse_scaling", l1=0.5, l2=2.0)
    step.t = 3
    D = [Denominator(4.0), Denominator(8.0)]
    table = np.zeros((2, step.n_step_scalars), np.float32)
    step.load(table, D)
    expected = [step.step_scalars(k, d) for k, d in enumerate(D)]
    assert np.array_equal(table, np.array(expected, np.float32))
    rates = [0.1 * step.schedule.factor(3 + k, 1) for k in range(2)]
    assert expected == [
        [d.inverse, 0.5 * d.inverse, 2.0 * d.inverse, *step.optimizer.scalars(4 + k, rates[k])] for k, d in enumerate(D)
    ]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_buffers_do_not_pile_up_and_reserved_ones_stay(case: Case) -> None:
    kept, fresh = (TrainingStep(net_of(case), l2=0.1) for _ in range(2))
    kept.reserve(7, 3)  # 3 at a time, and 1
    reserved = [id(ws) for ws in kept.workspaces]
    for m in (9, 4, 11, 3, 12, 9, 13, 1, 14, 9, 15):
        X, Y, w = batch(case, m, seed=m)
        for step in (kept, fresh):
            step(X, Y, w, micro_batch=8)
        fresh.release()
        assert len(kept.workspaces) <= 2 + 4
        assert set(reserved) <= {id(ws) for ws in kept.workspaces}
        same_bits(*(step.net.backend.to_host(step.net.params.theta) for step in (kept, fresh)))
    kept.release()
    assert kept.workspaces == []


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_recorded_gradient_has_the_bits_of_one_that_is_called(case: Case, weighted: bool) -> None:
    called, recorded = (TrainingStep(net_of(case), l2=0.1, l1=0.01) for _ in range(2))
    X, Y, w = batch(case, 11)
    given = (X, Y, w if weighted else None)
    total = float(case.backend.to_host(w).sum()) if weighted else None
    source = SimpleNamespace(X=X, Y=Y, weights=given[2], m=11, first=0, gather=lambda counters: None)
    with case.backend.activate():
        table, values = case.backend.zeros((1, recorded.n_step_scalars), "float32"), case.backend.zeros((1,), "float32")
        recorded.load(table, [Denominator.of("mean", 11, total)])
        recorded.reserve(11, 4)
        replay = recorded.net.kernels.capture(recorded.program(table, values, source, 4, update=False))
    for seed in range(6):
        theta = np.random.default_rng(seed).standard_normal(called.net.params.theta.shape[0])
        for step in (called, recorded):
            with case.backend.activate():
                step.net.params.theta[...] = case.put(theta, "float32")
        called.gradient(*given, weights_sum=total, micro_batch=4)
        called.penalty()
        with case.backend.activate():
            recorded.rewind()
            replay(1)
        same_bits(*(case.backend.to_host(step.net.params.grad) for step in (called, recorded)))
        same_bits(*(case.backend.to_host(step.value) for step in (called, recorded)))
