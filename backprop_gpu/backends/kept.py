"""Machine code in files: put in place by a rename, and taken back only if the digest in front of it is right."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from pathlib import Path

DIGEST = 32  # bytes in front of the code


def read(path: Path, stamp: str = "") -> bytes | None:
    """The code that was written with this stamp; None if there is none, or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[DIGEST:]
    return code if _digest(code, stamp) == content[:DIGEST] else None


def write(path: Path, code: bytes, stamp: str = "") -> bool:
    """Keep the code; False if the folder cannot be made or written. Processes may write the same file at once."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_digest(code, stamp) + code)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return False
    return True


def _digest(code: bytes, stamp: str) -> bytes:
    return hashlib.sha256(stamp.encode() + b"\0" + code).digest()
