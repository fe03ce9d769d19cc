"""The device and the kernels of a network: by name, from the environment, or ``auto``, each with its reason."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..devices import FORMS, RENAMED_KERNEL_SETS, DeviceSpec, requested
from ..errors import DeviceError
from .base import Backend
from .cpu.blas import usable_cores
from .cpu.device import CpuBackend
from .cpu.library import unavailable_reason
from .locks import IMPORTS
from .namespaces import StrictBackend, TorchBackend

_LOG = logging.getLogger("backprop_gpu.backends")  # to standard error, unless a program says otherwise


@dataclass(frozen=True)
class Selection:
    """Where a network runs.

    Attributes
    ----------
    backend : Backend
        Its ``reason`` says why this device.
    kernels : str
        A name that ``backend.kernels`` takes, never ``"auto"``.
    because : str
        Why these kernels.
    """

    backend: Backend
    kernels: str
    because: str


def select(
    sizes: Sequence[int],
    dtype: str = "float32",
    *,
    device: str | DeviceSpec | Backend | None = None,
    kernels: str = "auto",
) -> Selection:
    """The device and the kernels of a network: the only place where ``auto`` is given a meaning.

    The answer depends on the network, the machine and what is installed, not on the rows or the epochs of one run. So
    a configuration, a ``DenseNet``, an estimator and a file that is read again agree, and a network predicts with what
    it was trained with.

    Parameters
    ----------
    sizes : sequence of int
        Units per layer, n_0 .. n_L.
    dtype : str, default "float32"
    device : str, DeviceSpec, Backend or None
        As :func:`get_backend` takes it.
    kernels : str, default "auto"
        A name is taken as it is; ``Backend.kernels`` refuses one that does not run there.

    Raises
    ------
    DeviceError, MissingDependencyError
        As :func:`get_backend`.
    """
    backend = get_backend(device, sizes=sizes, dtype=dtype)
    now = RENAMED_KERNEL_SETS.get(kernels, kernels)
    if now != kernels and (now != "native" or "native" in backend.kernel_sets):
        _LOG.warning("kernels: %s is now %r; write that, or 'auto'", kernels, now)
        # The old CPU sets ran without a compiler too, which 'native' does not.
        kernels = "auto" if now == "native" else now
    if kernels != "auto":
        return Selection(backend, kernels, f"{kernels} was asked for")
    return Selection(backend, *fastest_kernels(backend))


def fastest_kernels(backend: Backend) -> tuple[str, str]:
    """The kernel set that ``auto`` means on a device, and why not a faster one."""
    if "native" not in backend.kernel_sets:
        return "reference", "the formulas, for any device"
    reason = unavailable_reason()
    return ("reference", reason) if reason else ("native", "the fastest that is there")


# Estimates, good to a factor of about two; they only settle which of two devices `auto` takes.
# CPU: NumPy with OpenBLAS on 2 cores of an AMD EPYC, float32, Adam: 784-512-256-10 with m=128 took 2.5 ms (61 GFLOP/s
# a core), 1024-2048-2048-10 with m=1024 took 179 ms (96 with AVX2 kernels), and 30-64-32-2 with m=32, which is all
# overhead, 49 us for its 11 kernel calls.
_CPU_FLOPS_PER_CORE = 60e9
_CPU_SECONDS_PER_CALL = 5e-6
# CUDA: estimates that were not measured on a card. CuPy takes about 20 us to launch one operation from Python, and a
# plain step has about 20 a layer (784-512-512-10: 60 launches, 1.2 ms). The rate is that of a mid-range card.
_CUDA_FLOPS = 20e12
_CUDA_SECONDS_PER_LAUNCH = 20e-6
_CUDA_LAUNCHES_PER_LAYER = 20
# A network does not know its batches when it is made, so its devices are compared on a step of so many examples.
EXAMPLES = 512


def step_flops(sizes: Sequence[int], m: int) -> int:
    """6 m sum n_l n_(l-1) - 2 m n_0 n_1: three products a layer, less the input's gradient, which is not computed."""
    products = [n * k for n, k in zip(sizes[1:], sizes, strict=False)]
    return 2 * m * (3 * sum(products) - products[0])


def predict_step_seconds(sizes: Sequence[int], dtype: str, kind: Literal["cpu", "cuda"]) -> float:
    """Rough seconds for a training step of EXAMPLES examples: FLOPs over an assumed rate, plus each call's overhead.

    float64 is taken to run at half the rate of float32 on both.
    """
    layers = len(sizes) - 1
    flops = step_flops(sizes, EXAMPLES) * (2 if dtype == "float64" else 1)
    if kind == "cuda":
        return flops / _CUDA_FLOPS + layers * _CUDA_LAUNCHES_PER_LAYER * _CUDA_SECONDS_PER_LAUNCH
    calls = 3 * layers + 2  # forward, input gradient and parameter gradient a layer; the loss; the update
    return flops / (_CPU_FLOPS_PER_CORE * usable_cores()) + calls * _CPU_SECONDS_PER_CALL


def get_backend(
    device: str | DeviceSpec | Backend | None = None, *, sizes: Sequence[int] | None = None, dtype: str = "float32"
) -> Backend:
    """The backend of a device; its ``reason`` says why it was taken.

    Parameters
    ----------
    device : str, DeviceSpec, Backend or None
        A name in the grammar of ``devices.py``; None and ``"auto"`` read BACKPROP_GPU_DEVICE, and choose where it is
        not set. A Backend is returned as it is.
    sizes : sequence of int, optional
        Units per layer of the network that will be trained: ``auto`` then takes CUDA only if a step of it is predicted
        to be faster there. Without it, wherever CUDA works.
    dtype : str, default "float32"
        The network's.

    Raises
    ------
    DeviceError
        When the name is unknown, or the device was asked for by name and cannot be used; says why and what helps.
    MissingDependencyError
        When the namespace was asked for and is not installed; names the command that installs it.
    """
    if isinstance(device, Backend):
        return device
    spec = requested(device)
    if spec.namespace == "auto":
        return _automatic(sizes, dtype)
    if spec.namespace == "numpy":
        return CpuBackend("the CPU was asked for")
    if spec.namespace == "cupy":
        return _cuda(spec)
    if spec.namespace == "array_api_strict":
        return StrictBackend(spec)
    if spec.namespace == "torch":
        return TorchBackend(spec)
    raise DeviceError(f"there is no device {str(spec)!r}; use one of {FORMS}")


def _automatic(sizes: Sequence[int] | None, dtype: str) -> Backend:
    with IMPORTS:
        from .cuda.device import CudaBackend
        from .cuda.probe import probe

    found = probe(0)
    if not found.ok:
        return CpuBackend(f"CUDA cannot be used: {found.reason}; {found.fix}")
    if sizes is None:
        return CudaBackend(0, found.reason)
    there, here = predict_step_seconds(sizes, dtype, "cuda"), predict_step_seconds(sizes, dtype, "cpu")
    figures = (
        f"a step of this network with {EXAMPLES} examples is predicted at {_time(there)} there"
        f" and {_time(here)} on the CPU"
    )
    if there < here:
        return CudaBackend(0, f"{found.reason}; {figures}")
    return CpuBackend(f"CUDA works, but {figures}; use --device cuda to override")


def _time(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.2g} ms"


def _cuda(spec: DeviceSpec) -> Backend:
    with IMPORTS:
        from .cuda.device import CudaBackend
        from .cuda.probe import probe

    index = int(spec.device or 0)
    found = probe(index)
    if not found.ok:
        raise DeviceError(f"{spec} cannot be used: {found.reason}; {found.fix}")
    return CudaBackend(index, f"{spec} was asked for; {found.reason}")


def require_owned(backend: Backend, name: str, x: Any) -> None:
    """Check that ``x`` is an array on the backend's device.

    Raises
    ------
    DeviceError
        Names ``name``, where ``x`` is, and where the model is; mixed devices otherwise fail far from their cause.
    """
    if backend.owns(x) and (backend.device is None or x.device == backend.device):
        return
    there = f"but the model is on {backend.name}"
    if isinstance(x, np.ndarray):
        raise DeviceError(f"{name} is a numpy array {there}; pass it through backend.asarray")
    if not hasattr(x, "shape") or not hasattr(x, "device"):
        raise DeviceError(f"{name} is a {type(x).__name__}, not an array, {there}; pass it through backend.asarray")
    here = f"{type(x).__module__.partition('.')[0]} device {x.device}"
    raise DeviceError(f"{name} is an array on {here} {there}; copy it to NumPy and pass that through backend.asarray")
