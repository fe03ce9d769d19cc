"""Formulas of ``maths`` written with ``out=``: the same operations, into buffers that are there.

Each is a list of NumPy calls handed to ``do``, which makes them or writes them down (see ``kernels``). ``s`` is scratch
of the shape of what is written; numbers that change from step to step are one-element arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...maths.activations import Activation
from ...maths.optimizers import Optimizer
from ...maths.special import erf

Do = Callable[..., None]
Slots = list[np.ndarray]

# Elements of a block for formulas that allocate: a dozen temporaries of 32 KiB stay in the second-level cache.
BLOCK = 8_192


def blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Parts of contiguous arrays of one shape, flat, so that temporaries are small whatever their size."""
    flat = [x.reshape(-1) for x in arrays]
    for start in range(0, flat[0].shape[0], BLOCK):
        yield tuple(x[start : start + BLOCK] for x in flat)


# -- activations: z <- g(z); ``slope`` is g' where the backward pass cannot have it from A ----------------------------


def identity(do: Do, z: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """A = Z."""


def identity_vjp(do: Do, dA: np.ndarray, A: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """dZ = dA."""


def relu(do: Do, z: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """A = max(Z, 0)."""
    do(np.maximum, z, 0.0, out=z)


def relu_vjp(do: Do, dA: np.ndarray, A: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """dZ = dA where A > 0, else 0: the bits of dA times 1 or 0, so that an infinite dA becomes 0 too."""
    bits = np.dtype(f"i{dA.itemsize}")
    alive, dZ = s.view(bits), dA.view(bits)
    do(np.greater, A, 0.0, out=alive)
    do(np.multiply, dZ, alive, out=dZ)


def tanh(do: Do, z: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """A = tanh Z."""
    do(np.tanh, z, out=z)


def tanh_vjp(do: Do, dA: np.ndarray, A: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """dZ = dA (1 - A^2)."""
    do(np.multiply, A, A, out=s)
    do(np.subtract, 1.0, s, out=s)
    do(np.multiply, dA, s, out=dA)


def sigmoid(do: Do, z: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """A = e^min(Z, 0) / (1 + e^-|Z|), in which nothing overflows."""
    do(np.abs, z, out=s)
    do(np.negative, s, out=s)
    do(np.exp, s, out=s)
    do(np.add, s, 1.0, out=s)
    do(np.minimum, z, 0.0, out=z)
    do(np.exp, z, out=z)
    do(np.divide, z, s, out=z)


def sigmoid_vjp(do: Do, dA: np.ndarray, A: np.ndarray, slope: Any, s: np.ndarray) -> None:
    """dZ = dA A (1 - A)."""
    do(np.subtract, 1.0, A, out=s)
    do(np.multiply, s, A, out=s)
    do(np.multiply, dA, s, out=dA)


def gelu(do: Do, z: np.ndarray, slope: np.ndarray, s: np.ndarray) -> None:
    """A = Z Phi(Z) and slope = Phi(Z) + Z phi(Z), so that Phi is worked out once; block by block."""
    do(_gelu, z, slope)


def _gelu(Z: np.ndarray, slope: np.ndarray) -> None:
    for z, d in blocks(Z, slope):
        cdf = 0.5 * (1.0 + erf(np, z * math.sqrt(0.5)))
        d[...] = cdf + z * (np.exp(-0.5 * (z * z)) * (1.0 / math.sqrt(2.0 * math.pi)))
        z *= cdf


def gelu_vjp(do: Do, dA: np.ndarray, A: np.ndarray, slope: np.ndarray, s: np.ndarray) -> None:
    """dZ = dA slope."""
    do(np.multiply, dA, slope, out=dA)


FORWARD: dict[str, Callable[[Do, np.ndarray, Any, np.ndarray], None]] = {
    f.__name__: f for f in (identity, relu, tanh, sigmoid, gelu)
}
VJP: dict[str, Callable[[Do, np.ndarray, np.ndarray, Any, np.ndarray], None]] = {
    "identity": identity_vjp,
    "relu": relu_vjp,
    "tanh": tanh_vjp,
    "sigmoid": sigmoid_vjp,
    "gelu": gelu_vjp,
}
KEEPS_SLOPE = ("gelu",)


def forward_in_blocks(activation: Activation, Z: np.ndarray, G: np.ndarray) -> None:
    """G <- g(Z) by the activation's own formula."""
    for z, g in blocks(Z, G):
        g[...] = activation.forward(np, z)


def vjp_in_blocks(activation: Activation, dZ: np.ndarray, Z: np.ndarray, G: np.ndarray) -> None:
    """dZ <- dZ g'(Z) by the activation's own formula."""
    for d, z, g in blocks(dZ, Z, G):
        d[...] = activation.vjp(np, d, z, g)


# -- losses from logits: dZ <- dL/dZ and loss (1, m) <- L --------------------------------------------------------------


def squared_error(do: Do, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, loss: np.ndarray, s: np.ndarray) -> None:
    """L = 1/(2 n) sum (Z - Y)^2, dL/dZ = (Z - Y)/n."""
    share = 1.0 / Z.shape[0]
    do(np.subtract, Z, Y, out=dZ)
    do(np.multiply, dZ, dZ, out=s)
    do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    do(np.multiply, loss, 0.5 * share, out=loss)
    do(np.multiply, dZ, share, out=dZ)


def binary_cross_entropy(do: Do, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, loss: np.ndarray, s: np.ndarray) -> None:
    """L = sum [max(Z, 0) - Z Y + log1p(e^-|Z|)], dL/dZ = sigmoid(Z) - Y."""
    do(np.maximum, Z, 0.0, out=s)
    do(np.multiply, Z, Y, out=dZ)
    do(np.subtract, s, dZ, out=s)
    do(np.abs, Z, out=dZ)
    do(np.negative, dZ, out=dZ)
    do(np.exp, dZ, out=dZ)
    do(np.log1p, dZ, out=dZ)
    do(np.add, s, dZ, out=s)
    do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    do(np.copyto, dZ, Z)
    sigmoid(do, dZ, None, s)
    do(np.subtract, dZ, Y, out=dZ)


def categorical_cross_entropy(
    do: Do, Z: np.ndarray, T: np.ndarray, dZ: np.ndarray, loss: np.ndarray, s: np.ndarray, total: np.ndarray
) -> None:
    """L = sum T (log sum e^S - S), dL/dZ = AL sum T - T, S = Z - max Z; ``total`` (1, m) is scratch."""
    do(np.maximum.reduce, Z, axis=0, keepdims=True, out=loss)
    do(np.subtract, Z, loss, out=s)
    do(np.exp, s, out=dZ)
    do(np.add.reduce, dZ, axis=0, keepdims=True, out=total)
    do(np.divide, dZ, total, out=dZ)
    do(np.log, total, out=total)
    do(np.subtract, total, s, out=s)
    do(np.multiply, s, T, out=s)
    do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    do(np.add.reduce, T, axis=0, keepdims=True, out=total)
    do(np.multiply, dZ, total, out=dZ)
    do(np.subtract, dZ, T, out=dZ)


# -- optimizers: theta, slots <- one step; ``numbers`` are the scalars of ``maths.optimizers``, one element each -------


def sgd(do: Do, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots, s: np.ndarray) -> None:
    """theta - lr g."""
    do(np.multiply, g, numbers[0], out=s)
    do(np.subtract, theta, s, out=theta)


def adam(do: Do, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots, s: np.ndarray) -> None:
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; theta - step m / (c sqrt v + eps)."""
    (m, v), (step, c) = slots, numbers[:2]
    do(np.multiply, m, o.beta1, out=m)
    do(np.multiply, g, 1.0 - o.beta1, out=s)
    do(np.add, m, s, out=m)
    do(np.multiply, v, o.beta2, out=v)
    do(np.multiply, g, g, out=s)
    do(np.multiply, s, 1.0 - o.beta2, out=s)
    do(np.add, v, s, out=v)
    do(np.sqrt, v, out=s)
    do(np.multiply, s, c, out=s)
    do(np.add, s, o.epsilon, out=s)
    do(np.divide, m, s, out=s)
    do(np.multiply, s, step, out=s)
    do(np.subtract, theta, s, out=theta)


def adamw(do: Do, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots, s: np.ndarray) -> None:
    """Decay, then Adam's step."""
    do(np.multiply, theta, numbers[2], out=theta)
    adam(do, o, theta, g, slots, numbers, s)


UPDATES: dict[tuple[str, bool], Callable[..., None]] = {
    ("sgd", False): sgd,
    ("adam", False): adam,
    ("adamw", False): adam,
    ("adamw", True): adamw,
}


def update_in_blocks(
    o: Optimizer,
    theta: np.ndarray,
    grad: np.ndarray,
    slots: Slots,
    numbers: Slots,
    factor: np.ndarray | None,
    decay: bool,
) -> None:
    """theta, slots <- the optimizer's own recurrence."""
    for t, g, *parts in blocks(theta, grad, *slots):
        new, moved = o.apply(np, t, g if factor is None else g * factor, parts, numbers, decay=decay)
        t[...] = new
        for part, other in zip(parts, moved, strict=True):
            part[...] = other
