"""Reads and splits the rows of a configuration and infers its task; reads the test rows of a run again."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .config import Config
from .config_reading import load_config
from .config_sections import DataConfig
from .data.divisions import Division, folds_of, only_one, times_of
from .data.preprocessing import Preprocessor
from .data.roles import read_role, with_weights
from .data.row_files import holds_rows
from .data.sources import BUILTIN, read_table
from .data.splits import Split
from .data.streamed_table import StreamedTable
from .data.table import Table
from .data.targets import TargetCodec, infer_task
from .data.text_files import STANDARD_INPUT
from .errors import ConfigError, DataError
from .maths.losses import get_loss
from .run_folder import CONFIG_FILE
from .streamed_rows import decided, fit_streamed, is_streamed, read_streamed

Parts = tuple[Table, Table | None, Table | None]


def read_rows(config: Config) -> tuple[Config, str, Any]:
    """The configuration with its task, why that is its task, and the rows: ``Parts``, or those that are streamed."""
    if is_streamed(config):
        return read_streamed(config)
    config, why, table, division = _read(config)
    if holds_rows(config.data.source):
        config = decided(config, in_memory=True)
    d = config.data
    folds = [] if d.folds is None else division.folds(table.n_samples, d.folds, config.seed)
    if folds and d.split_column is not None:  # the column names the folds: one of them is tested on
        rest, tested = folds[-1]
        inner = Division(division.labels).take(rest)
        parts = inner.split(table.take(rest), validation=d.validation, test=0.0, seed=config.seed)
        parts = Split(rest[parts.train], rest[parts.validation], tested)
    else:
        parts = division.split(table, validation=d.validation, test=d.test, seed=config.seed)
    config = config.for_rows(len(parts.train) + len(parts.validation))
    train, validation, test = (table.take(rows) if len(rows) else None for rows in parts)
    assert train is not None, "a split leaves training rows"
    return config, why, (train, validation, test)


def fit_preprocessor(d: DataConfig, train: Table | StreamedTable) -> Preprocessor:
    """What is learnt of the training rows, as the configuration asks for it; ``d`` names the task."""
    if isinstance(train, StreamedTable):
        return fit_streamed(d, train)
    return Preprocessor.fit(
        train,
        task=d.task,
        standardize=d.standardize,
        piecewise_linear=d.piecewise_linear,
        missing=d.missing,
        unknown=d.unknown,
        missing_columns=d.missing_columns,
        extra_columns=d.extra_columns,
        positive=d.positive,
        weight_column=d.weight_column,
        max_categories=d.max_categories,
        standardize_target=bool(d.standardize_target),
    )


def read_folds(config: Config) -> Iterator[Parts]:
    """The rows of each fold; ``config`` has its task."""
    _, _, table, division = _read(config)
    d = config.data
    assert d.folds is not None, "asked for by a configuration with folds"
    yield from folds_of(division, table, d.folds, validation=d.validation, seed=config.seed)


def read_whole(config: Config) -> Table:
    """The table of a configuration, undivided."""
    return _read(config)[2]


def _read(config: Config) -> tuple[Config, str, Table, Division]:
    """The configuration with its task, why that is its task, the table, and what divides it."""
    d = config.data
    table = read_table(
        d.source,
        target=d.target,
        columns=d.columns,
        ignore=_left_out(d),
        categorical=d.categorical,
        options=d.options,
        **d.reading().given(),
    )
    if d.weight_column is not None:
        table = with_weights(table, _role(d, "weight_column", table), d.weight_column)
    why = ""
    if d.task == "auto":
        loss = None if config.loss.name == "auto" else get_loss(config.loss_spec()).labels
        task, why = infer_task(table, loss)
        config = config.with_task(task)
        d = config.data
    TargetCodec.fit(table, d.task, positive=d.positive)  # a clearer complaint than what the split would say
    by = only_one(group_column=d.group_column, time_column=d.time_column, split_column=d.split_column)
    cells = _role(d, by, table) if by else None
    division = Division(
        labels=table.target if d.task in ("binary", "multiclass") else None,
        groups=cells if by == "group_column" else None,
        times=None if cells is None or by != "time_column" else times_of(cells, table, str(d.time_column)),
        parts=cells if by == "split_column" else None,
    )
    return config, why, table, division


def _left_out(d: DataConfig) -> list[str]:
    """Columns that are no features: those to ignore and, of a CSV, those with a role, unless they are listed."""
    roles = (d.weight_column, d.group_column, d.time_column, d.split_column)
    is_csv = Path(d.source).suffix.lower() not in (".npz", ".npy") and d.source not in BUILTIN
    own = [name for name in roles if name is not None and name not in (d.columns or ())] if is_csv else []
    return list(dict.fromkeys([*d.ignore, *own]))


def _role(d: DataConfig, setting: str, table: Table) -> np.ndarray:
    name = getattr(d, setting)
    cells = read_role(d.source, name, f"data.{setting}", d.reading())
    if len(cells) != table.n_samples:
        raise DataError(f"{d.source}: {name!r} holds {len(cells)} values for {table.n_samples} rows")
    return cells


def read_split(config: Config) -> Any:
    """The configuration's table, divided into training, validation and test rows."""
    return read_rows(config)[2]


def fingerprint(config: Config, test: Table | StreamedTable) -> str:
    """A digest of the test rows' values, to recognize changed data.

    Of a built-in set, which cannot change, it is one of which rows they are: a set that is drawn may differ in its last
    digits from machine to machine.
    """
    d = config.data
    if isinstance(test, StreamedTable) or d.source not in BUILTIN or test.rows is None:
        return test.fingerprint()
    return hashlib.sha256(repr((d.source, sorted(d.options.items()), test.rows.tolist())).encode()).hexdigest()


def read_test_rows(run: str | os.PathLike[str], trained: str | None) -> Table:
    """The rows that a run folder's model was neither trained nor chosen on.

    ``trained``: the :func:`fingerprint` of the test rows when the model was trained (``Model.test_rows``); None: not
    compared.

    Raises
    ------
    ConfigError
        Without a configuration in the folder.
    DataError
        If there were none, or the data is no longer what it was: a new split would call training rows test rows.
    """
    path = Path(run) / CONFIG_FILE
    name_it = "name the data: backprop-gpu evaluate RUN DATA"
    if not path.is_file():
        raise ConfigError(f"{run} is no run folder with a {CONFIG_FILE}; {name_it}")
    config = load_config(str(path))
    try:
        test = read_split(config)[2]
    except DataError as error:
        if config.data.source != str(STANDARD_INPUT):
            raise
        again = f"backprop-gpu evaluate {shlex.quote(str(run))} < TABLE"
        raise DataError(
            f"{run} was trained on standard input, so give the same table again ({again}); to score all rows of a file,"
            f" {name_it} ({error})"
        ) from None
    if test is None:
        raise DataError(f"{run} was trained without test rows; {name_it}")
    if trained not in (None, fingerprint(config, test)):
        d = config.data
        words = ["backprop-gpu", "evaluate", str(run), d.source]
        if d.source.lower().endswith(".npy"):
            words += ["--target", str(d.target)]
        raise DataError(
            f"{d.source} or {path} has changed since the run, so its test rows cannot be told from its training rows"
            f" any more; to score all rows of a file, name it: {shlex.join(words)}"
        )
    return test
