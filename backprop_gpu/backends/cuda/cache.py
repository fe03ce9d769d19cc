"""Compiled kernels on disk, so that a process after the first does not wait for NVRTC.

One file per source, in CuPy's cache folder ``CUPY_CACHE_DIR`` (default ``~/.cupy/kernel_cache``); its name is the
digest of everything that the code depends on. Files are written by a rename and read only if their digest is right: a
damaged file is compiled again, and with a folder that cannot be written every process compiles.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ...atomic_file import write_file

DIGEST = 32  # bytes in front of the code


def folder() -> Path:
    """Where compiled kernels are cached."""
    return Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")


def cached(key: tuple[str, ...], compiled: Callable[[], bytes]) -> bytes:
    """The code for ``key`` (source, options, architecture, compiler), from disk or from ``compiled()``."""
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    path = folder() / f"backprop_gpu-{name}.bin"
    code = read(path)
    if code is None:
        code = compiled()
        write(path, code)
    return code


def read(path: Path) -> bytes | None:
    """The code in a file; None if there is none, or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[DIGEST:]
    return code if hashlib.sha256(code).digest() == content[:DIGEST] else None


def write(path: Path, code: bytes) -> bool:
    """Store the code; False if the folder cannot be made or written. Processes may write the same file at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, hashlib.sha256(code).digest() + code)
    except OSError:
        return False
    return True
