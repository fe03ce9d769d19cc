"""System calls that fail, or at which the process is killed, in a process of its own: real errors of a real libc.

``io_faults.c`` is compiled with the system's compiler and loaded with ``LD_PRELOAD``. It reads two variables:

``IO_FAULTS``
    Rules ``CALL:N:ACTION[:PART]``, separated by semicolons. CALL: ``open`` (for writing), ``write``, ``fsync``,
    ``rename``, ``link``, ``unlink``, ``mkdir``, ``chmod``, ``truncate``, ``flock``. N: which of the calls that the
    rule fits, from 1; ``N+``: that one and all after it. ACTION: an error (``ENOSPC``, ``EIO``, ``EROFS``,
    ``EACCES``, ``EDQUOT``, ``ENOENT``, ``EINTR``, ``EFBIG``, ``EPERM``, ``EMFILE``, ``ENOLCK``, ``ENOTSUP``),
    ``KILL`` or ``TERM`` (the signal, before the call is made), ``SHORT`` (half of what was to be written is). PART:
    only files in whose path this occurs.
``IO_FAULTS_LOG``
    A file that gets a line ``CALL PATH`` for every one of these calls, so that a test can go through them all.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@functools.cache
def library(name: str = "io_faults") -> Path:
    """The compiled ``NAME.c``; the test that asks is skipped where there is no compiler, or another way to load it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("faults of system calls need Linux and a C compiler")
    folder = Path(tempfile.mkdtemp(prefix=name))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source, made = Path(__file__).with_name(f"{name}.c"), folder / f"{name}.so"
    words = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", str(source), "-o", str(made), "-ldl"]
    subprocess.run(words, check=True)
    return made


def faults(*rules: str, log: Path | None = None) -> dict[str, str]:
    """The environment variables of a process in which these rules hold."""
    found = {**preloaded("io_faults"), "IO_FAULTS": ";".join(rules)}
    return found if log is None else found | {"IO_FAULTS_LOG": str(log)}


def preloaded(name: str) -> dict[str, str]:
    """The environment variable that loads the compiled ``NAME.c`` before everything else."""
    return {"LD_PRELOAD": " ".join(filter(None, [str(library(name)), os.environ.get("LD_PRELOAD", "")]))}


def calls(log: Path, part: str = "") -> list[tuple[str, str]]:
    """(call, path) of the logged calls whose path contains ``part``, in order."""
    lines = log.read_text(errors="surrogateescape").splitlines()
    found = [(call, path) for call, _, path in (line.partition(" ") for line in lines)]
    return [(call, path) for call, path in found if part in path]
