"""Checking a prediction: every layer of it from its recorded inputs, and that it changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from . import input_replay
from .claims import KINDS, bounds_of
from .comparator import Comparator
from .diagnosis.diagnose import diagnose
from .findings import Finding
from .member_replay import MemberReplay
from .oracle import layers
from .oracle.bounds import Bounded, Bounds
from .oracle.operations import joined
from .oracle.products import Product, Recorded
from .step_end import BrokenStep
from .step_replay import Layer, Replayed, StepReplay
from .trace import Call, Recorder, StepTrace, trace_spec

PREDICT = "predict"
CLOSE = 1e-3  # of its spread: what a hypothesis about a whole layer may miss by


def compare_prediction(step: TrainingStep, X: np.ndarray, claim: str) -> Replayed:
    """What the network of a step predicts of rows X (n, n_0), on the host in its dtype, together and of one alone.

    Each layer must be what its kernel's inputs give, normalized by the running statistics; AL the link of the logits;
    labels those of AL; and parameters, running statistics among them, must stay as they are. The tensors' names are
    those of a step, such as ``"predicted A1"``.
    """
    net, comparator = step.net, Comparator()
    for rows in (X, X[:1]):
        before = net.parameters()
        calls, AL = _recorded(net, rows)
        each = net.L + sum(net.batch_norm) + sum(net.parametric) + len(net.ensemble.adapted)
        length, at = net.members * each + net.inputs.calls, 0
        while layers_there := [call for call in calls if call.name == "dense"]:
            end = at + layers_there[0].wrote["A"].shape[1]
            _Prediction(step, before, rows[at:end], calls[:length], claim).into(comparator, AL[at:end])
            at, calls = end, calls[length:]
        comparator.same(PREDICT, "predicted rows", np.array([at]), np.array([len(rows)]))
        comparator.same(PREDICT, "predicted labels", net.predict(rows), _labels(net, AL))
        after = net.parameters()
        moved = [name for name, x in after.items() if not np.array_equal(x, before[name], equal_nan=True)]
        for name in moved:
            found = comparator.same(PREDICT, f"{name} afterwards", after[name], before[name])
            comparator.findings[found.tensor] = replace(found, cause="a prediction moves it")
        if not moved:  # as it is where nobody looks on: few rows are a recorded program
            comparator.same(PREDICT, "predicted again", net.predict_proba(rows), AL)
    return Replayed(list(comparator.findings.values()), comparator.inputs, comparator.comparisons)


def _recorded(net: DenseNet, X: np.ndarray) -> tuple[list[Call], np.ndarray]:
    """The kernel calls of a prediction, and AL."""
    recorder = Recorder(net.kernels, net.backend)
    inner, net.kernels = net.kernels, recorder
    try:
        AL = net.predict_proba(X)
    finally:
        net.kernels = inner
    return recorder.calls, AL


def _labels(net: DenseNet, AL: np.ndarray) -> np.ndarray:
    """What ``predict`` makes of AL."""
    if net.loss.labels == "classes":
        return AL.argmax(axis=1)
    found = (AL > 0.5).astype(np.int64) if net.loss.labels == "binary" else AL
    return found[:, 0] if found.shape[1] == 1 else found


class _Prediction(StepReplay):
    """The forward half of a replay, normalized layers by their running statistics."""

    def __init__(
        self, step: TrainingStep, parameters: dict[str, np.ndarray], X: np.ndarray, calls: list[Call], claim: str
    ) -> None:
        net = step.net
        spec = replace(trace_spec(step), dropout=[0.0] * (net.L - 1))
        theta, none = net.params.flat(parameters), np.zeros(1, net.dtype)
        trace = StepTrace(spec, 0, X.T, X.T[:0], None, theta, [], calls, none, none, theta, [])
        super().__init__(trace, claim, ())
        self.net, self.parameters = net, parameters
        self.link = bounds_of(KINDS.get(net.backend.name.partition(":")[0], "numpy"), claim, master=True)
        self.by_batch: dict[int, np.ndarray] = {}

    def into(self, comparator: Comparator, AL: np.ndarray) -> None:
        """Check the pass that gave the rows AL, and add what was found."""
        with np.errstate(all="ignore"):
            try:
                first, outputs = Layer(*input_replay.entering(self, self.trace.X)), list[Bounded]()
                for number in range(self.spec.members):
                    self.member, layer = MemberReplay(self, number), first
                    self.member.adapt()
                    for l in range(1, self.L + 1):
                        layer = self._forward(l, layer, None, 0.0, None)
                    outputs.append(_linked(self.link, self.net, layer.A.given(self.link)))
                mean = outputs[0] if len(outputs) == 1 else self.link.total(*outputs) / len(outputs)
                self.comparator.compare(PREDICT, "AL", AL.T, mean, inputs=[f"A{self.L}"])
            except BrokenStep as broken:
                self.comparator.add(Finding(PREDICT, "calls", (), 1, math.inf, status="wrong", cause=str(broken)))
            for found in self.comparator.findings.values():
                comparison, name = self.comparator.comparisons.get(found.tensor), f"predicted {found.tensor}"
                cause = self._by_batch(found) or diagnose(found, comparison, self.trace)
                inputs = [f"predicted {x}" for x in self.comparator.inputs.get(found.tensor, ())]
                comparator.add(replace(found, operation=PREDICT, tensor=name, cause=cause), inputs)
                if comparison is not None:
                    comparator.comparisons[name] = comparison

    def normalize(
        self, l: int, before: Layer, w: np.ndarray | None
    ) -> tuple[Callable[[slice], Bounded], list[str], Call]:
        """gamma (Z - mean)/sqrt(variance + eps) + beta, in any arrangement, after Z was checked."""
        B, product = self.B, Product(self.B, self.theta[f"W{l}"], before.A)
        Z = Recorded(self.calls.next("dense").wrote["A"])
        self.comparator.compare(
            "dense", f"Z{l}", Z.x, product.__getitem__, k=product.k, inputs=[before.name], product=product
        )
        call, own = self.calls.next("batch_norm"), {k: self.parameters[f"{k}{l}"] for k in ("mean", "variance")}
        mean, r = B.given(own["mean"]), layers.inverse_std(B, B.given(own["variance"]))
        gamma, beta = (self.theta[f"{name}{l}"] for name in ("gamma", "b"))
        scale = gamma.given(B) * r
        U = B.total(scale * Z.given(B), -(scale * mean), beta.given(B))
        z = Z.wide
        spread = np.sqrt(z.var(axis=1, keepdims=True) + layers.EPSILON)
        self.by_batch[l] = gamma.wide * (z - z.mean(axis=1, keepdims=True)) / spread + beta.wide
        return lambda rows: U[rows], [f"Z{l}"], call

    def _by_batch(self, found: Finding) -> str:
        """Whether a layer is normalized by the statistics of the rows that are predicted."""
        l = int("0" + "".join(c for c in found.tensor if c.isdigit()))
        comparison = self.comparator.comparisons.get(found.tensor)
        if found.status != "wrong" or comparison is None or l not in self.by_batch or found.tensor[0] not in "UGA":
            return ""
        name, parameters = self._activation(l)
        U = Bounded(self.B, self.by_batch[l], math.inf)
        other = U.v if found.tensor[0] == "U" else layers.activation(self.B, name, parameters, U).v
        near = np.abs(comparison.got - other) <= CLOSE * max(float(np.max(np.abs(other))), 1e-30)
        return "normalized by the statistics of these rows, not by the running ones" if near.all() else ""


def _linked(B: Bounds, net: DenseNet, z: Bounded) -> Bounded:
    """AL from the logits."""
    groups = getattr(net.loss, "groups", None)
    if groups is None:
        return layers.activation(B, net.loss.link_name, {}, z)
    ends = np.cumsum(groups)
    return joined(
        np.concatenate,
        [layers.activation(B, "softmax", {}, z[end - n : end]) for end, n in zip(ends, groups, strict=True)],
    )
