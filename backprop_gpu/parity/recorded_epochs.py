"""Epochs as training runs them: recorded steps over several batches and a ragged tail, each checked after it was taken.

A step that is right when it is called outright may still be recorded wrongly, get the rows or the numbers of another
batch, or put its cost where that of another belongs. So the programs that training records are replayed here one step
at a time, and after each: the batch must hold the rows that its place in the epoch's order names, bit for bit; its
numbers (1/D, penalties, the optimizer's) must be those of this step and this batch; and parameters, state and cost must
have the bits of the same step called outright from the same state, every tensor of which is checked by its bound. In
the end the whole epoch is replayed at once, which must give the same bits again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import NonFiniteError
from ..maths.random import host_generator
from ..network.step import TrainingStep
from ..training.batches import SHUFFLE_STREAM, BatchBuffers, Batches, StreamedBatches
from ..training.epoch import CapturedEpoch
from .claims import bounds_of
from .comparator import Comparator
from .diagnosis.diagnose import diagnose
from .findings import Finding
from .oracle import updates
from .oracle.bounds import U64, Bounded
from .oracle.groups import rules
from .step_replay import compare_step
from .trace import trace_spec, trace_step

RECORDED = "recorded step"
Rows = Sequence[np.ndarray | None]


@dataclass(frozen=True)
class EpochPlan:
    """How training goes through the rows.

    ``epochs``: of the whole run; the first two and the last are checked. ``streamed``: the rows stay on the host.
    """

    batch_size: int
    epochs: int = 2
    micro_batch: int | None = None
    shuffle: bool = True
    seed: int = 0
    streamed: bool = False

    @property
    def checked(self) -> list[int]:
        """The epochs that are checked, from 0."""
        return sorted({0, min(1, self.epochs - 1), self.epochs - 1})

    def order(self, epoch: int, n: int) -> np.ndarray:
        """The order of the rows in an epoch, as it is promised: by seed and epoch alone."""
        return host_generator(self.seed, SHUFFLE_STREAM, epoch).permutation(n) if self.shuffle else np.arange(n)


def rows_and_batch(n: int, batch_size: int) -> tuple[int, int]:
    """How many of n rows to check a run on, and in batches of what size: two of the run's and a ragged tail, if it can
    be, else two and a tail of what there is.
    """
    batch = min(batch_size, max(2 * n // 5, 2))
    tail = n % batch if batch == batch_size else 0
    return min(n, 2 * batch + (tail or max(batch // 2, 1))), batch


def compare_epochs(
    step: TrainingStep, outright: TrainingStep, rows: Rows, plan: EpochPlan, claim: str
) -> list[Finding]:
    """Check the epochs of a training run up to the first step that is wrong.

    Parameters
    ----------
    step : TrainingStep
        Is trained, from where it stands.
    outright : TrainingStep
        The same on a network of its own, with the same kernel set: it takes each step once more.
    rows : X (n, n_0), targets (n, k), weights (n, 1) or None, on the host, in the network's dtype
    """
    return _Epochs(step, outright, rows, plan, claim).check_all()


@dataclass
class _State:
    parameters: dict[str, np.ndarray]
    optimizer_state: list[np.ndarray]

    @classmethod
    def of(cls, step: TrainingStep) -> _State:
        to_host = step.net.backend.to_host
        return cls(step.net.parameters(), [to_host(vector) for vector in step.optimizer_state])

    def into(self, step: TrainingStep) -> None:
        net = step.net
        net.set_parameters(self.parameters)
        with net.backend.activate():
            for vector, value in zip(step.optimizer_state, self.optimizer_state, strict=True):
                vector[...] = net.backend.asarray(value, net.dtype)

    def named(self) -> dict[str, np.ndarray]:
        """theta, the state's vectors and running statistics, each as one vector."""
        running = {n: x for n, x in self.parameters.items() if n.startswith(("mean", "variance"))}
        theta = [x.ravel() for n, x in self.parameters.items() if n not in running]
        found = {"theta": np.concatenate(theta)} | {f"state {k}": x for k, x in enumerate(self.optimizer_state)}
        return found | {f"running {n}": x for n, x in running.items()}


class _Epochs:
    def __init__(self, step: TrainingStep, outright: TrainingStep, rows: Rows, plan: EpochPlan, claim: str) -> None:
        self.step, self.outright, self.rows, self.plan, self.claim = step, outright, rows, plan, claim
        outright.total_steps = step.total_steps
        self.spec = trace_spec(step, plan.micro_batch)
        self.B = bounds_of(self.spec.kind, claim, master=True)
        X, Y, weights = rows
        assert X is not None
        assert Y is not None
        kind = StreamedBatches if plan.streamed else Batches
        size, shuffle, seed = plan.batch_size, plan.shuffle, plan.seed
        self.batches = kind(step.net, X, Y, weights, batch_size=size, shuffle=shuffle, seed=seed)
        self.run = CapturedEpoch(step, self.batches, plan.micro_batch)
        self.comparator, self.n, self.previous = Comparator(), len(X), np.arange(0)

    @property
    def wrong(self) -> bool:
        return any(f.status == "wrong" for f in self.comparator.findings.values())

    def check_all(self) -> list[Finding]:
        if not self.step.t:
            for k, vector in enumerate(_State.of(self.step).optimizer_state):
                self._same(f"state {k} at first", vector, np.zeros_like(vector), "before the first step", "it is not 0")
        try:
            self._check_epochs()
        except NonFiniteError:  # what honest numbers do too, if the learning rate is too high
            cause = "the training diverges, so that no further epoch is checked"
            self.comparator.add(Finding(RECORDED, "epochs", (), 1, 0.0, status="warning", cause=cause))
        return list(self.comparator.findings.values())

    def _check_epochs(self) -> None:
        for epoch in self.plan.checked:
            start, t = _State.of(self.step), self.step.t
            order = self.plan.order(epoch, self.n)
            with self.step.net.backend.activate(), np.errstate(all="ignore"):
                costs = self._step_by_step(epoch, order)
            if not self.wrong:
                after = _State.of(self.step)
                start.into(self.step)
                self.step.t = t
                self._same("J of the epoch", self.run.run(epoch), costs, f"epoch {epoch + 1} at once")
                self._same_state(after, f"epoch {epoch + 1} at once", "of the epoch")
            if self.wrong:
                break
            self.previous = order

    # -- one epoch ----------------------------------------------------------------------------------------------------

    def _step_by_step(self, epoch: int, order: np.ndarray) -> np.ndarray:
        """J of each batch, from what each step left; stops after a step that is wrong."""
        self.run.program.begin(epoch)
        backend, at = self.step.net.backend, 0
        costs: list[np.floating] = []
        for (replay, times), (_, buffers, _) in zip(self.run.replays, self.run.parts, strict=True):
            for _ in range(times):
                before = _State.of(self.step)
                fill = buffers.filler(len(costs), 1)
                replay(1) if fill is None else replay(1, fill)
                costs.append(backend.to_host(self.step.value)[0])
                self._check_batch(epoch, len(costs) - 1, buffers, order, at, before)
                at += buffers.m
                if self.wrong:
                    return np.array(costs)
        reported, right = self.run.program.end(), np.array(costs)
        self._same("J by batch", reported, right, f"epoch {epoch + 1}", _moved(reported, right))
        return right

    def _check_batch(
        self, epoch: int, k: int, buffers: BatchBuffers, order: np.ndarray, at: int, before: _State
    ) -> None:
        where, chosen = f"batch {k + 1} of epoch {epoch + 1}", order[at : at + buffers.m]
        backend, t = self.step.net.backend, self.step.t + k
        for name, got, source in zip(
            ("X", "Y", "weights"), (buffers.X, buffers.Y, buffers.weights), self.rows, strict=True
        ):
            if source is not None:
                host = backend.to_host(got)
                cause = "" if np.array_equal(host.T, source[chosen]) else self._which(host.T, source, order, at)
                self._same(f"{name} of the batch", host, source[chosen].T, where, cause)
        w = self.rows[2]
        total = None if w is None else float(w[chosen].sum())
        self._numbers(t, buffers.m, total, where)
        if self.wrong:
            return
        before.into(self.outright)
        self.outright.t = t
        net = self.outright.net
        columns = [None if x is None else net.upload_columns(x[chosen]) for x in self.rows]
        trace = trace_step(self.outright, *columns, weights_sum=total, micro_batch=self.plan.micro_batch)
        found = compare_step(trace, self.claim)
        for f in found.findings:
            if f.status == "wrong":
                cause = diagnose(f, found.comparisons.get(f.tensor), trace)
                self.comparator.add(replace(f, cause=f"{where}: {cause}" if cause else where))
        self._same("J recorded", backend.to_host(self.step.value), trace.value, where)
        self._same_state(_State.of(self.outright), where)

    def _same_state(self, wanted: _State, where: str, which: str = "recorded") -> None:
        got = _State.of(self.step).named()
        for name, value in wanted.named().items():
            self._same(f"{name} {which}", got[name], value, where)

    def _same(self, tensor: str, got: np.ndarray, want: np.ndarray, where: str, cause: str = "") -> None:
        """Bit for bit; what is wrong is said with its place in the run."""
        found = self.comparator.same(RECORDED, tensor, got, want)
        if found.status == "wrong":
            text = cause or "other bits than the step that is called outright"
            self.comparator.findings[tensor] = replace(found, cause=f"{where}: {text}")

    # -- what a wrong batch or number is ------------------------------------------------------------------------------

    def _which(self, got: np.ndarray, source: np.ndarray, order: np.ndarray, at: int) -> str:
        """Whose rows these are."""
        m = len(got)

        def is_(rows: np.ndarray) -> bool:
            return len(rows) == m and np.array_equal(got, source[rows])

        for shift in (1, -1):
            if is_(np.take(order, np.arange(at + shift, at + shift + m), mode="wrap")) or is_(
                np.take(order, np.arange(at + shift, at + shift + m), mode="clip")
            ):
                return f"its rows begin {abs(shift)} too {'late' if shift > 0 else 'early'} in the epoch's order"
        if is_(self.previous[at : at + m]):
            return "its rows are in the order of the epoch before"
        for other in range(len(self.batches.sizes)):
            start = sum(self.batches.sizes[:other])
            if start != at and is_(order[start : start + m]):
                return f"its rows are those of batch {other + 1}"
        chosen = source[order[at : at + m]]
        if np.array_equal(np.sort(got, axis=0), np.sort(chosen, axis=0)):
            return "its rows stand in another order within the batch"
        differs = np.flatnonzero((got != chosen).any(axis=1))
        known = {row.tobytes() for row in np.ascontiguousarray(source)}
        if all(row.tobytes() in known for row in np.ascontiguousarray(got)):
            return f"{len(differs)} of {m} rows are other rows of the data"
        return f"{len(differs)} of {m} rows are not what was uploaded"

    def _numbers_of(self, t: int, m: int, total: float | None) -> np.ndarray:
        """1/D, the penalties' strengths and the optimizer's numbers at step t (from 0), in float64."""
        r = self.spec
        D = 1.0 if r.reduction == "sum" else float(m) if total is None else total
        over = 1.0 / D if r.penalty_over == "examples" else 1.0
        rate = r.optimizer_parameters["learning_rate"]
        rate *= updates.schedule_factor(r.schedule, r.schedule_parameters, t, r.total_steps)
        rule = rules(r.groups(self.step.net.params.theta.shape[0]))
        own = [x for part in rule for x in part.numbers(r.optimizer, r.optimizer_parameters, t + 1, rate)]
        return np.array([1.0 / D / r.members, r.l1 * over, r.l2 * over, *own])

    def _numbers(self, t: int, m: int, total: float | None, where: str) -> None:
        want = self._numbers_of(t, m, total)
        got = self.step.net.backend.to_host(self.step.current_step_scalars)
        r = self.B.u + 64.0 * U64 + (0.0 if total is None else self.B.gamma(m))
        top = float(np.abs(want).max())
        if np.array_equal(got, want.astype(got.dtype)):
            self.comparator.same(RECORDED, "numbers of the step", got, got)
            return
        found = self.comparator.compare(
            RECORDED, "numbers of the step", got, Bounded(self.B, want, top, r=r, a=self.B.eta)
        )
        if found.status != "wrong":
            return
        cause = "other numbers than this step's"
        others = {
            "the numbers of the step before": self._numbers_of(max(t - 1, 0), m, total),
            "the numbers of the step after": self._numbers_of(t + 1, m, total),
        }
        full = self.plan.batch_size
        if m != full:
            others[f"1/D of a full batch of {full}, although this one has {m}"] = self._numbers_of(t, full, None)
        for text, numbers in others.items():
            if not np.array_equal(numbers, want) and np.all(np.abs(got - numbers) <= 4.0 * r * np.abs(numbers)):
                cause = text
                break
        else:
            names = ["1/D", "l1", "l2", *(f"optimizer's number {i + 1}" for i in range(len(want) - 3))]
            off = [
                f"{n} is {g:.6g} for {v:.6g}"
                for n, g, v in zip(names, got, want, strict=True)
                if abs(g - v) > 4.0 * r * abs(v) + self.B.eta
            ]
            cause = f"{cause}: {'; '.join(off)}" if off else cause
        self.comparator.findings["numbers of the step"] = replace(found, cause=f"{where}: {cause}")


def _moved(got: np.ndarray, want: np.ndarray) -> str:
    """Where a cost went."""
    wrong = np.flatnonzero(~((got == want) | (np.isnan(got) & np.isnan(want))))
    if not len(wrong):
        return ""
    for i in wrong:
        at = [int(j) + 1 for j in np.flatnonzero(want == got[i]) if j != i]
        if at:
            return f"J of batch {at[0]} stands where that of batch {i + 1} belongs"
    first = int(wrong[0])
    return f"J of batch {first + 1} is {got[first]:.6g}, and {want[first]:.6g} after its step"
