"""The OpenBLAS that NumPy has loaded, called by address: its products and its thread count.

NumPy's wheels bring OpenBLAS under prefixed names with 64-bit integers. Compiled kernels call it straight, so that a
product inside a recorded step costs no Python; nothing else is loaded, so there is never a second thread pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_PREFIX, _SUFFIX = "scipy_", "64_"
_LETTERS = {"float32": "s", "float64": "d"}


@dataclass(frozen=True)
class OpenBlas:
    """NumPy's own library.

    Attributes
    ----------
    gemm : dict
        Addresses of ``cblas_sgemm`` and ``cblas_dgemm`` with 64-bit integers, by dtype name.
    """

    library: Any
    gemm: dict[str, int]

    def _function(self, name: str) -> Any:
        return getattr(self.library, f"{_PREFIX}openblas_{name}{_SUFFIX}")

    @property
    def threads(self) -> int:
        """Threads that a product may use now."""
        return int(self._function("get_num_threads")())

    @contextlib.contextmanager
    def using_threads(self, n: int) -> Iterator[None]:
        """Let products use n threads meanwhile."""
        before = self.threads
        if n == before:
            yield
            return
        self._function("set_num_threads")(ctypes.c_int(n))
        try:
            yield
        finally:
            self._function("set_num_threads")(ctypes.c_int(before))


@functools.cache
def numpys_openblas() -> OpenBlas | None:
    """The library in NumPy's wheel, which importing NumPy has loaded; None where NumPy uses another BLAS."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                gemm = {dtype: _address(library, f"cblas_{letter}gemm") for dtype, letter in _LETTERS.items()}
                return OpenBlas(library, gemm)
    return None


def _address(library: Any, name: str) -> int:
    return ctypes.cast(getattr(library, f"{_PREFIX}{name}{_SUFFIX}"), ctypes.c_void_p).value or 0
