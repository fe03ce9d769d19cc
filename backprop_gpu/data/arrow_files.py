"""Parquet, Feather and Arrow files, read with pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackpropError, DataError, MissingDependencyError, shown
from ..safe_files import LONGEST_NAME, MAX_COLUMNS, expanded_limit, open_regular
from .column_types import Hints
from .read_settings import ReadSettings
from .stated_columns import StatedColumn, alike, kind_of, texts_of
from .table import Table
from .text_table import Block, Request, as_table, choose, joined_blocks, position_of

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".feather", ".arrow")
_BATCH_CELLS = 1 << 20  # of a batch of rows of a Parquet file


def read_rows(path: Path, request: Request) -> Table:
    """Read a file; :func:`backprop_gpu.data.read_table` documents the settings and the errors."""
    s = request.settings
    with opened_file(path) as file:
        source = str(path)
        chosen = choose(source, file.names, request, Hints(s.decimal, s.thousands, s.day_first))
        n = len(chosen.features)
        both = zip(chosen.features + chosen.answers, chosen.positions, strict=True)
        columns = [StatedColumn(column, file.types[j], source, k >= n) for k, (column, j) in enumerate(both)]
        alike(columns[n:])
        plain = joined_blocks(list(_blocks(file, columns, chosen.positions, n)))
        if plain is None:
            raise DataError(f"{source} has columns but no rows; add rows of data")
        for column in columns:
            column.finish()
        return as_table(path, chosen, None, plain, request)


def column_names(path: Path, settings: ReadSettings, labelled: bool = True) -> list[str]:
    """The names of the columns."""
    with opened_file(path) as file:
        return file.names


def read_cells(path: Path, names: Sequence[str], settings: ReadSettings) -> list[list[str]]:
    """The cells of the columns of these names, as a CSV would have them."""
    with opened_file(path) as file:
        positions = [position_of(str(path), file.names, name) for name in names]
        found: list[list[str]] = [[] for _ in names]
        for _, arrays in file.batches(positions):
            for cells, array in zip(found, arrays, strict=True):
                if not (kind := kind_of(array.type)):
                    raise DataError(f"{path}: a column of {array.type} cannot be kept; take it out")
                words, codes = texts_of(array, kind)
                cells += [words[code] for code in codes.tolist()]
        return found


def _blocks(file: _File, columns: list[StatedColumn], positions: list[int], n_features: int) -> Iterator[Block]:
    """The numbers of the features of some rows; targets keep their own."""
    for rows, arrays in file.batches(positions):
        values = [column.add(array) for column, array in zip(columns, arrays, strict=True)]
        for column, numbers in zip(columns[n_features:], values[n_features:], strict=True):
            if numbers is not None:
                column.column.numbers.append(numbers)
        yield rows, [numbers for numbers in values[:n_features] if numbers is not None]


@dataclass
class _File:
    """An open file: its columns, and what yields its rows."""

    path: Path
    size: int
    names: list[str]
    types: list[pa.DataType]
    parquet: Any = None
    batch_reader: Any = None

    def batches(self, positions: Sequence[int]) -> Iterator[tuple[int, list[pa.Array]]]:
        """Yield (number of rows, the arrays of the columns at these positions)."""
        names = [self.names[j] for j in positions]
        most = expanded_limit(self.size) // 8
        if self.parquet is not None:
            self._check(self.parquet.metadata.num_rows * len(names), most)
            size = max(1, _BATCH_CELLS // max(1, len(names)))
            batches = self.parquet.iter_batches(size, columns=names, use_threads=True)
        else:
            batches = self.batch_reader()
        cells = 0
        for batch in batches:
            if self.parquet is None:
                batch.validate(full=True)  # which pyarrow leaves to its users, else offsets may point anywhere
            cells += batch.num_rows * len(names)
            self._check(cells, most)
            if batch.num_rows:
                yield batch.num_rows, [batch.column(batch.schema.get_field_index(name)) for name in names]

    def _check(self, cells: int, most: int) -> None:
        if cells > most:
            raise DataError(
                f"{self.path} unpacks to more than the {most >> 17} MiB that a file of its size may; write it as CSV"
            )


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[_File]:
    """Open a file, and say in one line what pyarrow says of a damaged one."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependencyError(f"{path} is read by the package pyarrow; pip install pyarrow") from None
    with open_regular(path, DataError) as file:
        try:
            yield _file(path, file)
        except BackpropError:
            raise
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
            problem = shown(str(error).split("\n")[0], 200, quoted=False)
            raise DataError(f"{path} cannot be read ({problem}); write the file again") from None


def _file(path: Path, file: Any) -> _File:
    import pyarrow as pa
    from pyarrow import types as t

    size = path.stat().st_size
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        parquet = pq.ParquetFile(file)
        schema, metadata = parquet.schema_arrow, parquet.metadata
        texts = [f.name for f in schema if t.is_string(f.type) or t.is_large_string(f.type)]
        if texts:  # one copy of each text
            parquet = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts)
        return _named(_File(path, size, schema.names, list(schema.types), parquet=parquet))
    head = file.read(8)
    file.seek(0)
    if head.startswith(b"FEA1"):
        raise DataError(f"{path} is a Feather file of version 1; write it again as version 2, or as Parquet")
    if head.startswith(b"ARROW1"):
        reader = pa.ipc.open_file(file)
        batches = lambda: (reader.get_batch(k) for k in range(reader.num_record_batches))  # noqa: E731
    else:
        reader = pa.ipc.open_stream(file)
        batches = lambda: iter(reader)  # noqa: E731
    return _named(_File(path, size, reader.schema.names, list(reader.schema.types), batch_reader=batches))


def _named(file: _File) -> _File:
    """The file, whose names can be told apart."""
    if not file.names:
        raise DataError(f"{file.path} has no columns")
    if len(file.names) > MAX_COLUMNS:
        raise DataError(f"{file.path} has {len(file.names)} columns; a table has at most {MAX_COLUMNS}: transpose it?")
    seen: set[str] = set()
    for name in file.names:
        if not name or name in seen or len(name) > LONGEST_NAME:
            problem = "is too long" if len(name) > LONGEST_NAME else "is there twice" if name else "is empty"
            raise DataError(f"{file.path}: the name {shown(name)} of a column {problem}; rename the column")
        seen.add(name)
    return file
