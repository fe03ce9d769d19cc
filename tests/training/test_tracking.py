"""TensorBoard's files, decoded by the rules of TFRecord and protocol buffers; resumed; trackers not installed."""

from __future__ import annotations

import json
import shutil
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick, run

from backprop_gpu import DenseNet, MLflow, TensorBoard, Trainer, WandB
from backprop_gpu.cli import main
from backprop_gpu.errors import ConfigError
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.tensorboard import masked_crc32c
from backprop_gpu.training.trackers import PACKAGES

Event = tuple[int, dict[str, float]]


def crc32c(data: bytes) -> int:
    """By polynomial division, bit by bit: the definition."""
    remainder, polynomial = 0xFFFFFFFF, 0x11EDC6F41
    for byte in data:
        for bit in range(8):  # the least significant first
            top = remainder >> 31 ^ (byte >> bit & 1)
            remainder = remainder << 1 & 0xFFFFFFFF
            if top:
                remainder ^= polynomial & 0xFFFFFFFF
    return int(f"{remainder:032b}"[::-1], 2) ^ 0xFFFFFFFF


def fields(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a message of protocol buffers: number and value."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        size = {0: 0, 1: 8, 2: 0, 5: 4}[key & 7]
        value: Any = varint() if key & 7 in (0, 2) else data[at : at + size]
        if key & 7 == 2:
            size = value
            value = data[at : at + size]
        at += size
        found.append((key >> 3, value))
    return found


def decoded(file: Path) -> list[Event]:
    """Step and numbers of each event; every checksum is checked, and the first record is the file's version."""
    content, at, events = file.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        data = content[at + 12 : at + 12 + length]
        for part, where in ((content[at : at + 8], at + 8), (data, at + 12 + length)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
            assert struct.unpack("<I", content[where : where + 4]) == (masked,)
        at += 16 + length
        events.append(dict(fields(data)))
    assert events.pop(0)[3] == b"brain.Event:2"
    found = []
    for event in events:
        assert struct.unpack("<d", event[1])[0] > 1.7e9
        values = [dict(fields(value)) for _, value in fields(event[5])]
        found.append((event[2], {v[1].decode(): struct.unpack("<f", v[2])[0] for v in values}))
    return found


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    for data in (b"", b"123456789", bytes(range(256))):
        crc = crc32c(data)
        assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_a_run_leaves_its_numbers_at_its_steps(tmp_path: Path) -> None:
    run(str(tmp_path / "run"), quick(track=["tensorboard"], training={"epochs": 12}))
    (file,) = (tmp_path / "run").glob("events.out.tfevents.*")
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    events = decoded(file)
    assert [step for step, _ in events] == [line["step"] for line in lines]
    for (_, got), line in zip(events, lines, strict=True):
        want = {"cost": line["cost"], "learning_rate": line["learning_rate"]}
        for kind in ("training", "validation", "layers"):
            want |= {f"{kind}/{key}": value for key, value in line[kind].items()}
        assert got == pytest.approx(want, rel=1e-6)
    assert any("layers/gradient 1" in got for _, got in events)


class Ends(Callback):
    """Interrupts a fit after an epoch, whose state it has."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_epoch(self, epoch: Epoch) -> None:
        assert self.trainer is not None
        if epoch.epoch == self.after - 2:
            self.state = self.trainer.state_dict()
        if epoch.epoch == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["lost epochs", "cut off", "gone", "another's"])
def test_a_resumed_fit_goes_on_in_its_file_without_a_step_twice(tmp_path: Path, damage: str) -> None:
    """The fit goes on two epochs before the last that was written; the file may have suffered meanwhile."""
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = (X[:, 0] > 0) * 1.0

    def trainer(*callbacks: Callback) -> Trainer:
        net = DenseNet([3, 4, 1], device="cpu", seed=0)
        return Trainer(net, epochs=9, batch_size=8, callbacks=[TensorBoard(tmp_path), *callbacks], progress=False)

    ends = Ends(6)
    with pytest.raises(KeyboardInterrupt):
        trainer(ends).fit(X, y)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    assert [step for step, _ in decoded(file)] == [5, 10, 15, 20, 25, 30]
    if damage == "cut off":
        file.write_bytes(before[:-250])
    elif damage == "another's":
        file.write_bytes(b"\xff" * 100)
    elif damage == "gone":
        shutil.rmtree(tmp_path)
    history = trainer().fit(X, y, resume=ends.state)
    (again,) = tmp_path.iterdir()
    assert again == file or damage == "gone"
    events = decoded(again)
    assert [step for step, _ in events] == [5 * k for k in range(1, 10)]
    assert [got["cost"] for _, got in events] == pytest.approx([e.cost for e in history.epochs], rel=1e-6)
    if damage == "lost epochs":
        assert again.read_bytes().startswith(before[: len(before) * 4 // 7])  # with the times that they had


@pytest.mark.skipif(any(find_spec(module) for module, _ in PACKAGES.values()), reason="they are installed")
def test_a_tracker_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for callback, package in ((MLflow(), "mlflow-skinny"), (WandB(), "wandb")):
        with pytest.raises(ConfigError, match=f"pip install {package}, or leave it out"):
            callback.on_start(1)
    words = ["train", "moons", "--run-dir", "run", "--set", "track=[tensorboard, mlflow]"]
    assert main(words) == 2
    assert "the tracker mlflow needs a package: pip install mlflow-skinny" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words[:-1], "track=[tensorbord]"]) == 2
    assert "tensorboard" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="read by TensorBoard itself where it is installed")
def test_tensorboard_reads_the_same(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = run(str(tmp_path / "run"), quick(track=["tensorboard"]))
    found = EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    got = [(point.step, point.value) for point in found.Scalars("validation/cost")]
    want = [(e.step, e.validation["cost"]) for e in outcome.history.epochs]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.skipif(find_spec("mlflow") is None, reason="read by MLflow itself where it is installed")
def test_a_resumed_run_is_one_run_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    X = np.random.default_rng(0).normal(size=(40, 3))
    y, ends = (X[:, 0] > 0) * 1.0, Ends(6)

    def trainer(*callbacks: Callback) -> Trainer:
        net, kept = DenseNet([3, 4, 1], device="cpu", seed=0), MLflow("one", settings={"a": {"b": 1}}, folder=tmp_path)
        return Trainer(net, epochs=9, batch_size=8, callbacks=[kept, *callbacks], progress=False)

    with pytest.raises(KeyboardInterrupt):
        trainer(ends).fit(X, y)
    history = trainer().fit(X, y, resume=ends.state)
    client, number = mlflow.MlflowClient(), (tmp_path / "mlflow-run").read_text(encoding="utf-8").strip()
    points = sorted((point.step, point.value) for point in client.get_metric_history(number, "cost"))
    np.testing.assert_allclose(points, [(e.step, e.cost) for e in history.epochs], rtol=1e-9)
    assert client.get_run(number).data.params == {"a.b": "1"}
    assert client.get_run(number).info.status == "FINISHED"
