"""Workloads times peers: start the processes, verify equal work, alternate between peers, gather rows of results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from backprop_gpu.errors import DeviceError, MissingDependencyError

from . import peers
from .commits import PREFIX, commit_peer
from .equal_work import bound, difference
from .interleaved import interleave, summary
from .peers.spec import PeerSpec
from .worker_process import WorkerProcess
from .workloads import Workload

UNSET: dict[str, str | None] = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
REST = 0.1  # seconds; OpenMP and OpenBLAS threads spin for less than that before they sleep


def chosen(names: Sequence[str], mode: str) -> list[PeerSpec]:
    """The peers of these names (all, if none is given) that take part in a measurement, commits last.

    Raises
    ------
    ConfigError
        For an unknown name or commit.
    """
    own = [name for name in names if not name.startswith(PREFIX)]
    peers.check_names(own, [spec.name for spec in peers.PEERS])
    found = [spec for spec in peers.PEERS if (not names or spec.name in own) and mode in spec.modes]
    return [*found, *(commit_peer(name) for name in names if name.startswith(PREFIX))]


class Measurement:
    """The processes of a run: peers, and one or two of the machine (the second with a faster BLAS core type, if any).

    A context manager: the processes end with it.
    """

    def __init__(self, specs: Sequence[PeerSpec], *, unset_openblas: bool = False) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.workers: dict[str, WorkerProcess] = {}
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
        self.machines = ["roofline"]
        self.workers["roofline"] = machine = WorkerProcess(".roofline:RooflineWorker", variables=self._variables)
        if machine.call("hint"):
            self.machines.append("roofline, AVX-512")
            faster = UNSET | {"OPENBLAS_CORETYPE": "SkylakeX"}
            self.workers[self.machines[1]] = WorkerProcess(".roofline:RooflineWorker", variables=faster)
        for name, spec in self.specs.items():
            try:
                variables = {**self._variables, **spec.variables}
                home = ".network_worker:NetworkWorker"
                self.workers[name] = WorkerProcess(home, spec, variables=variables, path=spec.path)
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
                found[name] = worker.call("pools")
        return found

    def rows(self, work: Workload, mode: str, repeats: int, min_time: float) -> Iterator[dict[str, Any]]:
        """One row of results a peer; those that take no part have a ``note`` instead of figures."""
        ready = []
        for name in self.specs:
            try:
                note = self.problems.get(name) or self._unsupported_reason(name, work, mode)
                if note is None:
                    self.workers[name].call("prepare", work, mode)
                    self.workers[name].call("measure", 0.0)  # compiles, and warms up
                    ready.append(name)
            except DeviceError as error:
                note = f"failed: {error}"
            if note is not None:
                yield {"workload": work.name, "peer": name, "note": note}
        if not ready:
            return
        for name in self.machines:
            self.workers[name].call("prepare", work, mode)

        def measure(name: str) -> float:
            try:
                return float(self.workers[name].call("measure", min_time))
            except DeviceError as error:
                raise DeviceError(f"{name} failed in a later repeat: {error}") from None

        seconds = interleave([*self.machines, *ready], repeats, measure, rest=REST)
        roofline = None if work.target else min(min(seconds[name]) for name in self.machines)
        for name in ready:
            found = summary(seconds[name], seconds[ready[0]])
            share = None if roofline is None else roofline / found["median"]
            figures = found | {"roofline": roofline, "of_roofline": share, "base": ready[0]}
            yield {"workload": work.name, "peer": name} | figures | {"note": self.workers[name].call("note")}

    def _unsupported_reason(self, name: str, work: Workload, mode: str) -> str | None:
        """Why a peer's figures would mean nothing here; None if they do."""
        spec, peer, machine = self.specs[name], self.workers[name], self.workers["roofline"]
        if work.activation not in spec.activations:
            return f"has no {work.activation}"
        if mode == "inference":
            got, (want, perturbed) = peer.call("probabilities", work), machine.call("probabilities", work)
        else:
            got, (want, perturbed) = peer.call("losses", work), machine.call("losses", work, spec.adam)
        wrong = difference(got, want, bound(want, perturbed))
        return None if wrong is None else f"not equal work: {wrong}"
