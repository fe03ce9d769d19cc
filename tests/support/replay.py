"""Replaying a recorded step in float64, one operation at a time, each from the device's own recorded inputs.

The replay is its own statement of the training step: it walks the layers and micro-batches itself, takes X, Y and
weights from the host, and every other input from what an *earlier* operation is recorded to have written. So it sees a
wrong formula, and also a wrong operand: a stale activation, rolled labels, weights that moved too early.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from support import formulas as f
from support import update_formulas as uf
from support.bounds import Bounded, Bounds, ratio
from support.trace import Call, StepTrace


@dataclass(frozen=True)
class Recipe:
    """What was asked for, in plain words and numbers: a network and how it is trained.

    ``activations``: (name, parameters) of the hidden layers; ``layout``: name -> (offset, shape) in the flat vector.
    """

    sizes: tuple[int, ...]
    activations: Sequence[tuple[str, dict[str, float]]]
    loss: str
    loss_parameters: dict[str, float]
    optimizer: str
    optimizer_parameters: dict[str, Any]
    layout: Mapping[str, tuple[int, tuple[int, int]]]
    n_weights: int
    dropout: Sequence[float]
    seed: int = 0
    form: str = "fused"
    late: bool = False
    l1: float = 0.0
    l2: float = 0.0
    reduction: str = "mean"
    clip_norm: float | None = None
    micro_batch: int | None = None


@dataclass
class Verdict:
    """Ratio of error to bound per tensor, in the order in which the step computes them."""

    ratios: dict[str, float] = field(default_factory=dict)

    def judge(self, name: str, device: Any, reference: Bounded) -> None:
        self.ratios[name] = max(ratio(device, reference), self.ratios.get(name, 0.0))

    def same(self, name: str, device: Any, wanted: Any) -> None:
        """Bit for bit."""
        equal = np.array_equal(np.asarray(device), np.asarray(wanted), equal_nan=True)
        self.ratios[name] = max(0.0 if equal else math.inf, self.ratios.get(name, 0.0))

    @property
    def first(self) -> str | None:
        """The first tensor above its bound: where the fault is."""
        return next((name for name, r in self.ratios.items() if not r <= 1.0), None)

    def __str__(self) -> str:
        return ", ".join(f"{name} {r:.3g}" for name, r in self.ratios.items())


class Replay:
    """Judges the traces of one run. ``t`` counts steps from 0."""

    def __init__(self, recipe: Recipe, bounds: Bounds) -> None:
        self.recipe, self.B, self.L = recipe, bounds, len(recipe.sizes) - 1

    def __call__(
        self, trace: StepTrace, t: int, learning_rate: float, X: np.ndarray, Y: np.ndarray, w: np.ndarray | None = None
    ) -> Verdict:
        """Columns X (n_0, m), Y (n_L, m) or (1, m) labels, w (1, m), as they were handed to the device."""
        self.trace, self.t, self.verdict = trace, t, Verdict()
        self.queues: dict[str, Iterator[Call]] = {}
        self.theta = {name: self._part(trace.theta, name) for name in self.recipe.layout}
        m = X.shape[1]
        self.D, self.D_error = self._denominator(m, w)
        size = self.recipe.micro_batch or m
        self.db: dict[int, np.ndarray] = {}
        self.dW: dict[int, np.ndarray] = {}
        self.value = np.zeros(1)
        self.below: dict[int, Any] = {}
        for start in range(0, m, size):
            part = slice(start, min(start + size, m))
            self._micro_batch(start, X[:, part], Y[:, part], None if w is None else w[:, part])
        self._penalty()
        factor = self._clip()
        self._update(factor, learning_rate)
        left = [call.name for queue in self.queues.values() for call in queue]
        assert not left, f"calls that the step should not have made: {left}"
        return self.verdict

    # -- parts ----------------------------------------------------------------------------------------------------

    def _part(self, vector: np.ndarray, name: str) -> np.ndarray:
        offset, shape = self.recipe.layout[name]
        return vector[offset : offset + math.prod(shape)].reshape(shape)

    def _next(self, name: str) -> Call:
        if name not in self.queues:
            self.queues[name] = iter([call for call in self.trace.calls if call.name == name])
        call = next(self.queues[name], None)
        assert call is not None, f"the step made too few calls of {name}"
        return call

    def _given(self, x: Any) -> Bounded:
        return self.B.given(x)

    def _old(self, kept: dict[int, np.ndarray], l: int) -> Bounded | None:
        return self._given(kept[l]) if l in kept else None

    def _denominator(self, m: int, w: np.ndarray | None) -> tuple[float, float]:
        """D of the whole batch. m is exact; the sum of the weights was taken on the device, in any order."""
        if self.recipe.reduction == "sum":
            return 1.0, 0.0
        total = float(m) if w is None else float(w.sum(dtype=np.float64))
        return total, 0.0 if w is None else self.B.gamma(m - 1) * total

    def _over_D(self, x: float) -> Bounded:
        """x / D, (1,): worked out on the host in float64 and rounded once."""
        v = np.array([x / self.D])
        return self.B.rounded(v, np.abs(v) * self.D_error / (self.D - self.D_error))

    def _micro_batch(self, start: int, X: np.ndarray, Y: np.ndarray, w: np.ndarray | None) -> None:
        r, m = self.recipe, X.shape[1]
        A, calls, masks = [X], [None], [None]
        for l in range(1, self.L + 1):
            rate = r.dropout[l - 1] if l < self.L else 0.0
            mask = f.philox_mask(r.sizes[l], rate, r.seed, l, self.t, start + np.arange(m)) if rate else None
            call = self._forward(l, A[l - 1], mask, rate)
            calls.append(call)
            masks.append(mask)
            A.append(call.wrote["A"])
        dZ, late = self._output(A[self.L], Y, w)
        for l in range(self.L, 0, -1):
            written = self._next("dense_vjp_params").wrote["dW"]
            gradient = f.weights_gradient(self._given(dZ), self._given(A[l - 1]), late, self._old(self.dW, l))
            self.verdict.judge(f"dW{l}", written, gradient)
            self.dW[l] = written
            if l > 1:
                dZ = self._backward(l, dZ, A[l - 1], calls[l - 1], masks[l - 1], late)

    def _forward(self, l: int, A_prev: np.ndarray, mask: np.ndarray | None, rate: float) -> Call:
        call, B = self._next("dense"), self.B
        W, b = self._given(self.theta[f"W{l}"]), self._given(self.theta[f"b{l}"])
        z = f.affine(W, self._given(A_prev), b)
        if "Z" in call.revealed:  # kept apart, judged apart
            self.verdict.judge(f"Z{l}", call.revealed["Z"], z)
            z = self._given(call.revealed["Z"])
        if mask is not None:
            self.verdict.same(f"mask{l}", call.revealed["mask"], mask)
        a = f.activation(B, *self._activation(l), z)
        if mask is not None and "G" in call.revealed:
            self.verdict.judge(f"G{l}", call.revealed["G"], a)
            a = self._given(call.revealed["G"])
        self.verdict.judge(f"A{l}", call.wrote["A"], f.dropped(B, a, mask, rate))
        self.below[l] = (rate, W, self._given(A_prev), b)
        return call

    def _activation(self, l: int) -> tuple[str, dict[str, float]]:
        return self.recipe.activations[l - 1] if l < self.L else ("identity", {})

    def _output(self, Z: np.ndarray, Y: np.ndarray, w: np.ndarray | None) -> tuple[np.ndarray, Bounded | None]:
        """dZ[L] as recorded, and the late 1/D."""
        r, B, call = self.recipe, self.B, self._next("output_delta")
        self.verdict.judge("1/D", call.numbers["inverse_denominator"], self._over_D(1.0))
        inverse = self._given(call.numbers["inverse_denominator"])
        y = f.one_hot(Y, r.sizes[-1]) if Y.shape[0] != r.sizes[-1] else Y
        z, y = self._given(Z), self._given(y)
        loss, early, late = (r.loss, r.loss_parameters), *((None, inverse) if r.late else (inverse, None))
        self.verdict.judge("value", call.wrote["value"], f.cost(B, *loss, z, y, w, inverse, self._given(self.value)))
        self.value = call.wrote["value"]
        self.verdict.judge(f"dZ{self.L}", call.wrote["dZ"], f.output_delta(B, *loss, r.form, z, y, w, early))
        self._bias(self.L, call.wrote["dZ"], late, call.wrote["db"])
        return call.wrote["dZ"], late

    def _bias(self, l: int, dZ: np.ndarray, late: Bounded | None, written: np.ndarray) -> None:
        self.verdict.judge(f"db{l}", written, f.summed(self.B, self._given(dZ), late, self._old(self.db, l)))
        self.db[l] = written

    def _backward(
        self, l: int, dZ: np.ndarray, A_prev: np.ndarray, forward: Call, mask: np.ndarray | None, late: Bounded | None
    ) -> np.ndarray:
        """dZ[l-1] as recorded."""
        call, r, B = self._next("dense_vjp_input"), self.recipe, self.B
        dA = self._given(self.theta[f"W{l}"]).T @ self._given(dZ)
        dA = f.dropped(B, dA, mask, r.dropout[l - 2])
        state = f.revealed_state(B, *self._activation(l - 1), forward.revealed, A_prev, *self.below[l - 1])
        reference = f.activation_vjp(B, *self._activation(l - 1), dA, *state)
        self.verdict.judge(f"dZ{l - 1}", call.wrote["dZ_prev"], reference)
        self._bias(l - 1, call.wrote["dZ_prev"], late, call.wrote["db_prev"])
        return call.wrote["dZ_prev"]

    def _penalty(self) -> None:
        """The gradient that is applied: the micro-batches' sum, with the penalty on weights alone, zero in between."""
        call, r, B, trace = self._next("penalty"), self.recipe, self.B, self.trace
        gradient = np.zeros(trace.grad.shape)
        for l in range(1, self.L + 1):
            self._part(gradient, f"W{l}")[...] = self.dW[l]
            self._part(gradient, f"b{l}")[...] = self.db[l]
        strengths = []
        for name, strength in (("l1", r.l1), ("l2", r.l2)):
            given = call.numbers[name]
            assert (given is not None) == bool(strength), f"{name} is {'missing' if strength else 'there unasked'}"
            if given is not None:
                self.verdict.judge(name, given, self._over_D(strength))
            strengths.append(None if given is None else self._given(given))
        n = r.n_weights
        theta, grad = self._given(trace.theta[:n]), self._given(gradient)
        self.verdict.judge("dW+penalty", trace.grad[:n], uf.penalized(B, theta, grad[:n], *strengths))
        self.verdict.same("db applied", trace.grad[n:], gradient[n:])
        self.verdict.judge("J", trace.value, uf.penalty_cost(B, theta, self._given(self.value), *strengths))

    def _clip(self) -> Bounded | None:
        limit = self.recipe.clip_norm
        if limit is None:
            return None
        wrote = self._next("global_norm").wrote
        self.verdict.judge("norm", wrote["norm"], uf.global_norm(self.B, self._given(self.trace.grad)))
        self.verdict.judge("clip factor", wrote["factor"], uf.clip_factor(self.B, self._given(wrote["norm"]), limit))
        return self._given(wrote["factor"])

    def _update(self, factor: Bounded | None, learning_rate: float) -> None:
        r, B, trace = self.recipe, self.B, self.trace
        calls = [call for call in self.trace.calls if call.name == "update"]
        numbers = uf.step_numbers(r.optimizer, r.optimizer_parameters, self.t + 1, learning_rate)
        for call in calls:
            wanted = Bounded(numbers, [B.u * abs(x) for x in numbers], B)
            self.verdict.judge("step numbers", call.numbers["scalars"], wanted)
        recorded = self._given(calls[0].numbers["scalars"])
        g = self._given(trace.grad)
        decayed = np.arange(trace.theta.size) < r.n_weights
        theta, slots = uf.update(
            B,
            r.optimizer,
            r.optimizer_parameters,
            self._given(trace.theta),
            g if factor is None else g * factor,
            [self._given(slot) for slot in trace.slots],
            [recorded[i : i + 1] for i in range(len(numbers))],
            decayed,
        )
        for k, (got, wanted) in enumerate(zip(trace.slots_after, slots, strict=True)):
            self.verdict.judge(f"slot {k}", got, wanted)
        self.verdict.judge("theta", trace.theta_after, theta)


def worst(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The largest ratio per tensor over a run."""
    names = dict.fromkeys(itertools.chain.from_iterable(v.ratios for v in verdicts))
    return {name: max(v.ratios.get(name, 0.0) for v in verdicts) for name in names}
