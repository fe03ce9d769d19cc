"""Replaying what a step computes of the inputs before the first dense layer, and the derivatives by its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .oracle import input_stage
from .oracle.bounds import Bounded
from .oracle.operations import sum_over
from .oracle.products import Product, Recorded, row_sums
from .trace import Call

if TYPE_CHECKING:
    from .step_replay import StepReplay


def entering(run: StepReplay, X: np.ndarray) -> tuple[str, Recorded]:
    """Name and values of what enters the first dense layer, after it was checked."""
    spec, B = run.spec, run.B
    if not (spec.input_scaling or spec.periodic_embedding):
        return "X", Recorded(X)
    run.embedding = _embedded(run, X) if spec.periodic_embedding else None
    parts = [("X", X), *([("E0", run.embedding.wrote["E"])] if run.embedding is not None else [])]
    H, s, at = [], run.theta["scale0"] if spec.input_scaling else None, 0
    for name, x in parts:
        if s is None and name == "E0":
            H.append(x)  # written where it belongs
            continue
        written, rows = run.calls.next("scaling").wrote["H"], slice(at, at + len(x))
        own = B.given(np.ones((len(x), 1))) if s is None else s.given(B, rows)
        run.comparator.compare("scaling", "H0", written, input_stage.scaling(B.given(x), own), inputs=[name])
        H, at = [*H, written], at + len(x)
    return "H0", Recorded(np.concatenate(H))


def _columns(run: StepReplay) -> list[tuple[int, slice, slice]]:
    """Each embedded column with its waves and its outputs."""
    own = run.spec.periodic_embedding
    h, o = own["frequencies"], own["outputs"]
    return [(j, slice(j * h, (j + 1) * h), slice(j * o, (j + 1) * o)) for j in range(own["columns"])]


def _embedded(run: StepReplay, X: np.ndarray) -> Call:
    """The call of ``periodic``, after what it wrote was checked."""
    B, call, compare = run.B, run.calls.next("periodic"), run.comparator.compare
    E, P, Q = (call.wrote[key] for key in "EPQ")
    w, b, V, c = (run.theta[f"{kind}0"].x for kind in ("frequency", "phase", "mixing", "offset"))
    for j, waves, outputs in _columns(run):
        x = B.given(X[j : j + 1])
        cosine, slope = input_stage.waves(B, x, B.given(w[j][:, None]), B.given(b[j][:, None]))
        compare("periodic", "P0", P[waves], cosine, inputs=["X"])
        if Q is not None:
            compare("periodic", "Q0", Q[waves], slope, inputs=["X"])
        mixed = Product(B, Recorded(V[outputs]), Recorded(P[waves]), plus=c[outputs])
        compare("periodic", "E0", E[outputs], mixed.__getitem__, k=mixed.k, inputs=["P0"])
    return call


def derivatives(run: StepReplay, X: np.ndarray, dZ: Recorded, late: np.ndarray | None) -> None:
    """Check the derivatives by the tensors before the first dense layer, from dZ[1]."""
    spec = run.spec
    if not (spec.input_scaling or spec.periodic_embedding):
        return
    dA = Product(run.B, run.member.W(1).T, dZ)
    dH = Recorded(run.calls.next("dense_vjp_input").wrote["dZ_prev"])
    how: dict[str, Any] = {"k": dA.k, "expected": run.expected_rms(dA), "product": dA}
    run.comparator.compare("dense_vjp_input", "dH0", dH.x, dA.__getitem__, inputs=["dZ1"], **how)
    n = len(X)
    dE = dH.x[n:]
    if spec.input_scaling:
        dE = _scaled(run, X, dH.x, late)
    if run.embedding is not None:
        _mixed(run, X, dE, late)


def _scaled(run: StepReplay, X: np.ndarray, dH: np.ndarray, late: np.ndarray | None) -> np.ndarray:
    """Check ds, and dE, which it returns; empty without an embedding."""
    B, s, n, written = run.B, run.theta["scale0"], len(X), []
    dE = dH[:0]
    terms = []
    for x, rows in ((X, slice(0, n)), *([] if run.embedding is None else [(run.embedding.wrote["E"], slice(n, None))])):
        call = run.calls.next("scaling_vjp")
        below, term = input_stage.scaling_vjp(B.given(dH[rows]), B.given(x), s.given(B, rows))
        terms.append((term, rows))
        written.append(call.wrote["ds"])
        if rows.start:
            dE = call.wrote["dX"]
            run.comparator.compare("scaling_vjp", "dE0", dE, below, inputs=["dH0"])
    old, whole = run.of_inputs.get("scale0"), np.concatenate(written)
    for term, rows in terms:
        before = None if old is None else old[rows]
        summed(run, "scaling_vjp", "scale0", term, late, whole[rows], ["dH0", "X"], before)
    run.of_inputs["scale0"] = whole
    return dE


def _mixed(run: StepReplay, X: np.ndarray, dE: np.ndarray, late: np.ndarray | None) -> None:
    """Check what ``periodic_vjp`` wrote."""
    B, wrote, compare, of = run.B, run.calls.next("periodic_vjp").wrote, run.comparator.compare, run.of_inputs
    assert run.embedding is not None, "there is one"
    P, Q = (run.embedding.wrote[key] for key in "PQ")
    V, scale, operation = run.theta["mixing0"].x, 1.0 if late is None else float(late[0]), "periodic_vjp"

    def old(kind: str, rows: slice) -> np.ndarray | None:
        return of[f"{kind}0"][rows] if f"{kind}0" in of else None

    for j, waves, outputs in _columns(run):
        d, one = Recorded(np.ascontiguousarray(dE[outputs])), slice(j, j + 1)
        dV = Product(B, d, Recorded(P[waves]).T, plus=old("mixing", outputs), scale=scale)
        compare(operation, "dmixing0", wrote["dV"][outputs], dV.__getitem__, k=dV.k, inputs=["dE0", "P0"])
        dc = row_sums(d, B, plus=old("offset", outputs), scale=scale)
        compare(operation, "doffset0", wrote["dc"][outputs], dc, k=dV.k, inputs=["dE0"])
        dz = Product(B, Recorded(V[outputs]).T, d)[:] * B.given(Q[waves])
        along, alone = input_stage.wave_terms(B, dz, B.given(X[one]))
        for kind, key, terms in (("frequency", "dw", along), ("phase", "db", alone)):
            before = old(kind, one)
            before = None if before is None else before.T
            summed(run, operation, f"{kind}0", terms, late, wrote[key][one].T, ["dE0", "Q0", "X"], before)
    of |= {"frequency0": wrote["dw"], "phase0": wrote["db"], "mixing0": wrote["dV"], "offset0": wrote["dc"]}


def summed(
    run: StepReplay,
    operation: str,
    name: str,
    terms: Bounded,
    late: np.ndarray | None,
    written: np.ndarray,
    inputs: Sequence[str],
    old: np.ndarray | None,
) -> None:
    """Check a derivative (k, 1) whose terms (k, m) are summed over examples and added to ``old``."""
    B, total = run.B, sum_over(terms, axis=1)
    total = total if late is None else B.given(late) * total
    total = total if old is None else B.given(old) + total
    run.comparator.compare(operation, f"d{name}", written, total, k=terms.shape[1], inputs=inputs)
