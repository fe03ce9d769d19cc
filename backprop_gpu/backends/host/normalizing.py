"""Batch normalization as NumPy calls with ``out=`` (the formulas of ``maths.normalization``; see ``inplace``)."""

from __future__ import annotations

import numpy as np

from ...maths.normalization import EPSILON, MOMENTUM
from .calls import Calls, number


def normalize(
    to: Calls,
    Z: np.ndarray,
    weights: np.ndarray | None,
    mean: np.ndarray,
    variance: np.ndarray,
    X: np.ndarray,
    inverse_std: np.ndarray,
) -> None:
    """X <- (Z - mu) r, 0 for an example of weight 0; inverse_std <- r; mean, variance move towards mu, var."""
    (n, m), dtype = Z.shape, Z.dtype
    s, mu, var = to.scratch("layer", Z.shape, dtype), *(to.scratch(name, (n, 1), dtype) for name in ("mu", "var"))
    share, of_new = _shares(to, weights, Z), number(MOMENTUM, Z)
    if weights is None:
        _sums(to, Z, mu)
        to.do(np.multiply, mu, share, out=mu)
        to.do(np.subtract, Z, mu, out=X)
    else:
        silent, total = to.scratch("silent", (1, m), np.bool_), to.scratch("weights", (1, 1), dtype)
        of_new = to.scratch("of new", (1, 1), dtype)
        to.do(np.greater, total, 0.0, out=of_new)  # all weights 0: nothing moves
        to.do(np.multiply, of_new, MOMENTUM, out=of_new)
        to.do(np.equal, weights, 0.0, out=silent)
        to.do(np.copyto, X, Z)
        to.do(np.copyto, X, 0.0, where=silent)
        to.do(np.matmul, X, share.T, out=mu)
        to.do(np.subtract, X, mu, out=X)
        to.do(np.copyto, X, 0.0, where=silent)
    to.do(np.multiply, X, X, out=s)
    if weights is None:
        _sums(to, s, var)
        to.do(np.multiply, var, share, out=var)
    else:
        to.do(np.matmul, s, share.T, out=var)
    _inverse_std(to, var, inverse_std)
    to.do(np.multiply, X, inverse_std, out=X)
    for old, new in ((mean, mu), (variance, var)):
        to.do(np.subtract, new, old, out=new)
        to.do(np.multiply, new, of_new, out=new)
        to.do(np.add, old, new, out=old)


def normalize_by(to: Calls, Z: np.ndarray, mean: np.ndarray, variance: np.ndarray, X: np.ndarray) -> None:
    """X <- (Z - mean)/sqrt(variance + eps)."""
    r = to.scratch("var", mean.shape, Z.dtype)
    _inverse_std(to, variance, r)
    to.do(np.subtract, Z, mean, out=X)
    to.do(np.multiply, X, r, out=X)


def vjp(
    to: Calls,
    dU: np.ndarray,
    X: np.ndarray,
    inverse_std: np.ndarray,
    gamma: np.ndarray,
    weights: np.ndarray | None,
    dZ: np.ndarray,
    along: np.ndarray,
) -> None:
    """dZ <- gamma r (dU - share (sum dU + X along)), along (n, 1) <- sum dU X."""
    total = to.scratch("mu", along.shape, dU.dtype)
    to.do(np.multiply, dU, X, out=dZ)
    _sums(to, dZ, along)
    _sums(to, dU, total)
    to.do(np.multiply, X, along, out=dZ)
    to.do(np.add, dZ, total, out=dZ)
    to.do(np.multiply, dZ, _shares(to, weights, dU), out=dZ)
    to.do(np.subtract, dU, dZ, out=dZ)
    to.do(np.multiply, gamma, inverse_std, out=total)
    to.do(np.multiply, dZ, total, out=dZ)


def _shares(to: Calls, weights: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    """1/m, or w / sum w as (1, m); the sum of the weights is left in the scratch of that name."""
    m, dtype = like.shape[1], like.dtype
    if weights is None:
        return number(1.0 / m, like)
    total, share = to.scratch("weights", (1, 1), dtype), to.scratch("shares", (1, m), dtype)
    least = to.scratch("least", (1, 1), dtype)
    to.do(np.add.reduce, weights, axis=1, keepdims=True, out=total)
    to.do(np.maximum, total, np.finfo(dtype).smallest_normal, out=least)
    to.do(np.divide, weights, least, out=share)
    return share


def _sums(to: Calls, x: np.ndarray, out: np.ndarray) -> None:
    """Row sums, as a product with ones, which BLAS makes several times faster than NumPy sums rows."""
    to.do(np.matmul, x, to.ones((x.shape[1], 1), x.dtype), out=out)


def _inverse_std(to: Calls, variance: np.ndarray, out: np.ndarray) -> None:
    to.do(np.add, variance, number(EPSILON, variance), out=out)
    to.do(np.sqrt, out, out=out)
    to.do(np.divide, number(1.0, out), out, out=out)
