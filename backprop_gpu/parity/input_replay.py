"""Replaying what a step computes of the inputs before the first dense layer, and the derivatives by its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .oracle import input_stage
from .oracle.bounds import Bounded
from .oracle.operations import sum_over
from .oracle.products import Product, Recorded

if TYPE_CHECKING:
    from .step_replay import StepReplay


def entering(run: StepReplay, X: np.ndarray) -> tuple[str, Recorded]:
    """Name and values of what enters the first dense layer, after it was checked."""
    if not run.spec.input_scaling:
        return "X", Recorded(X)
    B, s, H = run.B, run.theta["scale0"], Recorded(run.calls.next("scaling").wrote["H"])
    run.comparator.compare("scaling", "H0", H.x, input_stage.scaling(B.given(X), s.given(B)), inputs=["X"])
    return "H0", H


def derivatives(run: StepReplay, X: np.ndarray, dZ: Recorded, late: np.ndarray | None) -> None:
    """Check the derivatives by the tensors before the first dense layer, from dZ[1]."""
    if not run.spec.input_scaling:
        return
    B, dA = run.B, Product(run.B, run.member.W(1).T, dZ)
    dH = Recorded(run.calls.next("dense_vjp_input").wrote["dZ_prev"])
    how = {"k": dA.k, "expected": run.expected_rms(dA), "product": dA}
    run.comparator.compare("dense_vjp_input", "dH0", dH.x, dA.__getitem__, inputs=["dZ1"], **how)
    written, s = run.calls.next("scaling_vjp").wrote["ds"], run.theta["scale0"]
    _, terms = input_stage.scaling_vjp(dH.given(B), B.given(X), s.given(B))
    summed(run, "scaling_vjp", "scale0", terms, late, written, ["dH0", "X"])


def summed(
    run: StepReplay,
    operation: str,
    name: str,
    terms: Bounded,
    late: np.ndarray | None,
    written: np.ndarray,
    inputs: Sequence[str],
) -> None:
    """Check a derivative whose terms are summed over examples, and keep it for the next micro-batch."""
    B, total = run.B, sum_over(terms, axis=1)
    total = total if late is None else B.given(late) * total
    total = total if name not in run.of_inputs else B.given(run.of_inputs[name]) + total
    run.comparator.compare(operation, f"d{name}", written, total, k=terms.shape[1], inputs=inputs)
    run.of_inputs[name] = written
