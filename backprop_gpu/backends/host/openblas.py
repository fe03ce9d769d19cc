"""The OpenBLAS that NumPy has loaded, called by address: its products and its thread count.

NumPy's wheels bring OpenBLAS under prefixed names with 64-bit integers. Compiled kernels call it straight, so that a
product inside a recorded step costs no Python; nothing else is loaded, so there is never a second thread pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

_PREFIX, _SUFFIX = "scipy_", "64_"
_LETTERS = {"float32": "s", "float64": "d"}


class OpenBlas:
    """NumPy's own library.

    Attributes
    ----------
    gemm : dict
        Addresses of ``cblas_sgemm`` and ``cblas_dgemm`` with 64-bit integers, by dtype name.
    """

    def __init__(self, library: Any) -> None:
        self.gemm = {dtype: _address(library, f"cblas_{letter}gemm") for dtype, letter in _LETTERS.items()}
        self._get, self._set = (
            getattr(library, f"{_PREFIX}openblas_{name}_num_threads{_SUFFIX}") for name in ("get", "set")
        )
        self._set.argtypes, self._set.restype = [ctypes.c_int], None
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._left_alone)

    def _forget(self) -> None:
        self._lock, self._users, self._threads = threading.RLock(), 0, 0

    def _left_alone(self) -> None:
        """In a forked process no other thread goes on: what they have set ends here."""
        users, threads = self._users, self._threads
        self._forget()
        if users:
            self._set(threads)

    @property
    def threads(self) -> int:
        """Threads that a product may use, but for what ``one_thread`` says for now."""
        return self._threads if self._users else int(self._get())

    def one_thread(self) -> contextlib.AbstractContextManager[None]:
        """Let products use one thread meanwhile: until the last of all that asked for it has ended."""
        return _OneThread(self)

    def _begin(self) -> None:
        with self._lock:
            if not self._users:
                self._threads = self._get()
                self._set(1)
            self._users += 1

    def _end(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._set(self._threads)


class _OneThread(contextlib.AbstractContextManager[None]):
    """Every epoch of a fit enters one."""

    def __init__(self, library: OpenBlas) -> None:
        self._library = library

    def __enter__(self) -> None:
        self._library._begin()

    def __exit__(self, *error: object) -> None:
        self._library._end()


@functools.cache
def numpys_openblas() -> OpenBlas | None:
    """The library in NumPy's wheel, which importing NumPy has loaded; None where NumPy uses another BLAS."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                return OpenBlas(library)
    return None


def _address(library: Any, name: str) -> int:
    return ctypes.cast(getattr(library, f"{_PREFIX}{name}{_SUFFIX}"), ctypes.c_void_p).value or 0
