"""A file that grows while training goes on, which a full disk does not end."""

from __future__ import annotations

import contextlib
import os
import warnings
from io import FileIO
from pathlib import Path


class GrowingFile:
    """What cannot be written is kept, with one warning, and written with the next: a full disk ends no training.

    Parameters
    ----------
    path : path
    anew : bool
        Whether a file that is there is emptied.
    """

    def __init__(self, path: str | os.PathLike[str], anew: bool) -> None:
        self.path = Path(path)
        self._file = FileIO(self.path, "w+" if anew or not self.path.exists() else "r+")
        self._waiting, self._warned = b"", False

    def content(self) -> bytes:
        """All that is in it, from its beginning."""
        self._file.seek(0)
        return self._file.readall()

    def keep(self, size: int) -> None:
        """Drop all but the first bytes, and go on behind them."""
        self._file.seek(size)
        self._file.truncate()

    def write(self, more: bytes) -> None:
        """Append, from where the last attempt ended: perhaps within a line."""
        self._waiting += more
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._warned:
                self._warned = True
                cause = f"cannot write {self.path}: {error.strerror}"
                warnings.warn(f"{cause}; training goes on, and so does the file when it can be written", stacklevel=2)

    def close(self) -> None:
        """Write what waits, and close it."""
        self.write(b"")
        with contextlib.suppress(OSError):
            self._file.close()
