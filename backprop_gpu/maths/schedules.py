"""Learning-rate schedules: pure functions of the step, computed on the host in float64.

``factor(t)`` multiplies the optimizer's learning rate at optimizer step t = 0, 1, 2, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .registry import create, is_number


@dataclass(frozen=True)
class Schedule:
    """Base: ``factor(t)`` for step t of a run of ``total`` steps; one of your own is a frozen dataclass with a name."""

    name: ClassVar[str]

    def factor(self, t: int, total: int) -> float:
        """The multiplier at step t (0-based) of ``total``."""
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """What :func:`get_schedule` takes back."""
        return {"name": self.name, **vars(self)}

    def _check(self, **limits: tuple[float, float]) -> None:
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            whole = isinstance(self.__dataclass_fields__[key].default, int)
            if not is_number(value) or (whole and math.isfinite(value) and value != int(value)):
                raise ConfigError(f"schedule {self.name}: {key} must be a {'whole ' * whole}number, got {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"schedule {self.name}: {key} must be from {low:g} to {high:g}, got {value}")


@dataclass(frozen=True)
class Constant(Schedule):
    """1."""

    name = "constant"

    def factor(self, t: int, total: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class Step(Schedule):
    """gamma^floor(t / every)."""

    name = "step"
    every: int = 1000
    gamma: float = 0.5

    def __post_init__(self) -> None:
        self._check(every=(1, 2**53), gamma=(0.0, 1.0))

    def factor(self, t: int, total: int) -> float:
        """gamma^floor(t / every)."""
        return self.gamma ** (t // self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """gamma^t."""

    name = "exponential"
    gamma: float = 0.9999

    def __post_init__(self) -> None:
        self._check(gamma=(0.0, 1.0))

    def factor(self, t: int, total: int) -> float:
        """gamma^t."""
        return self.gamma**t


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """(t + 1)^-power: scikit-learn's ``invscaling`` with its samples counted as steps."""

    name = "inverse_scaling"
    power: float = 0.5

    def __post_init__(self) -> None:
        self._check(power=(0.0, 10.0))

    def factor(self, t: int, total: int) -> float:
        """(t + 1)^-power."""
        return float((t + 1) ** -self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 to ``floor`` along half a cosine (Loshchilov & Hutter 2017, equation 5, without restarts)."""

    name = "cosine"
    floor: float = 0.0

    def __post_init__(self) -> None:
        self._check(floor=(0.0, 1.0))

    def factor(self, t: int, total: int) -> float:
        """floor + (1 - floor)(1 + cos(pi t / total))/2."""
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * min(t, total) / max(total, 1)))


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """(t + 1)/warmup up to 1, then along half a cosine to ``floor`` (warm-up: Goyal et al. 2017, 2.2)."""

    name = "linear_warmup"
    warmup: int = 100
    floor: float = 1.0

    def __post_init__(self) -> None:
        self._check(warmup=(1, 2**53), floor=(0.0, 1.0))

    def factor(self, t: int, total: int) -> float:
        """min(1, (t + 1)/warmup), then :class:`Cosine` over the steps that are left (``floor`` 1: constant)."""
        if t < self.warmup:
            return (t + 1) / self.warmup
        return Cosine(self.floor).factor(t - self.warmup, max(total - self.warmup, 0))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Cosine up from 1/initial_div to 1 over ``rise`` of the run, then down to 1/final_div of the peak.

    Source: Smith & Topin 2018, with cosines in place of their straight lines.
    """

    name = "one_cycle"
    rise: float = 0.3
    initial_div: float = 25.0
    final_div: float = 1e4

    def __post_init__(self) -> None:
        self._check(rise=(0.0, 1.0), initial_div=(1.0, 1e12), final_div=(1.0, 1e12))

    def factor(self, t: int, total: int) -> float:
        """Half a cosine up, half a cosine down."""
        top = self.rise * max(total - 1, 1)
        if t < top:
            start, end, part = 1.0 / self.initial_div, 1.0, t / top
        else:
            start, end, part = 1.0, 1.0 / self.final_div, min((t - top) / max(total - 1 - top, 1e-12), 1.0)
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass(frozen=True)
class CosLog(Schedule):
    """``cycles`` cosine waves from 0 to 1 and back, each twice as long as the one before: RealMLP's ``coslog4``.

    The rate falls to 0 at 1/15, 3/15, 7/15 of a run of four cycles and at its end.
    Source: Holzmueller, Grinsztajn & Steinwart 2024, section 3.
    """

    name = "coslog"
    cycles: int = 4

    def __post_init__(self) -> None:
        self._check(cycles=(1, 50))

    def factor(self, t: int, total: int) -> float:
        """(1 - cos(2 pi log2(1 + (2^cycles - 1) (t + 1/2) / total)))/2, in the middle of a step, so that none is 0."""
        part = min((t + 0.5) / max(total, 1), 1.0)
        return 0.5 * (1.0 - math.cos(2.0 * math.pi * math.log2(1.0 + (2.0**self.cycles - 1.0) * part)))


@dataclass(frozen=True)
class FlatCosine(Schedule):
    """1 for the part ``flat`` of the run, then along half a cosine to 0: RealMLP's ``flat_cos``, which it gives its
    weight decay.

    Source: Holzmueller, Grinsztajn & Steinwart 2024, section 3.
    """

    name = "flat_cosine"
    flat: float = 0.5

    def __post_init__(self) -> None:
        self._check(flat=(0.0, 1.0))

    def factor(self, t: int, total: int) -> float:
        """1 up to flat total, then (1 + cos(pi (t - flat total) / ((1 - flat) total)))/2."""
        start = self.flat * total
        return 1.0 if t < start else 0.5 * (1.0 + math.cos(math.pi * min((t - start) / max(total - start, 1e-12), 1.0)))


SCHEDULES: dict[str, type[Schedule]] = {
    c.name: c for c in (Constant, Step, Exponential, InverseScaling, Cosine, LinearWarmup, OneCycle, CosLog, FlatCosine)
}


def get_schedule(spec: str | dict[str, Any] | Schedule) -> Schedule:
    """Look a schedule up: ``"cosine"``, ``{"name": "step", "every": 500}`` or a Schedule.

    Raises
    ------
    ConfigError
        For an unknown name or parameter, or a value out of its range.
    """
    return create("schedule", Schedule, ("name", "factor"), SCHEDULES, spec)
