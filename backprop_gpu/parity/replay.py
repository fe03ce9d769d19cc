"""Replaying a recorded step in float64, one operation at a time, each from the device's own recorded inputs.

The replay is its own statement of the training step: it walks the layers and micro-batches itself, takes X, Y and
weights as they were handed over, and every other input from what an *earlier* operation is recorded to have written. So
it sees a wrong formula, and also a wrong operand: a stale activation, rolled labels, weights that moved too early.
Nothing compounds: every tensor is judged by the bound of the one operation that made it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from . import formulas64 as f
from .bounds import Bounded
from .claims import bounds_of, exact_bounds
from .findings import Finding
from .judge import Judge, Kept
from .products import Product, Recorded, row_sums
from .step_end import BrokenStep, Calls, StepEnd
from .trace import StepTrace

LINEAR = ("identity", "relu")  # what they let through is the product itself


@dataclass(frozen=True)
class Replayed:
    """What a replay found.

    Attributes
    ----------
    findings : list of Finding
        One per tensor, in the order in which the step computes them.
    inputs : dict
        The tensors that each was computed from.
    kept : dict
        Whole comparisons of the wrong tensors and of those that were asked for.
    tf32 : dict
        See :class:`~.judge.Judge`; a product that is not there was not looked at so.
    """

    findings: list[Finding]
    inputs: dict[str, tuple[str, ...]]
    kept: dict[str, Kept] = field(repr=False, default_factory=dict)
    tf32: dict[str, float] = field(default_factory=dict)


@dataclass
class _Layer:
    """What the backward pass needs of a layer's forward."""

    A: Recorded
    mask: np.ndarray | None = None
    Z: Recorded | None = None
    G: Recorded | None = None
    product: Product | None = None


def judge_step(trace: StepTrace, claim: str, *, keep: Sequence[str] = ()) -> Replayed:
    """Judge a recorded step.

    Parameters
    ----------
    trace : StepTrace
    claim : str
        A key of ``claims.CLAIMS``, or ``"exact"`` for a step that needs no rounding.
    keep : sequence of str
        Tensors whose whole comparison is wanted although they may be right.
    """
    run = _Replay(trace, claim, keep)
    with np.errstate(all="ignore"):
        try:
            run.step()
        except BrokenStep as broken:
            run.judge.add(Finding("step", "calls", (), 1, math.inf, verdict="wrong", cause=str(broken)))
    return Replayed(list(run.judge.findings.values()), run.judge.inputs, run.judge.kept, run.judge.tf32)


class _Replay:
    def __init__(self, trace: StepTrace, claim: str, keep: Sequence[str]) -> None:
        self.trace, self.recipe, self.L = trace, trace.recipe, len(trace.recipe.sizes) - 1
        kind = self.recipe.kind
        self.rms = claim not in ("fp64", "exact")
        if claim == "exact":
            self.B = self.master = self.output = exact_bounds(self.recipe.dtype)
        else:
            self.B, self.master = bounds_of(kind, claim), bounds_of(kind, claim, master=True)
            # Compiled kernels leave the literal form and odd layouts to NumPy, whose functions may miss by more.
            self.output = bounds_of("numpy", claim) if kind == "compiled" else self.B
        self.judge = Judge(keep)
        self.calls = Calls(trace.calls)
        self.end = StepEnd(trace, self.master, self.judge, self.calls)
        self.theta = {name: Recorded(self._part(trace.theta, name)) for name in self.recipe.layout}
        self.dW: dict[int, np.ndarray] = {}
        self.db: dict[int, np.ndarray] = {}
        self.value = np.zeros(1)

    def step(self) -> None:
        trace, m = self.trace, self.trace.X.shape[1]
        size = self.recipe.micro_batch or m
        for start in range(0, m, size):
            part = slice(start, min(start + size, m))
            w = None if trace.weights is None else trace.weights[:, part]
            self._micro_batch(start, trace.X[:, part], trace.Y[:, part], w)
        self.end(self._gradient(), self.value)
        self.calls.none_left()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _part(self, vector: np.ndarray, name: str) -> np.ndarray:
        offset, shape = self.recipe.layout[name]
        return vector[offset : offset + math.prod(shape)].reshape(shape)

    def _gradient(self) -> np.ndarray:
        """What the micro-batches left, as one vector: zero between the tensors."""
        gradient = np.zeros(self.trace.grad.shape, self.trace.grad.dtype)
        for l in range(1, self.L + 1):
            self._part(gradient, f"W{l}")[...] = self.dW[l]
            self._part(gradient, f"b{l}")[...] = self.db[l]
        return gradient

    def _activation(self, l: int) -> tuple[str, dict[str, float]]:
        return self.recipe.activations[l - 1] if 0 < l < self.L else ("identity", {})

    # -- forward ------------------------------------------------------------------------------------------------------

    def _micro_batch(self, start: int, X: np.ndarray, Y: np.ndarray, w: np.ndarray | None) -> None:
        r, m = self.recipe, X.shape[1]
        layers = [_Layer(Recorded(X))]
        for l in range(1, self.L + 1):
            rate = r.dropout[l - 1] if l < self.L else 0.0
            examples = start + np.arange(m)
            mask = f.philox_mask(r.sizes[l], rate, r.seed, l, self.trace.t, examples) if rate else None
            layers.append(self._forward(l, layers[l - 1], mask, rate))
        dZ, late = self._output(layers[self.L].A, Y, w)
        for l in range(self.L, 0, -1):
            self._weights(l, dZ, layers[l - 1], late)
            if l > 1:
                dZ = self._backward(l, dZ, layers[l - 1], late)

    def _forward(self, l: int, before: _Layer, mask: np.ndarray | None, rate: float) -> _Layer:
        call, B, judge = self.calls.next("dense"), self.B, self.judge
        name, parameters = self._activation(l)
        Z, G = (None if x is None else Recorded(x) for x in map(call.revealed.get, ("Z", "G")))
        z = Product(B, self.theta[f"W{l}"], before.A, plus=self.theta[f"b{l}"].x)
        gate = z.gate() if self.rms else None
        entered, layer = [f"A{l - 1}" if l > 1 else "X"], _Layer(Recorded(call.wrote["A"]), mask, Z, G)
        if Z is not None:  # kept apart, judged apart
            judge.compare("dense", f"Z{l}", Z.x, z.__getitem__, k=z.k, inputs=entered, gate=gate, product=z)
            entered = [f"Z{l}"]
        elif name in f.NEEDS_Z or min(parameters.values(), default=0.0) < 0.0:
            layer.product = z
        if mask is not None and "mask" in call.revealed:
            judge.same("dense", f"mask{l}", call.revealed["mask"], mask)
        masked = [] if mask is None else [f"mask{l}"]
        k = z.k if Z is None else 1

        def activated(rows: slice) -> Bounded:
            return f.activation(B, name, parameters, z[rows] if Z is None else Z.given(B, rows))

        if G is not None:
            judge.compare("dense", f"G{l}", G.x, activated, k=k, inputs=entered)
            entered, k = [f"G{l}"], 1

        def surviving(rows: slice) -> Bounded:
            a = activated(rows) if G is None else G.given(B, rows)
            return f.dropped(B, a, None if mask is None else mask[rows], rate)

        if Z is not None:
            gate = None
        elif gate is not None and (name not in LINEAR or mask is not None):
            gate = gate.after(layer.A.x, z.v)
        product = z if name == "identity" and mask is None and Z is None else None
        judge.compare("dense", f"A{l}", layer.A.x, surviving, k=k, inputs=entered + masked, gate=gate, product=product)
        return layer

    def _output(self, Z: Recorded, Y: np.ndarray, w: np.ndarray | None) -> tuple[Recorded, np.ndarray | None]:
        """dZ[L] as recorded, and the late 1/D."""
        r, B, judge, call = self.recipe, self.output, self.judge, self.calls.next("output_delta")
        inverse = call.numbers["inverse_denominator"]
        if inverse is None:
            raise BrokenStep("output_delta was called without a denominator")
        judge.compare("step", "1/D", inverse, self.end.over_D(1.0), inputs=["weights"])
        early, late = (inverse, None) if r.one_over_m == "early" else (None, inverse)
        labels, L = Y.shape[0] != r.sizes[-1], self.L

        def targets(columns: slice) -> tuple[Bounded, Bounded, np.ndarray | None]:
            y = f.one_hot(Y[:, columns], r.sizes[-1]) if labels else Y[:, columns]
            weights = None if w is None else w[:, columns].astype(np.float64)
            return Z.given(B, (slice(None), columns)), B.given(y), weights

        def delta(columns: slice) -> Bounded:
            z, y, weights = targets(columns)
            factor = None if early is None else B.given(early)
            return f.output_delta(B, r.loss, r.loss_parameters, r.form, z, y, weights, factor)

        inputs = [f"A{L}", "Y", "weights", "1/D"]
        judge.compare("output_delta", f"dZ{L}", call.wrote["dZ"], delta, inputs=inputs, axis=1)
        loss = f.weighted_loss(B, r.loss, r.loss_parameters, *targets(slice(None)))
        value = f.cost(loss, B.given(inverse), B.given(self.value))
        judge.compare("output_delta", "value", call.wrote["value"], value, k=Z.x.size, inputs=inputs)
        self.value = call.wrote["value"]
        dZ = Recorded(call.wrote["dZ"])
        self._bias(L, "output_delta", dZ, late, call.wrote["db"])
        return dZ, late

    # -- backward -----------------------------------------------------------------------------------------------------

    def _bias(self, l: int, operation: str, dZ: Recorded, late: np.ndarray | None, written: np.ndarray) -> None:
        sums = row_sums(dZ, self.B, plus=self.db.get(l), scale=_number(late))
        self.judge.compare(operation, f"db{l}", written, sums, k=dZ.x.shape[1], inputs=[f"dZ{l}"])
        self.db[l] = written

    def _weights(self, l: int, dZ: Recorded, before: _Layer, late: np.ndarray | None) -> None:
        written, old = self.calls.next("dense_vjp_params").wrote["dW"], self.dW.get(l)
        product = Product(self.B, dZ, before.A.T, plus=old, scale=_number(late))
        gate = product.gate() if self.rms and old is None else None
        self.judge.compare(
            "dense_vjp_params",
            f"dW{l}",
            written,
            product.__getitem__,
            k=product.k,
            inputs=[f"dZ{l}", f"A{l - 1}" if l > 1 else "X"],
            gate=gate,
            product=product,
        )
        self.dW[l] = written

    def _backward(self, l: int, dZ: Recorded, before: _Layer, late: np.ndarray | None) -> Recorded:
        """dZ[l-1] as recorded."""
        call, B, mask = self.calls.next("dense_vjp_input"), self.B, before.mask
        (name, parameters), rate = self._activation(l - 1), self.recipe.dropout[l - 2]
        dA = Product(B, self.theta[f"W{l}"].T, dZ)
        gate = dA.gate() if self.rms else None

        def delta(rows: slice) -> Bounded:
            z = None if before.product is None else before.product[rows]
            z = z if before.Z is None else before.Z.given(B, rows)
            a = (before.A if before.G is None else before.G).given(B, rows)
            if before.G is None and mask is not None:
                a = f.undropped(B, a, rate)
            d = f.dropped(B, dA[rows], None if mask is None else mask[rows], rate)
            return f.stopped(B, f.activation_vjp(B, name, parameters, d, z, a), None if mask is None else mask[rows])

        written = Recorded(call.wrote["dZ_prev"])
        if gate is not None and (name not in LINEAR or mask is not None):
            gate = gate.after(written.x, dA.v)
        inputs = [f"dZ{l}", f"A{l - 1}"]
        self.judge.compare(
            "dense_vjp_input", f"dZ{l - 1}", written.x, delta, k=dA.k, inputs=inputs, gate=gate, product=dA
        )
        self._bias(l - 1, "dense_vjp_input", written, late, call.wrote["db_prev"])
        return written


def _number(late: np.ndarray | None) -> float:
    return 1.0 if late is None else float(late[0])
