"""A card compared with its roofline and other libraries: each peer in its own process, equal work verified first.

Unlike on the CPU peers take no turns: each has the card and its memory to itself while it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from backprop_gpu.errors import DeviceError, MissingDependencyError

from .device_roofline import roofline
from .equal_work import bound, difference
from .interleaved import summary
from .output import duration
from .peers.spec import PeerSpec
from .worker_process import WorkerProcess
from .workloads import Workload

Row = dict[str, Any]
LOOSER = {"fp32": 0.0, "tf32": 0.02, "bf16": 0.1}  # of the loss, by which a lower precision may be off


def limits(device: str) -> dict[str, float]:
    """Rates of products (FLOP/s) by precision, and ``bandwidth`` (bytes/s).

    bf16 is measured with float16, which runs at the same rate, since CuPy has no bf16 of its own.
    """
    found = {}
    for precision, dtype, variables in (
        ("fp32", "float32", {"CUPY_TF32": None}),
        ("tf32", "float32", {"CUPY_TF32": "1"}),
        ("bf16", "float16", {"CUPY_TF32": None}),
    ):
        worker = WorkerProcess(".device_roofline:DeviceRoofline", device, variables=variables)
        try:
            found[precision] = float(worker.call("product_rate", dtype))
            found["bandwidth"] = float(worker.call("bandwidth"))
        finally:
            worker.close()
    return found


def measure(
    works: Sequence[Workload],
    specs: Sequence[PeerSpec],
    rates: dict[str, float],
    *,
    repeats: int = 5,
    min_time: float = 0.2,
    deadline: float = float("inf"),
) -> Iterator[Row]:
    """A row a peer and workload: times of a step, or a ``note`` that says why there are none.

    ``rates``: of :func:`limits`. ``deadline``, of ``time.monotonic``: nobody begins after it.
    """
    reference = WorkerProcess(".device_roofline:DeviceRoofline", "cpu", variables={})
    try:
        for spec in specs:
            yield from _peer(spec, works, reference, rates, repeats, min_time, deadline)
    finally:
        reference.close()


def _peer(
    spec: PeerSpec,
    works: Sequence[Workload],
    reference: WorkerProcess,
    rates: dict[str, float],
    repeats: int,
    min_time: float,
    deadline: float,
) -> Iterator[Row]:
    worker, problem = None, ""
    for work in works:
        if spec.workloads and work.name not in spec.workloads:
            continue
        row: Row = {"workload": work.name, "peer": spec.name, "precision": spec.precision}
        try:
            if not problem and time.monotonic() > deadline:
                problem = "left out: the time was up"
            if not problem and worker is None:
                worker = WorkerProcess(".network_worker:NetworkWorker", spec, variables=spec.variables)
            if worker is None or problem:
                yield row | {"note": problem}
                continue
            note = _unsupported_reason(worker, reference, spec, work.alike or work)
            if note:
                yield row | {"note": note}
                continue
            worker.call("prepare", work, "step")
            worker.call("measure", 0.0)
            seconds = [float(worker.call("measure", min_time)) for _ in range(repeats)]
            least = roofline(work, rates[spec.precision], rates["bandwidth"])
            figures = summary(seconds, seconds)
            yield row | figures | {"roofline": least, "of_roofline": least / figures["median"], "note": ""}
        except (DeviceError, MissingDependencyError) as error:
            if worker is None:  # it is not available
                problem = str(error)
            yield row | {"note": problem or f"failed: {error}"}
    if worker is not None:
        worker.close()


def _unsupported_reason(worker: WorkerProcess, reference: WorkerProcess, spec: PeerSpec, work: Workload) -> str:
    """Why a peer's figures would mean nothing; empty if they do."""
    got = worker.call("losses", work)
    want, perturbed = reference.call("losses", work, spec.adam)
    allowed = bound(want, perturbed) + LOOSER[spec.precision] * np.abs(want)
    wrong = difference(got, want, allowed)
    return "" if wrong is None else f"not equal work: {wrong}"


def lines(rows: Sequence[Row]) -> list[str]:
    """A short table: workload, peer, time of a step, times our best in that precision, share of the roofline."""
    found = [f"{'':2} {'peer':20} {'step':>9} {'x ours':>7} {'roofline':>8}"]
    for name in dict.fromkeys(row["workload"] for row in rows):
        timed = [row for row in rows if row["workload"] == name and "median" in row]
        for row in sorted(timed, key=lambda row: row["median"]):
            ours = [r["median"] for r in timed if r["peer"].startswith("ours") and r["precision"] == row["precision"]]
            ratio = f"{row['median'] / min(ours):.2f}" if ours else ""
            share = f"{100 * row['of_roofline']:.0f}%"
            found.append(f"{name:2} {row['peer']:20} {duration(row['median']):>9} {ratio:>7} {share:>8}")
        notes: dict[str, list[str]] = {}
        for row in rows:
            if row["workload"] == name and row["note"]:
                notes.setdefault(row["note"], []).append(row["peer"])
        found += [f"{name:2} {', '.join(peers)}: {note}" for note, peers in notes.items()]
    return found
