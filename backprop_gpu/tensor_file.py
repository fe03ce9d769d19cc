"""Tensors and a description as one safetensors file with a SHA-256 digest over both, checked when it is read.

Never pickle: reading a file runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_file import replace_file
from .errors import CheckpointError, shown
from .safe_files import is_absent, open_regular

MAX_HEADER, MAX_TENSORS = 64 << 20, 200_000


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], description: str, form: str, *, follow_links: bool = True
) -> None:
    """Write contiguous ``tensors`` of this machine's byte order, with a text and the name of the file's format.

    ``follow_links``: see :func:`~backprop_gpu.atomic_file.replace_file`.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    metadata = {"format": form, "description": description, "sha256": digest(tensors, description)}
    try:
        with replace_file(path, follow_links=follow_links) as file:
            file.writelines(_parts(tensors, metadata))
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error


def read_tensors(path: Path, form: str, what: str) -> tuple[dict[str, np.ndarray], str]:
    """The tensors and the description of a file that :func:`write_tensors` wrote.

    Raises
    ------
    CheckpointError
        If there is no such file, or it is damaged, or its format is not ``form``; ``what`` is its kind in words.
    """
    from safetensors import SafetensorError, safe_open

    if is_absent(path) or path.is_dir():
        raise CheckpointError(f"no {what} file at {path}; check the path")
    _check_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: bfloat16 and such
        reason = shown(str(error), 200, quoted=False)
        raise CheckpointError(f"{path} is not a readable safetensors file: {reason}; copy it again") from error
    if metadata.get("format") != form:
        raise CheckpointError(f"{path} is {_of_another_format(metadata.get('format'), form, what)}")
    description = metadata.get("description", "")
    if metadata.get("sha256") != digest(tensors, description):
        raise CheckpointError(
            f"{path} is damaged: its contents do not match its SHA-256 digest; make it again, or copy it again"
        )
    return tensors, description


def _of_another_format(found: object, form: str, what: str) -> str:
    """Why a file is not read: another version of the format, or another format."""
    if isinstance(found, str) and found.rpartition("/")[0] == form.rpartition("/")[0]:
        return f"a {what} in format {shown(found)}, which this version of backprop_gpu cannot read; it reads {form!r}"
    return f"not a backprop_gpu {what} (format {shown(found)}, want {form!r})"


def digest(tensors: Mapping[str, np.ndarray], description: str) -> str:
    """SHA-256 of the description and of the tensors with their names, types and shapes."""
    sha = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {value.dtype.str} {tensors[name].shape}".encode())
        sha.update(value.reshape(-1).view(np.uint8).data)  # no copy
    return sha.hexdigest()


def _check_header(path: Path) -> None:
    """Refuse a header that would take much more memory than it is long, before safetensors reads it."""
    with open_regular(path, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(
                f"{path} is not a readable safetensors file: its header does not fit in it; copy it again"
            )
        if length > MAX_HEADER:
            raise CheckpointError(
                f"{path}: its header has {length} bytes, more than the {MAX_HEADER} that are read; copy it again"
            )
        found = file.read(length).count(b"{")  # the header is a mapping, and so is each tensor's entry
    if found > MAX_TENSORS:
        raise CheckpointError(
            f"{path}: its header has {found} entries, more than the {MAX_TENSORS} that are read; copy it again"
        )


_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bool": "BOOL",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
}


def _parts(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """A safetensors file: the length of a header, the header in JSON, the tensors.

    The library's own writer copies all tensors twice, which a state of a gigabyte has no room for, and writes the
    metadata in any order; here equal contents are equal files.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so each is aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        x, start, end = tensors[name], end, end + tensors[name].nbytes
        header[name] = {"dtype": _DTYPES[x.dtype.name], "shape": list(x.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        x = tensors[name]
        yield np.ascontiguousarray(x, x.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
