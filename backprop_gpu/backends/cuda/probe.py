"""Does CUDA work here through CuPy, and if not, why and what helps?

An installed CuPy says little: ``import cupy`` succeeds without a driver, and NVRTC and cuBLAS are loaded at their first
use. So :func:`probe` goes through what a training step needs, in that order, up to real numbers from the card.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...devices import one_line
from ..locks import IMPORTS

# The distributions that unpack into the same folder "cupy"; the last one installed wins, file by file.
_WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-7-0", "cupy-rocm-7-1", "amd-cupy")

# Numbers of the CUDA runtime API, cudaError_t.
_OUT_OF_MEMORY, _INSUFFICIENT_DRIVER, _NO_DEVICE = 2, 35, 100

# CuPy 14 is the first whose main namespace has the standard's names (astype, concat, permute_dims, bool, ...).
_OLDEST = 14

_ASK_NVIDIA_SMI = "run nvidia-smi; if it fails too, restart the machine or reinstall the NVIDIA driver"


@dataclass(frozen=True)
class Probe:
    """What was found: ``ok``, else the first thing that fails (``reason``) and what to do about it (``fix``)."""

    ok: bool
    reason: str
    fix: str = ""


def probe(device: int = 0) -> Probe:
    """Try CUDA device ``device`` as a training step would use it. Never raises and never warns.

    Returns
    -------
    Probe
        The first of these that fails: one CuPy wheel, ``import cupy``, its version, a driver that is new enough, the
        device, the card's generation, NVRTC, cuBLAS, the right numbers in float32.
    """
    with IMPORTS:
        wheels, failure = installed_wheels(), None
        if "cupy" not in sys.modules and len(wheels) < 2:
            failure = _import_failure(tuple(sys.path))
    if len(wheels) > 1:
        reason = f"{len(wheels)} CuPy packages are installed over each other ({', '.join(wheels)})"
        return Probe(False, reason, _swap(driver_version()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if failure is not None:
            return _import_failed(failure, wheels)
        try:
            import cupy
        except Exception as error:  # a broken installation may raise anything
            return _import_failed(error, wheels)
        return examine(cupy, device)


def examine(cp: Any, device: int = 0) -> Probe:
    """The checks of :func:`probe` that need the module, in order, on ``cp`` (cupy)."""
    for check in (_check_version, _check_driver, _check_card, check_nvrtc, check_cublas, _check_numbers):
        fault = check(cp, device)
        if fault is not None:
            return fault
    return Probe(True, f"CUDA works on {card_name(cp, device)} (cuda:{device}){_tf32_note()}")


def installed_wheels() -> list[str]:
    """Names of the installed distributions that provide the module ``cupy``."""
    return list(_wheels_on(tuple(sys.path)))


@functools.cache
def _wheels_on(path: tuple[str, ...]) -> tuple[str, ...]:
    """Those in these folders, looked for once: every estimator that is fitted asks."""
    from importlib import metadata

    found = []
    for name in _WHEELS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            found.append(name)
    return tuple(found)


@functools.cache
def _import_failure(path: tuple[str, ...]) -> Exception | None:
    """What importing CuPy raises with these folders; tried once, since every network that is made asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("cupy")
        except Exception as error:  # a broken installation may raise anything
            return error.with_traceback(None)
    return None


def driver_version() -> int:
    """Newest CUDA the installed NVIDIA driver supports (13020 for 13.2), asked of the driver alone; 0 without one."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        status = driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value if status == 0 else 0


def _install(cuda: int) -> str:
    """The command that installs the CuPy for a driver (or CuPy) of CUDA version ``cuda``; the newest if 0 = unknown."""
    return f'pip install -U "cupy-{"cuda12x" if 0 < cuda < 13000 else "cuda13x"}[ctk]"'


def dotted(cuda: int) -> str:
    """13020 -> ``"13.2"``."""
    return f"{cuda // 1000}.{cuda % 1000 // 10}"


def _reinstall(wheels: Sequence[str], cuda: int) -> str:
    if wheels:
        return f"pip install --force-reinstall --no-deps {wheels[0]}"
    return f"{_install(cuda)} in a new environment"


def _swap(cuda: int) -> str:
    """The commands that replace every installed CuPy by the one for ``cuda``."""
    return f"pip uninstall -y {' '.join(installed_wheels()) or 'cupy'}, then {_install(cuda)}"


def _import_failed(error: Exception, wheels: Sequence[str]) -> Probe:
    driver = driver_version()
    absent = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
    if wheels or not absent:
        reason = f"CuPy is installed but cannot be imported ({one_line(error)})"
        return Probe(False, reason, _reinstall(wheels, driver))
    if driver:
        reason = f"CuPy is not installed (the NVIDIA driver is there, for CUDA up to {dotted(driver)})"
        return Probe(False, reason, _install(driver))
    fix = f"with an NVIDIA GPU, install its driver and then {_install(0)}"
    return Probe(False, "CuPy is not installed and there is no NVIDIA driver", fix)


def _check_version(cp: Any, device: int) -> Probe | None:
    version = getattr(cp, "__version__", None)
    if version is None:  # Python takes a leftover folder "cupy" for a package
        return Probe(False, "CuPy is installed incompletely", _reinstall(installed_wheels(), driver_version()))
    if int(version.partition(".")[0]) >= _OLDEST:
        return None
    fix = _swap(cp.cuda.runtime.runtimeGetVersion())
    return Probe(False, f"CuPy {version} is too old; {_OLDEST}.0 or newer is needed", fix)


def _check_driver(cp: Any, device: int) -> Probe | None:
    try:
        count = cp.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _no_devices(cp, error)
    if count == 0:
        return _hidden()
    if device >= count:
        visible = "only cuda:0 is" if count == 1 else f"cuda:0 to cuda:{count - 1} are"
        return Probe(False, f"there is no CUDA device {device}: {visible} visible{_masked()}", "use cuda:0")
    return None


def _no_devices(cp: Any, error: Exception) -> Probe:
    status = getattr(error, "status", None)
    if status == _NO_DEVICE:
        return _hidden()
    driver, built = cp.cuda.runtime.driverGetVersion(), cp.cuda.runtime.runtimeGetVersion()
    if status == _INSUFFICIENT_DRIVER and driver == 0:
        fix = "install the NVIDIA driver (a container must be started with its GPUs, as with --gpus all)"
        return Probe(False, "CuPy is installed but no NVIDIA driver was found", fix)
    if status == _INSUFFICIENT_DRIVER and driver // 1000 < built // 1000:
        reason = (
            f"the NVIDIA driver is too old: it supports CUDA up to {dotted(driver)}, CuPy needs CUDA {built // 1000}"
        )
        other = f", or {_swap(driver)}" if driver // 1000 == 12 else ""
        return Probe(False, reason, f"update the NVIDIA driver{other}")
    fix = _memory_fix(error) or _ASK_NVIDIA_SMI
    return Probe(False, f"the NVIDIA driver does not start CUDA ({one_line(error)})", fix)


def _hidden() -> Probe:
    fix = "check that nvidia-smi lists a GPU; a container must be started with its GPUs (--gpus all)"
    if _masked():
        fix = "unset CUDA_VISIBLE_DEVICES, or let it name a GPU that nvidia-smi lists"
    return Probe(False, f"the NVIDIA driver is there but no CUDA device is visible{_masked()}", fix)


def _masked() -> str:
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if mask is None else f" (CUDA_VISIBLE_DEVICES={mask!r})"


def _check_card(cp: Any, device: int) -> Probe | None:
    """CUDA 13 dropped the cards before Turing (compute capability 7.5) that its driver still runs."""
    try:
        capability = int(cp.cuda.Device(device).compute_capability)
    except Exception as error:
        fix = _memory_fix(error) or _ASK_NVIDIA_SMI
        return Probe(False, f"CUDA device {device} cannot be opened ({one_line(error)})", fix)
    if capability >= 75 or cp.cuda.runtime.runtimeGetVersion() < 13000:
        return None
    card = f"{card_name(cp, device)} (compute capability {capability // 10}.{capability % 10})"
    fix = _swap(12000)
    return Probe(False, f"{card} is older than what CUDA 13 supports", fix)


def check_nvrtc(cp: Any, device: int = 0) -> Probe | None:
    """None if NVRTC, which compiles CuPy's kernels at run time, can be loaded."""
    try:
        cp.cuda.nvrtc.getVersion()
    except Exception as error:
        fix = _install(cp.cuda.runtime.runtimeGetVersion())
        return Probe(False, f"NVRTC, CUDA's run-time compiler, cannot be loaded ({one_line(error)})", fix)
    return None


def check_cublas(cp: Any, device: int = 0) -> Probe | None:
    """None if cuBLAS, which multiplies matrices, can be loaded and gives a handle."""
    try:
        _ = cp.cuda.Device(device).cublas_handle
    except Exception as error:
        fix = _memory_fix(error) or _install(cp.cuda.runtime.runtimeGetVersion())
        return Probe(False, f"cuBLAS, CUDA's matrix product, cannot be used ({one_line(error)})", fix)
    return None


def _check_numbers(cp: Any, device: int) -> Probe | None:
    """One product, one elementwise kernel and one reduction, on small integers: exact in float32 and in TF32."""
    try:
        with cp.cuda.Device(device):
            A = cp.asarray(np.array([[1, 2], [3, 4]], dtype=np.float32))
            got = [float(x) for x in cp.asnumpy(cp.sum(cp.exp(cp.matmul(A, A) * 0) + cp.matmul(A, A), axis=0))]
    except Exception as error:
        fix = _memory_fix(error) or "python -c 'import cupy; cupy.show_config()' shows what CuPy found"
        return Probe(False, f"a first operation on CUDA device {device} fails ({one_line(error)})", fix)
    if got != [24.0, 34.0]:
        reason = f"CUDA device {device} computes wrong numbers ({got} where [24.0, 34.0] is right)"
        return Probe(False, reason, "reinstall the NVIDIA driver and CuPy; if that does not help, the card is faulty")
    return None


def _memory_fix(error: Exception) -> str:
    """What helps if the card has no memory left; empty for another error. A context needs some hundred MB itself, and
    its failure is no MemoryError: the runtime gives its number, cuBLAS a text.
    """
    full = isinstance(error, MemoryError) or getattr(error, "status", None) == _OUT_OF_MEMORY
    if full or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
        return "free memory on the card; nvidia-smi shows which processes hold it"
    return ""


def card_name(cp: Any, device: int) -> str:
    """What the card calls itself."""
    name = cp.cuda.runtime.getDeviceProperties(device)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _tf32_note() -> str:
    """CuPy reads CUPY_TF32 at its first float32 product; a precision is never lowered without a word."""
    value = os.environ.get("CUPY_TF32", "").strip()
    if value in ("", "0"):
        return ""
    return f"; CUPY_TF32={value} is set, so float32 products keep only 10 bits of their factors: unset it for float32"
