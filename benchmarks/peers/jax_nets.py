"""JAX with Adam written out: one jitted call a step, or a lax.scan over all full batches of an epoch."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..workloads import BETA1, BETA2, EPSILON, RATE, Task
from .base import Peer

_FUNCTIONS: dict[str, Any] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": partial(jax.nn.gelu, approximate=False),
}


def _logits(layers: Any, X: Any, activation: str) -> Any:
    for W, b in layers[:-1]:
        X = _FUNCTIONS[activation](X @ W + b)
    W, b = layers[-1]
    return X @ W + b


def _loss(layers: Any, X: Any, y: Any, activation: str) -> Any:
    Z = _logits(layers, X, activation)
    if y.ndim == 2:
        return 0.5 * jnp.mean((Z - y) ** 2)
    return jnp.mean(jax.nn.logsumexp(Z, axis=1) - jnp.take_along_axis(Z, y[:, None], axis=1)[:, 0])


def _train(state: Any, X: Any, y: Any, activation: str) -> tuple[Any, Any]:
    """One step of Adam from (parameters, m, v, t); 1 - beta^t by expm1, which float32 does not cancel."""
    layers, m, v, t = state
    loss, grad = jax.value_and_grad(_loss)(layers, X, y, activation)
    t = t + 1
    step, c = RATE / -jnp.expm1(t * math.log(BETA1)), jax.lax.rsqrt(-jnp.expm1(t * math.log(BETA2)))
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grad)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grad)
    layers = jax.tree.map(lambda w, m, v: w - step * m / (c * jnp.sqrt(v) + EPSILON), layers, m, v)
    return (layers, m, v, t), loss


_step = jax.jit(_train, static_argnames="activation", donate_argnums=0)


@partial(jax.jit, static_argnames="activation", donate_argnums=0)
def _scan(state: Any, X: Any, y: Any, order: Any, activation: str) -> tuple[Any, Any]:
    return jax.lax.scan(lambda state, rows: _train(state, X[rows], y[rows], activation), state, order)


@partial(jax.jit, static_argnames="activation")
def _probabilities(layers: Any, X: Any, activation: str) -> Any:
    return jax.nn.softmax(_logits(layers, X, activation), axis=1)


class JaxSteps(Peer):
    """A call a step; its batch is gathered by NumPy, which on a CPU costs what a gather by JAX costs.

    ``precision``: of products of float32 numbers, which JAX rounds to TF32 on a GPU unless it is told otherwise.
    """

    def __init__(self, precision: str = "highest") -> None:
        jax.config.update("jax_default_matmul_precision", precision)

    def prepare(self, task: Task) -> None:
        """Parameters and moments on the device."""
        self.task, self.activation = task, task.work.activation
        self.y = task.y if task.y.ndim == 2 else task.y.astype(np.int32)
        layers = [(jnp.array(W.T), jnp.array(b)) for W, b in zip(task.W, task.b, strict=True)]
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.state: Any = (layers, zeros(layers), zeros(layers), jnp.float32(0.0))

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Losses are brought together once, at the end."""
        losses = []
        for rows in self.cut(order):
            self.state, loss = _step(self.state, self.task.X[rows], self.y[rows], self.activation)
            losses.append(loss)
        jax.block_until_ready(self.state)
        return np.array(jax.device_get(losses))

    def predict_batch(self, X: np.ndarray) -> Any:
        """One jitted call."""
        return _probabilities(self.state[0], X, self.activation)


class JaxScan(JaxSteps):
    """A call an epoch; the ragged last batch is a step of its own."""

    def prepare(self, task: Task) -> None:
        """The table on the device too."""
        super().prepare(task)
        self.table = jnp.array(task.X), jnp.array(self.y)

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Scan the full batches."""
        m = self.task.work.batch_size
        full = len(order) // m * m
        self.state, losses = _scan(
            self.state, *self.table, order[:full].astype(np.int32).reshape(-1, m), self.activation
        )
        tail = super().epoch(order[full:]) if full < len(order) else np.empty(0)
        jax.block_until_ready(self.state)
        return np.array([*np.asarray(losses), *tail])


@partial(jax.jit, static_argnames="activation", donate_argnums=0)
def _gathered(state: Any, X: Any, y: Any, order: Any, k: Any, activation: str) -> tuple[Any, Any]:
    rows = order[k]
    return _train(state, X[rows], y[rows], activation)


class JaxOnDevice(JaxScan):
    """A call a step from a table that is on the device, where batches are gathered within the call."""

    def epoch(self, order: np.ndarray) -> np.ndarray:
        """Full batches alone: a device's workloads have no ragged one."""
        batches, losses = jnp.array(order.astype(np.int32).reshape(-1, self.task.work.batch_size)), []
        for k in range(len(batches)):
            self.state, loss = _gathered(self.state, *self.table, batches, k, self.activation)
            losses.append(loss)
        jax.block_until_ready(self.state)
        return np.array(jax.device_get(losses))
