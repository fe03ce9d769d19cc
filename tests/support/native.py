"""Compiling a test program of backprop_gpu/native, with the compiler that the kernel library is built with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backprop_gpu.backends.cpu.library import ENVIRONMENT_VARIABLE, native_library, unavailable_reason
from backprop_gpu.native import build

TESTS = Path(build.__file__).parent / "tests"


def compiled(
    source: str, output: Path, *extra: str, shared: bool = False, instruction_set: str = "", compiler: str = ""
) -> Path:
    """``output``, made of ``native/tests/<source>`` for an instruction set; by default the one asked for, or in use.

    Skips the test where there is no compiler: the library is not there either, and other tests say so.
    """
    try:
        command = [compiler] if compiler else build.compiler()
    except build.BuildError as problem:
        pytest.skip(str(problem))
    instruction_set = instruction_set or os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not instruction_set and unavailable_reason():
        pytest.skip(unavailable_reason())
    march = build.INSTRUCTION_SETS[build.machine()][instruction_set or native_library().instruction_set]
    how = build.LINK_FLAGS if shared else ("-pthread",)
    build.run([*command, *build.FLAGS, march, *extra, str(TESTS / source), *how, "-o", str(output)])
    return output
