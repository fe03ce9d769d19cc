"""What the CUDA kernel set says of a step beforehand (``backends/plan.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..plan import Choice, StepSpec, choose, layer_of
from ..rehearsal import rehearse
from ..shapes import ShapeBackend
from . import codes
from .gemm import WORKSPACE, Product
from .launch import Call, Graph

PRODUCTS = "cuBLASLt and CUDA kernels"


def _fallbacks(spec: StepSpec, layers: Sequence[int]) -> dict[str, str]:
    """``codes.fallbacks`` of some layers of a step."""
    activations = [spec.activations[l] for l in layers]
    return codes.fallbacks(spec.dtype, activations, spec.loss, spec.form, spec.optimizer, spec.batch_norm)


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and whether the step is a CUDA graph; what cuBLASLt refuses is known only when it is asked."""

    def reason(operation: str, layer: int | None) -> str:
        found = _fallbacks(spec, [] if layer is None else [layer_of(operation, layer)])
        if "everything" in found:
            return found["everything"]
        return next((why for names, why in found.items() if operation in names.split(", ")), "")

    found = choose(spec, "CUDA kernels", reason, "CuPy, through maths")
    found = [replace(c, by=PRODUCTS) if c.operation.startswith("dense") and not c.why else c for c in found]
    why = "; ".join(f"{names}: {reason}" for names, reason in _fallbacks(spec, spec.layers).items())
    return [*found, Choice("capture", None, "Python" if why else "a CUDA graph", why)]


class _NoDevice:
    """Launches nothing: what a rehearsal needs of a launcher."""

    def __init__(self, claim: str) -> None:
        self.claim = claim

    def address(self, x: Any) -> int:
        return 0

    def run(self, work: Call | Product) -> None:
        """Nothing."""

    def record(self, work: Sequence[Call | Product]) -> Graph:
        raise NotImplementedError("a rehearsal records nothing")


def temporaries(kernels: Callable[..., Any], claim: str, spec: StepSpec) -> int:
    """Scratch, what is left to ``maths``, and cuBLASLt's workspace."""
    return WORKSPACE + rehearse(kernels(ShapeBackend(), _NoDevice(claim)), spec, spec.operations())
