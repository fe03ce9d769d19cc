"""Reads and splits the rows of a configuration and infers its task; reads the test rows of a run again."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from .config import Config
from .config_reading import load_config
from .data.roles import read_role, with_weights
from .data.sources import BUILTIN, names_of, read_table
from .data.splits import split_indices
from .data.table import Table
from .data.targets import TargetCodec, infer_task
from .errors import ConfigError, DataError
from .maths.losses import get_loss
from .run_folder import CONFIG_FILE

Parts = tuple[Table, Table | None, Table | None]


def read_rows(config: Config) -> tuple[Config, str, Parts]:
    """The configuration with its task, why that is its task, and the rows."""
    d = config.data
    roles = [name for name in (d.weight_column,) if name is not None and name not in (d.columns or ())]
    is_csv = bool(names_of(d.source, d.delimiter)) and not d.source.lower().endswith(".npz")
    table = read_table(
        d.source,
        target=d.target,
        columns=d.columns,
        ignore=[*dict.fromkeys([*d.ignore, *(roles if is_csv else ())])],
        categorical=d.categorical,
        delimiter=d.delimiter,
        options=d.options,
    )
    if d.weight_column is not None:
        cells = read_role(d.source, d.weight_column, "data.weight_column", d.delimiter)
        table = with_weights(table, cells, d.weight_column)
    why = ""
    if d.task == "auto":
        loss = None if config.loss.name == "auto" else get_loss(config.loss_spec()).labels
        task, why = infer_task(table, loss)
        config = config.with_task(task)
        d = config.data
    TargetCodec.fit(
        table, d.task, positive=d.positive
    )  # a target of another task is a clearer complaint than what the split would say
    stratify = d.task in ("binary", "multiclass")
    parts = split_indices(
        table.n_samples, table.target, validation=d.validation, test=d.test, stratify=stratify, seed=config.seed
    )
    train, validation, test = (table.take(rows) if len(rows) else None for rows in parts)
    assert train is not None, "split_indices leaves training rows"
    return config, why, (train, validation, test)


def read_split(config: Config) -> Parts:
    """The configuration's table, divided into training, validation and test rows."""
    return read_rows(config)[2]


def fingerprint(config: Config, test: Table) -> str:
    """A digest of the test rows' values, to recognize changed data.

    Of a built-in set, which cannot change, it is one of which rows they are: a set that is drawn may differ in its last
    digits from machine to machine.
    """
    d = config.data
    if d.source not in BUILTIN or test.rows is None:
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
    test = read_split(config)[2]
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
