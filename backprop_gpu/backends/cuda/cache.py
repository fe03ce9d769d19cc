"""Compiled kernels on disk, so that a process after the first does not wait for NVRTC.

Beside CuPy's own, in ``CUPY_CACHE_DIR`` (default ``~/.cupy/kernel_cache``), a file a source; its name is the digest of
everything that the code depends on. A file is put in place by a rename, carries its own digest, and is made again
where it is damaged; a folder that cannot be written costs the compilation and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

DIGEST = 32  # bytes in front of the code


def folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")


def kept(key: tuple[str, ...], compiled: Callable[[], bytes]) -> bytes:
    """The code for ``key`` (source, options, architecture, compiler), from disk or from ``compiled()``."""
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    path = folder() / f"backprop_gpu-{name}.bin"
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
            return content[DIGEST:]
    code = compiled()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".backprop_gpu-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    return code
