"""What the CUDA kernel set reports about a step before running it (``backends/plan.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..abstract_evaluation import estimate_memory
from ..formula_ids import Support
from ..plan import KernelChoice, StepSpec, choose_kernels
from ..shapes import ShapeBackend
from .gemm import WORKSPACE, Product
from .launch import Call, Graph

PRODUCTS = "cuBLASLt and CUDA kernels"
CUDA = Support("CUDA")


def dispatch_report(spec: StepSpec) -> list[KernelChoice]:
    """Every operation, and whether the step is a CUDA graph; cuBLASLt may refuse a product only when it is called."""
    found = choose_kernels(
        spec, "CUDA kernels", lambda *operation: CUDA.reason(spec, *operation), "CuPy, through maths"
    )
    found = [replace(c, by=PRODUCTS) if c.operation.startswith("dense") and not c.why else c for c in found]
    first = next((c for c in found if c.why), None)
    if first is None:
        return [*found, KernelChoice("capture", None, "a CUDA graph")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    return [*found, KernelChoice("capture", None, "Python", f"{first.operation}{where}: {first.why}")]


class _NoDevice:
    """A launcher that runs nothing, for estimating memory."""

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def address(self, x: Any) -> int:
        return 0

    def run(self, work: Call | Product) -> None:
        """Nothing."""

    def record(self, work: Sequence[Call | Product]) -> Graph:
        raise NotImplementedError("the estimate of memory records nothing")


def workspace_bytes(kernels: Callable[..., Any], precision: str, spec: StepSpec) -> int:
    """Bytes of scratch buffers, of what ``maths`` allocates for the other operations, and of cuBLASLt's workspace."""
    return WORKSPACE + estimate_memory(kernels(ShapeBackend(), _NoDevice(precision)), spec, spec.operations())
