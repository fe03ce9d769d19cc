"""The kernels' sources (``native/cuda`` over ``native/formulas``) as text, and compiled by NVRTC.

A source is one string: headers written in where they are included, the number type in front. NVRTC, nvcc and the tests'
C++ compiler are given the same text.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from ...devices import one_line
from ...errors import DeviceError
from ..formula_ids import NATIVE_SOURCES

SOURCES = NATIVE_SOURCES / "cuda"
REALS = {"float32": "float", "float64": "double"}
THREADS = 256  # in every block

# Numbers as written: no flushing of subnormals, correctly rounded division and root, and FMA only where fma() is
# written, so that a formula has the CPU's bits. CuPy's RawModule appends -ftz=true, which would override this, so NVRTC
# is called directly. Compiling takes about a second, and the result is cached on disk.
OPTIONS = ("-std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--fmad=false")

_INCLUDE = re.compile(r'^#include "([\w./]+)"\n', re.MULTILINE)
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')


def modules() -> list[str]:
    """Names of the ``.cu`` files."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


@cache
def source(module: str, dtype: str) -> str:
    """Everything that compiles to the kernels of one ``.cu`` file in float32 or float64."""
    return f"#define REAL {REALS[dtype]}\n#define THREADS {THREADS}\n\n{_whole(module)}"


@cache
def _whole(module: str) -> str:
    return _expanded(SOURCES / f"{module}.cu", set())


def _expanded(file: Path, seen: set[Path]) -> str:
    """A file with its headers in place of their includes, each where it is included first."""
    seen.add(file)
    text = file.read_text(encoding="utf-8").replace("#pragma once\n", "")

    def header(include: re.Match[str]) -> str:
        path = (file.parent / include[1]).resolve()
        return "" if path in seen else _expanded(path, seen)

    return _INCLUDE.sub(header, text)


@cache
def parameters(module: str) -> dict[str, tuple[str, ...]]:
    """The kernels of a ``.cu`` file with the types of their parameters: ``pointer``, ``integer`` or ``double``."""
    return {
        name: tuple(_kind(parameter) for parameter in given.split(","))
        for name, given in _KERNEL.findall(_whole(module))
    }


def _kind(parameter: str) -> str:
    return "pointer" if "*" in parameter else parameter.split()[0]


@cache
def module_of(kernel: str) -> str:
    """The ``.cu`` file that holds a kernel."""
    return next(module for module in modules() if kernel in parameters(module))


def machine_code(nvrtc: Any, text: str, architecture: int) -> bytes:
    """The kernels of a source for a card of compute capability ``architecture`` (90 for 9.0).

    Parameters
    ----------
    nvrtc : module
        ``cupy.cuda.nvrtc``, or what has its functions. If it does not know the card yet, the result is PTX for the
        newest that it knows, which the driver translates.

    Raises
    ------
    DeviceError
        With NVRTC's first complaint.
    """
    known = nvrtc.getSupportedArchs()
    exact = architecture in known
    target = f"sm_{architecture}" if exact else f"compute_{max(known)}"
    program = nvrtc.createProgram(text, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={target}", *OPTIONS))
        return bytes(nvrtc.getCUBIN(program) if exact else nvrtc.getPTX(program))
    except Exception as error:  # NVRTC's own
        log = nvrtc.getProgramLog(program).strip() or one_line(error)
        raise DeviceError(f"NVRTC cannot compile the CUDA kernels for {target}: {log.splitlines()[0]}") from error
    finally:
        nvrtc.destroyProgram(program)
