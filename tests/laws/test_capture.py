"""The law of ``capture`` for whole epochs: a replay is what Python would have run, bit for bit, on every kernel set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu._typing import Before, Replay
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.epoch import CapturedEpoch

SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "activation": ["gelu", "relu"], "dropout": 0.3, "l2": 0.1, "clip_norm": 0.5},
    {"optimizer": "nesterov", "activation": "tanh", "one_over_m": "late", "micro_batch": 5, "schedule": "cosine"},
]
EPOCHS = 5  # a CUDA graph is recorded after three steps: the ragged tail's, one a pass, in the fourth


ROWS = 16 * 11 + 5  # eleven steps and a ragged tail: more than what a CUDA graph may hold at once


def epochs(case: Case, settings: dict[str, Any]) -> tuple[CapturedEpoch, int | None]:
    s = dict(settings)
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((ROWS, 6)).astype("f4"), rng.integers(0, 4, (ROWS, 1))
    micro_batch = s.pop("micro_batch", None)
    net = DenseNet(
        [6, 9, 7, 4],
        activation=s.pop("activation"),
        dropout=s.pop("dropout", 0.0),
        loss="categorical_cross_entropy",
        device=case.backend,
        kernels=case.kind,
    )
    step = TrainingStep(net, s.pop("optimizer"), total_steps=40, **s)
    return CapturedEpoch(step, Batches(net, X, y, None, batch_size=16, shuffle=True, seed=1), micro_batch), micro_batch


def called(program: Callable[[], None]) -> Replay:
    """What a replay is defined as."""

    def run(times: int, before: Before | None = None) -> None:
        assert before is None
        for _ in range(times):
            program()

    return run


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s["optimizer"])
@pytest.mark.parametrize("case", cases())
def test_a_replayed_epoch_is_what_python_would_have_run(case: Case, settings: dict[str, Any]) -> None:
    (replayed, _), (python, micro_batch) = epochs(case, settings), epochs(case, settings)
    with case.backend.activate():
        programs = [
            python.step.program(
                python.program.table, python.program.values, BatchBuffers(python.batches, m), micro_batch
            )
            for m in (16, ROWS % 16)
        ]
    python.replays = [(called(p), times) for p, (_, times) in zip(programs, python.replays, strict=True)]
    for epoch in range(EPOCHS):
        np.testing.assert_array_equal(replayed.run(epoch), python.run(epoch))
    theta, wanted = (case.get(p.step.net.params.theta) for p in (replayed, python))
    np.testing.assert_array_equal(theta, wanted)
