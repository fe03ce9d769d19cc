"""Who listens to a run: the history file, the bar on a terminal, and how callbacks begin and end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_nets import two_moons

from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.callbacks import Callback, Epoch, JsonLines, Progress, StartedCallbacks, history_lines
from backprop_gpu.training.trainer import Trainer

EPOCHS = [
    Epoch(1, 4, 0.75, 1e-3, {"cost": 0.5, "accuracy": 1.0 / 3.0}, 0.25),
    Epoch(2, 8, 0.1 + 0.2, 1e-3, {}, 0.5),
    Epoch(3, 12, 5e-324, 0.0, {"cost": 1e300}, 2.0),
]


def strictly(text: str) -> dict[str, Any]:
    """Read JSON as every other language reads it: NaN and Infinity are not in it."""

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- the history file ----------------------------------------------------------------------------------------------


def test_each_epoch_is_one_line_of_json_that_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = JsonLines(path)
    lines.on_start(3)
    for count, epoch in enumerate(EPOCHS, 1):
        lines.on_epoch(epoch)
        text = path.read_text(encoding="utf-8")  # while the file is still open for writing
        assert text.endswith("\n")
        assert len(text.splitlines()) == count
    lines.on_end()
    assert [Epoch(**strictly(line)) for line in path.read_text().splitlines()] == EPOCHS  # every digit
    assert [Epoch(**line) for line in history_lines(path)] == EPOCHS


def test_a_second_run_begins_the_file_anew(tmp_path: Path) -> None:
    for epochs in (EPOCHS, EPOCHS[:1]):
        lines = JsonLines(tmp_path / "h.jsonl")
        lines.on_start(3)
        for epoch in epochs:
            lines.on_epoch(epoch)
        lines.on_end()
    assert len(history_lines(tmp_path / "h.jsonl")) == 1


def test_a_line_is_json_also_where_a_metric_is_not_a_number(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    lines = JsonLines(path)
    lines.on_start(2)
    lines.on_epoch(Epoch(1, 1, 0.5, 1e-3, {"cost": float("inf"), "roc_auc": float("nan"), "accuracy": 1.0}))
    lines.on_end()
    (found,) = [strictly(line) for line in path.read_text().splitlines()]
    assert found["validation"] == {"cost": None, "roc_auc": None, "accuracy": 1.0}


def test_a_last_line_that_was_cut_short_is_left_out_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    lines = JsonLines(path)
    lines.on_start(3)
    for epoch in EPOCHS:
        lines.on_epoch(epoch)
    lines.on_end()
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    third = whole.index(b"\n", second) + 1
    for cut in range(third + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [line["epoch"] for line in history_lines(path)] == [1, 2]
    path.write_bytes(whole[:-1])  # only the end of the line is missing: nothing is lost
    assert [line["epoch"] for line in history_lines(path)] == [1, 2, 3]
    path.write_bytes(whole + b"\0" * 100)  # what some file systems leave after a loss of power
    assert [line["epoch"] for line in history_lines(path)] == [1, 2, 3]
    path.write_bytes(b"")
    assert history_lines(path) == []


def test_a_trainer_writes_its_history(tmp_path: Path) -> None:
    X, y = two_moons(30, seed=0)
    lines = JsonLines(tmp_path / "h.jsonl")
    trainer = Trainer(
        DenseNet([2, 4, 1], device="cpu"), epochs=4, metrics=["accuracy"], callbacks=[lines], progress=False
    )
    history = trainer.fit(X, y, validation=(X, y))
    assert [Epoch(**line) for line in history_lines(tmp_path / "h.jsonl")] == history.epochs


def test_a_history_file_that_cannot_be_opened_says_so_and_ends_what_had_begun(tmp_path: Path) -> None:
    recorder = Recorder([], "first")
    net = DenseNet([2, 4, 1], device="cpu")
    before = net.params.theta.copy()
    with pytest.raises(OSError, match="absent"):
        Trainer(net, callbacks=[recorder, JsonLines(tmp_path / "absent" / "h.jsonl")], progress=False).fit(
            *two_moons(30, seed=0)
        )
    assert recorder.calls == ["first start", "first end"]
    np.testing.assert_array_equal(net.params.theta, before)


# --- beginning and ending ------------------------------------------------------------------------------------------


class Recorder(Callback):
    """Notes its calls in a shared list; raises in the method it is told to."""

    def __init__(self, calls: list[str], name: str, fails_in: str = "") -> None:
        self.calls, self.name, self.fails_in = calls, name, fails_in

    def _note(self, method: str) -> None:
        self.calls.append(f"{self.name} {method}")
        if method == self.fails_in:
            raise RuntimeError(f"{self.name} fails in {method}")

    def on_start(self, epochs: int) -> None:
        self._note("start")

    def on_end(self) -> None:
        self._note("end")


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def test_callbacks_end_in_the_opposite_order() -> None:
    calls: list[str] = []
    with StartedCallbacks([Recorder(calls, "a"), Recorder(calls, "b")], 1):
        calls.append("body")
    assert calls == ["a start", "b start", "body", "b end", "a end"]


def test_a_callback_that_does_not_start_ends_those_that_did() -> None:
    calls: list[str] = []
    with (
        pytest.raises(RuntimeError, match="b fails in start"),
        StartedCallbacks([Recorder(calls, "a"), Recorder(calls, "b", "start"), Recorder(calls, "c")], 1),
    ):
        calls.append("never")
    assert calls == ["a start", "b start", "a end"]


@pytest.mark.parametrize("body", [dict, interrupt])
def test_a_callback_that_does_not_end_does_not_keep_the_others_from_it(body: Callable[[], Any]) -> None:
    calls: list[str] = []
    with (
        pytest.raises(RuntimeError, match="b fails in end") as caught,
        StartedCallbacks([Recorder(calls, "a"), Recorder(calls, "b", "end"), Recorder(calls, "c")], 1),
    ):
        body()
    assert calls == ["a start", "b start", "c start", "c end", "b end", "a end"]
    assert isinstance(caught.value.__context__, KeyboardInterrupt) == (body is interrupt)


def test_the_base_callback_does_nothing() -> None:
    callback = Callback()
    callback.on_start(3)
    callback.on_epoch(EPOCHS[0])
    callback.on_end()
    assert vars(callback) == {}


# --- the bar -------------------------------------------------------------------------------------------------------


def train_with_a_bar(fail_at: int = 0) -> None:
    """Five epochs with validation and the default ``progress=True``."""

    class Stop(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == fail_at:
                raise KeyboardInterrupt

    X, y = two_moons(30, seed=0)
    trainer = Trainer(DenseNet([2, 4, 1], device="cpu"), epochs=5, metrics=["accuracy"], callbacks=[Stop()])
    trainer.fit(X, y, validation=(X, y))


def test_off_a_terminal_nothing_is_written(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # what makes rich take a file for a terminal
        monkeypatch.setenv(variable, "1")
    train_with_a_bar()
    assert capfd.readouterr() == ("", "")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    train_with_a_bar()
    assert stream.getvalue() == ""


def test_without_a_standard_error_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw, or a service
    train_with_a_bar()


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Standard error is a real pseudo-terminal meanwhile; what it was sent is in the list afterwards."""
    import pty

    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while part := os.read(master, 65536):
                shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as here:
            here.setattr(sys, "stderr", stream)
            yield shown
    finally:
        reader.join(timeout=30)
        os.close(master)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
class TestOnATerminal:
    def test_a_bar_is_drawn_and_taken_away(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with terminal(monkeypatch) as shown:
            train_with_a_bar()
        text = b"".join(shown).decode()
        for part in ("epoch", "5/5", "cost 0.", "val cost 0.", "val accuracy 0."):
            assert part in text
        assert "\x1b[2K" in text.rpartition("5/5")[2]  # at the end the line is erased
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden, and is shown again
        assert capfd.readouterr() == ("", "")

    def test_an_interruption_gives_the_terminal_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal(monkeypatch) as shown, pytest.raises(KeyboardInterrupt):
            train_with_a_bar(fail_at=2)
        text = b"".join(shown).decode()
        assert "1/5" in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1

    def test_without_the_bar_a_terminal_stays_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal(monkeypatch) as shown:
            Trainer(DenseNet([2, 4, 1], device="cpu"), epochs=2, progress=False).fit(*two_moons(30, seed=0))
        assert shown == []


def test_a_bar_that_was_not_started_is_not_missed() -> None:
    bar = Progress()
    bar.on_epoch(EPOCHS[0])
    bar.on_end()
