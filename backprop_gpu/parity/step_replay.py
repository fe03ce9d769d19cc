"""Replaying a recorded step in float64, one operation at a time, each from the device's own recorded inputs.

The replay is its own statement of the training step: it walks the layers and micro-batches itself, takes X, Y and
weights as they were handed over, and every other input from what an *earlier* operation is recorded to have written. So
it sees a wrong formula, and also a wrong operand: a stale activation, rolled labels, weights that moved too early.
Nothing compounds: every tensor is checked by the bound of the one operation that made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import input_replay, member_replay, parametric_replay
from .claims import bounds_of, exact_bounds
from .comparator import Comparator, Comparison
from .findings import Finding
from .member_replay import MemberReplay
from .oracle import layers, losses
from .oracle.bounds import Bounded
from .oracle.operations import sum_over
from .oracle.products import ExpectedRms, Product, Recorded, row_sums
from .step_end import BrokenStep, Calls, StepEnd
from .trace import Call, StepTrace

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
        See :class:`~.comparator.Comparator`; a product that is not there was not looked at so.
    """

    findings: list[Finding]
    inputs: dict[str, tuple[str, ...]]
    comparisons: dict[str, Comparison] = field(repr=False, default_factory=dict)
    tf32: dict[str, float] = field(default_factory=dict)


@dataclass
class Layer:
    """What the backward pass needs of a layer's forward."""

    name: str
    A: Recorded
    mask: np.ndarray | None = None
    Z: Recorded | None = None
    G: Recorded | None = None
    entering: Callable[[slice], Bounded] | None = None
    norm: Call | None = None
    weights: np.ndarray | None = None
    parametric: Call | None = None


def compare_step(trace: StepTrace, claim: str, *, keep: Sequence[str] = ()) -> Replayed:
    """Check a recorded step.

    Parameters
    ----------
    trace : StepTrace
    claim : str
        A key of ``claims.CLAIMS``, or ``"exact"`` for a step that needs no rounding.
    keep : sequence of str
        Tensors whose whole comparison is wanted although they may be right.
    """
    run = StepReplay(trace, claim, keep)
    with np.errstate(all="ignore"):
        try:
            run.step()
        except BrokenStep as broken:
            run.comparator.add(Finding("step", "calls", (), 1, math.inf, status="wrong", cause=str(broken)))
    return Replayed(
        list(run.comparator.findings.values()), run.comparator.inputs, run.comparator.comparisons, run.comparator.tf32
    )


class StepReplay:
    """A walk through a step's calls that checks each by what it was given."""

    def __init__(self, trace: StepTrace, claim: str, keep: Sequence[str]) -> None:
        self.trace, self.spec, self.L = trace, trace.spec, len(trace.spec.sizes) - 1
        kind = self.spec.kind
        self.rms = claim not in ("fp64", "exact")
        if claim == "exact":
            self.B = self.master = self.output = exact_bounds(self.spec.dtype)
        else:
            self.B, self.master = bounds_of(kind, claim), bounds_of(kind, claim, master=True)
            # Native kernels leave the literal form and odd layouts to maths on NumPy, whose functions may miss by more.
            self.output = bounds_of("numpy", claim) if kind == "native" else self.B
        self.comparator = Comparator(keep)
        self.calls = Calls(trace.calls)
        self.end = StepEnd(trace, self.master, self.comparator, self.calls)
        self.theta = {name: Recorded(self._part(trace.theta, name)) for name in self.spec.layout}
        self.gradient = np.zeros(trace.grad.shape, trace.grad.dtype)  # as recorded so far, zero between the tensors
        self.begun: set[tuple[str, int | None]] = set()  # names in it and first rows that were written
        self.member = MemberReplay(self, 0)
        self.dgamma: dict[int, np.ndarray] = {}
        self.of_inputs: dict[str, np.ndarray] = {}  # derivatives by the tensors before the first dense layer
        self.embedding: Call | None = None  # of a micro-batch, where there is one
        self.value = np.zeros(1)

    def step(self) -> None:
        trace, m = self.trace, self.trace.X.shape[1]
        for part in self.spec.parts(m):
            w = None if trace.weights is None else trace.weights[:, part]
            self._micro_batch(part.start, trace.X[:, part], trace.Y[:, part], w)
        self.end(self._gradient(), self.value)
        self.calls.none_left()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _part(self, vector: np.ndarray, name: str) -> np.ndarray:
        offset, shape = self.spec.layout[name]
        return vector[offset : offset + math.prod(shape)].reshape(shape)

    def _gradient(self) -> np.ndarray:
        """What the micro-batches left, as one vector: zero between the tensors."""
        for name, x in {**{f"gamma{l}": x for l, x in self.dgamma.items()}, **self.of_inputs}.items():
            self.part_of_gradient(name)[...] = x
        return self.gradient

    def part_of_gradient(self, name: str) -> np.ndarray:
        """The view of a tensor's derivative."""
        return self._part(self.gradient, name)

    def _activation(self, l: int) -> tuple[layers.Name, dict[str, float]]:
        linear = not 0 < l < self.L or parametric_replay.there(self, l)  # as far as the layer's other operations see
        return ("identity", {}) if linear else self.spec.activation(l)

    # -- forward ------------------------------------------------------------------------------------------------------

    def _micro_batch(self, start: int, X: np.ndarray, Y: np.ndarray, w: np.ndarray | None) -> None:
        first = Layer(*input_replay.entering(self, X))
        for number in range(self.spec.members):
            self.member = MemberReplay(self, number)
            self._member_of_batch(start, first, X, Y, w)

    def _member_of_batch(self, start: int, first: Layer, X: np.ndarray, Y: np.ndarray, w: np.ndarray | None) -> None:
        r, member, passed, examples = self.spec, self.member, [first], start + np.arange(X.shape[1])
        member.adapt()
        for l in range(1, self.L + 1):
            rate = r.dropout[l - 1] if l < self.L else 0.0
            counted = member.layer_of_masks(l), self.trace.t, examples
            mask = layers.philox_mask(r.sizes[l], rate, r.seed, *counted) if rate else None
            passed.append(self._forward(l, passed[l - 1], mask, rate, w))
        dZ, late = self._output(passed[self.L].A, Y, w)
        for l in range(self.L, 0, -1):
            self._weights(l, dZ, passed[l - 1], late)
            if l > 1:
                dZ = self._backward(l, dZ, passed[l - 1], late)
        member.derivatives()
        input_replay.derivatives(self, X, dZ, late)

    def _forward(self, l: int, before: Layer, mask: np.ndarray | None, rate: float, w: np.ndarray | None) -> Layer:
        B, comparator, entered, (name, parameters) = self.B, self.comparator, [before.name], self._activation(l)
        norm: Call | None = None
        if parametric_replay.there(self, l):
            z, call, norm = parametric_replay.mixed(self, l, before, w)
            entered, own, k, expected, product, pre = [f"D{l}"], "parametric", 1, None, None, "mixed"
        elif self.normalized(l):
            z, entered, call = self.normalize(l, before, w)
            norm, own, k, expected, product, pre = call, "batch_norm", 1, None, None, "U"
        else:
            call, affine = self.calls.next("dense"), Product(B, self.member.W(l), before.A, plus=self._b(l))
            z, own, k, expected, product, pre = (
                affine.__getitem__,
                "dense",
                affine.k,
                self.expected_rms(affine),
                affine,
                "Z",
            )
        Z, G = (None if x is None else Recorded(x) for x in map(call.revealed.get, ("Z", "G")))
        layer = Layer(f"A{l}", Recorded(call.wrote["A"]), mask, Z, G)
        layer.norm, layer.weights, layer.parametric = norm, w, call if own == "parametric" else None
        if Z is not None:  # kept apart, checked apart
            comparator.compare(own, f"{pre}{l}", Z.x, z, k=k, inputs=entered, expected=expected, product=product)
            entered = [f"{pre}{l}"]
        elif layers.needs_z(name, parameters):
            layer.entering = z
        if mask is not None and "mask" in call.revealed:
            comparator.same(own, f"mask{l}", call.revealed["mask"], mask)
        masked = [] if mask is None else [f"mask{l}"]
        k = k if Z is None else 1

        def activated(rows: slice) -> Bounded:
            return layers.activation(B, name, parameters, z(rows) if Z is None else Z.given(B, rows))

        if G is not None:
            comparator.compare(own, f"G{l}", G.x, activated, k=k, inputs=entered)
            entered, k = [f"G{l}"], 1

        def surviving(rows: slice) -> Bounded:
            a = activated(rows) if G is None else G.given(B, rows)
            return layers.dropped(B, a, None if mask is None else mask[rows], rate)

        if Z is not None:
            expected = None
        elif expected is not None and product is not None and (name not in LINEAR or mask is not None):
            expected = expected.after(layer.A.x, product.v)
        plain = name == "identity" and mask is None and Z is None
        entering = None if plain or product is None or Z is not None else (product, layers.activating(name, parameters))
        whole, given = product if plain else None, entered + masked
        comparator.compare(
            own, f"A{l}", layer.A.x, surviving, k=k, inputs=given, expected=expected, product=whole, entering=entering
        )
        return layer

    def _b(self, l: int) -> np.ndarray:
        return self.member.b(l)

    def expected_rms(self, product: Product) -> ExpectedRms | None:
        """Of a product's difference, where the claim asks for it."""
        return product.expected_rms() if self.rms else None

    def normalized(self, l: int) -> bool:
        return 0 < l < self.L and bool(self.spec.batch_norm) and self.spec.batch_norm[l - 1]

    def normalize(
        self, l: int, before: Layer, w: np.ndarray | None
    ) -> tuple[Callable[[slice], Bounded], list[str], Call]:
        """gamma X + beta from the recorded X, after Z, its statistics and X were checked; the call that wrote them."""
        B, comparator, product = self.B, self.comparator, Product(self.B, self.theta[f"W{l}"], before.A)
        Z = Recorded(self.calls.next("dense").wrote["A"])
        expected = self.expected_rms(product)
        comparator.compare(
            "dense",
            f"Z{l}",
            Z.x,
            product.__getitem__,
            k=product.k,
            inputs=[before.name],
            expected=expected,
            product=product,
        )
        call, w = self.calls.next("batch_norm"), None if w is None else w.astype(np.float64)
        X, r, m = Recorded(call.wrote["X"]), Recorded(call.wrote["inverse_std"]), Z.x.shape[1]
        checked = {"operation": "batch_norm", "k": m, "inputs": [f"Z{l}", "weights"]}
        mean, variance, d = layers.moments(B, Z.given(B), w)
        comparator.compare(tensor=f"inverse_std{l}", got=r.x, reference=layers.inverse_std(B, variance), **checked)
        for kind, new in (("mean", mean), ("variance", variance)):
            old = call.numbers[kind]
            if old is None:
                raise BrokenStep("batch_norm was called without running statistics")
            moved = layers.running(B, B.given(old), new, w)
            comparator.compare(tensor=f"running {kind}{l}", got=call.wrote[kind], reference=moved, **checked)
        comparator.compare("batch_norm", f"X{l}", X.x, d * r.given(B), k=m, inputs=[f"Z{l}", f"inverse_std{l}"])
        gamma, beta = self.theta[f"gamma{l}"], self.theta[f"b{l}"]
        return lambda rows: gamma.given(B, rows) * X.given(B, rows) + beta.given(B, rows), [f"X{l}"], call

    def _output(self, Z: Recorded, Y: np.ndarray, w: np.ndarray | None) -> tuple[Recorded, np.ndarray | None]:
        """dZ[L] as recorded, and the late 1/D."""
        r, B, comparator, call = self.spec, self.output, self.comparator, self.calls.next("output_delta")
        inverse = call.numbers["inverse_denominator"]
        if inverse is None:
            raise BrokenStep("output_delta was called without a denominator")
        comparator.compare("step", "1/D", inverse, self.end.over_D(1.0 / r.members), inputs=["weights"])
        early, late = (inverse, None) if r.one_over_m == "early" else (None, inverse)
        labels, L = Y.shape[0] != r.sizes[-1], self.L

        def targets(columns: slice) -> tuple[Bounded, Bounded, np.ndarray | None]:
            y = losses.one_hot(Y[:, columns], r.sizes[-1]) if labels else Y[:, columns]
            weights = None if w is None else w[:, columns].astype(np.float64)
            return Z.given(B, (slice(None), columns)), B.given(y), weights

        def delta(columns: slice) -> Bounded:
            z, y, weights = targets(columns)
            factor = None if early is None else B.given(early)
            return losses.output_delta(B, r.loss, r.loss_parameters, r.form, z, y, weights, factor)

        inputs = [f"A{L}", "Y", "weights", "1/D"]
        comparator.compare("output_delta", f"dZ{L}", call.wrote["dZ"], delta, inputs=inputs, axis=1)
        loss = losses.weighted_loss(B, r.loss, r.loss_parameters, *targets(slice(None)))
        value = losses.cost(loss, B.given(inverse), B.given(self.value))
        comparator.compare("output_delta", "value", call.wrote["value"], value, k=Z.x.size, inputs=inputs)
        self.value = call.wrote["value"]
        dZ = Recorded(call.wrote["dZ"])
        self.bias(L, "output_delta", dZ, late, call.wrote["db"])
        return dZ, late

    # -- backward -----------------------------------------------------------------------------------------------------

    def bias(
        self, l: int, operation: str, dZ: Recorded, late: np.ndarray | None, written: np.ndarray, tensor: str = ""
    ) -> None:
        sums = row_sums(dZ, self.B, plus=self.member.old("b", l), scale=_number(late))
        self.comparator.compare(operation, f"db{l}", written, sums, k=dZ.x.shape[1], inputs=[tensor or f"dZ{l}"])
        self.member.keep("b", l, written)

    def _weights(self, l: int, dZ: Recorded, before: Layer, late: np.ndarray | None) -> None:
        written, old = self.calls.next("dense_vjp_params").wrote["dW"], self.member.old("W", l)
        product = Product(self.B, dZ, before.A.T, plus=old, scale=_number(late))
        expected = product.expected_rms() if self.rms and old is None else None
        self.comparator.compare(
            "dense_vjp_params",
            f"member's dW{l}" if l in member_replay.adapted(self.spec) else f"dW{l}",
            written,
            product.__getitem__,
            k=product.k,
            inputs=[f"dZ{l}", before.name],
            expected=expected,
            product=product,
        )
        self.member.keep("W", l, written)

    def _backward(self, l: int, dZ: Recorded, before: Layer, late: np.ndarray | None) -> Recorded:
        """dZ[l-1] as recorded; of a normalized layer dU first."""
        call, B, mask = self.calls.next("dense_vjp_input"), self.B, before.mask
        (name, parameters), rate = self._activation(l - 1), self.spec.dropout[l - 2]
        dA = Product(B, self.member.W(l).T, dZ)
        expected = dA.expected_rms() if self.rms else None

        def delta(rows: slice) -> Bounded:
            z = None if before.entering is None else before.entering(rows)
            z = z if before.Z is None else before.Z.given(B, rows)
            a = (before.A if before.G is None else before.G).given(B, rows)
            if before.G is None and mask is not None:
                a = layers.undropped(B, a, rate)
            d = layers.dropped(B, dA[rows], None if mask is None else mask[rows], rate)
            return layers.stopped(
                B, layers.activation_vjp(B, name, parameters, d, z, a), None if mask is None else mask[rows]
            )

        written = Recorded(call.wrote["dZ_prev"])
        if expected is not None and (name not in LINEAR or mask is not None):
            expected = expected.after(written.x, dA.v)
        tensor = f"dA{l - 1}" if before.parametric else f"dZ{l - 1}" if before.norm is None else f"dU{l - 1}"
        inputs = [f"dZ{l}", before.name]
        self.comparator.compare(
            "dense_vjp_input", tensor, written.x, delta, k=dA.k, inputs=inputs, expected=expected, product=dA
        )
        if before.parametric:
            written = parametric_replay.derivatives(self, l - 1, written, before, late)
        else:
            self.bias(l - 1, "dense_vjp_input", written, late, call.wrote["db_prev"], tensor)
        return written if before.norm is None else self._unnormalize(l - 1, written, before, late)

    def _unnormalize(self, l: int, dU: Recorded, layer: Layer, late: np.ndarray | None) -> Recorded:
        """dZ[l] of a normalized layer, and its dgamma."""
        assert layer.norm is not None, "a normalized layer"
        B, comparator, wrote = self.B, self.comparator, self.calls.next("batch_norm_vjp").wrote
        X, r = (B.given(layer.norm.wrote[key]) for key in ("X", "inverse_std"))
        w = None if layer.weights is None else layer.weights.astype(np.float64)
        dZ, terms = layers.batch_norm_vjp(B, dU.given(B), X, r, self.theta[f"gamma{l}"].given(B), w)
        m, inputs = dU.x.shape[1], [f"dU{l}", f"X{l}", f"inverse_std{l}", "weights"]
        comparator.compare("batch_norm_vjp", f"dZ{l}", wrote["dZ"], dZ, k=m, inputs=inputs)
        total = sum_over(terms, axis=1)
        total = total if late is None else B.given(late) * total
        total = total if l not in self.dgamma else B.given(self.dgamma[l]) + total
        comparator.compare("batch_norm_vjp", f"dgamma{l}", wrote["dgamma"], total, k=m, inputs=inputs[:2])
        self.dgamma[l] = wrote["dgamma"]
        return Recorded(wrote["dZ"])


def _number(late: np.ndarray | None) -> float:
    return 1.0 if late is None else float(late[0])
