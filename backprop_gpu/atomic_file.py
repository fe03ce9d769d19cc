"""Files that are whole or not there: written beside their place, flushed to the disk, and renamed into it.

Whatever happens in between (a full disk, an error of the device, a kill, a power cut), the path holds the old file or
the new one, never a part. After an error nothing else is left; after a kill, a file ``.NAME.*.tmp`` may be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".tmp"
_KEPT_OF_NAME = 40  # characters, so that the temporary name is no longer than a file system allows
_NO_SUCH_OPERATION = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str], *, follow_links: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes the place of ``path`` if the block ends without an error.

    A link is followed. The new file has the permissions of a new file. What is no regular file, such as a pipe or
    ``/dev/stdout``, has nothing to keep and is written to directly. Without ``follow_links`` all that is replaced by
    the file, as in a folder to which others write too.

    Raises
    ------
    OSError
        If the file cannot be written; its ``filename`` is ``path``, and what was there is as it was.
    """
    target = Path(os.path.realpath(path) if follow_links else path)
    temporary = target.with_name(f".{target.name[:_KEPT_OF_NAME]}.{uuid.uuid4().hex[:12]}{SUFFIX}")
    try:
        if follow_links and _is_special(path):
            with open(path, "wb") as file:
                yield file
            return
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):  # it was never made, or the folder is gone
                temporary.unlink()
            raise
        _flush_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, *map(os.fspath, (temporary, target, target.parent))):
            raise  # of something else that the block does
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Put a file with this content (text as UTF-8) in the place of ``path``.

    Raises
    ------
    OSError
        As :func:`replace_file`.
    """
    with replace_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def remove_temporaries(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed had half written to a folder, to which nobody else may be writing."""
    for path in Path(folder).glob(f".*{SUFFIX}"):
        path.unlink(missing_ok=True)


def _is_special(path: str | os.PathLike[str]) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk. Windows cannot open a folder, and some file systems cannot flush one."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SUCH_OPERATION:
            raise
    finally:
        os.close(handle)
