"""The command line as a user meets it: a process of its own, in a folder of its own."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A variable of the person who runs the tests must not choose the device, the width or the buffering of a command.
_NOT_PASSED_ON = ("BACKPROP_GPU_DEVICE", "COLUMNS", "PYTHONUNBUFFERED")

CAN_FORK = sys.platform == "linux"
_IMPORTED = [
    *("backprop_gpu.cli", "backprop_gpu.config", "backprop_gpu.build", "backprop_gpu.run_fit", "backprop_gpu.model"),
    *("backprop_gpu.report.run_report", "backprop_gpu.training.trainer", "backprop_gpu.backends.cpu.kernels"),
    *("yaml", "pydantic", "rich.progress", "rich.table", "matplotlib.figure", "matplotlib.backends.backend_agg"),
]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command, with ``variables`` on top.

    One BLAS thread: the networks are small, and threads of several workers on one core wait for each other.
    """
    passed_on = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return passed_on | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"} | variables


def command_line(*arguments: str) -> list[str]:
    """``python -m backprop_gpu`` with these arguments."""
    return [sys.executable, "-m", "backprop_gpu", *arguments]


def said(errors: str) -> str:
    """What a command wrote to standard error, less the lines that depend on the machine.

    The first on a machine says that it compiles; one that takes seconds says how far it is.
    """
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not re.match(r"backprop_gpu: compiling|epoch \d+/\d+  ", line))


@dataclass(frozen=True)
class Finished:
    """How a command ended: exit code, standard output, standard error as ``said``."""

    code: int
    out: str
    err: str


def started_anew(
    arguments: Sequence[str], folder: Path, variables: dict[str, str], out: IO[bytes], err: IO[bytes]
) -> int:
    """Run a command in a new interpreter; return its exit code."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
    return subprocess.run(
        command_line(*arguments), cwd=folder, env=variables, timeout=120, check=False, **pipes
    ).returncode


def forked(arguments: Sequence[str], folder: Path, variables: dict[str, str], out: IO[bytes], err: IO[bytes]) -> int:
    """The same in a process forked from one that has imported what commands import, which takes half a second less."""
    files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
    process = _fork_server().Process(target=_command_process, args=(list(arguments), str(folder), variables, files))
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{arguments} takes more than two minutes")
    assert process.exitcode is not None
    return process.exitcode


@functools.cache
def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:  # BLAS reads its variable as it is loaded
        for key, value in environment().items():
            patch.setenv(key, value)
        forkserver.ensure_running()
    return context


def _command_process(arguments: list[str], folder: str, variables: dict[str, str], files: list[str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, (name, flags) in enumerate(
        zip(["/dev/null", *files], [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY], strict=True)
    ):
        os.dup2(os.open(name, flags), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", errors="backslashreplace")  # noqa: SIM115
    sys.argv = ["backprop-gpu", *arguments]
    from backprop_gpu.__main__ import entry

    try:
        entry()
    except Exception:  # which multiprocessing would introduce with a line of its own
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


class Command:
    """Runs ``python -m backprop_gpu`` in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **variables: str) -> Finished:
        """Run a command to its end; keywords are environment variables."""
        run = started_anew if any(key.startswith("PYTHON") for key in variables) or not CAN_FORK else forked
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = run(arguments, self.folder, environment(**variables), out, err)
            said_out, said_err = (
                file.seek(0) or file.read().decode("utf-8", "backslashreplace") for file in (out, err)
            )
        return Finished(code, said_out, said(said_err))

    def ok(self, *arguments: str, **variables: str) -> str:
        """Run a command that must do its job without a word on standard error; return what it printed."""
        done = self(*arguments, **variables)
        assert (done.code, done.err) == (0, ""), f"{arguments} ended with {done.code}: {done.err}"
        return done.out

    def files(self) -> dict[str, str]:
        """Everything in the folder, by relative path, with a digest of its contents."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in sorted(self.folder.rglob("*"))
        }


def metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run folder."""
    return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def settings(**values: object) -> list[str]:
    """``--set`` arguments; ``training__epochs=2`` sets ``training.epochs``."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


SHORT = settings(training__epochs=2, model__hidden="[4]")
"""Enough training to see that a command works."""
