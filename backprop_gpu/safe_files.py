"""Opens files that may come from a stranger: regular files only, and nothing allocated beyond a multiple of the file.

The limit is the same for every reader: memory for what a file of n bytes holds stays below
``MEMORY_PER_BYTE * n + MEMORY_AT_LEAST``. Where a format can hold much in few bytes (a compressed archive, nested JSON,
a header that names large shapes), the reader works out what it would need and refuses before it allocates.
"""

from __future__ import annotations

import io
import json
import os
import stat
from typing import Any

from .errors import BackpropError, shown

MEMORY_PER_BYTE = 4
MEMORY_AT_LEAST = 64 << 20
MOST_EXPANSION = 100
"""Bytes that one byte of a compressed table (.gz, .parquet, .xlsx) may unpack to; tables reach 3 to 50."""
MAX_COLUMNS = 500_000
"""Columns of a table: each has a name, which takes more memory than a small number in the file does."""
LONGEST_NAME = 500
"""Letters of a column's name; advice repeats it whole."""

# Bytes that Python takes for what one character of JSON begins: a dict of one entry, an empty list, a number.
_JSON_BYTES = {"{": 232, "[": 88, ",": 40}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def memory_limit(size: int) -> int:
    """The most memory, in bytes, that a file of ``size`` bytes may take once it is read."""
    return MEMORY_PER_BYTE * size + MEMORY_AT_LEAST


def expanded_limit(size: int) -> int:
    """The most bytes that a compressed table of ``size`` bytes may unpack to."""
    return MOST_EXPANSION * size + MEMORY_AT_LEAST


def is_absent(path: str | os.PathLike[str]) -> bool:
    """Whether there is nothing under this name; what is there and may not be looked at is not absent."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        pass
    return False


def open_regular(path: str | os.PathLike[str], error: type[BackpropError]) -> io.BufferedReader:
    """Open a regular file for reading bytes; nothing else, since a pipe or a device would block or never end.

    Raises
    ------
    error
        If it is not there, may not be read, or is no regular file.
    """
    try:
        _refuse_irregular(path, os.stat(path), error)  # which opening a pipe would wait for
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except error:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path}: there is no such file; check the path") from None
    except PermissionError:
        raise error(f"{path}: permission denied; let the file be read (chmod u+r), or run as its owner") from None
    except (OSError, ValueError) as problem:  # ValueError: a name with a NUL in it
        raise error(f"{path}: {getattr(problem, 'strerror', None) or problem}; check the path") from None
    try:
        _refuse_irregular(path, os.fstat(file.fileno()), error)  # it may be another file by now
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_irregular(path: str | os.PathLike[str], found: os.stat_result, error: type[BackpropError]) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "no file")
    raise error(f"{path} is {kind}, and only regular files are read; give the path of a file")


def read_text(path: str | os.PathLike[str], error: type[BackpropError], most: int) -> str:
    """The text of a regular file of UTF-8 and at most ``most`` bytes.

    Raises
    ------
    error
        If it cannot be opened, is larger, or is not UTF-8.
    """
    with open_regular(path, error) as file:
        try:
            content = file.read(most + 1)
        except OSError as problem:
            raise error(f"{path}: {problem.strerror or problem}") from None
    if len(content) > most:
        raise error(f"{path} is larger than {most} bytes, which is more than such a file needs; check the path")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not utf-8 text (byte {problem.start}); save it as UTF-8") from None


def json_memory(text: str) -> int:
    """The most memory, in bytes, that the value of a JSON text takes, without its texts."""
    return sum(text.count(mark) * each for mark, each in _JSON_BYTES.items())


def parse_json(text: str, source: str | os.PathLike[str], error: type[BackpropError], size: int | None = None) -> Any:
    """A value from JSON text whose memory stays within that of its file; ``size`` is the file's, if the text is a part.

    Raises
    ------
    error
        If it is not JSON, nested too deeply, holds a number too long, or would take more memory than the file may.
    """
    needed = json_memory(text)
    if needed > memory_limit(len(text) if size is None else size):
        raise error(f"{source}: its JSON would take {needed >> 20} MiB, more than a file of its size may")
    try:
        return json.loads(text)
    except RecursionError:
        raise error(f"{source}: its JSON is nested too deeply") from None
    except ValueError as problem:  # not JSON, or an integer of thousands of digits
        raise error(f"{source}: its JSON cannot be read: {shown(str(problem), quoted=False)}") from None
