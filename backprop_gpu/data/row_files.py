"""Rows in .npy files, which may be larger than memory: a file, or a folder of them one after another."""

from __future__ import annotations

import functools
import os
from itertools import repeat
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..network.row_source import RowSource
from .array_files import map_array

LOADED_BYTES = 64 * 2**20  # of all rows: so few, such as targets, are loaded when some are asked for out of order


def open_rows(path: str | os.PathLike[str]) -> NpyRows:
    """The rows of a .npy file, or of all .npy files of a folder in the order of their names.

    ``Trainer.fit(open_rows("X.npy"), open_rows("y.npy"))`` trains on them without loading them.

    Raises
    ------
    DataError
        If there is none, one is damaged or holds no rows of numbers, or they do not fit each other.
    """
    return NpyRows(path)


class NpyRows(RowSource):
    """See :func:`open_rows`.

    Rows are read by calls to the system, one for each row of a batch: it takes more time to map the pages that they are
    on, which would be this process's memory until they are given back.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._parts = [_rows_of(file) for file in _files(Path(path))]
        kinds = {(part.shape[1], part.dtype) for part in self._parts}
        if len(kinds) > 1:
            found = " and ".join(f"{columns} of {dtype}" for columns, dtype in sorted(kinds, key=str)[:2])
            raise DataError(f"{path}: the files have different columns, {found}; they must be parts of one table")
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.shape, self.dtype = (int(self._starts[-1]), self._parts[0].shape[1]), self._parts[0].dtype

    @functools.cached_property
    def _loaded(self) -> np.ndarray:
        return self[:]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`RowSource`; the files are read in their order."""
        if self.size * self.dtype.itemsize <= LOADED_BYTES:
            return self._loaded.take(rows, axis=0)
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        if len(wanted) and not (wanted[0] >= 0 and wanted[-1] < len(self)):
            raise IndexError(f"rows are numbered from 0 to {len(self) - 1}")
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        cuts = np.searchsorted(wanted, self._starts)
        for part, start, first, end in zip(self._parts, self._starts, cuts, cuts[1:], strict=False):
            if first < end:
                found[order[first:end]] = _scattered(part, wanted[first:end] - start)
        return found

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Consecutive rows are read in one piece."""
        if not isinstance(rows, slice):
            return self.take(np.asarray(rows))
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        found = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        for part, begin in zip(self._parts, self._starts, strict=False):
            first, end = max(start, int(begin)), min(stop, int(begin) + len(part))
            if first < end:
                _read(part, first - int(begin), found[first - start : end - start])
        return found


def holds_rows(path: str | os.PathLike[str]) -> bool:
    """Whether it is a .npy file by its name, or a folder with some."""
    found = Path(path)
    return found.suffix.lower() == ".npy" or (found.is_dir() and any(map(_is_npy, found.iterdir())))


def _is_npy(file: Path) -> bool:
    return file.suffix.lower() == ".npy"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(filter(_is_npy, path.iterdir()))
    if not found:
        raise ConfigError(f"{path} holds no .npy files; name the folder of the parts of an array")
    return found


def _rows_of(path: Path) -> np.memmap:
    """A mapped array (n, k); one of one axis has one column."""
    array = map_array(path)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or 0 in array.shape:
        raise DataError(f"{path} has shape {array.shape} of {array.dtype}; it must hold rows (n, k) of numbers")
    if array.ndim == 1:
        array = array[:, None]
    if not array.flags.c_contiguous:
        raise DataError(
            f"{path} stores column after column, so that a row is all over the file; save it row by row,"
            " with numpy.ascontiguousarray"
        )
    return array  # type: ignore[return-value]


def _scattered(part: np.memmap, rows: np.ndarray) -> np.ndarray:
    """Rows of a file, in ascending order."""
    if not hasattr(os, "pread"):
        return np.asarray(part[rows])
    width = part.strides[0]
    file = os.open(str(part.filename), os.O_RDONLY)
    try:
        places = (rows * width + part.offset).tolist()
        content = b"".join(map(os.pread, repeat(file), repeat(width), places))
    finally:
        os.close(file)
    if len(content) != len(rows) * width:
        raise _shorter(part)
    return np.frombuffer(content, part.dtype).reshape(len(rows), -1)


def _shorter(part: np.memmap) -> DataError:
    return DataError(f"{part.filename} has become shorter than its header says; copy it again")


def _read(part: np.memmap, first: int, out: np.ndarray) -> None:
    """out <- consecutive rows of a file, with plain reads."""
    with open(str(part.filename), "rb") as file:
        file.seek(part.offset + first * part.strides[0])
        view = out.view(np.uint8).reshape(-1).data
        while len(view):
            count = file.readinto(view)
            if not count:
                raise _shorter(part)
            view = view[count:]
