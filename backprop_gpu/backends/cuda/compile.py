"""The kernels' sources as text, and compiled by NVRTC.

A source is one string: headers written in where they are included, codes and the number type in front. NVRTC, nvcc and
the tests' C++ compiler are given the same text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...devices import one_line
from ...errors import DeviceError
from .codes import ACTIVATIONS, LOSSES, REALS, RULES

SOURCES = Path(__file__).with_name("sources")
THREADS = 256  # in every block

# Numbers as written: no flushing of subnormals, correctly rounded division and root, FMA where it fits.
# CuPy's RawModule appends -ftz=true, which would win: so NVRTC is called here, a second or so until the code is kept.
OPTIONS = ("-std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--fmad=true")

_INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')


def modules() -> list[str]:
    """Names of the ``.cu`` files."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


@cache
def source(module: str, dtype: str) -> str:
    """Everything that compiles to the kernels of one ``.cu`` file in float32 or float64."""
    codes: Mapping[str, int] = {**ACTIVATIONS, **LOSSES, **RULES}
    lines = [f"#define {name.upper()} {code}" for name, code in codes.items()]
    lines += [f"#define REAL {REALS[dtype]}", f"#define THREADS {THREADS}"]
    return "\n".join([*lines, "", expanded(f"{module}.cu")])


def expanded(file: str) -> str:
    """A file with its headers in place of their includes."""
    text = (SOURCES / file).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: expanded(found[1]), text)


@cache
def parameters(module: str) -> dict[str, tuple[str, ...]]:
    """The kernels of a ``.cu`` file with the types of their parameters: ``pointer``, ``integer`` or ``double``."""
    return {
        name: tuple(_kind(parameter) for parameter in given.split(","))
        for name, given in _KERNEL.findall(expanded(f"{module}.cu"))
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
