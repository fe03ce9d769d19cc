"""A table made of cells of text: which columns are read, and what they turn out to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean, shown
from .cells import listed
from .column_checks import compact_dates, number_note, text_note
from .column_types import Found, Hints
from .csv_columns import Column
from .csv_targets import target_values
from .dates import DateForm
from .read_settings import AS_FOUND, ReadSettings
from .readings import Reading
from .table import Schema, Table
from .text_files import said

_BLOCK_ROWS, _BLOCK_CELLS = 8192, 1 << 18  # of a block: a cell takes 60 bytes and more until it is a number
Rows = Iterator[tuple[int, list[str]]]
Block = tuple[int, list[np.ndarray]]  # a number of rows, and the numbers of each column that has some


@dataclass(frozen=True)
class Request:
    """What is asked of a file; ``read_table`` documents each."""

    target: Sequence[str | int] = ()
    columns: Sequence[str] | None = None
    ignore: Sequence[str] = ()
    categorical: Sequence[str] | Literal["auto"] = "auto"
    settings: ReadSettings = AS_FOUND
    like: Schema | None = None


class Chosen(NamedTuple):
    """The columns that are read, and where each stands in a row: the features, then the targets."""

    features: list[Column]
    answers: list[Column]
    positions: list[int]
    others: tuple[str, ...] = ()  # all columns that are neither


def choose(source: str, header: list[str], request: Request, hints: Hints) -> Chosen:
    """The columns that are asked for, not read yet.

    Raises
    ------
    DataError
        For a name that is not in the header, or no features.
    ConfigError
        For a target that is named twice, or a type for a column that is not there.
    """
    targets = [position_of(source, header, column) for column in request.target]
    if len(set(targets)) < len(targets):
        raise ConfigError(f"{source}: target names a column twice; take one out")
    features = _features(source, header, targets, request)
    names, answers = [header[j] for j in features], [header[j] for j in targets]
    listed_names = set() if request.categorical == "auto" else _categories(source, names, answers, request.categorical)
    types, like, settings = request.settings.types, request.like, request.settings
    known = set(header)
    for name in types if like is None else ():
        if name not in known:
            hint = did_you_mean(name, header)
            raise ConfigError(f"{source}: types names {shown(name)}, which is no column{hint}; take it out")
    forms = {} if like is None else like.forms
    trained = like is not None

    def column(name: str, is_target: bool) -> Column:
        wanted = "category" if name in listed_names else types.get(name)
        return Column(
            name,
            wanted=wanted,
            form=forms.get(name),
            trained=trained,
            is_text=is_target or wanted == "category",
            only_numbers=request.categorical != "auto" and not is_target,
            settings=settings,
            hints=hints,
            ignored=request.ignore,
        )

    taken = {*features, *targets}
    others = tuple(name for j, name in enumerate(header) if j not in taken)
    return Chosen([column(n, False) for n in names], [column(n, True) for n in answers], features + targets, others)


def fill(source: str, rows: Callable[[], Rows], width: int, chosen: Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Read the rows into the columns; once more if a column of numbers turns out to hold texts.

    Returns
    -------
    lines : ndarray, shape (n_rows,)
        The line on which each row starts.
    plain : ndarray, shape (n_rows, number of columns of plain numbers)
    """
    columns = chosen.features + chosen.answers
    lines, blocks = _fill(source, rows(), width, columns, chosen.positions)
    if any(column.turned_late for column in columns):  # what came before their first text was kept as numbers
        for column in columns:
            column.restart()
        del blocks
        lines, blocks = _fill(source, rows(), width, columns, chosen.positions)
    plain = joined_blocks(blocks)
    assert plain is not None, "refused without rows"
    return lines, plain


def joined_blocks(blocks: list[Block]) -> np.ndarray | None:
    """All rows of blocks (n_rows, n_columns), each column in one piece; None without blocks, which are used up."""
    if not blocks:
        return None
    end = sum(n for n, _ in blocks)
    plain = np.empty((len(blocks[0][1]), end))
    while blocks:  # each is freed once it is copied
        n, columns = blocks.pop()
        for row, values in zip(plain, columns, strict=True):
            row[end - n : end] = values
        end -= n
    return plain.T


def _fill(
    source: str, rows: Rows, width: int, columns: list[Column], positions: list[int]
) -> tuple[np.ndarray, list[Block]]:
    all_lines: list[np.ndarray] = []
    blocks: list[Block] = []
    while block := list(islice(rows, max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // width)))):
        by_column = list(zip(*(cells for _, cells in block), strict=True))
        found = [column.add(by_column[j]) for column, j in zip(columns, positions, strict=True)]
        blocks.append((len(block), [values for values in found if values is not None]))
        all_lines.append(np.array([line for line, _ in block]))
    if not all_lines:
        raise DataError(f"{source} has a header but no rows; add rows of data")
    return np.concatenate(all_lines), blocks


def as_table(
    path: Path, chosen: Chosen, lines: np.ndarray | None, plain: np.ndarray, request: Request, notes: Iterable[str] = ()
) -> Table:
    """The table of columns that have been read; ``plain``: those of plain numbers, in their order.

    ``lines``: the line on which each row starts; None: the file has no lines.

    Raises
    ------
    DataError
        Where a column's cells are mixed, ambiguous or of another kind than in training.
    """
    source = said(path)

    def where(row: int) -> str:
        return f"{source}, row {row}" if lines is None else f"{source}, line {lines[row]}"

    stored, readings = _stored(chosen.features, plain, where, request)
    texts = {c.name: c.joined() for c in chosen.features if c.is_category}
    answer, of_target, as_written = target_values(path, chosen.answers, where, request.settings)
    trained = request.like is not None
    said_of = [reading.note for reading in (*readings, *as_written) if reading.note]
    return Table(
        source=source,
        columns=tuple(column.name for column in chosen.features),
        stored=stored,
        categorical=texts,
        target=answer,
        target_names=tuple(column.name for column in chosen.answers),
        named=True,
        lines=lines,
        ignored=tuple(request.ignore),
        others=chosen.others,
        notes=() if trained else tuple(f"{source}: {note}" for note in (*notes, *said_of, of_target) if note),
        readings=(*readings, *as_written),
        settings=request.settings,
    )


def _stored(
    columns: list[Column], plain: np.ndarray, where: Callable[[int], str], request: Request
) -> tuple[np.ndarray, list[Reading]]:
    """All numbers, and how each column was read."""
    numbers: list[np.ndarray] = []
    readings: list[Reading] = []
    is_plain = iter(plain.T)
    for column in columns:
        values, note = _resolved(column, is_plain, where, request)
        found = column.found
        how, form = ("", None) if found is None else (found.how, found.form)
        readings.append(Reading(column.name, "feature", column.kind, how, note, form))
        if values is not None:
            numbers.append(values)
    if len(numbers) == plain.shape[1] and not any(
        isinstance(r.form, DateForm) and c.stated is None for r, c in zip(readings, columns, strict=True)
    ):
        return plain, readings
    stored = np.empty((len(numbers), len(plain))).T
    for j, values in enumerate(numbers):
        stored[:, j] = values
    return stored, readings


def _resolved(
    column: Column, is_plain: Iterator[np.ndarray], where: Callable[[int], str], request: Request
) -> tuple[np.ndarray | None, str]:
    """The numbers of a column, if it has some, and a warning about it."""
    looked_at = not column.trained and column.wanted is None and not column.is_text
    if not column.plain:
        values = column.resolve(where)
        words = looked_at and values is None
        return values, text_note(column.name, *column.distinct(), request.ignore) if words else ""
    values = next(is_plain)
    if column.stated is not None:
        column.found = column.stated
        is_number = column.found.form is None
        return values, number_note(column.name, values, request.ignore) if looked_at and is_number else ""
    days = compact_dates(values) if looked_at or column.wanted == "date" else None
    if days is not None:
        form = DateForm("compact", "date")
        column.found = Found(form, "date", form.said())
        return days, ""
    return values, number_note(column.name, values, request.ignore) if looked_at else ""


def position_of(source: str, header: list[str], column: str | int) -> int:
    """Where a column stands. Raises DataError if it is not there."""
    if isinstance(column, int):
        if not -len(header) <= column < len(header):
            raise DataError(f"{source} has {len(header)} columns; there is no column at position {column}")
        return column % len(header)
    try:
        return header.index(column)
    except ValueError:
        hint = did_you_mean(column, header)
        raise DataError(
            f"{source} has no column {shown(column)}{hint}; name one of its columns: {listed(header)}"
        ) from None


def _features(source: str, header: list[str], targets: list[int], request: Request) -> list[int]:
    at = {name: j for j, name in enumerate(header)}

    def positions(names: Sequence[str]) -> list[int]:
        return [at[name] if name in at else position_of(source, header, name) for name in names]

    ignored = set(positions(request.ignore))
    if request.columns is None:
        found = [j for j in range(len(header)) if j not in targets and j not in ignored]
    else:
        found, seen = positions(request.columns), set()
        for name, j in zip(request.columns, found, strict=True):
            if j in targets or j in ignored or j in seen:
                other = "the target" if j in targets else "ignored" if j in ignored else "named twice"
                raise DataError(f"{source}: column {shown(name)} is listed under columns and is {other}; take one out")
            seen.add(j)
    if not found:
        raise DataError(f"{source}: no feature columns are left beside the target; ignore fewer, or add columns")
    return found


def _categories(source: str, features: list[str], targets: list[str], categorical: Sequence[str]) -> set[str]:
    names = dict.fromkeys([*features, *targets])
    for name in categorical:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DataError(
                f"{source}: categorical column {shown(name)} is not a feature{hint}; they are {listed(features)}"
            )
    return set(categorical)
