"""NumPy's kernel sets by name, and what keeps the compiled one from running."""

from __future__ import annotations

import functools
import importlib.util

from ...devices import one_line
from ...errors import DeviceError, MissingDependencyError
from ..gate import gated
from ..locks import IMPORTS
from ..protocol import Device, Kernels
from .kernels import HostKernels
from .openblas import numpys_openblas


def compiled_obstacle() -> tuple[type[Exception], str] | None:
    """Why compiled kernels cannot run here, as an error; None where they can."""
    for package in ("numba", "llvmlite"):
        if importlib.util.find_spec(package) is None:
            return MissingDependencyError, f"{package} is not installed; pip install numba"
    if numpys_openblas() is None:
        return DeviceError, "NumPy does not use the OpenBLAS of its PyPI wheels; use kernels: host"
    failure = _failure()
    return (DeviceError, f"machine code cannot be made and run here ({failure})") if failure else None


@functools.cache
def _failure() -> str:
    """What happens when one kernel is made, or read from disk, and put where it can be run; empty if it can.

    A system may forbid code that is made at run time, llvmlite be broken, an application come without its sources.
    """
    with IMPORTS:
        try:
            from .compiled.recording import play_alone

            play_alone.prepare()
        except Exception as error:  # a broken installation may raise anything
            return one_line(error)
    return ""


def host_kernels(backend: Device, kind: str) -> Kernels:
    """``"host"`` or ``"compiled"``.

    Raises
    ------
    DeviceError, MissingDependencyError
        If ``"compiled"`` was asked for and cannot be had.
    """
    obstacle, blas = compiled_obstacle(), numpys_openblas()
    if kind == "host":
        return gated(HostKernels)(backend, blas)
    if obstacle is not None or blas is None:
        error, why = obstacle or (DeviceError, "there is no BLAS")
        raise error(f"compiled kernels cannot run: {why}")
    with IMPORTS:
        from .compiled.kernels import CompiledKernels

    return gated(CompiledKernels)(backend, blas)
