"""How our step time grows with width, depth, batch and rows, against how the operations grow. Reported, not gated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .interleaved import summary
from .peers.spec import PeerSpec
from .worker_process import WorkerProcess
from .workloads import Workload

DECADES = 2.0  # of FLOPs, up to the largest network, over which the exponent is fitted


def sweeps(largest: int) -> dict[str, list[tuple[int, Workload]]]:
    """Networks along each axis: widths to ``largest``, depths to 1/64 of it, batches to 4 times, rows to 128 times."""

    def doubling(first: int, last: int) -> list[int]:
        return [first << k for k in range(64) if first << k <= last]

    def work(m: int, *sizes: int, rows: int = 0) -> Workload:
        return Workload("scaling", sizes, m, rows or 16 * m)

    return {
        "width": [(n, work(128, n, n, n, 10)) for n in doubling(16, largest)],
        "depth": [(d, work(128, *[128] * (d + 1), 10)) for d in doubling(1, max(largest // 64, 2))],
        "batch": [(m, work(m, 256, 256, 256, 10)) for m in doubling(8, 4 * largest)],
        "rows": [(n, work(64, 64, 64, 10, rows=n)) for n in doubling(1024, 128 * largest)],
    }


def exponent(flops: Sequence[float], seconds: Sequence[float]) -> float:
    """p in seconds ~ FLOPs^p, by least squares over the last decades."""
    x, y = np.log10(flops), np.log10(seconds)
    last = x >= x.max() - DECADES
    return float(np.polyfit(x[last], y[last], 1)[0])


def rows(
    repeats: int, min_time: float, largest: int = 2048, variables: Mapping[str, str | None] | None = None
) -> Iterator[dict[str, Any]]:
    """A row a network: median time of a step (along rows: of an epoch), and on an axis' last row its exponent."""
    ours = PeerSpec("ours", ".ours:Ours", {"kernels": "auto"})
    worker = WorkerProcess(".network_worker:NetworkWorker", ours, variables=variables or {})
    try:
        for axis, points in sweeps(largest).items():
            flops, medians, mode = [], [], "epoch" if axis == "rows" else "step"
            for value, work in points:
                worker.call("prepare", work, mode)
                worker.call("measure", 0.0)
                seconds = [float(worker.call("measure", min_time)) for _ in range(repeats)]
                row = {"axis": axis, "value": value, **summary(seconds, seconds)}
                flops.append(work.step_flops * (work.batches if mode == "epoch" else 1))
                medians.append(row["median"])
                yield row | {"flops": flops[-1], "exponent": exponent(flops, medians) if len(flops) > 1 else None}
    finally:
        worker.close()
