"""Start-up times: imports, ``--help``, the first step, a whole process."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backprop_gpu.errors import DeviceError

from .interleaved import interleave, summary

_CONFIG = """
name: bench
data: {source: digits, task: multiclass, validation: 0.0, test: 0.2}
model: {hidden: [64, 32]}
loss: {name: categorical_cross_entropy}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: 20, batch_size: 32}
"""
_SCIKIT = """
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
import warnings
warnings.simplefilter("ignore")
X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), test_size=0.2, random_state=0)
scaler = StandardScaler().fit(X)
model = MLPClassifier((64, 32), alpha=0.0, batch_size=32, max_iter=20, n_iter_no_change=20).fit(scaler.transform(X), y)
print(model.score(scaler.transform(X_test), y_test))
"""


def jobs(folder: Path, variables: Mapping[str, str | None]) -> dict[str, Callable[[], float]]:
    """Name of each measurement, and what makes it once and returns seconds; None removes a variable."""
    changed = os.environ | variables
    environment = {name: value for name, value in changed.items() if value is not None}
    process = functools.partial(_process, environment=environment)
    config = folder / "bench.yaml"
    config.write_text(_CONFIG, encoding="utf-8")

    def train(*settings: str) -> float:
        """``settings`` are of a single step, which ends when its line of the history is written; else all is run."""
        run = Path(tempfile.mkdtemp(dir=folder), "run")
        command = ("train", str(config), "--quiet", "--device", "cpu", "--run-dir", str(run), *settings)
        until = run / "history.jsonl" if settings else None
        return process("-m", "backprop_gpu", *command, until=until)

    one_step = ("--set", "training.epochs=1", "--set", "training.batch_size=100000")
    found: dict[str, Callable[[], float]] = {
        "python alone": functools.partial(process, "-c", "pass"),
        "import backprop_gpu": functools.partial(process, "-c", "import backprop_gpu"),
        "backprop-gpu --help": functools.partial(process, "-m", "backprop_gpu", "--help"),
        "train, to the end of the first step": functools.partial(train, *one_step),
        "train digits, 20 epochs, whole process": train,
    }
    if importlib.util.find_spec("sklearn"):
        found["the same as a scikit-learn script"] = functools.partial(process, "-c", _SCIKIT)
    return found


def _process(*arguments: str, environment: Mapping[str, str] = os.environ, until: Path | None = None) -> float:
    """Seconds until Python with these arguments ends, or has written something to a file."""
    start, seconds = time.perf_counter(), 0.0
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen((sys.executable, *arguments), env={**environment}, **quiet) as process:  # type: ignore[call-overload]
        while until is not None and process.poll() is None and not seconds:
            time.sleep(0.001)
            seconds = time.perf_counter() - start if until.exists() and until.stat().st_size else 0.0
        error = process.communicate()[1].decode(errors="replace")
    if process.returncode:
        raise DeviceError(f"python {' '.join(arguments[:3])} failed: {' '.join(error.split())[-500:]}")
    return seconds or time.perf_counter() - start


def rows(repeats: int, variables: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """A row a measurement, repeats interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        todo = jobs(Path(folder), variables)
        seconds = interleave(list(todo), repeats, lambda name: todo[name]())
    for name, own in seconds.items():
        yield {"what": name, **summary(own, own)}
