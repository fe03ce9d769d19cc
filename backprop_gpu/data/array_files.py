"""Arrays of .npz and .npy files: plain numbers and texts, within the limits of ``safe_files``, never unpickled.

NumPy reads a header by evaluating it as a literal and allocates what it names, so it is looked at first: type, shape
and size must fit the bytes that are there.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ..errors import DataError
from ..safe_files import memory_limit, open_regular

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

_MOST_AT_ONCE = 1 << 20  # bytes that zipfile and NumPy ask for at once, but for an index of too many entries


_LONGEST_HEADER = 1 << 16


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int  # where the values begin

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped.

    Raises
    ------
    DataError
        If it cannot be opened, is cut short, or holds anything but numbers and texts.
    """
    with open_regular(path, DataError) as file:
        header = _header(file, str(path), ".npy")
        if header.size > os.fstat(file.fileno()).st_size:
            raise DataError(f"{path} is cut short: its header says {header.size} bytes; copy it again")
        if 0 in header.shape:  # which cannot be mapped
            return np.empty(header.shape, header.dtype)
        order: Any = "F" if header.fortran else "C"
        found = np.memmap(file, header.dtype, mode="r", offset=header.offset, shape=header.shape, order=order)
    return _checked_text(found, str(path), ".npy")


def read_archive(path: Path, wanted: Sequence[str], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the ``wanted`` arrays that a .npz file holds, and the names of all that it holds.

    Raises
    ------
    DataError
        If it cannot be opened, is damaged, holds anything but numbers and texts, or would take more memory than a file
        of its size may; ``source`` is what the message calls it.
    """
    import zipfile

    with open_regular(path, DataError) as plain:
        size = os.fstat(plain.fileno()).st_size
        try:
            with zipfile.ZipFile(cast(IO[bytes], _Reads(plain))) as archive:
                entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                found = {name: entries[name] for name in wanted if name in entries}
                _check_size(sum(info.file_size for info in found.values()), size, source)
                return {name: _member(archive, info, source) for name, info in found.items()}, list(entries)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # of damaged bytes: BadZipFile, zlib.error, struct.error, RuntimeError ...
            raise _damaged(source, ".npz") from error


class _Reads:
    """A file of which nobody reads more than a mebibyte at once: an archive's index says itself how long it is."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size if 0 <= size <= _MOST_AT_ONCE else _MOST_AT_ONCE + 1)
        if len(content) > _MOST_AT_ONCE:
            raise ValueError(f"{size} bytes at once")
        return content


def _check_size(unpacked: int, size: int, source: str) -> None:
    limit = memory_limit(size)
    if unpacked > limit:
        raise DataError(
            f"{source} unpacks to {unpacked >> 20} MiB, more than the {limit >> 20} MiB that a file of its size may;"
            " save it with numpy.savez, which does not compress"
        )


def _member(archive: ZipFile, info: ZipInfo, source: str) -> np.ndarray:
    from zipfile import ZIP_DEFLATED, ZIP_STORED

    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise DataError(f"{source} is compressed in a way that NumPy does not use; save it with numpy.savez")
    with archive.open(info) as file:
        header = _header(file, source, ".npz")
    if header.size != info.file_size:
        raise _damaged(source, ".npz")
    with archive.open(info) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return _checked_text(array, source, ".npz")


def _checked_text(array: np.ndarray, source: str, kind: str) -> np.ndarray:
    """The array, if it holds no text of numbers that are no letters: they raise where the text is used."""
    if array.dtype.kind == "U":
        letters = np.asarray(array).reshape(-1, order="A").view(f"{array.dtype.byteorder}u4")
        if np.any((letters > 0x10FFFF) | ((letters >= 0xD800) & (letters < 0xE000))):
            raise _damaged(source, kind)
    return array


def _header(file: IO[bytes], source: str, kind: str) -> _Header:
    """The header of an array, once its type and shape are found to be plain."""
    start = io.BytesIO(file.read(_LONGEST_HEADER))  # what says how long the header is may say 4 GiB
    try:
        version = np.lib.format.read_magic(start)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(start)
    except MemoryError:
        raise
    except Exception as error:  # a literal is evaluated: SyntaxError, TokenError, OverflowError, SystemError ...
        raise _damaged(source, kind) from error
    if dtype.hasobject:
        raise DataError(f"{source} holds Python objects, which are never unpickled; save numbers or texts")
    if dtype.kind not in "biufcSU" or dtype.itemsize == 0:
        raise DataError(f"{source} holds {dtype}, which is no plain array of numbers or texts; save such arrays")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise _damaged(source, kind)
    return _Header(shape, fortran, dtype, start.tell())


def _damaged(source: str, kind: str) -> DataError:
    return DataError(
        f"{source} is not a whole {kind} file of plain arrays (Python objects in it are never unpickled);"
        " save it again with NumPy, or copy it again"
    )
