"""A card beside its limits and beside other libraries: each peer in a process of its own, equal work verified first.

Unlike on the CPU peers take no turns: each has the card and its memory to itself while it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError, MissingDependencyError
from .device_floor import floor
from .equal import bound, difference
from .output import duration
from .peers import PeerSpec
from .process import Worker
from .rounds import summary
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
        worker = Worker(".device_floor:DeviceMachine", device, variables=variables)
        try:
            found[precision] = float(worker.ask("product_rate", dtype))
            found["bandwidth"] = float(worker.ask("bandwidth"))
        finally:
            worker.close()
    return found


def measure(
    works: Sequence[Workload],
    specs: Sequence[PeerSpec],
    rates: dict[str, float],
    *,
    rounds: int = 5,
    at_least: float = 0.2,
    deadline: float = float("inf"),
) -> Iterator[Row]:
    """A row a peer and workload: times of a step, or a ``note`` that says why there are none.

    ``rates``: of :func:`limits`. ``deadline``, of ``time.monotonic``: nobody begins after it.
    """
    reference = Worker(".device_floor:DeviceMachine", "cpu", variables={})
    try:
        for spec in specs:
            yield from _peer(spec, works, reference, rates, rounds, at_least, deadline)
    finally:
        reference.close()


def _peer(
    spec: PeerSpec,
    works: Sequence[Workload],
    reference: Worker,
    rates: dict[str, float],
    rounds: int,
    at_least: float,
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
                worker = Worker(".desk:Desk", spec, variables=spec.variables)
            if worker is None or problem:
                yield row | {"note": problem}
                continue
            note = _obstacle(worker, reference, spec, work.alike or work)
            if note:
                yield row | {"note": note}
                continue
            worker.ask("prepare", work, "step")
            worker.ask("turn", 0.0)
            seconds = [float(worker.ask("turn", at_least)) for _ in range(rounds)]
            least = floor(work, rates[spec.precision], rates["bandwidth"])
            figures = summary(seconds, seconds)
            yield row | figures | {"floor": least, "of_floor": least / figures["median"], "note": ""}
        except (DeviceError, MissingDependencyError) as error:
            if worker is None:  # it cannot be had at all
                problem = str(error)
            yield row | {"note": problem or f"failed: {error}"}
    if worker is not None:
        worker.close()


def _obstacle(worker: Worker, reference: Worker, spec: PeerSpec, work: Workload) -> str:
    """Why a peer's figures would mean nothing; empty if they do."""
    got = worker.ask("losses", work)
    want, disturbed = reference.ask("losses", work, spec.adam)
    allowed = bound(want, disturbed) + LOOSER[spec.precision] * np.abs(want)
    wrong = difference(got, want, allowed)
    return "" if wrong is None else f"not equal work: {wrong}"


def lines(rows: Sequence[Row]) -> list[str]:
    """A short table: workload, peer, time of a step, times our best in that precision, share of the floor."""
    found = [f"{'':2} {'peer':20} {'step':>9} {'x ours':>7} {'of floor':>8}"]
    for name in dict.fromkeys(row["workload"] for row in rows):
        timed = [row for row in rows if row["workload"] == name and "median" in row]
        for row in sorted(timed, key=lambda row: row["median"]):
            ours = [r["median"] for r in timed if r["peer"].startswith("ours") and r["precision"] == row["precision"]]
            ratio = f"{row['median'] / min(ours):.2f}" if ours else ""
            share = f"{100 * row['of_floor']:.0f}%"
            found.append(f"{name:2} {row['peer']:20} {duration(row['median']):>9} {ratio:>7} {share:>8}")
        notes: dict[str, list[str]] = {}
        for row in rows:
            if row["workload"] == name and row["note"]:
                notes.setdefault(row["note"], []).append(row["peer"])
        found += [f"{name:2} {', '.join(peers)}: {note}" for note, peers in notes.items()]
    return found
