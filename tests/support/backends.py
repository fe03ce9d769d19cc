"""Which devices and kernel sets the tests run on, as data.

Always NumPy with its kernel sets (native: a skip where its library is not), and array_api_strict with two of its
devices; torch where it is installed;
CuPy where the probe says that CUDA works, else as a skip that gives the probe's reason; and the fast CUDA kernels
emulated on the host (``emulated_cuda``), where there is g++. The environment variable
``BACKPROP_GPU_TEST_BACKENDS`` names them instead: ``numpy,cupy:0`` or, one kernel set alone, ``numpy-host``.

Nothing optional is imported here: a CUDA machine may have CuPy and no array_api_strict.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.emulated_cuda import EmulatedBackend
from support.emulated_cuda import obstacle as emulation_obstacle

from backprop_gpu.backends import Backend, get_backend
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.cuda.probe import probe
from backprop_gpu.backends.protocol import Kernels
from backprop_gpu.parity.claims import bounds_of, kind_of
from backprop_gpu.parity.oracle.bounds import Bounds

ENVIRONMENT_VARIABLE = "BACKPROP_GPU_TEST_BACKENDS"

# The kernel sets of a namespace; one that is not listed has the reference alone and its name says no more.
KERNELS = {"numpy": ("reference", "native"), "cupy": ("reference", "cuda"), "emulated": ("cuda",)}


@dataclass(frozen=True)
class Case:
    """One kernel set on one device."""

    device: str
    kind: str = "reference"

    @property
    def namespace(self) -> str:
        return self.device.partition(":")[0]

    def bounds(self, dtype: str) -> Bounds:
        """What errors this device may make."""
        return bounds_of(kind_of(self.backend, self.kernels()), "fp64" if dtype == "float64" else "fp32")

    @property
    def backend(self) -> Backend:
        return _backend(self.device)

    def kernels(self) -> Kernels:
        return self.backend.kernels(self.kind)

    def put(self, host: Any, dtype: str | None = None) -> Any:
        """A copy on the device."""
        return self.backend.asarray(host, dtype)

    def get(self, x: Any) -> np.ndarray:
        """A copy on the host."""
        return self.backend.to_host(x)

    def __str__(self) -> str:
        return f"{self.device}-{self.kind}" if self.namespace in KERNELS else self.device


@cache
def _backend(device: str) -> Backend:
    return EmulatedBackend() if device == "emulated" else get_backend(device)


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _names() -> list[str]:
    given = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if given.strip():
        return [name.strip() for name in given.split(",") if name.strip()]
    torch = ["torch:cpu"] if _installed("torch", "array_api_compat") else []
    return ["numpy", "array_api_strict", "array_api_strict:device1", *torch, "cupy:0", "emulated"]


def _cases(name: str) -> list[Case]:
    device, _, kind = name.partition("-")
    kinds = KERNELS.get(device.partition(":")[0], ("reference",))
    if kind and kind not in kinds:
        raise pytest.UsageError(f"{ENVIRONMENT_VARIABLE}: {device} has no kernels {kind!r}; it has {', '.join(kinds)}")
    return [Case(device, k) for k in ([kind] if kind else kinds)]


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    if case.kind == "native":
        reason = unavailable_reason()
        return [] if not reason else [pytest.mark.skip(reason=reason)]
    if case.namespace == "emulated":
        missing = emulation_obstacle()
        return [] if missing is None else [pytest.mark.skip(reason=missing)]
    if case.namespace != "cupy":
        return []
    found = probe(int(case.device.partition(":")[2] or 0))
    marks = [pytest.mark.gpu]
    return marks if found.ok else [*marks, pytest.mark.skip(reason=f"{found.reason}; {found.fix}")]


CASES: tuple[Case, ...] = tuple(case for name in _names() for case in _cases(name))


def cases(*, without: Sequence[str] = ()) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize("case", cases())``; ``without``: namespaces to leave out."""
    return [pytest.param(c, id=str(c), marks=_marks(c)) for c in CASES if c.namespace not in without]
