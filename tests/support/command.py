"""The command line as a user meets it: a process of its own, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# A variable of the person who runs the tests must not choose the device, the width or the buffering of a command.
_NOT_PASSED_ON = ("BACKPROP_GPU_DEVICE", "COLUMNS", "PYTHONUNBUFFERED")


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


class Command:
    """Runs ``python -m backprop_gpu`` in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **variables: str) -> Finished:
        """Run a command to its end; keywords are environment variables."""
        done = subprocess.run(
            command_line(*arguments),
            cwd=self.folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=120,
            check=False,
        )
        return Finished(done.returncode, done.stdout, said(done.stderr))

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
