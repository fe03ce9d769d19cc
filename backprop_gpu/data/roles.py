"""Columns with a part of their own beside features and target, such as the weight of each row."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, shown
from .array_files import read_archive
from .number_forms import PLAIN, AmbiguousError, MixedError, detect, is_shaped
from .read_settings import AS_FOUND, ReadSettings
from .sources import is_columns, names_of, read_texts
from .table import Table


def read_role(source: str, name: str, setting: str, settings: ReadSettings = AS_FOUND) -> np.ndarray:
    """The cells of a column of a CSV as text, or the array of that name of a .npz, (n_samples,).

    Raises
    ------
    DataError
        If it is not there, or no array of one dimension.
    ConfigError
        For another kind of source.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".npz":
        arrays, names = read_archive(Path(source), [name], source)
        if name not in arrays:
            raise DataError(f"{source} has no array {shown(name)} for {setting}; it holds {', '.join(names)}")
        if arrays[name].ndim != 1:
            raise DataError(f"{source}: {shown(name)} has shape {arrays[name].shape}; it must be (n_samples,)")
        return arrays[name]
    if not is_columns(source):
        raise ConfigError(f"{setting} names a column of a CSV, or an array of a .npz; {source!r} has none: take it out")
    return np.array(read_texts(source, [name], settings)[0], dtype=np.dtypes.StringDType())


def with_weights(table: Table, found: Any, name: str) -> Table:
    """The table with its rows' weights: ``found`` (n_samples,), numbers or texts.

    Raises
    ------
    DataError
        Names the first that is no finite number from 0, or says that there are not as many as rows, or all are 0.
    """
    found = np.asarray(found)
    if len(found) != table.n_samples:
        raise DataError(f"{table.source}: {shown(name)} holds {len(found)} weights for {table.n_samples} rows")
    if found.dtype.kind not in "biuf":
        found = _numbers([str(cell) for cell in found.tolist()], table.settings)
    weights = found.astype(np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0.0))
    if np.any(wrong):
        i = int(np.argmax(wrong))
        raise DataError(
            f"{table.where(i)}, column {shown(name)}: a weight must be a number from 0; correct it, or leave out"
            " weight_column"
        )
    if not np.any(weights):
        raise DataError(f"{table.source}: every weight in {shown(name)} is 0, which leaves no row")
    return replace(table, weights=weights)


def _numbers(cells: list[str], settings: ReadSettings) -> np.ndarray:
    """The numbers of a column, as its file writes them (0,5 say); NaN for what is none."""
    try:
        form = detect(filter(is_shaped, dict.fromkeys(cells)), settings.decimal, settings.thousands)
    except (AmbiguousError, MixedError):
        form = PLAIN
    numbers = dict.fromkeys(cells, np.nan)
    for cell in numbers:
        with contextlib.suppress(ValueError):
            numbers[cell] = form.parse(cell)
    return np.array([numbers[cell] for cell in cells])


def weighted_if_there(table: Table, source: str, name: str, settings: ReadSettings = AS_FOUND) -> Table:
    """The table with the weights of its source, if that has such a column."""
    if name not in names_of(source, settings):
        return table
    return with_weights(table, read_role(source, name, "weight_column", settings), name)
