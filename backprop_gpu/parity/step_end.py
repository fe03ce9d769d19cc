"""What a step does once, in the replay: penalty, clipping, the optimizer's numbers, its state and the parameters."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from .comparator import Comparator
from .oracle import updates
from .oracle.bounds import U64, Bounded, Bounds
from .oracle.groups import Part, rules
from .oracle.layers import Parameters
from .oracle.products import Recorded
from .trace import Call, StepTrace

TINY = 2.0**24


class BrokenStep(Exception):
    """The step made other calls than it should have; what is left cannot be checked."""


class Calls:
    """The recorded calls, by name, each taken once and in order."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.queues: dict[str, list[Call]] = {}
        for call in calls:
            self.queues.setdefault(call.name, []).append(call)

    def next(self, name: str) -> Call:
        """The next call of a kernel."""
        if not self.queues.get(name):
            raise BrokenStep(f"the step made too few calls of {name}")
        return self.queues[name].pop(0)

    def all(self, name: str) -> list[Call]:
        """The calls that are left of a kernel, at least one."""
        return [self.next(name), *self.queues.pop(name)]

    def none_left(self) -> None:
        """Every call was one that the step should make."""
        left = [name for name, queue in self.queues.items() for _ in queue]
        if left:
            raise BrokenStep(f"the step made calls that it should not have made: {', '.join(left)}")


class StepEnd:
    """Checks what comes after the last backward pass; ``bounds`` are those of the master weights."""

    def __init__(self, trace: StepTrace, bounds: Bounds, comparator: Comparator, calls: Calls) -> None:
        self.trace, self.spec, self.B, self.comparator, self.calls = trace, trace.spec, bounds, comparator, calls
        self.parts = self.spec.groups(trace.theta.shape[0])

    def __call__(self, gradient: np.ndarray, value: np.ndarray) -> None:
        """``gradient`` and ``value`` as the micro-batches left them."""
        self._penalty(gradient, value)
        self._update(self._clip())

    def _denominator(self) -> tuple[float, float]:
        """D of the whole batch. m is exact; the sum of the weights was taken on the device, in any order."""
        w, m = self.trace.weights, self.trace.X.shape[1]
        if self.spec.reduction == "sum":
            return 1.0, 0.0
        if w is None:
            return float(m), 0.0
        total = float(w.sum(dtype=np.float64))
        return total, self.B.gamma(m - 1) * total

    def over_D(self, x: float, over: bool = True) -> Bounded:
        """x / D, (1,): worked out on the host in float64 and rounded once."""
        D, error = self._denominator() if over else (1.0, 0.0)
        B, v = self.B, np.array([x / D])
        r = error / (D - error) + (B.u + 4.0 * U64 if B.u else 0.0)
        return Bounded(B, v, float(abs(v[0])), r=r, a=B.eta * bool(x))

    def _penalty(self, gradient: np.ndarray, value: np.ndarray) -> None:
        """The gradient that is applied: the micro-batches' sum, with the penalty on weights alone."""
        r, B, trace, comparator = self.spec, self.B, self.trace, self.comparator
        n, names = r.n_weights, [f"d{name}" for name in r.layout]
        if not (r.l1 or r.l2):
            comparator.same("step", "gradient", trace.grad, gradient, names)
            comparator.same("step", "J", trace.value, value, ["value"])
            return
        call, strengths = self.calls.next("penalty"), []
        for name, strength in (("l1", r.l1), ("l2", r.l2)):
            given = call.numbers[name]
            if (given is not None) != bool(strength):
                raise BrokenStep(f"the penalty {name} is {'there unasked' if given is not None else 'missing'}")
            if given is not None:
                over = r.penalty_over == "examples"
                comparator.compare("step", name, given, self.over_D(strength, over), inputs=["weights"])
            strengths.append(None if given is None else B.given(given))

        theta, before = Recorded(trace.theta), Recorded(gradient)

        def penalized(rows: slice) -> Bounded:
            return updates.penalized(B, theta.given(B, rows), before.given(B, rows), *strengths)

        comparator.compare("penalty", "dW+penalty", trace.grad[:n], penalized, inputs=names)
        comparator.same("penalty", "db applied", trace.grad[n:], gradient[n:], names)
        cost = updates.penalty_cost(B, theta.given(B, slice(n)), B.given(value), *strengths)
        comparator.compare("penalty", "J", trace.value, cost, k=n, inputs=["value"])

    def _clip(self) -> np.ndarray | None:
        limit, B = self.spec.clip_norm, self.B
        if limit is None:
            return None
        wrote, grad = self.calls.next("global_norm").wrote, self.trace.grad
        gradients = ["gradient", "dW+penalty", "db applied"]
        norm = updates.global_norm(B, grad)
        self.comparator.compare("global_norm", "norm", wrote["norm"], norm.checked(), k=grad.size, inputs=gradients)
        # Beyond what its dtype holds to full precision, the norm that was written is not the one of the factor.
        held = not np.isfinite(grad).all() or B.eta <= norm.v[0] <= B.largest
        factor = updates.clip_factor(B, B.given(wrote["norm"]) if held else norm, limit)
        self.comparator.compare("global_norm", "clip factor", wrote["factor"], factor, inputs=["norm"])
        return wrote["factor"]

    def _numbers(self) -> list[Bounded]:
        """The step's numbers for each part of the parameters as recorded, after they were checked."""
        r, B, t = self.spec, self.B, self.trace.t
        p, calls, parts = r.optimizer_parameters, self.calls.all("update"), self.parts
        rate = p["learning_rate"] * updates.schedule_factor(r.schedule, r.schedule_parameters, t, r.total_steps)
        alike = len(rules(parts)) == 1
        if alike:  # in one call or several, it is the same step
            parts = parts[:1] * len(calls)
        if len(calls) != len(parts):
            raise BrokenStep(f"the step made {len(calls)} calls of update for {len(parts)} parts of the parameters")
        for call, part in zip(calls, parts, strict=True):
            numbers = np.array(part.numbers(r.optimizer, p, t + 1, rate))
            wanted = Bounded(B, numbers, float(np.abs(numbers).max()), r=B.u + 64.0 * U64 if B.u else 0.0, a=B.eta)
            recorded = call.numbers["scalars"]
            if recorded is None:
                raise BrokenStep("update was called without its numbers")
            self.comparator.compare("step", "step numbers", recorded, wanted)
        given = [B.given(np.asarray(call.numbers["scalars"])) for call in calls]
        return given[:1] * len(self.parts) if alike else given

    def _update(self, factor: np.ndarray | None) -> None:
        r, B, trace, comparator = self.spec, self.B, self.trace, self.comparator
        recorded = [[x[i : i + 1] for i in range(x.shape[0])] for x in self._numbers()]
        p, cuts = r.optimizer_parameters, tuple(part.start for part in self.parts[1:])

        def of(rows: slice) -> tuple[Part, Parameters, list[Bounded]]:
            """The part in which some entries are, its parameters and its numbers."""
            i = bisect.bisect_right(cuts, rows.start)
            return self.parts[i], self.parts[i].parameters(p), recorded[i]

        inputs = ["gradient", "dW+penalty", "db applied", "clip factor", "step numbers"]
        grad, before = Recorded(trace.grad), Recorded(trace.theta)
        state, state_after = (
            [Recorded(s) for s in trace.optimizer_state],
            [Recorded(s) for s in trace.optimizer_state_after],
        )

        clip = None if factor is None else B.given(factor)
        if clip is not None and 0.0 < clip.top < TINY * B.eta:  # products with it underflow, in an order left open
            clip = Bounded(B, clip.v, clip.top, e=np.full(1, np.inf))

        def gradient(rows: slice) -> Bounded:
            g = grad.given(B, rows)
            return g if clip is None else g * clip

        averaged = bool(p.get("average", 0.0))
        n_vectors = len(state_after) - averaged
        for k, after in enumerate(state_after[:n_vectors]):

            def vector(rows: slice, k: int = k) -> Bounded:
                _, own, numbers = of(rows)
                return updates.new_state_vector(
                    B, r.optimizer, own, k, gradient(rows), lambda i: state[i].given(B, rows), numbers[0]
                )

            comparator.compare("update", f"state {k}", after.x, vector, inputs=inputs, cuts=cuts)

        def theta(rows: slice) -> Bounded:
            old, new = (lambda i: state[i].given(B, rows)), (lambda i: state_after[i].given(B, rows))
            part, own, numbers = of(rows)
            moved = before.given(B, rows), gradient(rows)
            return updates.new_theta(B, r.optimizer, own, *moved, old, new, numbers, part.decay)

        names = [f"state {k}" for k in range(n_vectors)]
        comparator.compare("update", "theta", trace.theta_after, theta, inputs=[*inputs, *names], cuts=cuts)
        if not averaged:
            return
        moved = Recorded(trace.theta_after)

        def average(rows: slice) -> Bounded:
            return updates.new_average(B, state[-1].given(B, rows), moved.given(B, rows), recorded[0][-1])

        comparator.compare("update", "average", state_after[-1].x, average, inputs=["theta", "step numbers"])
