"""How many threads NumPy's OpenBLAS may use: a limit that users set (``threadpoolctl``), and native programs keep."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

_SYMBOL = "scipy_openblas_get_num_threads64_"  # of the OpenBLAS in NumPy's wheels


@functools.cache
def _get_threads() -> Callable[[], int] | None:
    """The function of the library that importing NumPy has loaded; None where NumPy uses another BLAS."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            with contextlib.suppress(OSError, AttributeError):
                function = getattr(ctypes.CDLL(str(path)), _SYMBOL)
                function.restype, function.argtypes = ctypes.c_int, []
                return function
    return None


def thread_limit() -> int:
    """Threads that this process is allowed at the moment; 32 where nobody says."""
    get = _get_threads()
    return 32 if get is None else max(1, int(get()))
