"""Abstract evaluation of a step: its operations run on arrays without data, to measure a kernel set's workspace."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

from ..maths.activations import Activation
from .plan import StepSpec
from .protocol import Dropout, Kernels
from .shapes import ShapeArray, ShapeBackend


def estimate_memory(kernels: Kernels, spec: StepSpec, operations: Collection[tuple[str, int | None]]) -> int:
    """Bytes beyond a step's buffers that ``kernels``, made on a ``ShapeBackend``, take for these operations at most.

    They run twice, since buffers that the first step leaves exist while the second runs. ``gather`` and ``advance`` are
    left out: they allocate nothing that grows with the network, and need real numbers.
    """
    step: Any = _ShapeStep(kernels, spec)

    def steps() -> None:
        for operation, layer in [*operations, *operations]:
            if operation not in ("gather", "advance"):
                getattr(step, operation)(layer)

    return int(step.device.passing(steps))


class _ShapeStep:
    """Buffers of a step on shapes, and each operation on them."""

    def __init__(self, kernels: Any, spec: StepSpec) -> None:
        self.kernels, self.spec = kernels, spec
        self.device: ShapeBackend = kernels.backend
        self.scale, self.one, self.norm, self.factor = (self.zeros(1) for _ in range(4))
        sizes, numbers = spec.widths, spec.optimizer.step_scalars(1, spec.optimizer.learning_rate)
        self.scalars = self.zeros(len(numbers))
        self.A = [self.examples(n) for n in sizes]
        self.dZ = [self.examples(n) for n in sizes]
        self.W = [None, *(self.zeros(n, sizes[l]) for l, n in enumerate(sizes[1:]))]
        self.b = [self.zeros(n, 1) for n in sizes]
        labels = spec.loss.labels == "classes"
        self.Y = self.device.zeros((spec.m, 1), "int64").T if labels else self.zeros(spec.m, sizes[-1]).T
        self.weights = self.zeros(spec.m, 1).T if spec.weighted else None
        self.theta = self.zeros(sum((k + 1) * n for k, n in itertools.pairwise(sizes)))
        self.optimizer_state = [self.theta for _ in spec.optimizer.state]
        self.dropout = [self.dropped(l) for l in range(len(sizes))]
        self.saved = [
            kernels.saved(n, sizes[max(l - 1, 0)], spec.m, spec.dtype, self.saving(l), self.dropout[l])
            for l, n in enumerate(sizes)
        ]

    def saving(self, l: int) -> Activation:
        """By which a layer saves: the identity where a parametric activation comes after it."""
        return self.spec.activations[0 if self.spec.parametric and self.spec.parametric[l] else l]

    def zeros(self, *shape: int) -> ShapeArray:
        return self.device.zeros(shape, self.spec.dtype)

    def examples(self, n: int) -> ShapeArray:
        m = self.spec.m
        return self.zeros(m, n).T if self.kernels.examples_contiguous else self.zeros(n, m)

    def dropped(self, l: int) -> Dropout | None:
        if not self.spec.dropout[l]:
            return None
        shapes = (-(-self.spec.sizes[l] // 4), 1), (1, self.spec.m)
        quads, examples = (self.device.zeros(shape, "int64") for shape in shapes)
        step, first = (self.device.zeros((1,), "int64") for _ in range(2))
        return Dropout(self.spec.dropout[l], 0, l, quads, examples, step, first)

    def dense(self, l: int) -> None:
        g, dropout = self.saving(l), self.dropout[l]
        self.kernels.dense(self.W[l], self.A[l - 1], self.b[l], g, dropout, A=self.A[l], saved=self.saved[l])

    def batch_norm(self, l: int) -> None:
        g, dropout, gamma = self.saving(l), self.dropout[l], self.zeros(self.spec.sizes[l], 1)
        statistics = {"mean": gamma, "variance": gamma}
        X, r = (None, None) if self.spec.predicting else (self.dZ[l], gamma)
        given = (self.A[l], gamma, self.b[l], g, dropout, self.weights)
        self.kernels.batch_norm(*given, **statistics, A=self.A[l], saved=self.saved[l], X=X, inverse_std=r)

    def batch_norm_vjp(self, l: int) -> None:
        gamma, dU = self.zeros(self.spec.sizes[l], 1), self.dZ[l]
        how = {"scale": self.scale, "accumulate": self.spec.accumulating}
        self.kernels.batch_norm_vjp(dU, self.A[l], gamma, gamma, self.weights, dZ=dU, dgamma=gamma, **how)

    def parametric(self, l: int) -> None:
        g, dropout, alpha, D = self.spec.activations[l], self.dropout[l], self.zeros(self.spec.sizes[l], 1), self.dZ[l]
        of_training = None if self.spec.predicting else D
        saved = {"A": self.A[l], "saved": self.saved[l], "D": of_training, "S": of_training}
        self.kernels.parametric(self.A[l], alpha, g, dropout, **saved)

    def parametric_vjp(self, l: int) -> None:
        dZ, alpha = self.dZ[l], self.zeros(self.spec.sizes[l], 1)
        out = {"scale": self.scale, "dZ": dZ, "dalpha": alpha, "db": alpha}
        adds = self.spec.accumulating
        self.kernels.parametric_vjp(dZ, dZ, dZ, alpha, **out, accumulate=adds, accumulate_b=adds)

    def scaling(self, l: int) -> None:
        self.kernels.scaling(self.A[0], self.b[0], H=self.dZ[0])  # its parts are no larger

    def scaling_vjp(self, l: int) -> None:
        how = {"scale": self.scale, "accumulate": self.spec.accumulating}
        self.kernels.scaling_vjp(self.dZ[0], self.A[0], self.b[0], dX=None, ds=self.b[0], **how)

    def member_weights(self, l: int) -> None:
        n, k = self.spec.widths[l], self.spec.widths[l - 1]
        self.kernels.member_weights(self.W[l], self.zeros(k), self.zeros(n), out=self.W[l])

    def member_weights_vjp(self, l: int) -> None:
        r, s = self.zeros(self.spec.widths[l - 1]), self.zeros(self.spec.widths[l])
        how = {"accumulate": True, "accumulate_own": True}
        self.kernels.member_weights_vjp(self.W[l], self.W[l], r, s, dW=self.W[l], dr=r, ds=s, **how)

    def _embedding(self) -> tuple[ShapeArray, ...]:
        """X, a tensor of each shape (J, h), (J o, h), (J o, 1), and E, P."""
        own = dict(self.spec.periodic_embedding)
        J, h, outputs = own["columns"], own["frequencies"], own["columns"] * own["outputs"]
        tensors = self.zeros(J, h), self.zeros(outputs, h), self.zeros(outputs, 1)
        return self.examples(self.spec.sizes[0]), *tensors, self.examples(outputs), self.examples(J * h)

    def periodic(self, l: int) -> None:
        X, w, V, c, E, P = self._embedding()
        self.kernels.periodic(X, w, w, V, c, E=E, P=P, Q=None if self.spec.predicting else P)

    def periodic_vjp(self, l: int) -> None:
        X, w, V, c, E, P = self._embedding()
        how = {"scale": self.scale, "accumulate": self.spec.accumulating}
        self.kernels.periodic_vjp(E, X, P, P, V, dw=w, db=w, dV=V, dc=c, **how)

    def output_delta(self, l: int) -> None:
        self.kernels.output_delta(
            *(self.spec.loss, self.spec.form, self.A[l], self.Y, self.weights),
            inverse_denominator=self.scale,
            early=True,
            dZ=self.dZ[l],
            db=self.b[l],
            value=self.one,
            accumulate=self.spec.accumulating,
        )

    def dense_vjp_params(self, l: int) -> None:
        self.kernels.dense_vjp_params(
            self.dZ[l], self.A[l - 1], scale=self.scale, dW=self.W[l], accumulate=self.spec.accumulating
        )

    def dense_vjp_input(self, l: int) -> None:
        self.kernels.dense_vjp_input(
            *(self.W[l], self.dZ[l], self.saving(l - 1), self.dropout[l - 1]),
            *(self.A[l - 1], self.saved[l - 1]),
            scale=self.scale,
            dZ_prev=self.dZ[l - 1],
            db_prev=self.b[l - 1],
            accumulate=self.spec.accumulating,
        )

    def penalty(self, _: None) -> None:
        weights = self.theta[: sum(k * n for k, n in itertools.pairwise(self.spec.widths))]
        self.kernels.penalty(weights, weights, l1=self.scale, l2=self.scale, value=self.one)

    def global_norm(self, _: None) -> None:
        self.kernels.global_norm(self.theta, 1.0, norm=self.norm, factor=self.factor)

    def update(self, _: None) -> None:
        factor = self.factor if self.spec.clipped else None
        self.kernels.update(
            self.spec.optimizer,
            self.theta,
            self.theta,
            self.optimizer_state,
            scalars=self.scalars,
            factor=factor,
            decay=True,
        )
