"""Rows of a configuration that stay in files while they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .backends.cpu.memory import available_bytes
from .config import Config
from .config_sections import DataConfig
from .data.preprocessing import Preprocessor
from .data.row_files import holds_rows, open_rows
from .data.row_packing import can_be_packed, packed_rows
from .data.streamed_fit import fit_preprocessor, inferred_task
from .data.streamed_table import Inputs, StreamedTable, Targets, divided
from .data.table import Table
from .errors import ConfigError
from .maths.losses import get_loss
from .network.row_source import RowSource

Parts = tuple[StreamedTable, StreamedTable | None, StreamedTable | None]
SHARE = 0.5  # of the available memory, which the rows may take before they are left in their file
_IN_MEMORY_ONLY = ("weight_column", "group_column", "time_column", "split_column", "folds")


def is_streamed(config: Config) -> bool:
    """Whether rows are read while they are trained on: if that is asked for, or they would take too much memory.

    Raises
    ------
    ConfigError
        If it is asked for and the source is no file of that kind, or folder of them.
    """
    d = config.data
    if not holds_rows(d.source):
        if can_be_packed(d.source):
            return d.in_memory is False or Path(d.source).is_dir()
        if d.in_memory is False:
            raise ConfigError(
                f"data.in_memory: false reads rows from .npy, Parquet and Arrow files; {d.source} is none: save it with"
                " numpy.save, or leave in_memory out"
            )
        return False
    if d.in_memory is not None or Path(d.source).is_dir():
        return not d.in_memory
    there = available_bytes()
    return there is not None and open_rows(d.source).size * np.dtype(config.dtype).itemsize > SHARE * there


def read_streamed(config: Config) -> tuple[Config, str, Parts]:
    """The configuration with its task, why that is its task, and the rows.

    Raises
    ------
    ConfigError
        For a setting that needs all rows in memory.
    """
    d = config.data
    for name in _IN_MEMORY_ONLY:
        if getattr(d, name) is not None:
            raise ConfigError(f"data.{name} needs the rows in memory (data.in_memory: true); leave it out")
    if config.training.class_weight is not None:
        raise ConfigError("training.class_weight needs the rows in memory (data.in_memory: true); leave it out")
    if d.piecewise_linear or d.standardize == "robust":
        name = "piecewise_linear" if d.piecewise_linear else "standardize: robust"
        raise ConfigError(f"data.{name} needs the rows in memory (data.in_memory: true): it is made of quantiles")
    parts = divided(**_opened(d), source=d.source, validation=d.validation, test=d.test, seed=config.seed)
    why = ""
    if d.task == "auto":
        loss = None if config.loss.name == "auto" else get_loss(config.loss_spec()).labels
        task, why = inferred_task(parts[0], loss)
        config = config.with_task(task)
    return decided(config, in_memory=False), why, parts


def _opened(d: DataConfig) -> dict[str, Any]:
    """X and y, and what is known of their names."""
    if not isinstance(d.target, str):
        what = (
            "the file that holds y, e.g. target: y.npy" if holds_rows(d.source) else "the column to predict as target"
        )
        raise ConfigError(f"{d.source}: give {what}")
    if holds_rows(d.source):
        return {"X": open_rows(d.source), "y": open_rows(d.target)}
    found = packed_rows(d.source, d.target, d.columns, d.ignore)
    X, y = open_rows(found.folder / "X.npy"), open_rows(found.folder / "y.npy")
    return {"X": X, "y": y, "columns": found.columns, "target": found.target, "classes": found.classes}


def decided(config: Config, in_memory: bool) -> Config:
    """The configuration that says where its rows are, so that a run that goes on divides them as it did."""
    return config.model_copy(update={"data": config.data.model_copy(update={"in_memory": in_memory})})


def fit_streamed(d: DataConfig, train: StreamedTable) -> Preprocessor:
    """The preprocessor of the training rows."""
    return fit_preprocessor(
        train,
        task=d.task,
        standardize=bool(d.standardize),
        missing=d.missing,
        standardize_target=bool(d.standardize_target),
        positive=d.positive,
        unknown=d.unknown,
        missing_columns=d.missing_columns,
        extra_columns=d.extra_columns,
    )


def encoded_rows(table: StreamedTable, preprocessor: Preprocessor, dtype: str, *, held_out: bool) -> tuple[Any, Any]:
    """Inputs and targets, read when they are needed; targets of rows that are held out are few enough for memory."""
    assert preprocessor.target is not None, "fitted with a task"
    y: RowSource = Targets(table, preprocessor.target, dtype)
    return Inputs(table, preprocessor, dtype), y[:] if held_out else y


def in_memory(table: Table | StreamedTable) -> Table:
    """The table, or of one that is streamed as many rows as a report needs."""
    return table if isinstance(table, Table) else table.sample()
