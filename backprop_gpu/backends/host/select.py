"""NumPy's kernel sets by name, and what keeps the compiled one from running."""

from __future__ import annotations

import importlib.util

from ...errors import DeviceError, MissingDependencyError
from ..gate import gated
from ..protocol import Device, Kernels
from .kernels import HostKernels
from .openblas import numpys_openblas


def compiled_obstacle() -> tuple[type[Exception], str] | None:
    """Why compiled kernels cannot run here, as an error; None where they can."""
    if importlib.util.find_spec("numba") is None:
        return MissingDependencyError, "numba is not installed; pip install numba"
    if numpys_openblas() is None:
        return DeviceError, "NumPy does not use the OpenBLAS of its PyPI wheels; use kernels: host"
    return None


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
    from .compiled.kernels import CompiledKernels

    return gated(CompiledKernels)(backend, blas)
