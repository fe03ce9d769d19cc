"""The first step that is not finite is named and undone, in every kind of step, or its batch skipped with a note."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits
from support.poison import PoisonedKernels
from support.small_nets import small_net

from backprop_gpu.errors import DivergedError, Stopped
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training import non_finite
from backprop_gpu.training.batches import Batches, StreamedBatches
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.checkpoint import Checkpoint
from backprop_gpu.training.checkpoint_file import checkpoints_in
from backprop_gpu.training.epoch import CapturedEpoch, EpochProgram, JointEpoch
from backprop_gpu.training.history import History
from backprop_gpu.training.non_finite import OnNonFinite
from backprop_gpu.training.signals import Signals
from backprop_gpu.training.spikes import note_of_spike
from backprop_gpu.training.trainer import Trainer

LONG = bool(os.environ.get("BACKPROP_GPU_LONG_TESTS"))
ROWS, BATCH, SIZES = 38, 8, [4, 5, 6, 2]  # four full batches and a ragged tail of 6
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(ROWS, 4)), RNG.normal(size=(ROWS, 2))

# Kinds of steps: settings of the step, the micro-batch, the kind of batches, shuffled or not.
KINDS: dict[str, tuple[dict[str, Any], int | None, type[Batches], bool]] = {
    "recorded": ({}, None, Batches, True),
    "micro-batches": ({}, 3, Batches, False),
    "streamed": ({}, None, StreamedBatches, True),
    "late, literal, clipped": ({"one_over_m": "late", "clip_norm": 5.0, "l1": 1e-3}, None, Batches, True),
    "averaged": ({"optimizer": {"name": "adamw", "average": 0.9}}, None, Batches, True),
}
# Operation, output, which of its calls in a step without micro-batches, and the layer and tensor that are to be named.
OPERATIONS: list[tuple[str, str, int, int | None, str]] = [
    ("dense", "A", 0, 1, "A1"),
    ("dense", "A", 2, 3, "Z3"),
    ("output_delta", "value", 0, None, "J"),
    ("output_delta", "dZ", 0, 3, "dZ3"),
    ("dense_vjp_input", "dZ_prev", 0, 2, "dZ2"),
    ("dense_vjp_params", "dW", 2, 1, "dW1"),
    ("update", "state", 0, 3, "m of W3"),
    ("update", "theta", 0, 3, "W3"),
]
BAD = (0, 2, 4)  # batches of the epoch: the first, one in the middle, the ragged tail


def epoch_of(
    case: Case, kind: str, policy: OnNonFinite | None = None, poison: tuple[Any, ...] = (), **net: Any
) -> CapturedEpoch:
    settings, micro_batch, batches, shuffle = KINDS[kind]
    settings = {"optimizer": "adam", "l2": 0.01} | settings
    made = small_net(SIZES, loss="squared_error", activation="tanh", device=case.backend, kernels=case.kind, **net)
    step = TrainingStep(made, settings.pop("optimizer"), **settings)
    if poison:
        PoisonedKernels(step, *poison)
    rows = batches(made, X, Y, None, batch_size=BATCH, shuffle=shuffle, seed=3)
    return CapturedEpoch(step, rows, micro_batch, policy)


def run(replay: Any, buffers: Any, first: int, times: int) -> None:
    fill = buffers.filler(first, times)
    replay(times) if fill is None else replay(times, fill)


def state_after(case: Case, kind: str, steps: int, **net: Any) -> list[np.ndarray]:
    """Parameters, statistics and optimizer state after so many steps that nothing was wrong with."""
    epoch = epoch_of(case, kind, **net)
    with case.backend.activate():
        epoch.program.begin(0)
        first = 0
        for replay, times in epoch.replays:
            _, buffers, _ = epoch.parts[int(first > 0)]
            now = min(times, steps - first)
            if now > 0:
                run(replay, buffers, first, now)
                first += now
    return [case.backend.to_host(x).copy() for x in epoch.step.state_buffers]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", cases(without=() if LONG else ("torch", "array_api_strict")))
def test_the_step_is_named_and_undone(case: Case, kind: str) -> None:
    before = {k: state_after(case, kind, k) for k in BAD}
    for n, (operation, output, call, layer, tensor) in enumerate(OPERATIONS):
        for bad in BAD if LONG else BAD[n % 3 :][:1]:
            value = (math.nan, math.inf, -math.inf)[n % 3]
            if KINDS[kind][1] and operation.startswith("dense_vjp"):
                continue  # which call of a step it is depends on the number of micro-batches
            epoch = epoch_of(case, kind, poison=(operation, output, call, bad, (), value))
            with pytest.raises(DivergedError) as caught:
                epoch.run(0)
            found = caught.value.found
            assert (found.operation, found.layer, found.tensor) == (operation, layer, tensor)
            assert str(found.value) == str(value)
            assert str(caught.value).endswith(f"at step {bad + 1} (batch {bad + 1})")
            if found.example is not None:
                assert f"training row {epoch.batches.order_of(bad)[0]} " in str(caught.value)
            assert (epoch.step.t, epoch.batches.batch) == (bad, bad)
            for x, want in zip(epoch.step.state_buffers, before[bad], strict=True):
                same_bits(case.backend.to_host(x), want)


@pytest.mark.parametrize("case", cases())
def test_a_later_epoch_and_running_statistics_are_undone_too(case: Case) -> None:
    net = {"batch_norm": [True, False]}
    clean = epoch_of(case, "recorded", **net)
    clean.run(0)
    want = [case.backend.to_host(x).copy() for x in clean.step.state_buffers]
    epoch = epoch_of(case, "recorded", poison=("batch_norm", "variance", 0, 5, (2, 0), math.inf), **net)
    epoch.run(0)
    with pytest.raises(DivergedError, match=r"inf in variance1\[2, 0\] .* at step 6 \(batch 1\)"):
        epoch.run(1)
    for x, y in zip(epoch.step.state_buffers, want, strict=True):
        same_bits(case.backend.to_host(x), y)


@pytest.mark.parametrize("case", cases())
def test_a_batch_is_skipped_up_to_the_limit(case: Case) -> None:
    """The weights stay, the schedule and the count of steps go on; the next batches are those of any run."""
    policy = OnNonFinite(skip=2)
    epoch = epoch_of(case, "recorded", policy, poison=("dense_vjp_params", "dW", 1, {1, 4, 7}))
    costs = epoch.run(0)
    assert np.isfinite(costs).all()
    assert costs[1] == costs[4] == pytest.approx(costs[[0, 2, 3]].mean(), rel=1e-6)
    assert epoch.step.t == 5
    assert [note.partition(":")[0] for note in policy.notes] == [
        "skipped batch 2 of epoch 1",
        "skipped batch 5 of epoch 1",
    ]
    other = epoch_of(case, "recorded")
    with case.backend.activate():
        other.program.begin(0)
        (replay, _), (_, buffers, _) = other.replays[0], other.parts[0]
        run(replay, buffers, 0, 1)
        other.program.set_position([1.0, 1.0])
        run(replay, buffers, 2, 2)
    for x, y in zip(epoch.step.state_buffers, other.step.state_buffers, strict=True):
        same_bits(case.backend.to_host(x), case.backend.to_host(y))
    with pytest.raises(DivergedError, match=r"at step 8 \(batch 3\); 2 batches were skipped before"):
        epoch.run(1)
    assert epoch.step.t == 7


@pytest.mark.parametrize("batch_size", [BATCH, ROWS])
@pytest.mark.parametrize("case", cases(without=("torch", "array_api_strict")))
def test_what_shows_epochs_later_is_undone_to_before_its_step(
    case: Case, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite second moment: that weight stands still and nothing else is wrong, until everything is looked at."""

    def made(*poison: Any) -> CapturedEpoch:
        net = small_net(SIZES, loss="squared_error", device=case.backend, kernels=case.kind)
        step = TrainingStep(net, "rmsprop", schedule="cosine", total_steps=100)
        if poison:
            PoisonedKernels(step, *poison)
        return CapturedEpoch(step, Batches(net, X, Y, None, batch_size=batch_size, shuffle=True, seed=3), None)

    def rate(epoch: CapturedEpoch, number: int) -> None:
        """Another learning rate in every epoch, as estimators have it."""
        epoch.step.optimizer = replace(epoch.step.optimizer, learning_rate=1e-3 / (1 + number))

    batches = -(-ROWS // batch_size)
    bad, right = 2 * batches + batches // 2, made()
    poisoned = made("update", "state", 0, bad, (7,), math.inf)
    monkeypatch.setattr(non_finite, "SHARE", math.inf)  # no look at everything, no copy but the first
    for number in range(5):
        rate(poisoned, number)
        poisoned.run(number)
    monkeypatch.setattr(non_finite, "SHARE", 0)
    rate(poisoned, 5)
    with pytest.raises(
        DivergedError, match=rf"inf in s of W3\[1, 1\] .* at step {bad + 1} \(batch {bad % batches + 1}\)"
    ):
        poisoned.run(5)
    assert (poisoned.step.t, poisoned.batches.epoch, poisoned.batches.batch) == (bad, 2, bad % batches)
    for number in range(3):
        rate(right, number)
        right.program.begin(number)
        with case.backend.activate():
            for k in range(batches if number < 2 else bad % batches):
                part = int(k >= right.parts[0][2])
                run(right.replays[part][0], right.parts[part][1], k, 1)
                right.program.count(k + 1)
    for x, y in zip(poisoned.step.state_buffers, right.step.state_buffers, strict=True):
        same_bits(case.backend.to_host(x), case.backend.to_host(y))


def test_in_a_program_of_several_each_is_undone_alone() -> None:
    case = Case("numpy", "reference")
    nets = [small_net(SIZES, loss="squared_error")]
    nets += [type(nets[0])(SIZES, loss="squared_error", dtype="float64", share_with=nets[0], seed=s) for s in (1, 2)]
    steps = [
        TrainingStep(net, {"name": "sgd", "learning_rate": r}) for net, r in zip(nets, (1e-3, 1e200, 1e-3), strict=True)
    ]
    programs = [
        EpochProgram(s, Batches(s.net, X, Y, None, batch_size=BATCH, shuffle=False, seed=0), None) for s in steps
    ]
    with pytest.raises(DivergedError, match=r"at step 2 \(batch 2\)") as caught:
        JointEpoch(programs).train(0)
    assert caught.value.net is nets[1]
    assert [s.t for s in steps] == [5, 1, 5]
    assert all(np.isfinite(case.backend.to_host(x)).all() for s in steps for x in s.state_buffers)


# --- what a trainer says and does ----------------------------------------------------------------------------------


def trainer_of(poisoned: tuple[Any, ...] = (), **settings: Any) -> Trainer:
    net = small_net(SIZES, loss="squared_error", activation="tanh")
    trainer = Trainer(net, batch_size=BATCH, progress=False, **settings)
    if poisoned:
        PoisonedKernels(trainer.step, *poisoned)
    return trainer


@pytest.mark.parametrize("last", [7, 9])
def test_what_nobody_sees_is_undone_when_the_fit_ends(last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite second moment, of which no cost tells, in the last epoch: in its middle, or in its last step."""
    monkeypatch.setattr(non_finite, "SHARE", math.inf)
    poison = ("update", "state", 0, last, (7,), math.inf)
    trainer = trainer_of(poison, epochs=2, optimizer="rmsprop")
    with pytest.raises(DivergedError, match=rf"inf in s of W3\[1, 1\] .* at step {last + 1} \(batch {last - 4}\)"):
        trainer.fit(X, Y)
    assert trainer.step.t == last
    assert all(np.isfinite(x).all() for x in trainer.step.state_buffers)


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize("at", [1, 6, 9])  # of the search: its first step, one of another epoch, of the second pass
def test_a_signal_ends_the_search_after_the_step_that_is_run_again(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ask(Callback):
        steps = 0

        def on_search(self) -> None:
            self.steps += 1
            if self.steps == at:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(non_finite, "SHARE", math.inf)  # so that it goes back to the first step
    ask, signals = Ask(), Signals()
    trainer = trainer_of(("dense", "A", 1, 7), epochs=2, callbacks=[ask, Checkpoint(tmp_path / "a"), signals])
    try:
        with pytest.raises(Stopped) as stopped:
            trainer.fit(X, Y)
    finally:
        signals.restore()
    assert (stopped.value.exit_code, ask.steps) == (143, at)
    assert all(np.isfinite(x).all() for x in trainer.step.state_buffers)
    assert checkpoints_in(tmp_path / "a") == []  # the state in the middle of a search is that of no step of the fit


def test_a_trainer_skips_and_its_history_says_so() -> None:
    trainer = trainer_of(("dense", "A", 1, {3, 12}), epochs=4, skip_non_finite=2)
    history = trainer.fit(X, Y)
    assert [note[:30] for note in history.notes] == ["skipped batch 4 of epoch 1: na", "skipped batch 3 of epoch 3: na"]
    assert all(math.isfinite(epoch.cost) for epoch in history.epochs)
    assert trainer.step.t == 20
    with pytest.raises(
        DivergedError, match=r"nan in A2\[0, 0\] \(forward, layer 2\) .* in epoch 1; make activation tanh"
    ):
        trainer_of(("dense", "A", 1, {3, 12}), epochs=4).fit(X, Y)


@pytest.mark.parametrize("at", [3, 4, 5, 11, 12, 17])
def test_a_fit_that_skips_is_resumed_with_the_same_bits(at: int) -> None:
    class Takes(Callback):
        every = 1
        state: Any = None

        def on_steps(self, step: int) -> None:
            if step == at:
                self.state = self.trainer.state_dict()

        def on_epoch(self, epoch: Epoch) -> None:
            self.on_steps(epoch.step)

    settings: dict[str, Any] = {"epochs": 4, "skip_non_finite": 2}
    poison, takes = ("dense", "A", 1, {3, 12}), Takes()
    whole = trainer_of(poison, callbacks=[takes], **settings)
    whole.fit(X, Y)
    resumed = trainer_of(poison, **settings)
    resumed.fit(X, Y, resume=takes.state)
    assert [e.cost for e in resumed.history.epochs] == [e.cost for e in whole.history.epochs]
    assert resumed.history.notes == whole.history.notes
    for x, y in zip(resumed.step.state_buffers, whole.step.state_buffers, strict=True):
        same_bits(x, y)
    third = trainer_of(("dense", "A", 1, {3, 12, 19}), **settings)
    with pytest.raises(DivergedError, match="2 batches were skipped before"):
        third.fit(X, Y, resume=takes.state)


def test_the_fix_is_about_what_is_wrong() -> None:
    def fix(X: np.ndarray, Y: np.ndarray, **settings: Any) -> str:
        net = DenseNet([4, 5, 2], loss="squared_error", dtype="float32")
        with pytest.raises(DivergedError) as caught:
            Trainer(net, epochs=30, progress=False, **settings).fit(X, Y)
        assert str(caught.value).endswith(f"; {caught.value.fix}")
        return caught.value.fix

    one = np.arange(ROWS)[:, None] == 7
    row = "training row 7 has {} up to 3e+38: correct them, or scale them ({})"
    assert fix(np.where(one, 3e38, X), Y) == row.format("inputs", "data.standardize")
    assert fix(X, np.where(one, 3e38, Y)) == row.format("targets", "data.standardize_target")
    lower = "lower optimizer.learning_rate (now 100)"
    assert fix(X, Y, optimizer={"name": "sgd", "learning_rate": 100.0}) == f"{lower}, or set clip_norm"
    assert fix(X, Y, optimizer={"name": "sgd", "learning_rate": 1e38}, clip_norm=1.0).startswith("lower optimizer")


def test_a_jump_of_the_cost_is_a_note() -> None:
    history = History()
    for epoch in range(1, 6):
        note_of_spike(history, np.full(4, 1.0 / epoch), epoch, 4 * epoch - 4)
        history.epochs.append(Epoch(epoch, 4 * epoch, 1.0 / epoch, 1e-3))
    assert history.notes == []
    note_of_spike(history, np.array([0.2, 9.0, 4.0]), 6, 20)
    assert [note.partition(";")[0] for note in history.notes] == [
        "the cost jumped to 9 at step 22 (batch 2 of epoch 6), 27 times the median before it"
    ]
    long = History()  # within one epoch, by blocks
    costs = np.linspace(100.0, 1.0, 1000)
    note_of_spike(long, costs, 1, 0)
    assert long.notes == []
    costs[777] = 1e4
    note_of_spike(long, costs, 1, 0)
    assert "at step 778 (batch 778 of epoch 1)" in long.notes[0]
    for _ in range(9):
        note_of_spike(long, costs, 1, 0)
    assert len(long.notes) == 3
