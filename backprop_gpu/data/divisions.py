"""Divisions of rows by a column: groups that stay whole, time, or the parts that it names; and folds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ..errors import ConfigError, DataError, shown
from . import dates
from .cells import is_number, number
from .number_forms import AmbiguousError, MixedError
from .splits import Split, sizes_of_parts, split_indices, stratified_order
from .table import Table

_PARTS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    "test": 2,
}
_DAY = 86_400.0  # seconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Division:
    """What decides which rows go together; at most one of the columns is given.

    Attributes
    ----------
    labels : (n,) or None
        Classes, whose shares each part is to have.
    groups : (n,) or None
        Rows of one group are in one part.
    times : (n,) float64 or None
        Later rows are validated and tested on.
    parts : (n,) of text or None
        The part of each row: train, validation or test; for folds, the name of its fold.
    """

    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None
    parts: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Division:
        """That of some of the rows."""
        found = (self.labels, self.groups, self.times, self.parts)
        return Division(*(None if column is None else column[rows] for column in found))

    def split(self, table: Table, *, validation: float, test: float, seed: int) -> Split:
        """Training, validation and test rows.

        Raises
        ------
        DataError
            If a part would be empty, or a row names none.
        """
        n = table.n_samples
        if self.parts is not None:
            return _by_parts(self.parts, table)
        if self.groups is not None:
            return _by_group(self.groups, validation, test, seed)
        if self.times is not None:
            return _by_time(self.times, validation, test)
        return split_indices(
            n, self.labels, validation=validation, test=test, stratify=self.labels is not None, seed=seed
        )

    def folds(self, n: int, k: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each of k folds (the other rows, its rows), sorted: each row is in one fold, classes in equal shares.

        Of groups each is in one fold; by time, fold 1 to k are the later k of k + 1 spans, and the other rows are those
        before it, so that the first span is in no fold.

        Raises
        ------
        DataError
            If there are too few rows, groups, times or parts.
        """
        if self.times is not None:
            return _folds_by_time(self.times, k)
        if self.groups is not None:
            fold = _fold_of_groups(self.groups, k, seed)
        elif self.parts is not None:
            names, fold = np.unique(self.parts, return_inverse=True)
            if len(names) != k:
                raise DataError(f"the column of parts names {len(names)} folds; set data.folds: {len(names)}")
        else:
            fold = np.empty(n, np.int64)
            fold[stratified_order(n, self.labels, seed)] = np.arange(n) % k
        found = [(np.flatnonzero(fold != j), np.flatnonzero(fold == j)) for j in range(k)]
        if any(len(rows) == 0 for pair in found for rows in pair):
            raise DataError(f"{n} rows are too few for {k} folds; set data.folds lower")
        return found


def times_of(cells: np.ndarray, table: Table, name: str) -> np.ndarray:
    """Times (n,) float64: numbers as they are, texts as seconds since 1970, in all forms of dates (docs/tables.md).

    Raises
    ------
    DataError
        Names the first cell that is neither.
    """
    if cells.dtype.kind in "biuf":
        found = cells.astype(np.float64)
    else:
        texts = cells.tolist()
        if all(is_number(str(text)) for text in texts):
            found = np.array([number(text) for text in texts])
        else:
            found = _seconds_of(texts, table, name)
    wrong = ~np.isfinite(found)
    if np.any(wrong):
        i = int(np.argmax(wrong))
        problem = f"{table.where(i)}, column {shown(name)}: {shown(str(cells[i]))} is neither a number nor a date"
        raise DataError(f"{problem}; write dates like 2024-01-31 or 2024-01-31 12:00")
    return found


def _seconds_of(texts: list[str], table: Table, name: str) -> np.ndarray:
    """Seconds since 1970, in the form in which a column of dates would be read; NaN for what is no date."""
    different = dict.fromkeys(texts)
    if not all(map(dates.is_date, different)):
        return np.array([_seconds(text) for text in texts])
    try:
        form = dates.detect(different, table.settings.day_first)
    except (AmbiguousError, MixedError) as error:
        found = np.array([_seconds(text) for text in texts])  # with and without zones
        if isinstance(error, MixedError) and np.all(np.isfinite(found)):
            return found
        i = texts.index(error.text)
        problem = DataError(f"{table.where(i)}, column {shown(name)}: {error}")
        raise problem.with_option(*error.option) if isinstance(error, AmbiguousError) else problem from None
    found = np.full(len(texts), np.nan)
    for i, text in enumerate(texts):
        with suppress(ValueError):
            found[i] = form.parse(text) * _DAY
    return found


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return float("nan")
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH).total_seconds()


def _by_parts(parts: np.ndarray, table: Table) -> Split:
    at = np.array([_PARTS.get(str(text).strip().lower(), -1) for text in parts.tolist()])
    if np.any(at < 0):
        i = int(np.argmax(at < 0))
        raise DataError(
            f"{table.where(i)}: the part {shown(str(parts[i]))} is not train, validation or test; correct it"
        )
    if not np.any(at == 0):
        raise DataError(f"{table.source}: no row's part is train; name some")
    return Split(*(np.flatnonzero(at == part) for part in range(3)))


def _by_group(groups: np.ndarray, validation: float, test: float, seed: int) -> Split:
    names, of_row = np.unique(groups, return_inverse=True)
    wanted = sizes_of_parts(len(groups), validation, test)
    asked = np.array([True, validation > 0.0, test > 0.0])
    if len(names) < asked.sum():
        raise DataError(
            f"{len(names)} groups are too few for {asked.sum()} parts, since each stays whole in one of them"
        )
    sizes, held = np.bincount(of_row), np.zeros(3)
    part_of = np.zeros(len(names), np.int64)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(names))
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        empty = asked & (held == 0)
        open_to = empty if empty.sum() == left else asked  # the last groups go where there is none yet
        part = int(np.argmax(np.where(open_to, wanted - held, -np.inf)))
        part_of[group], held[part] = part, held[part] + sizes[group]
    return Split(*(np.flatnonzero(part_of[of_row] == part) for part in range(3)))


def _by_time(times: np.ndarray, validation: float, test: float) -> Split:
    n = len(times)
    order = np.argsort(times, kind="stable")
    train, middle, _ = sizes_of_parts(n, validation, test)
    cuts = [_between_times(times[order], cut) for cut in (train, train + middle)]
    parts = np.split(order, cuts)
    for name, share, rows in zip(Split._fields, (1.0, validation, test), parts, strict=True):
        if share > 0.0 and len(rows) == 0:
            raise DataError(
                f"{n} rows of {len(np.unique(times))} different times leave none for {name}; change the shares"
            )
    return Split(*map(np.sort, parts))


def _between_times(ordered: np.ndarray, cut: int) -> int:
    """The cut moved to where the time changes: rows of one time are in one part."""
    return int(np.searchsorted(ordered, ordered[cut])) if 0 < cut < len(ordered) else cut


def _folds_by_time(times: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    order, n = np.argsort(times, kind="stable"), len(times)
    cuts = [_between_times(times[order], n * j // (k + 1)) for j in range(1, k + 1)]
    found = [(np.sort(order[:a]), np.sort(order[a:b])) for a, b in zip(cuts, [*cuts[1:], n], strict=True)]
    if any(len(rows) == 0 for pair in found for rows in pair):
        raise DataError(f"{len(np.unique(times))} different times are too few for {k} folds; set data.folds lower")
    return found


def _fold_of_groups(groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The fold of each row: the groups, in an order of the seed, each go to the smallest fold so far."""
    names, of_row = np.unique(groups, return_inverse=True)
    if len(names) < k:
        raise DataError(f"{len(names)} groups are too few for {k} folds; set data.folds lower")
    sizes, held, fold_of = np.bincount(of_row), np.zeros(k), np.zeros(len(names), np.int64)
    for group in np.random.Generator(np.random.Philox(seed)).permutation(len(names)):
        fold = int(np.argmin(held))
        fold_of[group], held[fold] = fold, held[fold] + sizes[group]
    return fold_of[of_row]


def folds_of(
    division: Division, table: Table, k: int, *, validation: float, seed: int
) -> Iterator[tuple[Table, Table | None, Table]]:
    """Training, validation and test rows of each fold; ``validation``: the share of the rows outside of the fold."""
    for rest, test in division.folds(table.n_samples, k, seed):
        others, its = table.take(rest), division.take(rest)
        by_name = Division(its.labels, its.groups, its.times)  # a column of folds does not say what to validate on
        split = by_name.split(others, validation=validation, test=0.0, seed=seed)
        held_out = others.take(split.validation) if len(split.validation) else None
        yield others.take(split.train), held_out, table.take(test)


def only_one(**columns: str | None) -> str:
    """The name of the one setting that is given, empty if none is; ConfigError if there are several."""
    given = [name for name, column in columns.items() if column is not None]
    if len(given) > 1:
        raise ConfigError(f"data.{given[0]} and data.{given[1]} both divide the rows; give one of them")
    return given[0] if given else ""
