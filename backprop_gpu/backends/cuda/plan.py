"""What the CUDA kernel set says of a step beforehand (``backends/plan.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..abstract_evaluation import estimate_memory
from ..formula_ids import Support
from ..plan import Choice, StepSpec, choose
from ..shapes import ShapeBackend
from .gemm import WORKSPACE, Product
from .launch import Call, Graph

PRODUCTS = "cuBLASLt and CUDA kernels"
CUDA = Support("CUDA")


def choices(spec: StepSpec) -> list[Choice]:
    """Every operation, and whether the step is a CUDA graph; what cuBLASLt refuses is known only when it is asked."""
    found = choose(spec, "CUDA kernels", lambda *operation: CUDA.reason(spec, *operation), "CuPy, through maths")
    found = [replace(c, by=PRODUCTS) if c.operation.startswith("dense") and not c.why else c for c in found]
    first = next((c for c in found if c.why), None)
    if first is None:
        return [*found, Choice("capture", None, "a CUDA graph")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    return [*found, Choice("capture", None, "Python", f"{first.operation}{where}: {first.why}")]


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
    return WORKSPACE + estimate_memory(kernels(ShapeBackend(), _NoDevice(claim)), spec, spec.operations())
