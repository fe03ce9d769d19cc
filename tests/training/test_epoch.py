"""Several steps in one program: each has the bits of a pass of its own, on every kernel set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.errors import DataError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch, EpochProgram, JointEpoch

ROWS = 16 * 10 + 5  # ten steps and a ragged tail
EPOCHS = 5  # a CUDA graph is recorded after three steps: the ragged tail's, one a pass, in the fourth
SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "activation": ["silu", "relu"], "dropout": 0.3, "l2": 0.1, "clip_norm": 0.5},
    {"optimizer": "nesterov", "activation": "tanh", "one_over_m": "late", "delta": "literal"},
]


def parts(
    case: Case, seed: int, settings: dict[str, Any], weighted: bool, beside: DenseNet | None = None
) -> tuple[TrainingStep, Batches, None]:
    """A step and batches, different for each seed."""
    s, rng = dict(settings), np.random.default_rng(seed)
    X, y = rng.standard_normal((ROWS, 6)).astype("f4"), rng.integers(0, 4, (ROWS, 1))
    w = rng.uniform(0.0, 2.0, (ROWS, 1)) if weighted else None
    net = DenseNet(
        [6, 9, 7, 4],
        activation=s.pop("activation"),
        dropout=s.pop("dropout", 0.0),
        loss="categorical_cross_entropy",
        device=case.backend,
        kernels=case.kind,
        seed=seed,
        share_with=beside,
    )
    step = TrainingStep(net, s.pop("optimizer"), total_steps=60, schedule="cosine", **s)
    return step, Batches(net, X, y, w, batch_size=16, shuffle=True, seed=seed), None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s["optimizer"])
@pytest.mark.parametrize("case", cases())
def test_steps_in_one_program_have_the_bits_of_a_pass_each(
    case: Case, settings: dict[str, Any], weighted: bool
) -> None:
    alone = [CapturedEpoch(*parts(case, seed, settings, weighted)) for seed in range(3)]
    beside = DenseNet([1, 1], device=case.backend, kernels=case.kind)
    programs = [EpochProgram(*parts(case, seed, settings, weighted, beside)) for seed in range(3)]
    joint = JointEpoch(programs)
    for epoch in range(EPOCHS):
        if epoch == 2:  # one of them leaves
            gone, alone, programs = programs[1], [alone[0], alone[2]], [programs[0], programs[2]]
            kept = gone.step.net.parameters()
            joint = JointEpoch(programs)
        costs = joint.train(epoch)
        for program, own, cost in zip(programs, alone, costs, strict=True):
            np.testing.assert_array_equal(cost, own.run(epoch))
            assert program.step.t == own.step.t
            for name, value in own.step.net.parameters().items():
                np.testing.assert_array_equal(program.step.net.parameters()[name], value)
    for name, value in kept.items():
        np.testing.assert_array_equal(gone.step.net.parameters()[name], value)
    first, last = (program.step.net.parameters()["W1"] for program in programs)
    assert not np.array_equal(first, last)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"name": "momentum", "learning_rate": 0.1}},
        {"schedule": "one_cycle"},
        {"total_steps": 30},
        {"l2": 0.5},
        {"l1": 0.5},
        {"penalty_over": "none"},
        {"reduction": "sum"},
    ],
    ids=str,
)
def test_steps_that_need_other_numbers_have_their_own(change: dict[str, Any]) -> None:
    def program(beside: DenseNet | None, settings: dict[str, Any]) -> tuple[TrainingStep, Batches, None]:
        rng = np.random.default_rng(0)
        net = DenseNet([3, 2], loss="squared_error", device="cpu", share_with=beside)
        rows = rng.normal(size=(10, 3)), rng.normal(size=(10, 2)), None
        step = TrainingStep(
            net, **{"optimizer": "momentum", "schedule": "cosine", "total_steps": 20, "l2": 0.3, **settings}
        )
        return step, Batches(net, *rows, batch_size=4, shuffle=False, seed=0), None

    alone = [CapturedEpoch(*program(None, settings)) for settings in ({}, change)]
    plain = program(None, {})
    programs = [EpochProgram(*plain), EpochProgram(*program(plain[0].net, change))]
    joint = JointEpoch(programs)
    for epoch in range(2):
        for own, cost in zip(alone, joint.train(epoch), strict=True):
            np.testing.assert_array_equal(cost, own.run(epoch))
    one, two = (program.step.net.params.theta for program in programs)
    assert not np.array_equal(one, two)
    for own, theta in zip(alone, (one, two), strict=True):
        np.testing.assert_array_equal(own.step.net.params.theta, theta)


def test_networks_beside_another_have_its_device_and_kernel_set() -> None:
    first = DenseNet([2, 1], device="array_api_strict", kernels="reference")
    net = DenseNet([2, 3, 1], share_with=first)
    assert (net.kernels, net.backend, net.kernels_kind) == (first.kernels, first.backend, "reference")


def test_batches_of_other_sizes_are_refused() -> None:
    def program(n: int) -> EpochProgram:
        net = DenseNet([2, 1], share_with=first)
        batches = Batches(net, np.zeros((n, 2)), np.zeros((n, 1)), None, batch_size=4, shuffle=False, seed=0)
        return EpochProgram(TrainingStep(net), batches, None)

    first = DenseNet([2, 1], device="cpu")
    for n in (10, 12):
        with pytest.raises(DataError, match="same sizes"):
            JointEpoch([program(8), program(n)])
