"""What machine code depends on, as a text: these sources, the compilers and their settings, the processor."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import os
import sys
from pathlib import Path

from .... import maths
from . import image

_FOLDER = Path(__file__).parent
# The settings of numba that change what it makes.
SETTINGS = ("CPU_NAME", "CPU_FEATURES", "ENABLE_AVX", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
# What Linux says of a processor that machine code depends on.
_FACTS = ("vendor_id", "cpu family", "model", "stepping", "flags")


def _sources() -> list[Path]:
    """What machine code is made from, maths with its constants too."""
    return [*sorted(_FOLDER.glob("*.py")), *sorted(Path(maths.__file__).parent.glob("*.py"))]


def _marks() -> list[tuple[int, int]]:
    """Tells whether a source has been written since."""
    return [(found.st_mtime_ns, found.st_size) for found in (path.stat() for path in _sources())]


# Of this edition of the sources, which are about to be imported or have just been: a change must not meet machine code
# of another edition.
_MARKS = _marks()
_EDITION = hashlib.sha256(b"".join(path.read_bytes() for path in _sources())).hexdigest()


def as_imported() -> bool:
    """Whether the sources on disk are still those that this process runs; without any nobody knows."""
    try:
        return bool(_MARKS) and _marks() == _MARKS
    except OSError:
        return False


@functools.cache
def stamp() -> str:
    """All that machine code depends on: these sources, the compilers, the processor."""
    settings = [f"{name}={os.environ.get(f'NUMBA_{name}')}" for name in SETTINGS]
    return "\n".join([_EDITION, *map(_version, ("numba", "llvmlite")), sys.version, _processor(), *settings])


def _processor() -> str:
    """Its model and what it can do: as Linux says, where machine code is loaded without llvmlite, else as LLVM says."""
    if image.SUPPORTED:
        with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            facts = [line for line in itertools.takewhile(str.strip, lines) if line.startswith(_FACTS)]
            if any(fact.startswith("flags") for fact in facts):
                return "".join(facts)
    from llvmlite import binding as llvm

    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know for this processor
        features = ""
    return "\n".join([llvm.get_process_triple(), llvm.get_host_cpu_name(), features])


def _version(package: str) -> str:
    """What a package's file says of its version, without being imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, "compiled kernels are chosen where numba is installed, which needs llvmlite"
    return (Path(str(spec.origin)).parent / "_version.py").read_text(encoding="utf-8")
