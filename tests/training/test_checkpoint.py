"""Checkpoint files: whole or refused, and a fit that goes on from one ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import re
import shutil
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.fits import ROWS, RUNS, VALIDATION, end_of, spoilt, trainer_of, tree
from support.kills import damaged

from backprop_gpu.errors import CheckpointError, ConfigError
from backprop_gpu.maths.normalization import part_sizes
from backprop_gpu.parity.claims import claim_of
from backprop_gpu.parity.recorded_epochs import EpochPlan
from backprop_gpu.parity.step_replay import compare_step
from backprop_gpu.parity.trace import trace_step
from backprop_gpu.tensor_file import read_tensors, write_tensors
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.checkpoint import Checkpoint
from backprop_gpu.training.checkpoint_file import (
    BEST_FILE,
    FORMAT,
    checkpoints_in,
    load_checkpoint,
    save_checkpoint,
    state_in,
)
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.fingerprint import fingerprint
from backprop_gpu.training.trainer import Trainer

NUMPY = Case("numpy")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class StopAt(Callback):
    """Ctrl-C at a step."""

    every = 1

    def __init__(self, step: int) -> None:
        self.step = step

    def on_steps(self, step: int) -> None:
        if step >= self.step:
            raise KeyboardInterrupt


def cut_short(folder: Path, name: str, step: int, *, case: Case = NUMPY, **how: Any) -> None:
    """A fit that ends at a step, with checkpoints after each of them."""
    trainer, given = trainer_of(case, name)
    trainer.callbacks = [Checkpoint(folder, **{"every_steps": 1} | how), StopAt(step)]
    with contextlib.suppress(KeyboardInterrupt):
        trainer.fit(**given)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_tree_comes_back(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "a.b": {"c": np.arange(3.0)},
        "a": {"b.c": np.array(7), "none": None, "inf": float("inf"), "text": "größe", "big": 2**63, "empty": {}},
        "list": [np.zeros((0, 2), np.float32), {"x": [1, 0.1, True]}],
    }
    save_checkpoint(tmp_path / "c", state)
    found, path = load_checkpoint(tmp_path / "c")
    assert tree(found) == tree(state)
    assert path == tmp_path / "c"


@pytest.mark.parametrize("name", RUNS)
def test_a_state_in_a_file_is_the_state(name: str, tmp_path: Path) -> None:
    trainer, given = trainer_of(NUMPY, name)
    trainer.fit(**given)
    for state in trainer.callbacks[0].states:  # type: ignore[attr-defined]
        save_checkpoint(tmp_path / "c", {"fit": state})
        assert tree(state_in(tmp_path / "c")) == tree(state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint with an average, running statistics and the best weights."""
    folder = tmp_path_factory.mktemp("whole")
    trainer, given = trainer_of(NUMPY, "adamw", validation=VALIDATION)
    trainer.fit(**given)
    save_checkpoint(folder / "c", {"fit": trainer.callbacks[0].states[4]})  # type: ignore[attr-defined]
    return (folder / "c").read_bytes()


def test_flipped_bits_and_lost_ends_are_refused(whole: bytes, tmp_path: Path) -> None:
    """``scripts/kill_test --damage`` does 10,000 bits and every length."""
    lengths = [*range(12), *range(12, len(whole), 101), len(whole) - 1]
    assert damaged(whole, tmp_path / "c", 150, lengths) == []


def test_other_formats_are_refused_by_name(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(whole)
    tensors, description = read_tensors(path, FORMAT, "checkpoint")
    write_tensors(path, tensors, description, "backprop_gpu checkpoint/99")
    with pytest.raises(CheckpointError, match=r"a checkpoint in format 'backprop_gpu checkpoint/99', which .* reads"):
        load_checkpoint(path)
    trainer, _ = trainer_of(NUMPY, "sgd")
    trainer.net.save(path)
    with pytest.raises(CheckpointError, match="not a backprop_gpu checkpoint"):
        load_checkpoint(path)
    for wrong in ("[]", "{", "[" * 100_000, '{"a": {"__tensor__": "gone"}}', '{"a": {"__tensor__": []}}', "1" * 10_000):
        write_tensors(path, {}, wrong, FORMAT)
        with pytest.raises(CheckpointError, match=r"written by another version|its JSON "):
            load_checkpoint(path)
    write_tensors(path, {}, "{}", FORMAT)
    with pytest.raises(CheckpointError, match=r"the state has no checkpoint\.fit"):
        state_in(path)


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "amsgrad", "rmsprop", "momentum"])
def test_a_fit_goes_on_from_its_folder_to_the_same_end(name: str, tmp_path: Path) -> None:
    plain, given = trainer_of(NUMPY, name)
    end = end_of(plain, plain.fit(**given))
    for step in (1, 2, 4, 5):
        cut_short(tmp_path / str(step), name, step)
        again, given = trainer_of(NUMPY, name)
        again.callbacks = [Checkpoint(tmp_path / str(step), every_steps=1)]
        found = end_of(spoilt(again), again.fit(**given, resume=tmp_path / str(step)))
        assert found == end, step
        last = state_in(tmp_path / str(step))
        assert tree(last) == tree(plain.callbacks[0].states[-1])  # type: ignore[attr-defined]


def wrong_steps(case: Case, name: str, states: list[Any]) -> list[Any]:
    """What parity finds wrong in the steps that lead from each of these states to the next: every tensor of them.

    Each is taken once more, outright, from its state, and must leave the next one's bits.
    """
    trainer, given = trainer_of(case, name)
    net, wrong = trainer.net, []
    rows = [given["X"].astype(net.dtype), given["y"].reshape(-1, 1).astype(net.dtype), given["sample_weight"]]
    plan = EpochPlan(trainer.batch_size, micro_batch=trainer.micro_batch, shuffle=trainer.shuffle, seed=trainer.seed)
    for before, after in itertools.pairwise(states):
        trainer.step.load_state_dict(before["step"])
        epoch, k = before["batches"]["epoch"], before["batches"]["batch"]
        batches = part_sizes(ROWS, plan.batch_size, even=any(net.batch_norm))
        chosen = np.split(plan.order(epoch, ROWS), np.cumsum(batches)[:-1])[k]
        columns = [None if x is None else net.upload_columns(x.reshape(ROWS, -1)[chosen]) for x in rows]
        total = None if rows[2] is None else float(rows[2][chosen].sum())
        trace = trace_step(trainer.step, *columns, weights_sum=total, micro_batch=plan.micro_batch)
        found = compare_step(trace, claim_of(net.dtype)).findings
        assert len(found) > 20
        wrong += [(before["step"]["t"], f) for f in found if f.status == "wrong"]
        if tree(trainer.step.state_dict()) != tree(after["step"]):
            wrong.append((before["step"]["t"], "other bits than the step that is taken outright"))
    return wrong


@pytest.mark.parametrize("name", ["adamw", "nesterov", "momentum"])
@pytest.mark.parametrize("case", cases())
def test_another_device_or_kernel_set_goes_on_within_the_derived_bounds(case: Case, name: str, tmp_path: Path) -> None:
    """From the reference on NumPy to it and back: end to end errors compound, so every step is judged for itself."""
    for folder, there, here in ((tmp_path / "to", NUMPY, case), (tmp_path / "back", case, NUMPY)):
        cut_short(folder, name, 4, case=there)
        begun = state_in(folder)
        again, given = trainer_of(here, name)
        again.fit(**given, resume=folder)
        states = again.callbacks[0].states  # type: ignore[attr-defined]
        assert [state["step"]["t"] for state in states] == [5, 6, 7, 8, 9]
        assert wrong_steps(here, name, [begun, *states]) == []


@pytest.mark.skipif(os.name == "nt", reason="links and pipes as POSIX has them")
def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    """Planted by someone else who may write there, under the names that the fit is going to use."""
    theirs = tmp_path / "theirs"
    theirs.write_text("as it was")
    for kind in ("link", "pipe"):
        folder = tmp_path / kind
        folder.mkdir()

        def plant(path: Path, kind: str = kind) -> None:
            os.mkfifo(path) if kind == "pipe" else path.symlink_to(theirs)

        plant(folder / BEST_FILE)
        trainer, given = trainer_of(NUMPY, "rmsprop")
        trainer.callbacks = [Checkpoint(folder, every_epochs=1, keep_best=True)]
        plant(folder / ".lock")
        with pytest.raises(
            ConfigError, match=r"\.lock is a link or no regular file; remove it, or give another folder"
        ):
            trainer.fit(**given)
        (folder / ".lock").unlink()
        trainer.fit(**given)
        assert all(stat.S_ISREG(path.lstat().st_mode) for path in folder.iterdir())
        assert state_in(folder / BEST_FILE)
    assert theirs.read_text() == "as it was"


def test_the_newest_are_kept_and_the_best(tmp_path: Path) -> None:
    trainer, given = trainer_of(NUMPY, "rmsprop", epochs=6)
    trainer.callbacks.append(Checkpoint(tmp_path, every_epochs=2, keep=2, keep_best=True))
    history = trainer.fit(**given)
    assert names(tmp_path) == [".lock", "000002-step-12.safetensors", "000003-step-18.safetensors", BEST_FILE]
    best = trainer.callbacks[0].states[3 * history.best_epoch - 1]  # type: ignore[attr-defined]
    assert tree(state_in(tmp_path / BEST_FILE)) == tree(best)


def test_steps_epochs_and_seconds(tmp_path: Path) -> None:
    for k, (how, steps) in enumerate(
        [
            ({"every_steps": 2}, [2, 4, 6, 8, 9]),
            ({"every_steps": 4}, [4, 8, 9]),
            ({"every_epochs": 2}, [6, 9]),
            ({"every_seconds": 1e-9}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ({}, [9]),
        ]
    ):
        trainer, given = trainer_of(NUMPY, "sgd")
        trainer.callbacks.append(Checkpoint(tmp_path / str(k), keep=100, **how))  # type: ignore[arg-type]
        trainer.fit(**given)
        written = [int(path.stem.rpartition("-")[2]) for path in checkpoints_in(tmp_path / str(k))]
        assert sorted(written) == steps, how


def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path) -> None:
    plain, given = trainer_of(NUMPY, "adam")
    end = end_of(plain, plain.fit(**given))
    cut_short(tmp_path, "adam", 5)
    newest, before = checkpoints_in(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-3])
    again, given = trainer_of(NUMPY, "adam")
    with pytest.warns(UserWarning, match=f"{newest.name} is not a readable .*; going on from {before.name}"):
        assert end_of(again, again.fit(**given, resume=tmp_path)) == end
    before.write_bytes(b"")
    told = f"no checkpoint of {tmp_path} can be read: .*{newest.name}.*; to start over, remove {tmp_path} and leave"
    with pytest.raises(CheckpointError, match=told):
        again.fit(**given, resume=str(tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        again.fit(**given, resume=tmp_path.parent / tmp_path.name / "..")
    with pytest.raises(CheckpointError, match="no checkpoint file at"):
        again.fit(**given, resume=tmp_path / "gone")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("X", lambda g: g | {"X": g["X"] + 0.1}),
        ("y", lambda g: g | {"y": 1.0 - g["y"]}),
        ("sample_weight", lambda g: g | {"sample_weight": g["sample_weight"] * 2.0}),
        ("validation_X", lambda g: g | {"validation": (VALIDATION[0] * 2.0, VALIDATION[1])}),
        ("validation_y", lambda g: g | {"validation": (VALIDATION[0], 1.0 - VALIDATION[1])}),
    ],
)
def test_other_data_are_refused_by_name(what: str, change: Any, tmp_path: Path) -> None:
    run = {"validation": VALIDATION, "weighted": True}
    trainer, given = trainer_of(NUMPY, "sgd", **run)
    trainer.callbacks.append(Checkpoint(tmp_path))
    trainer.fit(**given)
    again, given = trainer_of(NUMPY, "sgd", **run)
    before = tree(again.step.state_dict())
    with pytest.raises(ConfigError, match=f"of other data: {what} is not what it was; .* allow_change=True"):
        again.fit(**change(copy.deepcopy(given)), resume=tmp_path)
    assert tree(again.step.state_dict()) == before
    again.fit(**change(copy.deepcopy(given)), resume=tmp_path, allow_change=True)


def test_a_fingerprint_is_of_what_training_reads() -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 3))
    narrow = rows.astype("float32")
    assert fingerprint(rows, "float32") == fingerprint(narrow, "float32") != fingerprint(rows, "float64")
    assert fingerprint(np.asfortranarray(rows), "float64") == fingerprint(rows, "float64")
    assert fingerprint(rows.reshape(3, 5000), "float64") != fingerprint(rows, "float64")
    labels = np.arange(5)[:, None]
    assert fingerprint(labels, "float32") == fingerprint(labels, "float64")
    assert fingerprint(labels * 1.0, "float32") != fingerprint(labels, "float32")
    large = np.zeros((200, 2**17))  # 200 MiB, of which 64 are read
    digest = fingerprint(large, "float64")
    for row in (0, -1):
        large[row, 0] = 1.0
        assert fingerprint(large, "float64") != digest
        large[row, 0] = 0.0


# --- one fit at a time, and what cannot be written -------------------------------------------------------------------


def test_two_fits_do_not_share_a_folder(tmp_path: Path) -> None:
    other = Checkpoint(tmp_path)
    other.claim()
    trainer, given = trainer_of(NUMPY, "sgd")
    trainer.callbacks.append(Checkpoint(tmp_path))
    with pytest.raises(ConfigError, match="is in use by another run: wait until it has ended"):
        trainer.fit(**given)
    other.release()
    trainer.fit(**given)
    with pytest.raises(ConfigError, match=r"has checkpoints of another fit: go on from them with fit\(resume="):
        trainer.fit(**given)
    trainer.callbacks[-1] = Checkpoint(tmp_path)
    again, given = trainer_of(NUMPY, "sgd")
    again.callbacks.append(Checkpoint(tmp_path, keep=3))
    again.fit(**given, resume=tmp_path)  # over already


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".000001-step-5.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    trainer, given = trainer_of(NUMPY, "sgd")
    trainer.callbacks.append(Checkpoint(tmp_path))
    trainer.fit(**given)
    assert names(tmp_path) == [".lock", "000001-step-9.safetensors", "notes.txt"]


class Replace(Callback):
    """Puts a file where the folder is, after an epoch, and the folder back after another."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.folder = checkpoint, checkpoint.folder
        self.aside = self.folder.with_name("aside")

    def on_epoch(self, epoch: Epoch) -> None:
        self.checkpoint.wait()
        if epoch.epoch == 2:
            self.folder.rename(self.aside)
            self.folder.write_text("no folder")
        elif epoch.epoch == 4:
            self.folder.unlink()
            self.aside.rename(self.folder)


def test_training_goes_on_where_a_checkpoint_cannot_be_written(tmp_path: Path) -> None:
    plain, given = trainer_of(NUMPY, "adam", epochs=6)
    end = end_of(plain, plain.fit(**given))
    told: list[str] = []
    trainer, given = trainer_of(NUMPY, "adam", epochs=6)
    checkpoint = Checkpoint(tmp_path / "c", every_epochs=1, keep=9, say=told.append)
    trainer.callbacks = [checkpoint, Replace(checkpoint)]
    assert end_of(trainer, trainer.fit(**given)) == end
    line = r"cannot make the checkpoint folder .*: File exists; the checkpoints before it stay, and training goes on"
    assert len(told) == 1
    assert re.fullmatch(line, told[0])
    assert [path.name[:6] for path in checkpoints_in(tmp_path / "c")] == ["000004", "000003", "000002", "000001"]


def test_where_the_best_cannot_be_written_the_numbered_one_is_tried(tmp_path: Path) -> None:
    told: list[str] = []

    class Block(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 2:
                for path in blocked:
                    path.mkdir(parents=True)

    for k in range(2):
        folder = tmp_path / str(k)
        blocked = [folder / BEST_FILE, folder / "000001-step-9.safetensors"][: k + 1]
        trainer, given = trainer_of(NUMPY, "rmsprop")
        trainer.callbacks = [Block(), Checkpoint(folder, every_epochs=3, keep_best=True, say=told.append)]
        trainer.fit(**given)
        assert len(checkpoints_in(folder)) == 1 - k
        causes = "; ".join(f"cannot write {path}: Is a directory" for path in blocked)
        assert told.pop() == f"{causes}; the checkpoints before it stay, and training goes on"
        assert not told


def test_what_is_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    for number in (0, 7, 9):
        (tmp_path / f"{number:06d}-step-1.safetensors").mkdir()
    trainer, given = trainer_of(NUMPY, "sgd")
    trainer.callbacks = [Checkpoint(tmp_path, every_steps=1, keep=1)]
    trainer.fit(**given)
    (last,) = checkpoints_in(tmp_path)
    assert last.name.endswith("-step-9.safetensors")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3
    trainer.fit(**given, resume=tmp_path)


def test_a_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    class Remove(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 2:
                checkpoint.wait()
                shutil.rmtree(tmp_path / "c")

    trainer, given = trainer_of(NUMPY, "sgd")
    checkpoint = Checkpoint(tmp_path / "c", every_epochs=1)
    trainer.callbacks = [checkpoint, Remove()]
    trainer.fit(**given)
    assert names(tmp_path / "c") == [".lock", "000003-step-9.safetensors"]


def test_a_folder_that_another_run_has_made_again_is_left_to_it(tmp_path: Path) -> None:
    other = Checkpoint(tmp_path / "c")

    class Replace(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 2:
                checkpoint.wait()
                shutil.rmtree(tmp_path / "c")
                other.claim()
                other.release()

    told: list[str] = []
    trainer, given = trainer_of(NUMPY, "sgd")
    checkpoint = Checkpoint(tmp_path / "c", every_epochs=1, say=told.append)
    trainer.callbacks = [checkpoint, Replace()]
    trainer.fit(**given)
    assert names(tmp_path / "c") == [".lock"]
    assert [line.partition(";")[0] for line in told] == [f"another run has taken {tmp_path / 'c'} meanwhile"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"every_steps": 0}, "checkpoint: every_steps must be a whole number from 1, got 0"),
    ({"every_epochs": 1.5}, "checkpoint: every_epochs must be a whole number from 1, got 1.5"),
    ({"every_seconds": 0}, "checkpoint: every_seconds must be above 0, got 0"),
    ({"every_seconds": "60"}, "checkpoint: every_seconds must be above 0, got '60'"),
    ({"keep": 0}, "checkpoint: keep must be a whole number from 1, got 0"),
    ({"keep": None}, "checkpoint: keep must be a whole number from 1, got None"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Checkpoint(tmp_path / "c", **settings)


def test_the_best_needs_a_validation_set_and_a_checkpoint_a_trainer(tmp_path: Path) -> None:
    trainer, given = trainer_of(NUMPY, "sgd")
    trainer.callbacks = [Checkpoint(tmp_path / "c", keep_best=True)]
    with pytest.raises(ConfigError, match="keep_best needs a validation set"):
        trainer.fit(**given)
    (tmp_path / "file").write_text("")
    trainer.callbacks = [Checkpoint(tmp_path / "file")]
    with pytest.raises(ConfigError, match=r"cannot make the checkpoint folder .*file: File exists"):
        trainer.fit(**given)
    with pytest.raises(ConfigError, match="a Checkpoint is a callback of a trainer"):
        Checkpoint(tmp_path / "c").save()


def test_one_can_be_copied_before_and_after_a_fit(tmp_path: Path) -> None:
    """As scikit-learn's ``clone`` and ``GridSearchCV`` do with an estimator's parameters."""
    checkpoint = Checkpoint(tmp_path / "a", every_steps=2)
    trainer, given = trainer_of(NUMPY, "sgd")
    for k in range(2):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(checkpoint)))
        assert (copied.folder, copied.every, copied.trainer) == (tmp_path / "a", 2, None)
        if k == 0:
            trainer.callbacks = [checkpoint]
            trainer.fit(**given)


def test_nothing_is_said_of_a_run_without_faults(tmp_path: Path) -> None:
    trainer, given = trainer_of(NUMPY, "amsgrad", early_stopping=EarlyStopping(patience=2))
    trainer.callbacks = [Checkpoint(tmp_path, every_seconds=1e-6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(**given)
    assert isinstance(trainer, Trainer)
