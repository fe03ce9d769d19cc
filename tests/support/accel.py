"""Scripts as a user runs them: with Python alone, and under ``python -m backprop_gpu.accel``."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .command import environment, said

SCRIPTS = Path(__file__).parent / "accel_scripts"


@dataclass(frozen=True)
class Run:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> list[str]:
        """Lines of accel's report."""
        return [line for line in self.err.splitlines() if line.startswith("backprop_gpu.accel: ")]

    def scores(self) -> list[float]:
        """The numbers of the lines that start with "score"."""
        return [float(line.split()[1]) for line in self.out.splitlines() if line.startswith("score ")]

    def rest(self) -> list[str]:
        """The other lines."""
        return [line for line in self.out.splitlines() if not line.startswith("score ")]


def _start(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def _end(process: subprocess.Popen[str]) -> Run:
    out, err = process.communicate(timeout=120)
    return Run(process.returncode, out, said(err))


def run(*words: str, folder: Path) -> Run:
    """``python words...`` in a folder."""
    return _end(_start(*words, folder=folder))


def both(*words: str, folder: Path, options: tuple[str, ...] = ()) -> tuple[Run, Run]:
    """Python alone, and accelerated, at the same time."""
    processes = [
        _start(*words, folder=folder),
        _start("-m", "backprop_gpu.accel", *options, *words, folder=folder),
    ]
    plain, accelerated = (_end(process) for process in processes)
    return plain, accelerated
