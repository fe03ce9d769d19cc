"""The chain of a small network, tensor by tensor, in float64, with the 1/m multiplied in wherever it is asked for.

Examples are columns. The formulas are those of ``maths``; nothing is computed here but their order.

The 1/m may enter at any of the tensors dAL, dZ[L], ..., dA1, dZ1, or as late as dW and db: :func:`places` numbers them.
What comes after it on the way down carries it. A layer whose dZ carries it does not divide again (``early``); a layer
whose dZ does not divides its dW and db (``late``). So each way from J to a parameter has it once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..gradcheck.complex_step import STEP, ComplexStepNamespace
from ..maths.activations import Activation
from ..maths.dense import dense, dense_vjp_bias, dense_vjp_input, dense_vjp_weights
from ..maths.ledger import Denominator, split_scale
from ..maths.losses import Loss

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """Formulas and numbers.

    Attributes
    ----------
    activations : tuple of Activation
        g_1 ... g_L; the last one is the loss's link.
    loss : Loss
    parameters : dict
        ``W1`` (n_1, n_0), ``b1`` (n_1, 1), ..., float64.
    """

    activations: tuple[Activation, ...]
    loss: Loss
    parameters: Tensors

    @property
    def L(self) -> int:
        """The number of layers with parameters."""
        return len(self.activations)

    @property
    def sizes(self) -> tuple[int, ...]:
        """n_0 ... n_L."""
        return (self.parameters["W1"].shape[1], *(self.parameters[f"W{l}"].shape[0] for l in range(1, self.L + 1)))

    @property
    def names(self) -> tuple[str, ...]:
        """``W1, b1, ..., WL, bL``."""
        return tuple(f"{kind}{l}" for l in range(1, self.L + 1) for kind in "Wb")


def forward(net: Network, X: np.ndarray, Y: np.ndarray) -> Tensors:
    """``A0, Z1, A1, ..., ZL, AL`` and ``L``, the row (1, m) of losses; J is its mean."""
    theta, found = net.parameters, {"A0": X}
    for l, g in enumerate(net.activations, start=1):
        found[f"Z{l}"] = dense(np, theta[f"W{l}"], found[f"A{l - 1}"], theta[f"b{l}"])
        found[f"A{l}"] = g.forward(np, found[f"Z{l}"])
    found["L"] = net.loss.value(np, found[f"Z{net.L}"], Y)
    return found


def places(L: int) -> tuple[str, ...]:
    """Where the 1/m can enter, in the order of the backward pass; the first is ``early``, the last ``late``."""
    return (*(f"d{kind}{l}" for l in range(L, 0, -1) for kind in "AZ"), "dW, db")


def backward(net: Network, tensors: Tensors, Y: np.ndarray, denominator: Denominator, at: int = 0) -> Tensors:
    """``dAL, dZL, dWL, dbL, ..., dA1, dZ1, dW1, db1``, with 1/D multiplied in at place ``at`` of :func:`places`."""
    grads: Tensors = {}
    dA = net.loss.literal_dAL(np, tensors[f"A{net.L}"], Y)
    for l in range(net.L, 0, -1):
        Z, A, A_prev = tensors[f"Z{l}"], tensors[f"A{l}"], tensors[f"A{l - 1}"]
        first = 2 * (net.L - l)  # the number of this layer's dA; that of its dZ is one more
        if at == first:
            dA = denominator.inverse * dA
        dZ = net.activations[l - 1].vjp(np, dA, Z, A)
        if at == first + 1:
            dZ = denominator.inverse * dZ
        _, late = split_scale("early" if at <= first + 1 else "late", denominator.inverse)
        dW, db = dense_vjp_weights(np, dZ, A_prev), dense_vjp_bias(np, dZ)
        if late is not None:
            dW, db = late * dW, late * db
        grads |= {f"dA{l}": dA, f"dZ{l}": dZ, f"dW{l}": dW, f"db{l}": db}
        if l > 1:
            dA = dense_vjp_input(np, net.parameters[f"W{l}"], dZ)
    return grads


def sizes_of_terms(net: Network, tensors: Tensors, Y: np.ndarray) -> Tensors:
    """How large the terms are that ``dW1, db1, ...`` are sums of, (1/m) sum |...|, which bounds their rounding."""
    sizes: Tensors = {}
    dZ = np.abs(tensors[f"A{net.L}"]) + np.abs(Y)
    for l in range(net.L, 0, -1):
        sizes[f"dW{l}"] = dense_vjp_weights(np, dZ, np.abs(tensors[f"A{l - 1}"])) / Y.shape[1]
        sizes[f"db{l}"] = dense_vjp_bias(np, dZ) / Y.shape[1]
        if l > 1:
            dA = dense_vjp_input(np, np.abs(net.parameters[f"W{l}"]), dZ)
            dZ = np.abs(net.activations[l - 2].vjp(np, dA, tensors[f"Z{l - 1}"], tensors[f"A{l - 1}"]))
    return sizes


def gradient(net: Network, X: np.ndarray, Y: np.ndarray, D: float) -> Tensors:
    """``dW1, db1, ...`` of (1/D) times the sum of the losses of these examples."""
    grads = backward(net, forward(net, X, Y), Y, Denominator(D))
    return {f"d{name}": grads[f"d{name}"] for name in net.names}


def furthest(got: Tensors, want: Tensors, terms: Tensors | None = None) -> float:
    """The largest difference, relative to the largest entry of its tensor, or of ``terms`` where they cancel in it."""
    gap = {name: float(np.max(np.abs(got[name] - want[name]))) for name in want}
    size = {name: float(np.max(np.abs((terms or want)[name]))) for name in want}
    return max((gap[name] / size[name] for name in want if size[name] > 0.0), default=0.0)


SMALL = 1 << 16  # multiplications of a product that BLAS runs on one thread; waking others would take longer


def complex_step(net: Network, X: np.ndarray, Y: np.ndarray) -> Tensors:
    """The derivative of each example's loss by each parameter, ``{"W1": (n_1, n_0, m), ...}``, with no backward pass.

    Im L(theta + i h) / h for one parameter at a time, which subtracts nothing (``gradcheck.complex_step``).
    """
    tensors, found = forward(net, X, Y), {}
    together = max(1, SMALL // (X.shape[1] * max(value.size for value in net.parameters.values())))
    for name in net.names:
        value = net.parameters[name]
        derivative = np.empty((value.size, X.shape[1]))
        for start in range(0, value.size, together):
            entries = np.arange(start, min(start + together, value.size))
            derivative[entries] = np.imag(_losses(net, name, entries, tensors, Y)) / STEP
        found[name] = derivative.reshape(*value.shape, X.shape[1])
    return found


def _losses(net: Network, name: str, entries: np.ndarray, tensors: Tensors, Y: np.ndarray) -> np.ndarray:
    """The losses (k, m) with each of k entries of one parameter nudged; they pass as k m examples.

    A nudged entry moves one unit's Z, so that only this row of the product is computed again.
    """
    xp, theta, first = ComplexStepNamespace(), net.parameters, int(name[1:])
    k, m, width = len(entries), Y.shape[1], theta[name].shape[1]
    units, each = entries // width, np.arange(k)
    rows = {kind: theta[f"{kind}{first}"][units].astype(complex) for kind in "Wb"}
    rows[name[0]][each, entries % width] += 1j * STEP
    Z = np.repeat(tensors[f"Z{first}"][:, None].astype(complex), k, axis=1)
    Z[units, each] = rows["W"] @ tensors[f"A{first - 1}"] + rows["b"]
    Z = Z.reshape(-1, k * m)
    for l in range(first + 1, net.L + 1):
        Z = dense(xp, theta[f"W{l}"], net.activations[l - 2].forward(xp, Z), theta[f"b{l}"])
    return net.loss.value(xp, Z, np.tile(Y, k)).reshape(k, m)
