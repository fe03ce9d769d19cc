"""Workloads times peers: start the processes, verify equal work, go around, and gather rows of results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import DeviceError, MissingDependencyError
from .equal import bound, difference
from .floor import Machine
from .peers import PeerSpec
from .rounds import interleave, summaries
from .worker import Desk, Worker
from .workloads import Workload

UNSET: dict[str, str | None] = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
REST = 0.1  # seconds; OpenMP and OpenBLAS threads spin for less than that before they sleep
_FLOOR = "floor "
Row = dict[str, Any]


class Measurement:
    """The processes of a run: peers, and the machine's one or two (the second with the faster BLAS core type, if any).

    Use as a context manager. ``problems`` says why a peer takes no part; ``unequal`` is set by a failed verification.
    """

    def __init__(self, specs: Sequence[PeerSpec], *, unset_openblas: bool = False) -> None:
        self.peers: dict[str, Worker] = {}
        self.machines: dict[str, Worker] = {}
        self.problems: dict[str, str] = {}
        self.unequal = False
        self._specs, self._changes = specs, UNSET if unset_openblas else {}

    def __enter__(self) -> Measurement:
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self.machines[f"{_FLOOR}1"] = machine = Worker(Machine, changes=self._changes)
            if machine.ask("hint"):
                self.machines[f"{_FLOOR}2"] = Worker(Machine, changes={**UNSET, "OPENBLAS_CORETYPE": "SkylakeX"})
            for spec in self._specs:
                try:
                    self.peers[spec.name] = Worker(Desk, spec, changes=self._changes)
                except (DeviceError, MissingDependencyError) as error:
                    self.problems[spec.name] = str(error)
            stack.pop_all()
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in (*self.peers.values(), *self.machines.values()):
            worker.close()

    def pools(self) -> dict[str, list[str]]:
        """Thread pools and BLAS core type of every process."""
        return {name.strip(): worker.ask("about") for name, worker in {**self.machines, **self.peers}.items()}

    def rows(self, work: Workload, mode: str, rounds: int, at_least: float) -> Iterator[Row]:
        """One row of results a peer; those that take no part have a ``note`` instead of figures."""
        for name, problem in self.problems.items():
            yield {"workload": work.name, "peer": name, "note": problem}
        ready, firsts = [], {}
        for name in self.peers:
            try:
                note = self._obstacle(name, work, mode)
                if note is None:
                    self.peers[name].ask("prepare", work, mode)
                    firsts[name] = self.peers[name].ask("turn", 0.0)
                    ready.append(name)
                    continue
            except DeviceError as error:
                note = f"failed: {error}"
            yield {"workload": work.name, "peer": name, "note": note}
        if not ready:
            return
        for machine in self.machines.values():
            machine.ask("prepare", work, mode)
        everybody = {**self.machines, **self.peers}
        seconds = interleave(
            [*self.machines, *ready], rounds, lambda name: float(everybody[name].ask("turn", at_least)), rest=REST
        )
        floor = None if work.target else min(min(seconds[name]) for name in self.machines)
        for name, found in summaries({name: seconds[name] for name in ready}, ready[0]).items():
            yield {
                "workload": work.name,
                "peer": name,
                "base": ready[0],
                **vars(found),
                "first": firsts[name],
                "floor": floor,
                "of_floor": None if floor is None else floor / found.median,
                "note": self.peers[name].ask("note"),
            }

    def _obstacle(self, name: str, work: Workload, mode: str) -> str | None:
        """Why a peer's figures would mean nothing here; None if they do."""
        peer, machine = self.peers[name], next(iter(self.machines.values()))
        if not peer.ask("can", work):
            return f"has no {work.activation}"
        if mode == "inference":
            got, (want, disturbed) = peer.ask("probabilities", work), machine.ask("probabilities", work)
        else:
            got, (want, disturbed) = peer.ask("losses", work), machine.ask("losses", work, peer.ask("adam"))
        wrong = difference(got, want, bound(want, disturbed))
        if wrong is None:
            return None
        self.unequal = True
        return f"not equal work: {wrong}"
