"""Formulas of ``maths`` written with ``out=``: the same operations, into buffers that are there.

Each is a list of NumPy calls, made at once or written down (``calls``). Numbers that change from step to step are
arrays without dimensions, views of where they live.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...maths import regularization
from ...maths.activations import Activation
from ...maths.optimizers import Optimizer
from ...maths.special import erf
from .calls import Calls, number

Slots = list[np.ndarray]

# Elements of a block for formulas that allocate: their temporaries stay in the caches, whatever the network.
BLOCK = 16_384


def blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Parts of contiguous arrays of one shape, flat, so that temporaries are small whatever their size."""
    flat = [x.reshape(-1) for x in arrays]
    for start in range(0, flat[0].shape[0], BLOCK):
        yield tuple(x[start : start + BLOCK] for x in flat)


# -- activations: z <- g(z); ``slope`` is g' where the backward pass cannot have it from A ----------------------------


def identity(to: Calls, z: np.ndarray, slope: Any) -> None:
    """A = Z."""


def identity_vjp(to: Calls, dA: np.ndarray, A: np.ndarray, slope: Any) -> None:
    """dZ = dA."""


def relu(to: Calls, z: np.ndarray, slope: Any) -> None:
    """A = max(Z, 0)."""
    to.do(np.maximum, z, to.zeros(z), out=z)


def relu_vjp(to: Calls, dA: np.ndarray, A: np.ndarray, slope: Any) -> None:
    """dZ = dA where A > 0, else 0: the bits of dA times 1 or 0, so that an infinite dA becomes 0 too."""
    bits = np.dtype(f"i{dA.itemsize}")
    alive, dZ = to.scratch("layer", A.shape, bits), dA.view(bits)
    to.do(np.greater, A, number(0.0, A), out=alive)
    to.do(np.multiply, dZ, alive, out=dZ)


def tanh(to: Calls, z: np.ndarray, slope: Any) -> None:
    """A = tanh Z."""
    to.do(np.tanh, z, out=z)


def tanh_vjp(to: Calls, dA: np.ndarray, A: np.ndarray, slope: Any) -> None:
    """dZ = dA (1 - A^2)."""
    s = to.scratch("layer", A.shape, A.dtype)
    to.do(np.multiply, A, A, out=s)
    to.do(np.subtract, number(1.0, A), s, out=s)
    to.do(np.multiply, dA, s, out=dA)


def sigmoid(to: Calls, z: np.ndarray, slope: Any) -> None:
    """A = max(e, 1 where Z > 0) / (1 + e), e = e^-|Z|, in which nothing overflows."""
    e = to.scratch("layer", z.shape, z.dtype)
    to.do(np.abs, z, out=e)
    to.do(np.negative, e, out=e)
    to.do(np.exp, e, out=e)
    to.do(np.greater, z, number(0.0, z), out=z)
    to.do(np.maximum, z, e, out=z)
    to.do(np.add, e, number(1.0, z), out=e)
    to.do(np.divide, z, e, out=z)


def sigmoid_vjp(to: Calls, dA: np.ndarray, A: np.ndarray, slope: Any) -> None:
    """dZ = dA A (1 - A)."""
    s = to.scratch("layer", A.shape, A.dtype)
    to.do(np.subtract, number(1.0, A), A, out=s)
    to.do(np.multiply, s, A, out=s)
    to.do(np.multiply, dA, s, out=dA)


def gelu(to: Calls, z: np.ndarray, slope: np.ndarray) -> None:
    """A = Z Phi(Z) and slope = Phi(Z) + Z phi(Z), so that Phi is worked out once; block by block."""
    to.do(_gelu, z, slope)


def _gelu(Z: np.ndarray, slope: np.ndarray) -> None:
    for z, d in blocks(Z, slope):
        cdf = 0.5 * (1.0 + erf(np, z * math.sqrt(0.5)))
        d[...] = cdf + z * (np.exp(-0.5 * (z * z)) * (1.0 / math.sqrt(2.0 * math.pi)))
        z *= cdf


def gelu_vjp(to: Calls, dA: np.ndarray, A: np.ndarray, slope: np.ndarray) -> None:
    """dZ = dA slope."""
    to.do(np.multiply, dA, slope, out=dA)


FORWARD: dict[str, Callable[[Calls, np.ndarray, Any], None]] = {
    f.__name__: f for f in (identity, relu, tanh, sigmoid, gelu)
}
VJP: dict[str, Callable[[Calls, np.ndarray, np.ndarray, Any], None]] = {
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


def squared_error(to: Calls, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, loss: np.ndarray) -> None:
    """L = 1/(2 n) sum (Z - Y)^2, dL/dZ = (Z - Y)/n."""
    s, share = to.scratch("layer", Z.shape, Z.dtype), 1.0 / Z.shape[0]
    to.do(np.subtract, Z, Y, out=dZ)
    to.do(np.multiply, dZ, dZ, out=s)
    to.do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    to.do(np.multiply, loss, number(0.5 * share, Z), out=loss)
    to.do(np.multiply, dZ, number(share, Z), out=dZ)


def binary_cross_entropy(to: Calls, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, loss: np.ndarray) -> None:
    """L = sum [max(Z, 0) - Z Y + log1p(e^-|Z|)], dL/dZ = sigmoid(Z) - Y."""
    s = to.scratch("layer", Z.shape, Z.dtype)
    to.do(np.maximum, Z, to.zeros(Z), out=s)
    to.do(np.multiply, Z, Y, out=dZ)
    to.do(np.subtract, s, dZ, out=s)
    to.do(np.abs, Z, out=dZ)
    to.do(np.negative, dZ, out=dZ)
    to.do(np.exp, dZ, out=dZ)
    to.do(np.log1p, dZ, out=dZ)
    to.do(np.add, s, dZ, out=s)
    to.do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    to.do(np.copyto, dZ, Z)
    sigmoid(to, dZ, None)
    to.do(np.subtract, dZ, Y, out=dZ)


def categorical_cross_entropy(
    to: Calls, Z: np.ndarray, T: np.ndarray, dZ: np.ndarray, loss: np.ndarray, *, one_hot: bool
) -> None:
    """L = sum T (log sum e^S - S), dL/dZ = AL sum T - T, S = Z - max Z; ``one_hot``: T is known to sum to exactly 1."""
    s, total = to.scratch("layer", Z.shape, Z.dtype), to.scratch("total", loss.shape, Z.dtype)
    to.do(np.maximum.reduce, Z, axis=0, keepdims=True, out=loss)
    to.do(np.subtract, Z, loss, out=s)
    to.do(np.exp, s, out=dZ)
    to.do(np.add.reduce, dZ, axis=0, keepdims=True, out=total)
    to.do(np.divide, dZ, total, out=dZ)
    to.do(np.log, total, out=total)
    to.do(np.subtract, total, s, out=s)
    to.do(np.multiply, s, T, out=s)
    to.do(np.add.reduce, s, axis=0, keepdims=True, out=loss)
    if not one_hot:
        to.do(np.add.reduce, T, axis=0, keepdims=True, out=total)
        to.do(np.multiply, dZ, total, out=dZ)
    to.do(np.subtract, dZ, T, out=dZ)


def grouped_cross_entropy(to: Calls, o: Any, Z: np.ndarray, Y: np.ndarray, dZ: np.ndarray, loss: np.ndarray) -> None:
    """The cross-entropy of each group of rows, their losses summed."""
    start, one = 0, to.scratch("group", loss.shape, Z.dtype)
    for n in o.groups:
        rows, value = slice(start, start + n), one if start else loss
        T = smoothed(to, Y[rows], o.label_smoothing, n)
        categorical_cross_entropy(to, Z[rows], T, dZ[rows], value, one_hot=False)
        if start:
            to.do(np.add, loss, one, out=loss)
        start += n


def smoothed(to: Calls, T: np.ndarray, smoothing: float, classes: int) -> np.ndarray:
    """(1 - s) T + s/classes, in scratch; T itself without smoothing."""
    if not smoothing:
        return T
    out = to.scratch("targets", T.shape, T.dtype)
    to.do(np.multiply, T, number(1.0 - smoothing, T), out=out)
    to.do(np.add, out, number(smoothing / classes, T), out=out)
    return out


# -- optimizers: theta, slots <- one step; ``numbers`` are the scalars of ``maths.optimizers``, one element each -------


def sgd(to: Calls, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots) -> None:
    """theta - lr g."""
    s = to.scratch("vector", g.shape, g.dtype)
    to.do(np.multiply, g, numbers[0], out=s)
    to.do(np.subtract, theta, s, out=theta)


def adam(to: Calls, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots) -> None:
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; theta - step m / (c sqrt v + eps)."""
    (m, v), (step, c) = slots, numbers[:2]
    s = to.scratch("vector", g.shape, g.dtype)
    to.do(np.multiply, m, number(o.beta1, g), out=m)
    to.do(np.multiply, g, number(1.0 - o.beta1, g), out=s)
    to.do(np.add, m, s, out=m)
    to.do(np.multiply, v, number(o.beta2, g), out=v)
    to.do(np.multiply, g, g, out=s)
    to.do(np.multiply, s, number(1.0 - o.beta2, g), out=s)
    to.do(np.add, v, s, out=v)
    to.do(np.sqrt, v, out=s)
    to.do(np.multiply, s, c, out=s)
    to.do(np.add, s, number(o.epsilon, g), out=s)
    moved = to.scratch("moved", g.shape, g.dtype)
    to.do(np.multiply, m, step, out=moved)  # before the division, as in maths: the same bits
    to.do(np.divide, moved, s, out=s)
    to.do(np.subtract, theta, s, out=theta)


def adamw(to: Calls, o: Any, theta: np.ndarray, g: np.ndarray, slots: Slots, numbers: Slots) -> None:
    """Decay, then Adam's step."""
    to.do(np.multiply, theta, numbers[2], out=theta)
    adam(to, o, theta, g, slots, numbers)


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
        new, moved = o.step(np, t, g if factor is None else g * factor, parts, numbers, decay=decay)
        t[...] = new
        for part, other in zip(parts, moved, strict=True):
            part[...] = other


def norm_scale(top: np.ndarray, scale: np.ndarray) -> None:
    """scale <- the power of two that is right for numbers of at most ``top``; (1,) each."""
    scale[...] = regularization.norm_scale(np, top)


def clip_factor(root: np.ndarray, max_norm: float, scale: np.ndarray, factor: np.ndarray) -> None:
    """factor <- min(1, max_norm scale / root), (1,) each."""
    factor[...] = regularization.clip_factor(np, root, max_norm, scale)


IN_BLOCKS = (_gelu, forward_in_blocks, vjp_in_blocks, update_in_blocks)


# -- batches ----------------------------------------------------------------------------------------------------------


def gather(source: np.ndarray, order: np.ndarray, counters: np.ndarray, stride: int, out: np.ndarray) -> None:
    """out[i] <- source[order[stride k + i]], k = counters[0]."""
    start = int(counters[0]) * stride
    # mode="clip" lets NumPy write straight into out; the order is a permutation, so nothing is out of range.
    np.take(source, order[start : start + out.shape[0]], axis=0, out=out, mode="clip")


def advance(counters: np.ndarray, table: np.ndarray, values: np.ndarray, hyper: np.ndarray, value: np.ndarray) -> None:
    """On to the next batch (``protocol.Kernels.advance``)."""
    k = int(counters[0])
    if k >= 0:
        values[k] = value[0]
    counters += 1
    value[0] = 0.0
    hyper[...] = table[k + 1]
