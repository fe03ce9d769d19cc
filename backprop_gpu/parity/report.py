"""The outcome of a parity check: the first fault, a table, a picture, and a case that replays elsewhere."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .._notebook import html_table
from ..errors import CheckpointError
from .case import save_case
from .comparator import Comparison
from .findings import Finding
from .plot import draw
from .step_replay import compare_step
from .trace import StepTrace

if TYPE_CHECKING:
    from rich.table import Table

RANK = {"ok": 0, "warning": 1, "wrong": 2}
STATUS_TEXT = {"ok": "ok", "warning": "warn", "wrong": "WRONG"}


@dataclass(frozen=True)
class Drift:
    """How far a device is from a float64 run after a step; reported, not checked.

    Attributes
    ----------
    step : int
        From 1.
    theta : float
        Largest difference of a parameter.
    flips : int
        Units and examples whose ReLU (or leaky ReLU) is on here and off there, out of ``units``.
    """

    step: int
    theta: float
    flips: int
    units: int


@dataclass
class Report:
    """What :func:`~.checking.check` returns.

    Attributes
    ----------
    steps : list of list of Finding
        Per step, in the order in which it computes its tensors.
    inputs : dict
        The tensors that each was computed from.
    about : dict
        Device, kernels, dtype, claim, layer sizes, examples: what was checked, JSON-able.
    drift : list of Drift
        Per step, if more than one was taken.
    trace : StepTrace or None
        The first wrong step, else the last: what ``save`` writes.
    kept : dict
        Whole comparisons of that step's wrong tensors, or of its worst.
    """

    steps: list[list[Finding]]
    inputs: dict[str, tuple[str, ...]]
    about: dict[str, Any]
    drift: list[Drift] = field(default_factory=list)
    trace: StepTrace | None = field(default=None, repr=False)
    comparisons: dict[str, Comparison] = field(default_factory=dict, repr=False)

    @property
    def kept(self) -> dict[str, Comparison]:
        """``comparisons``, by its earlier name."""
        return self.comparisons

    @property
    def findings(self) -> list[Finding]:
        """One per tensor, the worst over all steps, in dataflow order."""
        worst: dict[str, Finding] = {}
        for finding in (f for step in self.steps for f in step):
            before = worst.get(finding.tensor)
            if before is None or (RANK[finding.status], finding.ratio) > (RANK[before.status], before.ratio):
                worst[finding.tensor] = finding
        return list(worst.values())

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return self.first is None

    @property
    def first(self) -> Finding | None:
        """The first wrong tensor of the first wrong step: where the fault is."""
        return next((f for step in self.steps for f in step if f.status == "wrong"), None)

    @property
    def apart(self) -> list[Finding]:
        """Wrong tensors whose inputs were all right: as many faults, each of its own."""
        wrong = {f.tensor for f in self.findings if f.status == "wrong"}
        return [f for f in self.findings if f.tensor in wrong and not wrong.intersection(self.inputs.get(f.tensor, ()))]

    @property
    def worst(self) -> Finding:
        """The finding nearest to its bound, or furthest above it."""
        return max(self.findings, key=lambda f: f.ratio)

    def summary(self) -> str:
        """One line: ``parity ok, worst ratio 0.31 of the bound``, or the first fault with its likely cause."""
        if self.first is None:
            return f"parity ok, worst ratio {self.worst.ratio:.2g} of the bound ({self.worst.tensor})"
        f = self.first
        cause = f"; {f.cause}" if f.cause else ""
        return f"parity wrong at {f.tensor} ({f.operation}), {f.distance}{cause}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def _repr_html_(self) -> str:
        header = ("operation", "tensor", "shape", "K", "ratio", "worst entry", "verdict", "cause")
        rows = (
            (f.operation, f.tensor, "x".join(map(str, f.shape)), f.k, f.ratio, f.worst, f.status, f.cause)
            for f in self.findings
        )
        return html_table(self.summary(), header, rows)

    def lines(self) -> list[str]:
        """The summary, and a line for every tensor that is not ok: where, what is there, what should be, why."""
        lines = [self.summary()]
        for f in self.findings:
            if f.status != "ok":
                at = "" if f.worst is None or f.ratio == 0.0 else f" {list(f.worst)}: {f.got:.9g} for {f.want:.9g}"
                lines.append(f"{f.status} {f.tensor}{at}" + f"; {f.cause}" * bool(f.cause))
        return lines

    def table(self) -> Table:
        """A rich table, 80 columns wide at most: operation, tensor, shape, K, ratio, rms, worst entry, verdict."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        a = self.about
        title = f"{a.get('device', '')} {a.get('kernels', '')}, {a.get('dtype', '')} as {a.get('claim', '')}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in ("operation", "tensor", "shape", "K", "ratio", "rms", "worst", "verdict"):
            table.add_column(name, justify="right" if name in ("K", "ratio", "rms") else "left", no_wrap=True)
        for f in self.findings:
            table.add_row(
                f.operation,
                f.tensor,
                "x".join(map(str, f.shape)),
                str(f.k),
                _number(f.ratio),
                "" if f.rms is None else _number(f.rms),
                Text("" if f.worst is None or f.ratio == 0.0 else str(list(f.worst))),
                Text(STATUS_TEXT[f.status], style={"ok": "", "warning": "yellow", "wrong": "bold red"}[f.status]),
            )
        return table

    def to_json(self) -> str:
        """Everything but the tensors, as JSON; an infinite ratio is the text "inf", a NaN the text "nan"."""
        content = {
            "ok": self.ok,
            "summary": self.summary(),
            "about": self.about,
            "first": None if self.first is None else _as_json(self.first),
            "apart": [f.tensor for f in self.apart],
            "findings": [_as_json(f) for f in self.findings],
            "drift": [asdict(d) for d in self.drift],
        }
        return json.dumps(_plain(content), allow_nan=False)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a picture: the ratio of every tensor, and the worst tensor entry by entry.

        Raises
        ------
        MissingDependencyError
            Without matplotlib.
        """
        finding = self.first or self.worst
        draw(path, self.summary(), self.findings, finding, self._whole(finding.tensor))

    def _whole(self, tensor: str) -> Comparison | None:
        """A comparison entry by entry; checked once more where it was not kept."""
        if tensor in self.comparisons or self.trace is None:
            return self.comparisons.get(tensor)
        return compare_step(self.trace, self.about["claim"], keep=[tensor]).comparisons.get(tensor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recorded step as one safetensors file, which :func:`~.checking.replay` checks anywhere.

        Raises
        ------
        CheckpointError
            If the file cannot be written, or there is no recorded step.
        """
        if self.trace is None:
            raise CheckpointError("the report holds no recorded step to save")
        save_case(path, self.trace, self.about, self.summary())


def _as_json(f: Finding) -> dict[str, Any]:
    return asdict(f) | {"verdict": f.status}  # the earlier name of status


def _number(x: float) -> str:
    return "0" if x == 0.0 else f"{x:.3f}" if 1e-3 <= x < 1e3 else f"{x:.1e}"


def _plain(x: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
