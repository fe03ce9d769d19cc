"""Files of text: plain, compressed by gzip or from standard input, in the encoding that they turn out to have."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from pathlib import Path
from typing import IO

from ..errors import DataError, did_you_mean
from ..safe_files import expanded_limit, open_regular

STANDARD_INPUT = Path("-")
_MOST_INPUT = 1 << 31  # bytes of standard input, which are kept in memory
_PIECE = 1 << 20
_HEAD = 1 << 16
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_input: bytes | None = None


def said(path: Path) -> str:
    """What messages call the file."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def size_of(path: Path) -> int:
    """Bytes of the file as it lies on the disk."""
    return len(_standard_input()) if path == STANDARD_INPUT else path.stat().st_size


def open_bytes(path: Path) -> IO[bytes]:
    """Open a table of text for reading its bytes, unpacked.

    Raises
    ------
    DataError
        If it cannot be opened; while it is read, if it is damaged or unpacks to more than ``safe_files`` allows.
    """
    if path == STANDARD_INPUT:
        return io.BytesIO(_standard_input())
    file = open_regular(path, DataError)
    return io.BufferedReader(_Unpacked(path, file)) if path.suffix.lower() == ".gz" else file


def _standard_input() -> bytes:
    """Standard input, read once."""
    global _input
    if _input is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise DataError("standard input is a terminal; pipe a table into the command, or name a file")
        pieces, size = list[bytes](), 0
        while piece := sys.stdin.buffer.read(_PIECE):  # read(_MOST_INPUT) would allocate all of that at once
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_INPUT:
                limit = f"more than {_MOST_INPUT >> 30} GiB"
                raise DataError(f"standard input holds {limit}; write it to a file, and name that")
        _input = b"".join(pieces)
    return _input


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, up to the limit."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.path, self.file, self.left = path, file, expanded_limit(os.fstat(file.fileno()).st_size)
        self.limit, self.unpacked = self.left, gzip.GzipFile(fileobj=file, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            content = self.unpacked.read(min(len(buffer), 1 << 20))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path} is not a whole gzip file ({error}); copy it again") from None
        self.left -= len(content)
        if self.left < 0:
            limit = f"more than the {self.limit >> 20} MiB that a file of its size may"
            raise DataError(f"{self.path} unpacks to {limit}; unpack it first")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()


def find_encoding(path: Path, wanted: str | None) -> str:
    """The encoding that is asked for, else that of the byte order mark or of NULs in the first bytes, else UTF-8.

    Raises
    ------
    DataError
        If there is no encoding of that name, or the file holds NULs and is no text.
    """
    if wanted is not None:
        try:
            name = codecs.lookup(wanted).name
            "a,b".encode(name)
        except (LookupError, TypeError, ValueError):
            hint = did_you_mean(wanted.lower(), ("utf-8", "utf-16", "utf-16-le", "cp1252", "latin-1", "shift_jis"))
            raise DataError(
                f"there is no encoding {wanted!r}{hint}; write utf-8, utf-16, cp1252, latin-1, ..."
            ) from None
        return "utf-8-sig" if name == "utf-8" else name
    with open_bytes(path) as file:
        head = file.read(_HEAD) or b""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > len(head) // 5 and min(even, odd) == 0:
            return "utf-16-le" if odd else "utf-16-be"
        raise DataError(f"{said(path)} is not text, it holds NULs; export the table as CSV")
    return "utf-8-sig"


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a table of text; line ends stay as they are."""
    return io.TextIOWrapper(open_bytes(path), encoding, newline="")
