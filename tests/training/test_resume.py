"""A fit that is taken up again ends where the one that was never interrupted does, bit for bit."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.fits import ROWS, RUNS, STEPS, VALIDATION, Keep, end_of, spoilt, trainer_of, tree
from support.small_nets import two_moons
from support.standin import StandInBackend

from backprop_gpu.errors import CheckpointError, ConfigError
from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, JsonLines, history_lines
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.trainer import Trainer


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("case", cases())
def test_taken_up_at_any_step_it_ends_as_if_it_had_not_been_interrupted(case: Case, name: str) -> None:
    whole, given = trainer_of(case, name)
    end = end_of(whole, whole.fit(**given))
    states = whole.callbacks[0].states  # type: ignore[attr-defined]
    steps = 1 if "batch_size" in RUNS[name] else STEPS
    assert len(states) == steps * len(end[1])
    for k in sorted({0, steps - 2, steps - 1, steps + 1, len(states) - 1} & set(range(len(states)))):
        again, given = trainer_of(case, name)
        found = end_of(spoilt(again), again.fit(**given, resume=states[k]))
        assert found == end, k
        assert tree(again.callbacks[0].states) == tree(states[k + 1 :]), k  # type: ignore[attr-defined]


def test_the_runs_have_every_optimizer_and_one_that_stops_early() -> None:
    assert set(RUNS) == set(OPTIMIZERS)
    trainer, given = trainer_of(Case("numpy"), "amsgrad")
    assert trainer.fit(**given).stopped == "early stopping"


def leaves(state: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(state, Mapping):
        return [leaf for key, value in state.items() for leaf in leaves(value, f"{name}.{key}" if name else key)]
    if isinstance(state, list):
        return [leaf for k, value in enumerate(state) for leaf in leaves(value, f"{name}[{k}]")]
    return [(name, state)]


@pytest.mark.parametrize("case", cases())
def test_a_state_is_plain_values_and_copies_and_the_same_wherever_it_was_made(case: Case) -> None:
    trainer, given = trainer_of(case, "adamw", validation=VALIDATION)
    end = end_of(trainer, trainer.fit(**given))
    states = trainer.callbacks[0].states  # type: ignore[attr-defined]
    plain, given = trainer_of(Case("numpy"), "adamw", validation=VALIDATION)
    plain.fit(**given)
    kept = states[4]
    assert [n for n, _ in leaves(kept)] == [n for n, _ in leaves(plain.callbacks[0].states[4])]  # type: ignore[attr-defined]
    for name, value in leaves(kept):
        assert value is None or type(value) in (bool, int, float, str, np.ndarray), name
        if isinstance(value, np.ndarray) and value.size:
            assert value.size <= max(ROWS, 6 * 5), name  # no order, no data
    again, given = trainer_of(case, "adamw", validation=VALIDATION)
    mine = copy.deepcopy(kept)
    assert end_of(again, again.fit(**given, resume=mine)) == end
    assert tree(mine) == tree(kept)  # and what was loaded was not written to


def test_where_the_data_lie_makes_no_difference() -> None:
    trainer, given = trainer_of(Case("numpy"), "adam", data_on="host")
    end = end_of(trainer, trainer.fit(**given))
    resident, given = trainer_of(Case("numpy"), "adam", data_on="device")
    assert end_of(resident, resident.fit(**given, resume=trainer.callbacks[0].states[3])) == end  # type: ignore[attr-defined]


def test_a_micro_batch_that_memory_made_smaller_is_kept() -> None:
    def fit(limit: int | None, resume: Any = None) -> tuple[Any, Keep, StandInBackend]:
        device = StandInBackend(limit)
        net = DenseNet([4, 300, 1], device=device, batch_norm=True)
        keep = Keep()
        keep.trainer = Trainer(net, epochs=2, batch_size=64, progress=False, callbacks=[keep], data_on="device")
        X = np.random.default_rng(0).normal(size=(128, 4))
        return end_of(keep.trainer, keep.trainer.fit(X, (X[:, 0] > 0) * 1.0, resume=resume)), keep, device

    _, _, roomy = fit(None)
    end, keep, _ = fit(int(0.8 * roomy.memory.peak))
    assert keep.states[-1]["micro_batch"] < 64
    assert fit(None, keep.states[1])[0] == end


def test_a_finished_fit_is_taken_up_with_more_epochs() -> None:
    """With a schedule that does not look at the end of the run, as if there had been so many from the start."""
    long, given = trainer_of(Case("numpy"), "nesterov", epochs=5)
    end = end_of(long, long.fit(**given))
    short, given = trainer_of(Case("numpy"), "nesterov")
    short.fit(**given)
    state = short.callbacks[0].states[-1]  # type: ignore[attr-defined]
    more, given = trainer_of(Case("numpy"), "nesterov", epochs=5)
    with pytest.raises(ConfigError, match="epochs is 3 in it and 5 here; set it to that, or pass allow_change=True"):
        more.fit(**given, resume=state)
    assert end_of(more, more.fit(**given, resume=state, allow_change=True)) == end


def test_a_later_fit_of_a_trainer_counts_its_schedule_from_where_it_began() -> None:
    def second(resume: Any = None) -> tuple[Any, Any]:
        trainer, given = trainer_of(Case("numpy"), "sgd")
        if resume is None:
            trainer.fit(**given)
            trainer.callbacks[0].states.clear()  # type: ignore[attr-defined]
        return end_of(trainer, trainer.fit(**given, resume=resume)), trainer.callbacks[0].states  # type: ignore[attr-defined]

    end, states = second()
    assert states[4]["first_step"] == 3 * STEPS
    assert second(states[4])[0] == end


def test_callbacks_hear_of_the_epochs_that_were_finished(tmp_path: Any) -> None:
    trainer, given = trainer_of(Case("numpy"), "rmsprop")
    trainer.callbacks.append(JsonLines(tmp_path / "history.jsonl"))
    trainer.fit(**given)
    lines = history_lines(tmp_path / "history.jsonl")
    again, given = trainer_of(Case("numpy"), "rmsprop")
    again.callbacks.append(JsonLines(tmp_path / "history.jsonl"))
    again.fit(**given, resume=trainer.callbacks[0].states[4])  # type: ignore[attr-defined]
    assert tree(history_lines(tmp_path / "history.jsonl")) == tree(lines)
    seconds = [epoch.seconds for epoch in again.history.epochs]
    assert seconds == sorted(seconds)


class Count(Callback):
    def __init__(self, every: int) -> None:
        self.every, self.at = every, []

    def on_steps(self, step: int) -> None:
        self.at.append(step)


@pytest.mark.parametrize("every", [2, 5])
def test_callbacks_are_told_at_every_so_many_steps(every: int) -> None:
    X, y = two_moons(320, seed=0)
    count = Count(every)
    Trainer(DenseNet([2, 3, 1], device="cpu"), epochs=2, batch_size=16, progress=False, callbacks=[count]).fit(X, y)
    assert {t for t in range(1, 40) if t % every == 0 and t % 20} <= set(count.at)  # at 20 an epoch ends
    assert not {20, 40} & set(count.at)


@pytest.mark.parametrize("every", [-1, 2.5, None, True])
def test_a_number_of_steps_that_is_none_is_refused(every: Any) -> None:
    trainer = Trainer(DenseNet([2, 3, 1], device="cpu"), epochs=1, progress=False, callbacks=[Count(every)])
    with pytest.raises(ConfigError, match=r"Count\.every must be a whole number of steps from 0"):
        trainer.fit(*two_moons(40, seed=0))


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_a_fit_has_a_state_only_between_its_steps() -> None:
    trainer, given = trainer_of(Case("numpy"), "sgd")
    for _ in range(2):
        with pytest.raises(ConfigError, match="call state_dict in a callback's on_epoch"):
            trainer.state_dict()
        trainer.fit(**given)


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"schedule": "constant"}, "schedule is 'linear_warmup' in it and 'constant' here"),
    "batch size": ({"batch_size": 20}, "batches.sizes is [[16, 2], [13, 1]] in it and [[20, 2], [5, 1]] here"),
    "seed": ({"seed": 1}, "batches.seed is 0 in it and 1 here"),
    "shuffle": ({"shuffle": False}, "batches.shuffle is True in it and False here"),
    "clipping": ({"clip_norm": None}, "clip_norm is 0.5 in it and None here"),
    "dropout": ({"dropout": 0.5}, "dropout is [0.2, 0.2] in it and [0.5, 0.5] here"),
    "dtype": ({"dtype": "float64"}, "dtype is 'float32' in it and 'float64' here"),
    "normalized": ({"batch_norm": True}, "batch_norm is [False, False] in it and [True, True] here"),
    "average": ({"average": 0.5}, "optimizer.state is ['m', 'v'] in it and ['m', 'v', 'average'] here"),
    "patience": (
        {"early_stopping": EarlyStopping(), "validation": VALIDATION},
        "early_stopping is None in it and {'metric': 'cost', 'patience': 20, 'min_delta': 0.0} here",
    ),
    "validation": ({"validation": VALIDATION}, "validation_rows is 0 in it and 20 here"),
    "weights": ({"weighted": True}, "weighted is False in it and True here"),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_state_of_other_settings_is_refused_by_name_and_touches_nothing(what: str) -> None:
    changes, message = OTHER[what]
    trainer, given = trainer_of(Case("numpy"), "adam")
    trainer.fit(**given)
    state = trainer.callbacks[0].states[3]  # type: ignore[attr-defined]
    other, given = trainer_of(Case("numpy"), "adam", **changes)
    before = tree(other.step.state_dict())
    with pytest.raises(ConfigError, match=f"the state does not fit: {re.escape(message)}") as error:
        other.fit(**given, resume=state)
    assert tree(other.step.state_dict()) == before
    if "allow_change" in str(error.value):
        other.fit(**given, resume=state, allow_change=True)
    else:
        with pytest.raises(ConfigError, match="the state does not fit"):
            other.fit(**given, resume=state, allow_change=True)


def test_another_optimizer_or_other_sizes_are_refused_by_name() -> None:
    state = TrainingStep(DenseNet([2, 3, 1], device="cpu"), "adam").state_dict()
    for sizes, optimizer, message in (
        ([2, 4, 1], "adam", r"sizes is \[2, 3, 1\] in it and \[2, 4, 1\] here"),
        ([2, 3, 1], "lion", "optimizer.name is 'adam' in it and 'lion' here"),
    ):
        step = TrainingStep(DenseNet(sizes, device="cpu"), optimizer)
        with pytest.raises(ConfigError, match=message):
            step.load_state_dict(state, allow_change=True)


DAMAGED: dict[str, Any] = {
    "absent": lambda value: None,
    "text": lambda value: "x",
    "another shape": lambda value: np.zeros((1, 1)),
    "another dtype": lambda value: value.astype(np.float16) if isinstance(value, np.ndarray) else value,
    "negative": lambda value: -1 if type(value) is int else value,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_state_is_refused_by_name_whatever_is_damaged(kind: str) -> None:
    """Each leaf of the tree in turn."""
    trainer, given = trainer_of(Case("numpy"), "rmsprop", batch_norm=True)
    trainer.fit(**given)
    state = trainer.callbacks[0].states[4]  # type: ignore[attr-defined]
    other, given = trainer_of(Case("numpy"), "rmsprop", batch_norm=True)
    before, refused = tree(other.step.state_dict()), 0
    for name, value in leaves(state):
        *path, last = [int(p[1:-1]) if p[0] == "[" else p.lstrip(".") for p in re.findall(r"\[\d+\]|\.?[^.\[]+", name)]
        damaged = copy.deepcopy(state)
        inner = damaged
        for key in path:
            inner = inner[key]
        if kind == "absent" and isinstance(last, str):
            del inner[last]
        else:
            inner[last] = DAMAGED[kind](value)
        optional = "validation." in name or "settings" in name or name.endswith("min_delta")
        if inner.get(last) is value if isinstance(inner, dict) else inner[last] == value:
            continue
        if optional and kind == "absent":
            continue
        with pytest.raises((CheckpointError, ConfigError)) as error:
            other.fit(**given, resume=damaged)
        assert isinstance(last, int) or last in str(error.value), name
        assert tree(other.step.state_dict()) == before, name
        refused += 1
    assert refused >= 8


def test_a_state_that_is_none_at_all() -> None:
    trainer, given = trainer_of(Case("numpy"), "sgd")
    for wrong in ({}, [], 3, "state", {"settings": {}}):
        with pytest.raises((CheckpointError, ConfigError), match="state"):
            trainer.fit(**given, resume=wrong)
    step = trainer.step
    for wrong in ({}, None, {"layout": []}):
        with pytest.raises(CheckpointError, match="step"):
            step.load_state_dict(wrong)


def test_batches_know_a_seed_and_an_index() -> None:
    net = DenseNet([2, 1], device="cpu")
    X = np.arange(90.0).reshape(45, 2)
    batches = Batches(net, X, X[:, :1], None, batch_size=16, shuffle=True, seed=7)
    batches.taken(4, 2)
    state = batches.state_dict()
    sizes = [[16, 2], [13, 1]]
    assert state == {"rows": 45, "sizes": sizes, "shuffle": True, "seed": 7, "epoch": 4, "batch": 2}
    again = Batches(net, X, X[:, :1], None, batch_size=16, shuffle=True, seed=7)
    again.load_state_dict(state)
    assert (again.epoch, again.batch) == (4, 2)
    again.taken(4, 3)
    assert (again.epoch, again.batch) == (5, 0)
    with pytest.raises(CheckpointError, match=r"batches.batch of the state is 4, of an epoch of 3"):
        again.load_state_dict(state | {"batch": 4})


def test_a_step_by_hand_goes_on_from_its_state() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(8, 2, 10)), rng.integers(0, 2, (8, 1, 10)) * 1.0

    def made() -> TrainingStep:
        net = DenseNet([2, 6, 1], dropout=0.4, device="cpu", seed=3)
        return TrainingStep(net, {"name": "adam", "average": 0.9}, schedule="cosine", total_steps=8)

    one = made()
    for k in range(8):
        if k == 3:
            state = one.state_dict()
        one(X[k], Y[k])
    other = made()
    other.load_state_dict(state)
    assert (other.t, other.learning_rate) == (3, 1e-3 * 0.5 * (1.0 + math.cos(math.pi * 3 / 8)))
    for k in range(3, 8):
        other(X[k], Y[k])
    assert tree(other.state_dict()) == tree(one.state_dict())
