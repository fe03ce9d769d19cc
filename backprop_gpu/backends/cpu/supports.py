"""Which operations of a step have native kernels, why the others run as formulas of ``maths``, and the workspace."""

from __future__ import annotations

import numpy as np

from ..abstract_evaluation import estimate_memory
from ..formula_ids import Support
from ..plan import KernelChoice, StepSpec, choose_kernels
from ..reference import ReferenceKernels
from ..shapes import ShapeBackend

NATIVE = Support("native")


def dispatch_report(spec: StepSpec) -> list[KernelChoice]:
    """What runs each operation, and how the step is recorded."""
    found = choose_kernels(spec, "native", lambda *operation: NATIVE.reason(spec, *operation), "maths on numpy")
    first = next((choice for choice in found if choice.why), None)
    if first is None:
        return [*found, KernelChoice("capture", None, "one native program")]
    where = "" if first.layer is None else f" of layer {first.layer}"
    why = f"{first.operation}{where}: {first.why}"
    return [*found, KernelChoice("capture", None, "native programs with Python calls between them", why)]


def workspace_bytes(spec: StepSpec) -> int:
    """The losses of the examples, and what formulas of ``maths`` allocate for operations without a kernel."""
    left = [(choice.operation, choice.layer) for choice in dispatch_report(spec)[:-1] if choice.why]
    native_loss = not spec.predicting and not any(operation == "output_delta" for operation, _ in left)
    losses = spec.m * np.dtype(spec.dtype).itemsize if native_loss else 0
    return losses + (estimate_memory(ReferenceKernels(ShapeBackend()), spec, left) if left else 0)
