"""The data of ``backprop-gpu devices``: which devices exist, which is used and why, and what would be faster."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from ..devices import ENVIRONMENT_VARIABLE, one_line
from ..errors import DeviceError, MissingDependencyError
from .base import Backend
from .cpu.blas import blas, core_hint, cpu_flags, usable_cores
from .cpu.library import native_library
from .cpu.thread_pool import thread_pool
from .select import fastest_kernels, get_backend


@dataclass(frozen=True)
class Row:
    """One line: a name, what was found, and whether it works (None where that is no question)."""

    name: str
    text: str
    ok: bool | None = None


@dataclass(frozen=True)
class Section:
    """Rows under a title."""

    title: str
    rows: tuple[Row, ...]


def device_report(device: str | None = None) -> list[Section]:
    """Report on this machine: devices, the one chosen, processor, versions, hints.

    Never raises: a part that fails becomes a row that says so.

    Parameters
    ----------
    device : str, optional
        The device asked for; None and ``"auto"`` read BACKPROP_GPU_DEVICE, and choose where it is not set.
    """
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        ("Devices", _devices),
        ("Used", lambda: _used(device)),
        ("Processor", _processor),
        ("Versions", _versions),
        ("Hints", _hints),
    ]
    return [Section(title, tuple(_guarded(rows))) for title, rows in parts]


def _guarded(rows: Callable[[], list[Row]]) -> list[Row]:
    try:
        return rows()
    except Exception as error:  # a report on a broken installation must still reach its other parts
        return [Row("unknown", f"could not be found out ({one_line(error)})", ok=False)]


def _devices() -> list[Row]:
    rows = [Row("numpy", f"works on {usable_cores()} CPU cores", ok=True)]
    rows += _guarded(_cuda_devices)
    return [*rows, _optional("array_api_strict"), _optional("torch")]


def _cuda_devices() -> list[Row]:
    from .cuda.device import CudaBackend, device_count
    from .cuda.probe import probe

    first = probe(0)
    if not first.ok:
        return [Row("cupy", f"{first.reason}; {first.fix}", ok=False)]
    rows = []
    for index in range(device_count()):
        found = probe(index)
        card = "; ".join(f"{key} {value}" for key, value in CudaBackend(index).describe().items()) if found.ok else ""
        rows.append(Row(f"cupy:{index}", card or f"{found.reason}; {found.fix}", found.ok))
    return rows


def _optional(name: str) -> Row:
    try:
        backend = get_backend(name)
    except MissingDependencyError as error:
        return Row(name, f"optional; {error}", ok=None)
    except DeviceError as error:
        return Row(name, str(error), ok=False)
    return Row(backend.name, "works, for comparing devices", ok=True)


def _used(device: str | None) -> list[Row]:
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    explicit = device if device != "auto" or not asked else None  # auto reads the variable
    source = "--device" if explicit is not None else ENVIRONMENT_VARIABLE if asked else "default"
    rows = [Row("asked for", f"{explicit or asked or 'auto'} ({source})")]
    try:
        backend: Backend = get_backend(device)
    except (DeviceError, MissingDependencyError) as error:
        return [*rows, Row("used", str(error), ok=False)]
    return [*rows, Row("used", backend.name, ok=True), Row("because", backend.reason)]


def _processor() -> list[Row]:
    found, chosen = blas(), os.environ.get("OPENBLAS_CORETYPE")
    return [
        Row("CPU", f"{platform.machine()}, {usable_cores()} cores usable"),
        Row("BLAS", " ".join(part for part in (found.name, found.version) if part) or "unknown"),
        Row("BLAS core type", f"{found.core or 'unknown'}{f' (OPENBLAS_CORETYPE={chosen})' if chosen else ''}"),
        Row("BLAS threads", "unknown" if found.threads is None else str(found.threads)),
        _kernels(),
    ]


def _kernels() -> Row:
    kernels, because = fastest_kernels(get_backend("numpy"))
    if kernels != "native":
        return Row("kernels", f"{kernels}: NumPy; native kernels would be several times faster, but {because}", ok=True)
    found = f"C++ for {native_library().instruction_set}; whole epochs run without Python, on {_cores()}"
    return Row("kernels", f"{kernels}: {found}", ok=True)


def _cores() -> str:
    size = thread_pool().size
    return "one core" if size == 1 else f"up to {size} cores (OPENBLAS_NUM_THREADS=1: on one)"


def _versions() -> list[Row]:
    rows = [Row("Python", platform.python_version()), Row("platform", platform.platform())]
    for name in ("backprop-gpu", "numpy"):
        try:
            rows.append(Row(name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append(Row(name, "runs from its folder, without having been installed"))
    return rows


def _hints() -> list[Row]:
    from .cuda.probe import probe

    found = blas()
    rows = []
    hint = core_hint(found, cpu_flags())
    if hint:
        rows.append(Row("BLAS", hint))
    if found.core is None and importlib.util.find_spec("threadpoolctl") is None:
        rows.append(Row("BLAS", "pip install threadpoolctl shows the BLAS core type and threads"))
    cuda = probe(0)
    if not cuda.ok:
        rows.append(Row("CUDA", cuda.fix))
    return rows
