"""What a run folder holds, read for its report: what is missing is left out and said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Config
from ..config_reading import load_config
from ..data.table import Table
from ..data.targets import TargetCodec
from ..errors import BackpropError, CheckpointError, ConfigError
from ..model import Model, load
from ..rows import fingerprint, read_rows
from ..run_folder import CONFIG_FILE, HISTORY_FILE, METRICS_FILE, MODEL_FILE, anchored
from ..safe_files import open_regular, parse_json
from ..streamed_rows import in_memory
from ..training.callbacks import history_lines
from .run_files import EPOCH, METRICS, fits

if TYPE_CHECKING:
    from ..build import Experiment, Outcome

PARTS = ("test", "validation", "train")
_LONGEST_METRICS = 1 << 24  # bytes


@dataclass(frozen=True)
class Predictions:
    """A model's predictions of labelled rows.

    Attributes
    ----------
    model : Model
    part : str
        Which rows of the run they are: ``train``, ``validation`` or ``test``.
    table : Table
    codec : TargetCodec
    truth : ndarray
        The encoded targets; see ``TargetCodec.encode``.
    outputs : (n, n_L)
        AL: probabilities, or values as the network gives them.
    """

    model: Model
    part: str
    table: Table
    codec: TargetCodec
    truth: np.ndarray
    outputs: np.ndarray

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Of a regression or of counts: true and predicted values (n, n_targets), in the targets' units."""
        raw = np.asarray(self.table.target)
        read = raw.dtype.kind in "biuf"  # as they were read; encoded they are rounded
        truth = raw if read else self.codec.decode(self.truth)
        guess = self.codec.decode(self.model.net.loss.point(self.outputs))
        return tuple(np.asarray(x, np.float64).reshape(len(x), -1) for x in (truth, guess))  # type: ignore[return-value]


@dataclass
class Run:
    """A run, as far as its folder and its data are there.

    Attributes
    ----------
    folder : Path
    config : Config
    epochs : list of dict
        The lines of the history.
    metrics : dict
        Those that the run wrote at its end; empty if it did not get there.
    model : Model or None
    tables : dict
        The rows by part: ``train``, ``validation``, ``test``; empty if they are not what they were.
    missing : list of str
        What could not be read, and why.
    """

    folder: Path
    config: Config
    epochs: list[dict[str, Any]]
    metrics: dict[str, Any]
    model: Model | None
    tables: dict[str, Table]
    missing: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name of the configuration, and of the folder."""
        return f"{self.config.name}: {self.folder.resolve().name}"

    @property
    def part(self) -> str | None:
        """The rows that predictions are shown of: those for testing if there are any."""
        return next((name for name in PARTS if name in self.tables), None)

    @cached_property
    def predictions(self) -> Predictions | None:
        """What the model says of the rows of :attr:`part`; None without a model or rows."""
        if self.model is None or self.part is None:
            return None
        table, pre = self.tables[self.part], self.model.preprocessor
        assert pre.target is not None, "a model is always trained with a task"
        truth = pre.encode_target(table, self.model.net.dtype)
        return Predictions(self.model, self.part, table, pre.target, truth, self.model.predict_proba(table))

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The metrics of each part: those that the run wrote, else computed now."""
        found = {part: self.metrics[part] for part in reversed(PARTS) if isinstance(self.metrics.get(part), Mapping)}
        if found or self.model is None:
            return found
        return {part: self.model.evaluate(self.tables[part]) for part in reversed(PARTS) if part in self.tables}

    def curve(self, kind: str, key: str) -> tuple[list[int], list[float | None]]:
        """Epochs, and a score of theirs (``validation``, ``training``, ``layers``), where it was taken."""
        found = [(e["epoch"], e[kind][key]) for e in self.epochs if key in e.get(kind, {})]
        return [epoch for epoch, _ in found], [_float(value) for _, value in found]


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def finished_run(experiment: Experiment, outcome: Outcome) -> Run:
    """A run that has just ended, whose parts are all in memory."""
    tables = {"train": experiment.train, "validation": experiment.validation, "test": experiment.test}
    there = {name: in_memory(table) for name, table in tables.items() if table is not None}
    epochs = [asdict(epoch) for epoch in outcome.history.epochs]
    return Run(outcome.run_dir, anchored(experiment.config), epochs, outcome.metrics, outcome.model, there)


def read_run(folder: str | os.PathLike[str], device: str | None = None) -> Run:
    """Read a run folder; a run that is under way, was interrupted or diverged has what it has.

    Raises
    ------
    ConfigError
        If the folder is none of a run.
    CheckpointError
        If its history or its metrics are damaged.
    """
    path = Path(folder)
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(f"{path} is no run folder with a {CONFIG_FILE}; give one that `backprop-gpu train` left")
    run = Run(path, load_config(str(path / CONFIG_FILE)), [], {}, None, {})
    if (path / HISTORY_FILE).is_file():
        run.epochs = [_checked(line, path) for line in history_lines(path / HISTORY_FILE)]
    if (path / METRICS_FILE).is_file():
        run.metrics = _metrics_in(path / METRICS_FILE)
    else:
        run.missing.append("the run did not come to its end, so its scores are of now")
    if not (path / MODEL_FILE).is_file():
        run.missing.append(f"there is no {MODEL_FILE}: no predictions, no columns")
        return run
    run.model = load(path, device)
    try:
        run.config, _, tables = read_rows(run.config)
        named = {part: t for part, t in zip(("train", "validation", "test"), tables, strict=True) if t is not None}
        trained, test = run.model.test_rows, named.get("test")
        if trained is not None and (test is None or fingerprint(run.config, test) != trained):
            run.missing.append("the data have changed since the run, so nothing is shown that needs its rows")
        else:
            run.tables = {part: in_memory(table) for part, table in named.items()}
    except (BackpropError, OSError) as error:
        run.missing.append(f"its rows cannot be read again ({' '.join(str(error).split())})")
    return run


def _checked(line: dict[str, Any], path: Path) -> dict[str, Any]:
    """A line of the history that has what is drawn of it."""
    if not fits(EPOCH, line):
        raise CheckpointError(f"{path / HISTORY_FILE} is not the history of a run; take it out, or copy it again")
    return line


def _metrics_in(path: Path) -> dict[str, Any]:
    with open_regular(path, CheckpointError) as file:
        text = file.read(_LONGEST_METRICS).decode("utf-8", "replace")
    found: dict[str, Any] = parse_json(text, str(path), CheckpointError)
    if not fits(METRICS, found):
        raise CheckpointError(f"{path} holds no metrics of a run; take it out, or copy it again")
    return found
