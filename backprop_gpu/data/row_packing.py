"""Parquet, Feather and Arrow files that are trained on without loading them: packed once, row by row.

A row of such a file is scattered over compressed columns, so that a random order would unpack it again for every row.
The rows are written beside the source, to ``SOURCE.rows``, as X.npy and y.npy; as long as the source does not change
they are used again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean
from .arrow_files import SUFFIXES, opened_file
from .cells import listed
from .column_checks import leave_out

_INDEX = "packed.json"
_FORMAT = 1


@dataclass(frozen=True)
class PackedRows:
    """Where the rows lie, and what their columns are.

    Attributes
    ----------
    folder : Path
        It holds X.npy and y.npy.
    columns : list of str
        Of X.
    target : str
    classes : list of str
        Of a target of text, sorted: y has their numbers. Empty for numbers.
    """

    folder: Path
    columns: list[str]
    target: str
    classes: list[str]


def can_be_packed(source: str | os.PathLike[str]) -> bool:
    """Whether it is such a file by its name, or a folder with some."""
    return bool(_files(Path(source)))


def packed_rows(
    source: str, target: str, columns: Sequence[str] | None = None, ignore: Sequence[str] = ()
) -> PackedRows:
    """Pack the rows of a file, or of all files of a folder in the order of their paths, unless that is done already.

    Parameters
    ----------
    target : str
        The column to predict: numbers or text.
    columns, ignore : sequence of str
        The features, which must be numbers (default: all but the target), and columns to leave out.

    Raises
    ------
    DataError
        For a file that cannot be read, files of different columns, and a column of anything but numbers.
    ConfigError
        For a column that is not there.
    """
    files = _files(Path(source))
    names, types = _schema(source, files)
    features = [name for name in (columns or names) if name != target and name not in ignore]
    for name in (target, *features):
        if name not in names:
            raise ConfigError(f"{source} has no column {name!r}{did_you_mean(name, names)}; it has {listed(names)}")
    wrong = next((name for name in features if not all(map(_is_number, types[name]))), None)
    if wrong is not None:
        kind = next(kind for kind in types[wrong] if not _is_number(kind))
        problem = f"{source}: column {wrong!r} holds {kind}, and only numbers are read while they are trained on"
        raise DataError(f"{problem}; {leave_out(wrong, ignore)}").with_option("ignore", [*ignore, wrong])
    stats = [(str(file), file.stat()) for file in files]
    asked = {
        "format": _FORMAT,
        "files": [[name, found.st_size, found.st_mtime_ns] for name, found in stats],
        "columns": features,
        "target": target,
    }
    folder = Path(f"{source.rstrip('/')}.rows")
    classes = _classes_of(folder, asked)
    if classes is None:
        classes = _pack(files, folder, asked, types)
    return PackedRows(folder, features, target, classes)


def _files(path: Path) -> list[Path]:
    found = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES)


def _schema(source: str, files: Sequence[Path]) -> tuple[list[str], dict[str, list[Any]]]:
    """The columns' names, which all files have, and the types of each."""
    names: list[str] = []
    types: dict[str, list[Any]] = {}
    for path in files:
        with opened_file(path) as file:
            names = names or file.names
            if sorted(file.names) != sorted(names):
                raise DataError(f"{path} has other columns than {files[0]}; the files of {source} must be one table")
            for name, kind in zip(file.names, file.types, strict=True):
                types.setdefault(name, []).append(kind)
    return names, types


def _is_number(kind: Any) -> bool:
    from pyarrow import types as t

    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types as t

    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_dictionary(kind))


def _fits_float32(kind: Any) -> bool:
    """Whether float32 has each of its values."""
    from pyarrow import types as t

    return bool(
        t.is_boolean(kind) or t.is_float16(kind) or t.is_float32(kind) or (t.is_integer(kind) and kind.bit_width <= 16)
    )


def _classes_of(folder: Path, asked: dict[str, Any]) -> list[str] | None:
    """The classes of rows that are packed already; None if they are not, or others are."""
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or {key: found.get(key) for key in asked} != asked:
        return None
    return list(found["classes"])


def _pack(files: Sequence[Path], folder: Path, asked: dict[str, Any], types: dict[str, list[Any]]) -> list[str]:
    features, target = asked["columns"], asked["target"]
    dtype = np.dtype("f4" if all(_fits_float32(kind) for name in features for kind in types[name]) else "f8")
    text = all(map(_is_text, types[target]))
    if not text and not all(map(_is_number, types[target])):
        raise DataError(f"{files[0]}: the target {target!r} holds {types[target][0]}; it must hold numbers or text")
    if folder.exists() and not (folder / _INDEX).is_file():
        raise ConfigError(f"{folder} is where the rows are to be packed, and holds something else; rename it")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            classes = _write(files, temporary, features, target, dtype, text)
            (temporary / _INDEX).write_text(json.dumps(asked | {"classes": classes}), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        problem = f"cannot pack rows to {folder}: {error.strerror or error}"
        raise DataError(f"{problem}; copy the source to a disk with room for them") from None
    return classes


def _write(
    files: Sequence[Path], folder: Path, features: list[str], target: str, dtype: np.dtype[Any], text: bool
) -> list[str]:
    """Write X.npy and y.npy, batch by batch; the classes of a target of text."""
    numbers: dict[str, int] = {}
    n, kind = 0, np.dtype("f8")
    with (folder / "X.npy").open("wb") as X, (folder / "y.npy").open("wb") as y:
        _header(X, (0, len(features)), dtype)
        _header(y, (0,), kind)
        for path in files:
            with opened_file(path) as file:
                at = [file.names.index(name) for name in (*features, target)]
                for rows, arrays in file.batches(at):
                    block = np.empty((rows, len(features)), dtype)
                    for j, array in enumerate(arrays[:-1]):
                        block[:, j] = _numbers(array, dtype)
                    block.tofile(X)
                    (_codes(arrays[-1], numbers) if text else _numbers(arrays[-1], kind)).tofile(y)
                    n += rows
        if n == 0:
            raise DataError(f"{files[0]} has columns but no rows; add rows of data")
        for out, shape, stored in ((X, (n, len(features)), dtype), (y, (n,), kind)):
            out.seek(0)
            _header(out, shape, stored)
    classes = sorted(numbers)
    if text:  # from the order in which they came to the sorted one
        order = np.array([classes.index(name) for name in numbers], kind)
        mapped = np.load(folder / "y.npy", mmap_mode="r+")
        for start in range(0, n, 2**20):
            part = mapped[start : start + 2**20]
            part[...] = order[part.astype(np.int64)]
        mapped.flush()
    return classes


def _header(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """A header of one length, however many rows there are: NumPy leaves room for them."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def _numbers(array: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """NaN where the value is missing."""
    import pyarrow as pa

    wide = array.cast(pa.float32() if dtype.itemsize == 4 else pa.float64(), safe=False)
    found: np.ndarray = wide.to_numpy(zero_copy_only=False)
    return found


def _codes(array: Any, numbers: dict[str, int]) -> np.ndarray:
    """The numbers of the classes, in the order in which they came."""
    from pyarrow import types as t

    found = array if t.is_dictionary(array.type) else array.dictionary_encode()
    own = [numbers.setdefault(str(word), len(numbers)) for word in found.dictionary.to_pylist()]
    if found.indices.null_count:
        raise DataError("a target is missing; leave such rows out")
    return np.array([*own, 0], np.float64)[found.indices.to_numpy(zero_copy_only=False)]
