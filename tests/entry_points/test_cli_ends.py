"""Commands that end early or write where nothing can be written, and what a terminal sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.command import Command, command_line, environment, said, settings
from support.tables import trained_shop

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals, pipes and terminals as POSIX has them")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Shared; tests only read it."""
    return trained_shop(tmp_path_factory.mktemp("shop"))


GO_ON = "to go on: backprop-gpu train --resume run"
LONG = settings(
    data__options="{n: 400}", training__epochs=10_000_000, model__hidden="[4]", training__early_stopping="null"
)


@POSIX
def test_interrupting_keeps_the_history_and_the_best_model(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_line("train", "moons", "--run-dir", "run", *LONG),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )
    try:
        history = tmp_path / "run" / "history.jsonl"
        until = time.monotonic() + 60
        while not (history.is_file() and history.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    told = re.fullmatch(rf"backprop-gpu: interrupted; run holds the weights of epoch (\d+); {GO_ON}\n", said(err))
    assert process.returncode == 130
    assert told, err
    lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    best = min(lines, key=lambda line: line["validation"]["cost"])
    assert best["epoch"] == int(told[1])
    epochs = [line["epoch"] for line in lines]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 3
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"checkpoints", "config.yaml", "history.jsonl", "model.safetensors"}
    assert "accuracy" in Command(tmp_path).ok("evaluate", "run")


def test_a_run_that_diverges_is_one_line_and_claims_nothing(tmp_path: Path) -> None:
    """A rate whose first update overflows, in a run of one step: cost and gradient are finite all the while."""
    run = Command(tmp_path)
    many = settings(optimizer__learning_rate="1e38", training__epochs=1)
    done = run("train", "regression", "--run-dir", "run", *many, "--set", "training.batch_size=10000")
    assert done.code == 2
    line = r"backprop-gpu: [^\n]* in epoch 1; lower optimizer\.learning_rate \(now 1e\+38\)[^\n]*; run holds no model\n"
    assert re.fullmatch(line, done.err)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoints", "config.yaml", "history.jsonl"}
    predicted = run("predict", "run", "regression")
    assert predicted.code == 2
    assert "nan" not in predicted.out


@POSIX
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "schema"),
        ("config", "list"),
        ("devices",),
        ("--help",),
        ("evaluate", "run"),
        ("evaluate", "run", "--json"),
        ("predict", "run", "shop.csv"),
    ],
    ids=" ".join,
)
def test_a_reader_that_has_gone_is_no_error_of_ours(arguments: tuple[str, ...], buffered: bool, shop: Command) -> None:
    """As in ``backprop-gpu config schema | head -1``, where head may go before the first line is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command_line(*arguments),
            cwd=shop.folder,
            env=environment() if buffered else environment(PYTHONUNBUFFERED="1"),
            stdout=writer,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert said(done.stderr) == ""
    assert done.returncode == 141 or arguments == ("--help",)  # argparse may not notice


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, the disk that is always full")
@pytest.mark.parametrize(
    "arguments", [("config", "schema"), ("predict", "run", "shop.csv"), ("devices",)], ids=" ".join
)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...], shop: Command) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line(*arguments),
            cwd=shop.folder,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"backprop-gpu: [^\n]*No space left on device\n", done.stderr)


@POSIX
def test_the_progress_bar_is_for_terminals(tmp_path: Path) -> None:
    """Off a terminal nothing is shown (every other test here sees that); on one, the epochs are."""
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            command_line("train", "moons", "--run-dir", "run", *settings(training__epochs=30)),
            cwd=tmp_path,
            env=environment(TERM="xterm", COLUMNS="100"),
            stdout=subprocess.PIPE,
            stderr=slave,
            timeout=60,
            check=False,
        )
        os.write(slave, b"\nend\n")
        shown = b""
        while not shown.endswith(b"end\r\n"):
            shown += os.read(master, 65536)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 0
    assert b"/30" in shown
    assert b"cost" in shown
    assert b"val accuracy" in shown
    assert b"Traceback" not in shown
