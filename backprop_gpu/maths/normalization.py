"""Batch normalization of one layer, between its affine part and its activation (Ioffe & Szegedy 2015).

Z (n, m), examples are columns; gamma, beta and every statistic are (n, 1), one number per unit. The affine part has no
bias of its own: the mean would take it away again, and beta is in its place (section 3.2).

The statistics are those of the examples that are passed in. This is the declared exception to the rule that the split
of a batch does not matter: micro-batches are normalized one by one. With example weights they are weighted means, so
that a weight of 2 is two copies and a weight of 0 is no example at all, here as in the cost. Since the split matters,
:func:`part_sizes` makes it even.
"""

from __future__ import annotations

from .._typing import Array, Namespace

EPSILON = 1e-5  # added to the variance
MOMENTUM = 0.1  # share of the newest batch in the running statistics


def part_sizes(n: int, size: int, *, even: bool) -> list[int]:
    """How many of n examples each part has, in order, when at most ``size`` are taken at a time.

    Full parts and what is left over; ``even``, for a network with a normalized layer: as many parts, of sizes that
    differ by one at most, so that none is normalized by the statistics of a few left-over examples. No even part has
    a single example, which would be normalized to 0 (3 examples, 2 at a time, are therefore one part).
    """
    if not even:
        return [min(size, n - start) for start in range(0, n, size)]
    parts = max(1, min(-(-n // size), n // 2))
    smaller, larger_parts = divmod(n, parts)
    return [smaller + 1] * larger_parts + [smaller] * (parts - larger_parts)


def shares(xp: Namespace, Z: Array, weights: Array | None) -> Array | float:
    """What each example counts in a mean: 1/m, or w / sum w as (1, m); 0 everywhere if all weights are 0."""
    if weights is None:
        return 1.0 / Z.shape[1]
    least = float(xp.finfo(weights.dtype).smallest_normal)
    return weights / xp.maximum(xp.sum(weights, axis=1, keepdims=True), least)


def _counted(xp: Namespace, weights: Array | None, x: Array) -> Array:
    """x, but 0 for an example of weight 0, whatever it holds."""
    return x if weights is None else xp.where(xp.equal(weights, 0.0), 0.0, x)


def batch_norm(xp: Namespace, Z: Array, weights: Array | None) -> tuple[Array, Array, Array, Array]:
    """X = (Z - mu) r, r = 1/sqrt(var + eps), with mu and var the (weighted) mean and variance of the examples.

    Returns X (n, m), which is 0 for an example of weight 0, and r, mu, var (n, 1). Source: algorithm 1.
    """
    share, Z = shares(xp, Z, weights), _counted(xp, weights, Z)
    mean = xp.sum(Z * share, axis=1, keepdims=True)
    d = _counted(xp, weights, Z - mean)
    variance = xp.sum(d * d * share, axis=1, keepdims=True)
    inverse_std = 1.0 / xp.sqrt(variance + EPSILON)
    return d * inverse_std, inverse_std, mean, variance


def batch_norm_vjp(
    xp: Namespace, dU: Array, X: Array, inverse_std: Array, gamma: Array, weights: Array | None
) -> tuple[Array, Array]:
    """dZ = gamma r (dU - share (sum dU + X sum dU X)) and dgamma = sum dU X, from dU of U = gamma X + beta.

    Sums are over examples; ``share`` is 1/m, or w / sum w: it comes from mu and var, in which an example counts so
    much. dbeta = sum dU is the layer's db. Source: section 3, the chain rule after algorithm 1, simplified.
    """
    total, dgamma = xp.sum(dU, axis=1, keepdims=True), xp.sum(dU * X, axis=1, keepdims=True)
    return gamma * inverse_std * (dU - (total + X * dgamma) * shares(xp, X, weights)), dgamma


def running(xp: Namespace, old: Array, new: Array, weights: Array | None) -> Array:
    """(1 - MOMENTUM) old + MOMENTUM new: what inference uses; unchanged by a batch whose weights are all 0.

    The variance goes in as it is. The paper multiplies it by m/(m - 1) first (algorithm 2), which weights do not have,
    and which would make inference normalize otherwise than training.
    """
    moved = old + MOMENTUM * (new - old)
    return moved if weights is None else xp.where(xp.greater(xp.sum(weights), 0.0), moved, old)


def affine(X: Array, gamma: Array, beta: Array) -> Array:
    """U = gamma X + beta."""
    return gamma * X + beta


def batch_norm_inference(xp: Namespace, Z: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    """U = gamma (Z - mean)/sqrt(variance + eps) + beta, by the running statistics (algorithm 2)."""
    return affine((Z - mean) * (1.0 / xp.sqrt(variance + EPSILON)), gamma, beta)
