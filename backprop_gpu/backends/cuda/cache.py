"""Compiled kernels on disk, so that a process after the first does not wait for NVRTC.

Beside CuPy's own, in ``CUPY_CACHE_DIR`` (default ``~/.cupy/kernel_cache``), a file a source; its name is the digest of
everything that the code depends on. A file that is damaged is made again; a folder that cannot be written costs the
compilation and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ..kept import read, write


def folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")


def kept(key: tuple[str, ...], compiled: Callable[[], bytes]) -> bytes:
    """The code for ``key`` (source, options, architecture, compiler), from disk or from ``compiled()``."""
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    path = folder() / f"backprop_gpu-{name}.bin"
    code = read(path)
    if code is None:
        code = compiled()
        write(path, code)
    return code
