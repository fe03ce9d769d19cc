"""Plain NumPy in place, as one would write it by hand: the baseline, and in float64 the reference of the others."""

from __future__ import annotations

import math

import numpy as np

from backprop_gpu.maths.special import erf

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer

Layer = tuple[np.ndarray, ...]


def _activate(name: str, a: np.ndarray, slope: np.ndarray) -> None:
    """a <- g(a);  slope <- g'(a), where backward cannot have it from g(a)."""
    if name == "relu":
        np.maximum(a, 0, out=a)
    elif name == "tanh":
        np.tanh(a, out=a)
    elif name == "sigmoid":
        np.negative(a, out=a)
        np.exp(a, out=a)
        a += 1
        np.reciprocal(a, out=a)
    else:  # gelu: a cdf(a), whose slope is cdf(a) + a pdf(a)
        cdf = 0.5 * (1.0 + erf(np, a * math.sqrt(0.5)))
        slope[...] = cdf + a * (np.exp(-0.5 * a * a) * (1.0 / math.sqrt(2.0 * math.pi)))
        a *= cdf


def _times_slope(name: str, d: np.ndarray, a: np.ndarray, slope: np.ndarray) -> None:
    """d <- d g', from a = g(z) or from the slope that ``_activate`` kept."""
    if name == "relu":
        np.greater(a, 0, out=slope)
    elif name == "tanh":
        np.multiply(a, a, out=slope)
        np.subtract(1, slope, out=slope)
    elif name == "sigmoid":
        np.subtract(1, a, out=slope)
        np.multiply(slope, a, out=slope)
    d *= slope


class PlainNumpy(Peer):
    """Examples are rows here; parameters, gradient and moments are rows of one array."""

    def __init__(self, dtype: str = "float32", adam: str = "paper") -> None:
        self.dtype, self.adam = dtype, adam

    def prepare(self, task: Task) -> None:
        """Parameters from the task, everything else zero."""
        self.task, self.t, work = task, 0, task.work
        self.classes = work.loss == "categorical_cross_entropy"
        self.X = task.X.astype(self.dtype, copy=False)
        self.Y = np.eye(work.sizes[-1], dtype=self.dtype)[task.y] if self.classes else task.y.astype(self.dtype)
        self.flat = np.zeros((5, work.parameters), self.dtype)  # theta, gradient, m, v, scratch
        (self.W, self.b), (self.dW, self.db) = self._views(self.flat[0]), self._views(self.flat[1])
        for view, given in zip([*self.W, *self.b], [*task.W, *task.b], strict=True):
            view[...] = given.T
        self.buffers: dict[int, list[Layer]] = {}

    def _views(self, vector: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        W, b, at = [], [], 0
        for k, n in self.task.work.layers:
            W.append(vector[at : at + k * n].reshape(k, n))
            b.append(vector[at + k * n : at + k * n + n])
            at += k * n + n
        return W, b

    def _layers(self, m: int) -> list[Layer]:
        """(A, dZ, slope) of each layer for m examples; at 0 (inputs, targets, nothing)."""
        if m not in self.buffers:
            inputs, *others = (tuple(np.empty((3, m, n), self.dtype)) for n in self.task.work.sizes)
            self.buffers[m] = [(inputs[0], np.empty_like(others[-1][0]), inputs[0]), *others]
        return self.buffers[m]

    def _forward(self, layers: list[Layer]) -> np.ndarray:
        """Logits; for a softmax shifted so that their largest is 0."""
        for l, (A, _, slope) in enumerate(layers[1:]):
            np.matmul(layers[l][0], self.W[l], out=A)
            A += self.b[l]
            if l < len(layers) - 2:
                _activate(self.task.work.activation, A, slope)
        if self.classes:
            A -= A.max(axis=1, keepdims=True)
        return A

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Gather, forward, loss, backward, Adam."""
        return np.array([self._step(rows) for rows in self.cut(order)], self.dtype)

    def _step(self, rows: np.ndarray) -> float:
        layers = self._layers(len(rows))
        X, Y, _ = layers[0]
        np.take(self.X, rows, axis=0, out=X, mode="clip")
        np.take(self.Y, rows, axis=0, out=Y, mode="clip")
        Z, d = self._forward(layers), layers[-1][1]
        loss = self._softmax(Z, Y, d) if self.classes else self._squares(Z, Y, d)
        for l in range(len(layers) - 2, -1, -1):
            A_prev, d_prev, slope = layers[l]
            np.matmul(A_prev.T, d, out=self.dW[l])
            np.sum(d, axis=0, out=self.db[l])
            if l:
                np.matmul(d, self.W[l].T, out=d_prev)
                _times_slope(self.task.work.activation, d_prev, A_prev, slope)
                d = d_prev
        self._update()
        return loss

    def _softmax(self, Z: np.ndarray, Y: np.ndarray, d: np.ndarray) -> float:
        """The mean cross-entropy; d <- its derivative."""
        np.exp(Z, out=d)
        total = d.sum(axis=1, keepdims=True)
        loss = float(np.log(total).sum() - np.vdot(Z, Y)) / len(Z)
        d /= total
        d -= Y
        d *= 1.0 / len(Z)
        return loss

    def _squares(self, Z: np.ndarray, Y: np.ndarray, d: np.ndarray) -> float:
        """Half the mean of the squares; d <- its derivative."""
        np.subtract(Z, Y, out=d)
        loss = 0.5 * float(np.vdot(d, d)) / d.size
        d *= 1.0 / d.size
        return loss

    def _update(self) -> None:
        theta, grad, m, v, scratch = self.flat
        self.t += 1
        first, second = 1.0 - BETA1**self.t, math.sqrt(1.0 - BETA2**self.t)
        step, c = (RATE / first, 1.0 / second) if self.adam == "paper" else (RATE * second / first, 1.0)
        m *= BETA1
        np.multiply(grad, 1.0 - BETA1, out=scratch)
        m += scratch
        v *= BETA2
        np.multiply(grad, grad, out=scratch)
        scratch *= 1.0 - BETA2
        v += scratch
        np.sqrt(v, out=scratch)
        scratch *= c
        scratch += EPSILON
        np.divide(m, scratch, out=scratch)
        scratch *= step
        theta -= scratch

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        """Softmax of the last layer, or its values."""
        layers = self._layers(len(X))
        layers[0][0][...] = X
        if not self.classes:
            return self._forward(layers).copy()
        p = np.exp(self._forward(layers))
        p /= p.sum(axis=1, keepdims=True)
        return p
