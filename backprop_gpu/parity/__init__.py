"""Is every tensor of a training step as exact as its precision allows? Its bound is derived, not tuned.

``check`` checks a network on a device, ``probe`` and ``exact`` ask questions with one right answer, ``diff`` compares
two devices, ``replay`` checks a saved case; ``check_step`` takes your own function, ``check_cost_gradient_pair`` any
cost with its gradient.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "check": "checking",
    "exact": "exact_step",
    "diff": "compare",
    "replay": "checking",
    "probe": "probes",
    "shapes_of": "probes",
    "Report": "report",
    "Finding": "findings",
    "check_step": "functions",
    "check_cost_gradient_pair": "cost_gradient",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .checking import check as check
    from .checking import replay as replay
    from .compare import diff as diff
    from .cost_gradient import check_cost_gradient_pair as check_cost_gradient_pair
    from .exact_step import exact as exact
    from .findings import Finding as Finding
    from .functions import check_step as check_step
    from .probes import probe as probe
    from .probes import shapes_of as shapes_of
    from .report import Report as Report


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
