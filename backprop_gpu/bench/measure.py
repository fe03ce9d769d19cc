"""Workloads times peers: start the processes, verify equal work, go around, and gather rows of results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import DeviceError, MissingDependencyError
from .equal import bound, difference
from .peers import PeerSpec
from .process import Worker
from .rounds import interleave, summary
from .workloads import Workload

UNSET: dict[str, str | None] = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
REST = 0.1  # seconds; OpenMP and OpenBLAS threads spin for less than that before they sleep


class Measurement:
    """The processes of a run: peers, and one or two of the machine (the second with a faster BLAS core type, if any).

    A context manager: the processes end with it.
    """

    def __init__(self, specs: Sequence[PeerSpec], *, unset_openblas: bool = False) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.workers: dict[str, Worker] = {}
        self.problems: dict[str, str] = {}  # why a peer takes no part
        self._variables = UNSET if unset_openblas else {}

    def __enter__(self) -> Measurement:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.machines = ["floor"]
        self.workers["floor"] = machine = Worker(".floor:Machine", variables=self._variables)
        if machine.ask("hint"):
            self.machines.append("floor, AVX-512")
            faster = UNSET | {"OPENBLAS_CORETYPE": "SkylakeX"}
            self.workers[self.machines[1]] = Worker(".floor:Machine", variables=faster)
        for name, spec in self.specs.items():
            try:
                self.workers[name] = Worker(".desk:Desk", spec, variables=self._variables)
            except (DeviceError, MissingDependencyError) as error:
                self.problems[name] = str(error)

    def __exit__(self, *unused: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def pools(self) -> dict[str, list[str]]:
        """Thread pools and BLAS core type of every process that lives."""
        found = {}
        for name, worker in self.workers.items():
            with contextlib.suppress(DeviceError):
                found[name] = worker.ask("pools")
        return found

    def rows(self, work: Workload, mode: str, rounds: int, at_least: float) -> Iterator[dict[str, Any]]:
        """One row of results a peer; those that take no part have a ``note`` instead of figures."""
        ready = []
        for name in self.specs:
            try:
                note = self.problems.get(name) or self._obstacle(name, work, mode)
                if note is None:
                    self.workers[name].ask("prepare", work, mode)
                    self.workers[name].ask("turn", 0.0)  # compiles, and warms up
                    ready.append(name)
            except DeviceError as error:
                note = f"failed: {error}"
            if note is not None:
                yield {"workload": work.name, "peer": name, "note": note}
        if not ready:
            return
        for name in self.machines:
            self.workers[name].ask("prepare", work, mode)

        def turn(name: str) -> float:
            try:
                return float(self.workers[name].ask("turn", at_least))
            except DeviceError as error:
                raise DeviceError(f"{name} failed after its first turn: {error}") from None

        seconds = interleave([*self.machines, *ready], rounds, turn, rest=REST)
        floor = None if work.target else min(min(seconds[name]) for name in self.machines)
        for name in ready:
            found = summary(seconds[name], seconds[ready[0]])
            share = None if floor is None else floor / found["median"]
            figures = found | {"floor": floor, "of_floor": share, "base": ready[0]}
            yield {"workload": work.name, "peer": name} | figures | {"note": self.workers[name].ask("note")}

    def _obstacle(self, name: str, work: Workload, mode: str) -> str | None:
        """Why a peer's figures would mean nothing here; None if they do."""
        spec, peer, machine = self.specs[name], self.workers[name], self.workers["floor"]
        if work.activation not in spec.activations:
            return f"has no {work.activation}"
        if mode == "inference":
            got, (want, disturbed) = peer.ask("probabilities", work), machine.ask("probabilities", work)
        else:
            got, (want, disturbed) = peer.ask("losses", work), machine.ask("losses", work, spec.adam)
        wrong = difference(got, want, bound(want, disturbed))
        return None if wrong is None else f"not equal work: {wrong}"
