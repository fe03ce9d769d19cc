"""The OpenBLAS that NumPy has loaded, called by address: its products and its thread count.

NumPy's wheels bring OpenBLAS under prefixed names with 64-bit integers. Compiled kernels call it straight, so that a
product inside a recorded step costs no Python; nothing else is loaded, so there is never a second thread pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..locks import hold_while_forking

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
        self._lock, self._users, self._threads = threading.RLock(), set[object](), 0

    def _left_alone(self) -> None:
        """In a forked process no other thread goes on: what they have set ends here."""
        threads = self._threads
        self._forget()
        if threads:
            self._set(threads)

    @property
    def threads(self) -> int:
        """Threads that a product may use, but for what ``one_thread`` says for now."""
        return self._threads or int(self._get())

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """Let products use one thread meanwhile: until the last of all that asked for it has ended.

        Wherever Ctrl-C comes in between, the library is left as it was: a generator is closed even if nobody has
        entered it yet, and an end that was broken off is made again.
        """
        user = object()
        try:
            try:
                with self._lock:
                    self._threads = self._threads or int(self._get())
                    self._users.add(user)
                    self._set(1)
                yield
            finally:
                self._end(user)
        finally:
            self._end(user)

    def _end(self, user: object) -> None:
        with self._lock:
            self._users.discard(user)
            if not self._users and self._threads:
                self._set(self._threads)
                self._threads = 0


_found: list[OpenBlas | None] = []
_FINDING = threading.RLock()
hold_while_forking(_FINDING)


def numpys_openblas() -> OpenBlas | None:
    """The library in NumPy's wheel, which importing NumPy has loaded; None where NumPy uses another BLAS.

    One object in a process, however many threads ask first: it counts who wants one thread.
    """
    if not _found:
        with _FINDING:
            if not _found:
                _found.append(_search())
    return _found[0]


def _search() -> OpenBlas | None:
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                return OpenBlas(library)
    return None


def _address(library: Any, name: str) -> int:
    return ctypes.cast(getattr(library, f"{_PREFIX}{name}{_SUFFIX}"), ctypes.c_void_p).value or 0
