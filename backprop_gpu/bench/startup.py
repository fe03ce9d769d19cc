"""What a user waits for before and around training: imports, help, the first step, a whole process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DeviceError
from .rounds import interleave, summaries

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
X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), test_size=0.2, stratify=load_digits().target)
scaler = StandardScaler().fit(X)
model = MLPClassifier((64, 32), batch_size=32, max_iter=20, n_iter_no_change=20).fit(scaler.transform(X), y)
print(model.score(scaler.transform(X_test), y_test))
"""
_OURS = (sys.executable, "-m", "backprop_gpu")


def jobs(folder: Path) -> dict[str, Callable[[], float]]:
    """Name of each measurement, and what makes it once and returns seconds."""
    config = folder / "bench.yaml"
    config.write_text(_CONFIG, encoding="utf-8")
    train = (*_OURS, "train", str(config), "--quiet", "--device", "cpu")
    one_step = ("--set", "training.epochs=1", "--set", "training.batch_size=100000")
    warm = folder / "warm"

    def run_dir() -> tuple[str, str]:
        return "--run-dir", tempfile.mkdtemp(dir=folder) + "/run"

    def first_step(cache: str | Path) -> float:
        where = run_dir()
        return _process(
            (*train, *one_step, *where), {"NUMBA_CACHE_DIR": str(cache)}, until=Path(where[1], "history.jsonl")
        )

    first_step(warm)  # fills the cache
    found = {
        "python, nothing imported": lambda: _process((sys.executable, "-c", "pass")),
        "import backprop_gpu": lambda: _process((sys.executable, "-c", "import backprop_gpu")),
        "backprop-gpu --help": lambda: _process((*_OURS, "--help")),
        "train, to the end of the first step, cold": lambda: first_step(tempfile.mkdtemp(dir=folder)),
        "train, to the end of the first step, warm": lambda: first_step(warm),
        "train digits, 20 epochs, whole process": lambda: _process(
            (*train, *run_dir()), {"NUMBA_CACHE_DIR": str(warm)}
        ),
    }
    if not subprocess.run((sys.executable, "-c", "import sklearn"), capture_output=True, check=False).returncode:
        found["the same as a scikit-learn script"] = lambda: _process((sys.executable, "-c", _SCIKIT))
    return found


def _process(command: tuple[str, ...], variables: dict[str, str] | None = None, until: Path | None = None) -> float:
    """Seconds until a process ends, or until it has written something to a file."""
    start, seconds = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, env=os.environ | (variables or {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while until is not None and process.poll() is None and not seconds:
            time.sleep(0.001)
            seconds = time.perf_counter() - start if until.exists() and until.stat().st_size else 0.0
        _, error = process.communicate()
    if process.returncode:
        raise DeviceError(f"{' '.join(command[:4])} failed: {error.decode(errors='replace').strip().splitlines()[-1]}")
    return seconds or time.perf_counter() - start


def rows(rounds: int) -> Iterator[dict[str, Any]]:
    """A row a measurement, rounds interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        todo = jobs(Path(folder))
        seconds = interleave(list(todo), rounds, lambda name: todo[name]())
    for name, found in summaries(seconds, next(iter(seconds))).items():
        yield {"what": name, "median": found.median, "q1": found.q1, "q3": found.q3, "rounds": found.rounds}
