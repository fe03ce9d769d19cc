"""Counts of the calls that ran here and those left to scikit-learn, in this process and in those it started."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "backprop_gpu.accel: "


@dataclass(frozen=True)
class Settings:
    """How the estimators run and where their calls are counted; also sent to worker processes.

    Attributes
    ----------
    device, dtype
        Of our estimators.
    verbose : bool
        A line on standard error for each call.
    owner : int
        The process that reports.
    file : str
        The file in which other processes write a JSON line for each call.
    """

    device: str = "auto"
    dtype: str | None = None
    verbose: bool = False
    owner: int = 0
    file: str = ""


@dataclass
class _State:
    settings: Settings = field(default_factory=Settings)
    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)


_state = _State()


def begin(device: str, dtype: str | None, verbose: bool) -> Settings:
    """Settings of the process that reports, and an empty file for the counts of others."""
    s = _state.settings
    if s.owner == os.getpid():
        _state.settings = Settings(device, dtype, verbose, s.owner, s.file)
        return _state.settings
    handle, path = tempfile.mkstemp(prefix="backprop_gpu_accel_", suffix=".jsonl")
    os.close(handle)
    _state.settings = Settings(device, dtype, verbose, os.getpid(), path)
    atexit.register(_remove, _state.settings)
    return _state.settings


def _remove(settings: Settings) -> None:
    if settings.owner == os.getpid():
        Path(settings.file).unlink(missing_ok=True)


def adopt(settings: Settings) -> None:
    """Take the settings of another process, and count into its file."""
    _state.settings = settings


def settings() -> Settings:
    """The current settings."""
    return _state.settings


def count(name: str, method: str, *, on: str = "", reason: str = "") -> None:
    """One call of an estimator's method that ran ``on`` a device, or was left to scikit-learn for a ``reason``."""
    s = _state.settings
    if s.verbose:
        sys.stderr.write(f"{PREFIX}{name}.{method}: {on or f'left to scikit-learn: {reason}'}\n")
    if s.owner == os.getpid():
        _state.calls[(f"{name}.{method}", on, reason)] += 1
        return
    with contextlib.suppress(OSError), open(s.file, "a", encoding="utf-8") as file:
        file.write(json.dumps([f"{name}.{method}", on, reason]) + "\n")


def report() -> str:
    """A line for each kind of call: how often, where it ran, or why it was left to scikit-learn."""
    try:
        lines = Path(_state.settings.file).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    elsewhere: Counter[tuple[str, str, str]] = Counter(tuple(json.loads(line)) for line in lines)
    found = []
    for key in sorted(_state.calls | elsewhere, key=lambda k: (bool(k[2]), k)):
        call, on, reason = key
        times = _state.calls[key] + elsewhere[key]
        workers = f", {elsewhere[key]} of them in worker processes" if elsewhere[key] else ""
        what = f"ran on {on}" if on else f"left to scikit-learn: {reason}"
        found.append(f"{PREFIX}{call}: {times} call{'s' * (times != 1)} {what}{workers}")
    return "\n".join(found or [f"{PREFIX}no fit of an MLPClassifier or MLPRegressor"])
