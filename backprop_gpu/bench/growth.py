"""How our step time grows with width, depth, batch and rows, against how the operations grow. Reported, not judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .peers import PEERS
from .worker import Desk, Worker
from .workloads import Workload

DECADES = 2.0  # of FLOPs, up to the largest network, over which the exponent is fitted


def sweeps(largest: int = 2048) -> dict[str, list[tuple[int, Workload]]]:
    """Networks along each axis; ``largest`` limits them (2048: width 2048, depth 32, batch 8192, 262,144 rows)."""

    def doubling(first: int, last: int) -> list[int]:
        return [first << k for k in range(64) if first << k <= last]

    def work(sizes: tuple[int, ...], m: int, rows: int = 0) -> Workload:
        return Workload("growth", sizes, m, rows or 16 * m)

    return {
        "width": [(n, work((n, n, n, 10), 128)) for n in doubling(16, largest)],
        "depth": [(d, work((128,) * (d + 1) + (10,), 128)) for d in doubling(1, max(largest // 64, 2))],
        "batch": [(m, work((256, 256, 256, 10), m)) for m in doubling(8, 4 * largest)],
        "rows": [(n, work((64, 64, 10), 64, n)) for n in doubling(1024, 128 * largest)],
    }


def exponent(flops: Sequence[float], seconds: Sequence[float]) -> float:
    """p in seconds ~ FLOPs^p, by least squares over the last decades."""
    x, y = np.log10(flops), np.log10(seconds)
    last = x >= x.max() - DECADES
    return float(np.polyfit(x[last], y[last], 1)[0])


def rows(rounds: int, at_least: float, largest: int = 2048) -> Iterator[dict[str, Any]]:
    """A row a network: median time of a step (along rows: of an epoch), and on an axis' last row its exponent."""
    worker = next(_fastest())
    try:
        for axis, points in sweeps(largest).items():
            flops, medians = [], []
            for value, work in points:
                mode = "epoch" if axis == "rows" else "step"
                worker.ask("prepare", work, mode)
                worker.ask("turn", 0.0)
                seconds = [float(worker.ask("turn", at_least)) for _ in range(rounds)]
                q1, median, q3 = (float(q) for q in np.quantile(seconds, [0.25, 0.5, 0.75]))
                flops.append(work.step_flops * (work.batches if mode == "epoch" else 1))
                medians.append(median)
                row = {"axis": axis, "value": value, "flops": flops[-1], "median": median, "q1": q1, "q3": q3}
                yield row if value != points[-1][0] else row | {"exponent": exponent(flops, medians)}
    finally:
        worker.close()


def _fastest() -> Iterator[Worker]:
    from ..errors import MissingDependencyError

    for spec in PEERS[:2]:
        try:
            yield Worker(Desk, spec)
        except MissingDependencyError:
            continue
