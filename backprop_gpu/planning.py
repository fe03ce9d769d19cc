"""``backprop-gpu devices --plan``: what a configuration would run on, by which kernels and in how much memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from .backends.cpu.blas import blas
from .backends.device_report import Row, Section
from .backends.plan import KernelChoice, StepSpec
from .backends.protocol import Kernels
from .build import Design, design, step_settings
from .config import Config
from .data.streamed_table import StreamedTable
from .network.plan import MemoryPlan, amount, predict_memory, shape_step
from .network.spec import step_spec
from .training.placing import on_device


@dataclass(frozen=True)
class Plan:
    """What a training run would use.

    Attributes
    ----------
    spec : StepSpec
        The step's record.
    choices : list of KernelChoice
        What runs each operation; empty for a kernel set that does not report it.
    memory : MemoryPlan
    resident : bool
        Whether the data set is stored on the device.
    """

    design: Design
    kernels: Kernels
    spec: StepSpec
    choices: list[KernelChoice]
    memory: MemoryPlan
    resident: bool

    @property
    def recorded(self) -> str:
        """Whether steps are recorded, and how an epoch is run."""
        capture = self.choices[-1] if self.choices else KernelChoice("capture", None, "unknown")
        why = f" ({capture.why})" if capture.why else ""
        if capture.by == "Python":
            return f"no: every operation is called by Python{why}"
        return f"yes: {capture.by}{why}" + ("" if self.resident else ", a step at a time")

    def data(self) -> dict[str, Any]:
        """The plan as plain data, in bytes."""
        backend = self.design.runs.backend
        return {
            "name": self.design.config.name,
            "sizes": list(self.design.sizes),
            "dtype": self.spec.dtype,
            "examples": self.spec.m,
            "device": backend.name,
            "because": backend.reason,
            "kernels": type(self.kernels).__name__,
            "kernels_because": self.design.runs.because,
            "recorded": self.recorded,
            "data": "device" if self.resident else "host",
            "blas_threads": blas().threads if backend.name == "numpy" else None,
            "operations": [asdict(choice) for choice in self.choices],
            "memory": asdict(self.memory) | {"total": self.memory.total, "available": backend.available()},
        }

    def sections(self) -> list[Section]:
        """The plan for reading, as ``devices`` shows it."""
        d, backend = self.design, self.design.runs.backend
        network = [
            Row("network", f"{' - '.join(map(str, d.sizes))}, {d.config.dtype}, {self.spec.m} examples at a time"),
            Row("device", f"{backend.name}: {backend.reason}"),
            Row("kernels", f"{type(self.kernels).__name__} ({d.runs.because})"),
            Row("recorded", self.recorded),
            Row("data", "on the device" if self.resident else "on the host, copied batch by batch"),
        ]
        if backend.name == "numpy":
            found = blas()
            threads = "unknown (pip install threadpoolctl)" if found.threads is None else str(found.threads)
            network.append(Row("BLAS threads", threads))
        lines = self.memory.lines()
        there = backend.available()
        verdict = Row("available", "unknown" if there is None else amount(there), _fits(self.memory, there))
        return [
            Section(f"Plan of {d.config.name}", tuple(network)),
            Section("Operations", tuple(_rows(self.choices))),
            Section("Memory", (*(Row(name, text) for name, text in lines.items()), verdict)),
        ]


def _fits(memory: MemoryPlan, there: int | None) -> bool | None:
    return None if there is None else memory.total <= there


def _rows(choices: list[KernelChoice]) -> list[Row]:
    """Operations in order; layers with the same implementation share a line."""
    found = []
    same = sorted(choices[:-1], key=lambda c: (_order(choices, c.operation), c.by, c.why))
    for (operation, by, why), group in groupby(same, key=lambda c: (c.operation, c.by, c.why)):
        layers = sorted(c.layer for c in group if c.layer is not None)
        where = f" of layer{'s' if len(layers) > 1 else ''} {_spans(layers)}" if layers else ""
        found.append(Row(f"{operation}{where}", f"{by}{f': {why}' if why else ''}"))
    return found or [Row("unknown", "this kernel set does not report it")]


def _order(choices: list[KernelChoice], operation: str) -> int:
    return next(i for i, c in enumerate(choices) if c.operation == operation)


def _spans(layers: list[int]) -> str:
    """1, 2, 3, 5 -> ``"1-3, 5"``."""
    runs: list[list[int]] = []
    for l in layers:
        if runs and l == runs[-1][-1] + 1:
            runs[-1].append(l)
        else:
            runs.append([l])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def plan(config: Config) -> Plan:
    """What training this configuration would do; its data is read, nothing is allocated on the device.

    Raises
    ------
    BackpropError
        As ``build.prepare``.
    """
    d = design(config)
    config, t = d.config, d.config.training
    settings = step_settings(config)
    optimizer = settings.pop("optimizer")
    backend = d.runs.backend
    kernels = backend.kernels(d.runs.kernels)
    step = shape_step(d.sizes, config.dtype, optimizer, settings, **d.network())
    m, rows = min(t.batch_size, d.train.n_samples), d.train.n_samples
    memory = predict_memory(
        step,
        m,
        kernels=kernels,
        rows=rows,
        micro_batch=t.micro_batch,
        evaluated=0 if d.validation is None else d.validation.n_samples,
    )
    streamed = isinstance(d.train, StreamedTable)
    resident = not streamed and on_device(t.data_on, memory.data, backend.available())
    if not resident:
        memory = replace(memory, data=0)
    spec = step_spec(step, m, t.micro_batch)
    choices = kernels.dispatch_report(spec) if hasattr(kernels, "dispatch_report") else []
    if not resident:
        sent = KernelChoice("gather", None, "the host, which sends each batch before its step")
        choices = [sent if choice.operation == "gather" else choice for choice in choices]
    return Plan(d, kernels, spec, choices, memory, resident)
