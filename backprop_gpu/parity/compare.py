"""Two devices, one step: how far apart they end, and which of them is wrong, if one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Backend
from ..errors import ConfigError
from .checking import check
from .report import Report
from .trace import StepTrace


@dataclass(frozen=True)
class Gap:
    """One tensor on two devices.

    Attributes
    ----------
    largest : float
        max |a - b|.
    relative : float
        The same over the largest entry of either.
    """

    tensor: str
    largest: float
    relative: float


@dataclass(frozen=True)
class DiffReport:
    """End to end, two devices differ by more than either is wrong by, since errors compound: so each is checked alone.

    Attributes
    ----------
    reports : tuple of Report
        Of each device, certified against float64.
    gaps : list of Gap
        The logits, J, every gradient and every parameter after the step, in dataflow order.
    """

    reports: tuple[Report, ...]
    gaps: list[Gap]

    @property
    def ok(self) -> bool:
        """Whether both devices are certified; their gap is then rounding, however large."""
        return all(r.ok for r in self.reports)

    @property
    def wrong(self) -> list[str]:
        """Names of the devices that are wrong."""
        return [name(r) for r in self.reports if not r.ok]

    def summary(self) -> str:
        """One line: the largest gap, and who is to blame."""
        worst = max(self.gaps, key=lambda g: g.relative)
        pair = " and ".join(name(r) for r in self.reports)
        gap = f"{pair} differ by {worst.largest:.3g} in {worst.tensor} ({worst.relative:.2g} of its largest entry)"
        if self.ok:
            return f"{gap}; both are within their bounds, so this is rounding"
        return "; ".join([gap, *(f"{name(r)}: {r.summary()}" for r in self.reports if not r.ok)])


def diff(model: Any, X: Any, y: Any, devices: Sequence[str | Backend], **settings: Any) -> DiffReport:
    """Take the same step on two devices, check each, and measure the gap between them.

    Parameters
    ----------
    model, X, y, **settings
        As for :func:`~.checking.check`; ``kernels`` may be a pair too.
    devices : two device names or Backends

    Raises
    ------
    ConfigError
        Unless there are two devices.
    """
    if len(devices) != 2:
        raise ConfigError(f"diff compares two devices, got {len(devices)}")
    kernels = settings.pop("kernels", None)
    pair = kernels if isinstance(kernels, list | tuple) else (kernels, kernels)
    reports = tuple(check(model, X, y, device=d, kernels=k, **settings) for d, k in zip(devices, pair, strict=True))
    return DiffReport(reports, _gaps(reports[0].trace, reports[1].trace))


def name(report: Report) -> str:
    """A device as a report names it."""
    return f"{report.about['device']} ({report.about['kernels']})"


def _gaps(a: StepTrace | None, b: StepTrace | None) -> list[Gap]:
    assert a is not None
    assert b is not None
    tensors = [(t, o) for t, o in zip(_tensors(a).items(), _tensors(b).items(), strict=False)]
    found = []
    for (tensor, x), (_, other) in tensors:
        with np.errstate(invalid="ignore"):
            gap = float(np.max(np.abs(x - other), initial=0.0))
        size = max(float(np.max(np.abs(x), initial=0.0)), float(np.max(np.abs(other), initial=0.0)))
        found.append(Gap(tensor, gap, gap / size if size else 0.0))
    return found


def _tensors(trace: StepTrace) -> dict[str, np.ndarray]:
    """Logits, J, gradients and parameters by name, in float64."""
    logits = [c.wrote["A"] for c in trace.calls if c.name == "dense"][len(trace.spec.sizes) - 2]
    found = {"logits": logits, "J": trace.value}
    for prefix, vector in (("d", trace.grad), ("", trace.theta_after)):
        for tensor, (at, shape) in trace.spec.layout.items():
            found[f"{prefix}{tensor}"] = vector[at : at + int(np.prod(shape))].reshape(shape)
    return {tensor: x.astype(np.float64) for tensor, x in found.items()}
