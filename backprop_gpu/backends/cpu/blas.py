"""The BLAS behind NumPy: which one, for which processor its kernels are, how many threads, and what would be faster."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# OpenBLAS core types without AVX-512 kernels, which some OpenBLAS releases take on processors newer than they know
# (OpenMathLib/OpenBLAS#6029), and what a processor must report before the AVX-512 ones may be suggested.
_AVX2_CORES = ("Haswell", "Zen")
_AVX512_CORE = "SkylakeX"
_AVX512_FLAGS = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})


@dataclass(frozen=True)
class Blas:
    """NumPy's BLAS. What cannot be found out is None.

    Attributes
    ----------
    name, version : str or None
        Such as ``"openblas"``, ``"0.3.31"``; ``"mkl"``; ``"accelerate"``.
    core : str or None
        The processor type whose kernels run (OpenBLAS and BLIS only), such as ``"Haswell"``.
    threads : int or None
        How many threads a product may use.
    """

    name: str | None
    version: str | None = None
    core: str | None = None
    threads: int | None = None


def blas() -> Blas:
    """NumPy's BLAS as this process has loaded it (``threadpoolctl``), else as NumPy was built."""
    try:
        import threadpoolctl
    except ImportError:
        return built_blas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threadpoolctl warns about OpenMP libraries that do not concern NumPy
        return loaded_blas(threadpoolctl.threadpool_info()) or built_blas()


def loaded_blas(pools: Sequence[dict[str, Any]]) -> Blas | None:
    """NumPy's entry among what ``threadpoolctl.threadpool_info()`` gives; None if it lists no BLAS."""
    found = [pool for pool in pools if pool.get("user_api") == "blas"]
    if not found:
        return None
    # SciPy and others bring a BLAS of their own; NumPy's lies in its own folder, or is the only one there.
    numpys = [pool for pool in found if "numpy" in Path(str(pool.get("filepath", ""))).parent.name]
    pool = (numpys or found)[0]
    return Blas(pool.get("internal_api"), pool.get("version"), pool.get("architecture"), pool.get("num_threads"))


def built_blas() -> Blas:
    """What NumPy was built against: no core type and no thread count, which only the loaded library knows."""
    built: Any = np.show_config(mode="dicts")
    entry = built.get("Build Dependencies", {}).get("blas", {})
    return Blas(entry.get("name"), entry.get("version"))


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str]:
    """Instruction sets the processor reports (Linux on x86); empty elsewhere."""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def core_hint(found: Blas, flags: Collection[str]) -> str:
    """One line on a faster OpenBLAS core type, or an empty string.

    A core type is suggested only if the processor reports its instruction sets (``flags``, from :func:`cpu_flags`).
    """
    if found.name != "openblas" or found.core not in _AVX2_CORES or not _AVX512_FLAGS.issubset(flags):
        return ""
    gain = "which can double the rate of float32 products"
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    if chosen:
        return f"OPENBLAS_CORETYPE={chosen} keeps OpenBLAS from this CPU's AVX-512 instructions, {gain}: unset it"
    return (
        f"OpenBLAS runs its {found.core} kernels and leaves out this CPU's AVX-512 instructions, {gain}:"
        f" set OPENBLAS_CORETYPE={_AVX512_CORE} before Python starts"
    )


def usable_cores(quota: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Processors this process may run on, and no more than its container may use of their time (Linux)."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        allowed, period = Path(quota).read_text(encoding="ascii").split()
        return max(1, min(cores, int(allowed) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
