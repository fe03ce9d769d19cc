"""Which of NumPy's kernel sets runs, and why not a faster one."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ...errors import DeviceError, MissingDependencyError
from ..protocol import Device, Kernels
from .kernels import HostKernels
from .openblas import numpys_openblas


def compiled_obstacle() -> tuple[type[Exception], str] | None:
    """Why compiled kernels cannot run here, as an error; None where they can."""
    if importlib.util.find_spec("numba") is None:
        return MissingDependencyError, "numba is not installed; pip install 'backprop-gpu[fast]'"
    if numpys_openblas() is None:
        return DeviceError, "NumPy does not use the OpenBLAS of its PyPI wheels; use kernels: host"
    return None


def _announce() -> None:
    """Say that the first import compiles, which takes seconds; numba keeps the result beside the package."""
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "compiled")
    if sys.stderr and not any(cache.rglob("layers.dense-*.nbi")):
        sys.stderr.write("backprop_gpu: compiling kernels for this machine, once: about 10 seconds\n")


def host_kernels(backend: Device, kind: str) -> Kernels:
    """``"host"``, ``"compiled"``, or ``"auto"``: compiled where it can be had.

    Raises
    ------
    DeviceError, MissingDependencyError
        If ``"compiled"`` was asked for and cannot be had.
    """
    if kind == "host":
        return HostKernels(backend)
    obstacle, blas = compiled_obstacle(), numpys_openblas()
    if obstacle is not None or blas is None:
        if kind == "compiled" and obstacle is not None:
            raise obstacle[0](f"compiled kernels cannot run: {obstacle[1]}")
        return HostKernels(backend)
    _announce()
    from .compiled.kernels import CompiledKernels

    return CompiledKernels(backend, blas)
