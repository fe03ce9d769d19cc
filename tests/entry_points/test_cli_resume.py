"""``train --resume``, and signals: a run that was ended goes on to the same end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.command import command_line, environment, said, settings
from support.fits import end_of

from backprop_gpu.build import prepare, run
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import CheckpointError
from backprop_gpu.run_folder import CHECKPOINTS
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.checkpoint import Checkpoint
from backprop_gpu.training.checkpoint_file import checkpoints_in

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
SHORT = settings(
    data__options="{n: 200}", training__epochs=4, training__early_stopping="null", model__hidden="[4]", device="cpu"
)
EVERY_STEP = settings(checkpoint__every_steps=1, checkpoint__keep=100)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def train(*words: str) -> int:
    return main(["train", "--quiet", *words])


def result(run: str) -> dict[str, Any]:
    """All that a run leaves, but for the clock."""
    lines = [json.loads(line) for line in Path(run, "history.jsonl").read_text().splitlines()]
    metrics = json.loads(Path(run, "metrics.json").read_text())
    return {
        "model": Path(run, "model.safetensors").read_bytes(),
        "history": [line | {"seconds": 0} for line in lines],
        "metrics": metrics | {"seconds": 0},
    }


def cut(run: str, keep: int) -> None:
    """Take a finished run back to what it was when it had written so many checkpoints."""
    for path in checkpoints_in(Path(run, CHECKPOINTS))[:-keep] if keep else checkpoints_in(Path(run, CHECKPOINTS)):
        path.unlink()
    for name in ("model.safetensors", "metrics.json", "curve.png"):
        Path(run, name).unlink(missing_ok=True)


def test_a_run_goes_on_from_any_of_its_checkpoints_to_the_same_end() -> None:
    assert train("moons", "--run-dir", "a", *SHORT, *EVERY_STEP) == 0
    end = result("a")
    written = len(checkpoints_in(Path("a", CHECKPOINTS)))
    assert written == 20
    for keep in (written, 12, 5, 0):  # 5 steps are an epoch
        cut("a", keep)
        with Path("a", "history.jsonl").open("a") as file:
            file.write('{"epoch": 9, "half a li')
        assert train("--resume", "a") == 0
        assert result("a") == end, keep


def test_lines_that_the_history_lacks_are_written_again() -> None:
    assert train("moons", "--run-dir", "a", *SHORT, *EVERY_STEP) == 0
    end = result("a")
    for left in (b"", b"\xff\n\n", b"[]\n[]\n[]\n[]\n", None):
        cut("a", 17)
        if left is None:
            Path("a", "history.jsonl").unlink()
        else:
            Path("a", "history.jsonl").write_bytes(left)
        assert train("--resume", "a") == 0
        assert result("a") == end


def test_auto_starts_goes_on_and_has_nothing_to_do() -> None:
    words = ("moons", "--run-dir", "a", "--resume", "auto", *SHORT, *EVERY_STEP)
    assert train(*words) == 0
    end = result("a")
    for keep in (100, 8):
        cut("a", keep)
        assert train(*words) == 0
        assert result("a") == end
    for left in ((), (".config.yaml.0a1b.tmp",)):  # what a kill right at the start leaves
        Path("b").mkdir(exist_ok=True)
        for name in left:
            Path("b", name).touch()
        assert train(*words[:2], "b", *words[3:]) == 0
        assert result("b")["model"] == end["model"]
        for path in sorted(Path("b").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


CHANGES = [
    ("training.epochs=5", "training.epochs is 4 in it and 5 here; set it to that, or give --allow-change"),
    ("optimizer.learning_rate=0.5", "optimizer.learning_rate is 0.1 in it and 0.5 here"),
    ("data.options={n: 300}", "data.options.n is 200 in it and 300 here"),
]
NEVER = [
    ("seed=3", "seed is 0 in it and 3 here; set it to that\n"),
    ("model.hidden=[3]", "model.hidden is [4] in it and [3] here; set it to that\n"),
    ("training.batch_size=7", " here; set it to that\n"),
]


def test_other_settings_are_refused_by_name_and_taken_when_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("moons", "--run-dir", "a", *SHORT) == 0
    before = result("a")
    for change, message in CHANGES:
        assert train("--resume", "a", "--set", change) == 2
        assert message in capsys.readouterr().err
        assert result("a") == before
    config = Path("a", "config.yaml").read_bytes()
    for change, message in NEVER:
        for words in ((), ("--allow-change",)):
            assert train("--resume", "a", "--set", change, *words) == 2
            assert message in capsys.readouterr().err
            assert Path("a", "config.yaml").read_bytes() == config
    # A change that only the fit finds not to fit is not kept either.
    assert train("--resume", "a", "--set", "data.options={n: 300}", "--allow-change") == 2
    assert Path("a", "config.yaml").read_bytes() == config
    assert train("--resume", "a", "--set", CHANGES[0][0], "--allow-change") == 0
    assert len(result("a")["history"]) == 5
    assert result("a")["history"][:4] == before["history"]
    assert "epochs: 5" in Path("a", "config.yaml").read_text()
    assert train("--resume", "a") == 0
    free = settings(kernels="reference", name="other", training__data_on="host", checkpoint__keep=1, verify="false")
    assert train("--resume", "a", *free) == 0


def test_other_data_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{k % 7},{k % 5},{k % 2}" for k in range(60)]
    Path("t.csv").write_text("\n".join(["a,b,y", *rows]))
    assert train("t.csv", "--run-dir", "a", "--set", "data.target=y", *SHORT, "--set", "data.options={}") == 0
    Path("t.csv").write_text("\n".join(["a,b,y", *rows[:7], "6,6,1", *rows[8:]]))
    capsys.readouterr()
    assert train("--resume", "a") == 2
    told = capsys.readouterr().err
    assert re.search(r"of other data: \w+ is not what it was|other test rows", told), told
    assert "allow" in told
    assert train("--resume", "a", "--allow-change") == 0


BAD = [
    (("--resume", "gone"), "gone is no run folder: there is nothing"),
    (("--resume", "file"), "file is no run folder: there is a file"),
    (("--resume", "other"), "other is no run folder: it has neither config.yaml nor checkpoints"),
    (
        ("--resume", "empty"),
        "empty has no config.yaml; name the configuration: backprop-gpu train CONFIG --resume empty",
    ),
    (("moons", "--resume", "auto"), "--resume auto needs --run-dir DIR"),
    (("moons", "--resume", "auto", "--run-dir", "other"), "other is no run folder"),
    (("--resume", "empty", "--run-dir", "b"), "--resume RUN names the run folder; leave --run-dir out"),
    (("moons", "--allow-change"), "--allow-change is about a run that goes on; name it: --resume RUN"),
    (
        ("moons", "--set", "checkpoint.every_step=3"),
        "unknown key 'checkpoint.every_step' (did you mean 'every_steps'?)",
    ),
    (("moons", "--set", "checkpoint.keep=0"), "checkpoint.keep"),
    (
        ("moons", *settings(checkpoint__keep_best="true", training__early_stopping="null", data__validation=0)),
        "checkpoint.keep_best keeps what is best on validation rows; set data.validation above 0",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_what_cannot_be_gone_on_with_is_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other", "thesis.tex").touch()
    assert train(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in Path("other").iterdir()] == ["thesis.tex"]


@pytest.mark.filterwarnings("default")  # the command line prints them
def test_a_run_in_use_and_a_damaged_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("moons", "--run-dir", "a", *SHORT, *EVERY_STEP) == 0
    end = result("a")
    other = Checkpoint(Path("a", CHECKPOINTS))
    other.claim()
    capsys.readouterr()
    assert train("--resume", "a") == 2
    assert "a/checkpoints is in use by another run: wait until it has ended" in capsys.readouterr().err
    other.release()
    newest = checkpoints_in(Path("a", CHECKPOINTS))[0]
    newest.write_bytes(newest.read_bytes()[:100])
    assert train("--resume", "a") == 0
    assert re.fullmatch(r"backprop-gpu: .*is not a readable.*; going on from 0\S+\n", capsys.readouterr().err)
    assert result("a") == end


@pytest.mark.filterwarnings("ignore:another run has taken")  # the command line prints it
def test_a_folder_that_another_run_has_made_again_keeps_its_files() -> None:
    other = Checkpoint(Path("a", CHECKPOINTS))

    class Replace(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 2:
                shutil.rmtree("a")
                other.claim()

    experiment = prepare(load_config("moons", [word for word in SHORT if word != "--set"]), progress=False)
    with pytest.raises(CheckpointError, match=r"another run has taken a meanwhile; the model is in .* instead"):
        run(experiment, "a", [Replace()])
    other.release()
    assert [path.name for path in Path("a").iterdir()] == [CHECKPOINTS]


def test_none_are_written_where_none_are_asked_for_and_nobody_else_trains_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Resume(Callback):
        def on_epoch(self, epoch: Epoch) -> None:
            assert train("--resume", "a") == 2

    words = [word for word in SHORT if word != "--set"]
    run(prepare(load_config("moons", [*words, "checkpoint=null"]), progress=False), "a", [Resume()])
    assert capsys.readouterr().err.count("a/checkpoints is in use by another run: wait until it has ended") == 4
    assert [path.name for path in Path("a", CHECKPOINTS).iterdir()] == [".lock"]
    assert len(result("a")["history"]) == 4
    assert train("--resume", "a") == 0  # from the beginning


def test_where_all_are_damaged_the_advice_starts_over(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("moons", "--run-dir", "a", "--resume", "auto", *SHORT, *EVERY_STEP)
    assert train(*words) == 0
    end = result("a")
    for command in (("--resume", "a"), words):
        for path in checkpoints_in(Path("a", CHECKPOINTS)):
            path.write_bytes(path.read_bytes()[:100])
        capsys.readouterr()
        assert train(*command) == 2
        advice = r"can be read: .*; to start over, remove (\S+) and give the same command again\n$"
        told = re.search(f"no checkpoint of a/checkpoints {advice}", capsys.readouterr().err)
        assert told
        shutil.rmtree(told[1])
        assert train(*command) == 0
        assert result("a") == end


def test_another_number_of_rows_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{k % 7},{k % 5},{k % 2}" for k in range(60)]
    Path("t.csv").write_text("\n".join(["a,b,y", *rows]))
    words = ("--set", "data.target=y", *SHORT, "--set", "data.options={}")
    assert train("t.csv", "--run-dir", "a", *words) == 0
    Path("t.csv").write_text("\n".join(["a,b,y", *rows, *rows]))
    why = "a run cannot go on with another number of training rows: 42 in it and 84 here"
    anew = "train anew in another folder (backprop-gpu train CONFIG --run-dir DIR)"
    for more in ((), ("--allow-change",)):
        capsys.readouterr()
        assert train("--resume", "a", *more) == 2
        assert f"{why}; give the old rows, or {anew}" in capsys.readouterr().err
        assert train("--resume", "a", "--set", "data.validation=0.4", *more) == 2
        assert f"data.validation is 0.15 in it and 0.4 here; set it to that, or {anew}" in capsys.readouterr().err
    assert train("a/config.yaml", "--run-dir", "b") == 0


# --- signals ---------------------------------------------------------------------------------------------------------

MANY = settings(training__epochs=300, training__early_stopping="null", model__hidden="[4]", device="cpu")


def started(*words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_line("train", "--quiet", *words),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )


def wait_for(found: Any, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not found():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)


@POSIX
def test_sigterm_sigusr1_and_going_on_with_another_number_of_threads() -> None:
    assert train("moons", "--run-dir", "whole", *MANY) == 0
    process = started("moons", "--run-dir", "a", *MANY)
    folder = Path("a", CHECKPOINTS)
    wait_for(lambda: Path("a", "history.jsonl").exists() and Path("a", "history.jsonl").read_bytes(), process)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: checkpoints_in(folder), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    line = r"backprop-gpu: terminated; a holds the weights of epoch \d+; to go on: backprop-gpu train --resume a\n"
    assert process.returncode == 143
    assert re.fullmatch(line, said(err)), err
    assert len(checkpoints_in(folder)) == 2
    process = started("--resume", "a", OPENBLAS_NUM_THREADS="3")
    assert process.communicate(timeout=60)[0] == "a\n"
    assert process.returncode == 0
    assert result("a") == result("whole")


# A fit whose validation rows take ten blocks, in the fifth of which it is sent a signal.
EVALUATED = """
import os, signal, sys
import numpy as np
from backprop_gpu import Checkpoint, DenseNet, Trainer
from backprop_gpu.errors import Stopped
from backprop_gpu.maths.activations import Activation
from backprop_gpu.training.signals import Signals

def fit(folder, signal_in_block=0, resume=None):
    blocks = []
    def forward(xp, Z):
        if Z.shape[1] == 2048:
            blocks.append(Z.shape[1])
            if len(blocks) == signal_in_block:
                os.kill(os.getpid(), signal.SIGTERM)
        return xp.tanh(Z)
    tanh = Activation("mine", forward, lambda xp, dA, Z, A: dA * (1.0 - A * A))
    X = np.random.default_rng(0).normal(size=(10240, 2))
    y = (X[:, 0] * X[:, 1] > 0) * 1.0
    net = DenseNet([2, 5, 1], activation=tanh, device="cpu", seed=1)
    trainer = Trainer(
        net, optimizer={"name": "adam", "average": 0.9}, epochs=3, metrics=["roc_auc"], progress=False, batch_size=40,
        early_stopping=True, callbacks=[Checkpoint(folder, every_steps=1000), Signals()],
    )
    trainer.scored_too = X, y
    try:
        history = trainer.fit(X[:100], y[:100], validation=(X, y), resume=resume)
    except Stopped as stopped:
        print(len(blocks))
        sys.exit(stopped.exit_code)
    return trainer, history
"""


@POSIX
@pytest.mark.parametrize("block", [8, 14])  # of validation rows for their metrics, of training rows
def test_a_signal_in_a_long_evaluation_is_answered_after_its_block(block: int) -> None:
    here: dict[str, Any] = {}
    exec(EVALUATED, here)
    want = end_of(*here["fit"]("whole"))
    words = [*command_line()[:1], "-c", f"{EVALUATED}\nfit('a', {20 + block})"]  # 20 blocks an epoch
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, f"{20 + block}\n", "")
    assert [path.name for path in checkpoints_in(Path("a"))] == ["000001-step-6.safetensors"]
    assert end_of(*here["fit"]("a", resume="a")) == want


TWICE = """
import os, signal, sys
from backprop_gpu import Callback, DenseNet, Trainer
from backprop_gpu.training.signals import Signals
class Ask(Callback):
    def on_epoch(self, epoch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
signals = Signals()
try:
    Trainer(DenseNet([1, 1], device="cpu"), epochs=3, progress=False, callbacks=[Ask(), signals]).fit([[0.0]], [1.0])
finally:
    print("not at once")
"""


@POSIX
def test_the_second_signal_ends_at_once() -> None:
    words = [*command_line()[:1], "-c", f"import signal; signal.signal(2, signal.default_int_handler){TWICE}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


WRAPPED = """
import os, signal
import backprop_gpu.cli
def main():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass
    except BaseException as error:
        raise ValueError("error building a validator: Stopped") from error
backprop_gpu.cli.main = main
from backprop_gpu.__main__ import entry
entry()
"""


@POSIX
def test_a_signal_of_which_foreign_code_makes_another_error_ends_as_any_other() -> None:
    """As pydantic does, which is caught by chance alone (``scripts/kill_test --signals``)."""
    done = subprocess.run(
        [*command_line()[:1], "-c", WRAPPED], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (143, "backprop-gpu: terminated\n")


@POSIX
def test_early_signals_give_no_traceback() -> None:
    """``scripts/kill_test --signals`` sends hundreds. Python's own start, before any code of ours, is left out."""
    for k in range(6):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]
        process = started("moons", "--run-dir", f"early-{k}", *MANY, PYTHONVERBOSE="1")
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(r"import 'argparse'" if k < 2 else r"import 'numpy'", line):
                break
        time.sleep(0.03 * k)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "Traceback" not in err
