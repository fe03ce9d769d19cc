"""The size of a cache line, how much memory is available, and what becomes of memory that arrays free."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CACHE_LINE = 64  # bytes
KEPT_BYTES = 16 << 20  # of an array that is freed

# Files with a container's memory limit (control groups version 2 and 1). Its usage is not subtracted, since it counts
# the page cache too.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_bytes(meminfo: str = "/proc/meminfo", limits: Sequence[str] = LIMITS) -> int | None:
    """Bytes available to this process, swap included, at most its container's limit (Linux); None elsewhere."""
    try:
        lines = (line.partition(":") for line in Path(meminfo).read_text(encoding="ascii").splitlines())
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in lines}
        free = found["MemAvailable"] + found.get("SwapFree", 0)
    except (OSError, KeyError, ValueError):
        return None
    for path in limits:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free = min(free, int(Path(path).read_text(encoding="ascii")))
    return free


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory of arrays that are freed, for the next ones; it does so from the first large one on.

    Before that, every temporary array of more than 128 KB is new memory, whose pages the system has to fill with zeros:
    a step of the reference kernels took up to six times as long. No page of this array is touched.
    """
    np.empty(KEPT_BYTES, np.uint8)
