"""Rows in .npy files, which may be larger than memory: a file, or a folder of them one after another."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..network.row_source import RowSource
from .array_files import map_array

_MAPPED_BYTES = 64 * 2**20  # of a file's pages that this process may hold at a time, about
_AROUND = 64 * 1024  # bytes: the system maps the neighbours of a page that is asked for, if they are in its cache


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

    Rows are copied out of mapped files; the pages that this has mapped are given back again and again, so that memory
    stays bounded. (They remain in the system's cache while it has room.)
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
        self._mapped = 0
        for part in self._parts:
            _advise(part, "MADV_RANDOM")  # else every row reads 128 KiB from the disk

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`RowSource`; the files are read in their order."""
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        if len(wanted) and not (wanted[0] >= 0 and wanted[-1] < len(self)):
            raise IndexError(f"rows are numbered from 0 to {len(self) - 1}")
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        cuts = np.searchsorted(wanted, self._starts)
        for part, start, first, end in zip(self._parts, self._starts, cuts, cuts[1:], strict=False):
            if first < end:
                found[order[first:end]] = part.take(wanted[first:end] - start, axis=0)
        self._count(len(rows) * max(_AROUND, self.shape[1] * self.dtype.itemsize))
        return found

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Consecutive rows are read from the files, which maps none of their pages."""
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

    def _count(self, mapped: int) -> None:
        """So many bytes have been mapped, at most; give all back when they are too many."""
        self._mapped += mapped
        if self._mapped > _MAPPED_BYTES:
            self._mapped = 0
            for part in self._parts:
                _advise(part, "MADV_DONTNEED")


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


def _read(part: np.memmap, first: int, out: np.ndarray) -> None:
    """out <- consecutive rows of a file, with plain reads."""
    with open(str(part.filename), "rb") as file:
        file.seek(part.offset + first * part.strides[0])
        view = out.view(np.uint8).reshape(-1).data
        while len(view):
            count = file.readinto(view)
            if not count:
                raise DataError(f"{part.filename} has become shorter than its header says; copy it again")
            view = view[count:]


def _advise(part: np.memmap, advice: str) -> None:
    base: Any = part.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, advice):
        base.madvise(getattr(mmap, advice))
