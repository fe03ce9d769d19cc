"""The fused output delta: dZ[L], db[L] and the cost in one sweep over the logits (the formulas of ``maths.losses``)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....maths.losses import Loss
from ...shipped import shipped
from .calling import REALS, Kernel, inline, integers
from .functions import functions
from .layers import sum_of

_SOFTMAX = ("categorical_cross_entropy", "grouped_cross_entropy")
_ALONE = ("binary_cross_entropy", "squared_error", "absolute_error", "huber", "poisson", "quantile")


def known(loss: Loss) -> bool:
    """Whether a loss has a compiled form."""
    return shipped(loss) and loss.name in (*_SOFTMAX, *_ALONE)


def constants(loss: Loss, n: int, dtype: str) -> tuple[np.ndarray, int, np.ndarray, int]:
    """The end of a row: pairs p, 1 - p of a loss's parameter and their number; sizes of the softmaxes and theirs."""
    named = vars(loss)
    p = named["label_smoothing"] if loss.name in _SOFTMAX else next(iter(named.values()), 0.0)
    p = np.atleast_1d(np.array(p, np.float64))
    groups = np.array(named.get("groups", (n,)), np.int64)
    return np.stack([p, 1.0 - p], axis=1).astype(dtype), p.size, groups, groups.size


# Row: 0 Z, 1 dZ, 2 Y (examples contiguous), 3 weights or 0, 4 1/D, 5 early?, 6-10 scratch (m each; 8 holds the losses),
# 11 n, 12 m, then constants: 13 pairs, 14 their number, 15 groups, 16 their number; 17 pitch of Z and dZ.
@functools.cache
def output_delta(dtype: str, loss: str, labels: bool) -> Kernel:
    """dZ <- w dL/dZ (times 1/D if early), and w L of each example, for some or all of the examples.

    ``labels``: Y holds int64 class labels.
    """
    real, softmax = REALS[dtype], loss in _SOFTMAX
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar
    sweep = _softmax(dtype, labels) if softmax else _elementwise(dtype, loss)

    @inline
    def body(address):
        a = integers(address, 18)
        n, m, pitch = a[11], a[12], a[17]
        sweep(a, n, m, pitch, floats(a[13], 2 * a[14]), a[14])
        loss, factor, w = floats(a[8], m), floats(a[7], m), floats(a[3], m)
        early = scalar(a[4], f(1.0)) if a[5] else f(1.0)
        if a[3]:
            for c in range(m):
                factor[c] = w[c] * early
                loss[c] = loss[c] * w[c] if w[c] != f(0.0) else f(0.0)
        for r in range(n):
            d = floats(a[1] + size * r * pitch, m)
            if a[3]:
                for c in range(m):
                    d[c] = d[c] * factor[c] if w[c] != f(0.0) else f(0.0)
            elif a[5]:
                for c in range(m):
                    d[c] *= early

    return Kernel(f"output_delta_{loss}{'_labels' if labels else ''}", dtype, body)


# Row: 0 losses (m), 1 dZ, 2 1/D, 3 early?, 4 db, 5 accumulate?, 6 value, 7 n, 8 m.
@functools.cache
def output_sums(dtype: str) -> Kernel:
    """db <- (+) row sums of dJ/dZ;  value += (1/D) sum w L."""
    real, row_sum = REALS[dtype], sum_of(dtype)
    f, size, floats, scalar = real.f, real.size, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 9)
        n, m, inverse = a[7], a[8], scalar(a[2], f(1.0))
        loss, value, db, total = floats(a[0], m), floats(a[6], 1), floats(a[4], n), np.float64(0.0)
        for c in range(m):
            total += np.float64(loss[c])
        value[0] += f(np.float64(inverse) * total)
        late = f(1.0) if a[3] else inverse
        for r in range(n):
            db[r] = (db[r] if a[5] else f(0.0)) + late * row_sum(floats(a[1] + size * r * m, m), m)

    return Kernel("output_sums", dtype, body)


def _softmax(dtype: str, labels: bool) -> Any:
    """dZ <- AL sum_k T - T and loss <- sum_k T (log sum_j e^S - S), S = Z - max Z, column by column.

    T = (1 - p) Y + p/n, n outputs. With groups of outputs each has a softmax of its own, and their losses are summed.
    """
    real, fn, targets_row = REALS[dtype], functions(dtype), _targets(dtype, labels)
    f, size, floats, exp, log = real.f, real.size, real.floats, fn.exp, fn.log

    @inline
    def exponentials(a, start, n, m, pitch, top, total):
        first = floats(a[0] + size * start * pitch, m)
        for c in range(m):
            top[c] = first[c]
            total[c] = f(0.0)
        for r in range(start + 1, start + n):
            z = floats(a[0] + size * r * pitch, m)
            for c in range(m):
                top[c] = top[c] if top[c] > z[c] else z[c]
        for r in range(start, start + n):
            z, d = floats(a[0] + size * r * pitch, m), floats(a[1] + size * r * pitch, m)
            for c in range(m):
                e = exp(z[c] - top[c])
                d[c] = e
                total[c] += e

    @inline
    def one_group(a, start, k, n, m, pitch, pairs):
        rest, smooth = pairs[1], pairs[0] / f(k)
        top, total, loss, each, row = (
            floats(a[6], m),
            floats(a[7], m),
            floats(a[8], m),
            floats(a[9], m),
            floats(a[10], m),
        )
        exponentials(a, start, k, m, pitch, top, total)
        for c in range(m):
            each[c] = f(0.0)
        for r in range(start, start + k):
            targets_row(a, r, n, m, rest, smooth, row)
            for c in range(m):
                each[c] += row[c]  # sum_k T, and the group's loss from the next loop on
        for c in range(m):
            targets = each[c]
            each[c] = targets * log(total[c])
            total[c] = targets / total[c]
        for r in range(start, start + k):
            z, d = floats(a[0] + size * r * pitch, m), floats(a[1] + size * r * pitch, m)
            targets_row(a, r, n, m, rest, smooth, row)
            for c in range(m):
                d[c] = d[c] * total[c] - row[c]
                each[c] -= row[c] * (z[c] - top[c])
        for c in range(m):
            loss[c] += each[c]

    @inline
    def sweep(a, n, m, pitch, pairs, count):
        loss, groups, start = floats(a[8], m), integers(a[15], a[16]), 0
        for c in range(m):
            loss[c] = f(0.0)
        for g in range(a[16]):
            one_group(a, start, groups[g], n, m, pitch, pairs)
            start += groups[g]

    return sweep


def _targets(dtype: str, labels: bool) -> Any:
    """Output r's row of T = (1 - p) Y + p/n, from labels or from columns: the same bits either way."""
    f, floats = REALS[dtype].f, REALS[dtype].floats

    @inline
    def from_labels(a, r, n, m, rest, smooth, row):
        label = integers(a[2], m)
        for c in range(m):
            row[c] = rest * (f(1.0) if label[c] == r else f(0.0)) + smooth

    @inline
    def from_columns(a, r, n, m, rest, smooth, row):
        y = floats(a[2], n * m)
        for c in range(m):
            row[c] = rest * y[c * n + r] + smooth

    return from_labels if labels else from_columns


def _elementwise(dtype: str, name: str) -> Any:
    """The losses whose outputs stand alone: dZ unweighted, loss summed or averaged over outputs.

    Output r has the pair p, 1 - p with the number r mod their count: quantiles take turns, every other loss has one.
    """
    f, size, floats = REALS[dtype].f, REALS[dtype].size, REALS[dtype].floats
    row_losses = (_entropies if name in ("binary_cross_entropy", "poisson") else _distances)(dtype)[name]
    summed = name == "binary_cross_entropy"

    @inline
    def sweep(a, n, m, pitch, pairs, count):
        loss, row, y = floats(a[8], m), floats(a[9], m), floats(a[2], n * m)
        share = f(1.0) if summed else f(1.0) / f(n)
        for c in range(m):
            loss[c] = f(0.0)
        for r in range(n):
            d = floats(a[1] + size * r * pitch, m)
            p, rest = pairs[2 * (r % count)], pairs[2 * (r % count) + 1]
            for c in range(m):  # T = (1 - p) Y + p/2
                row[c] = rest * y[c * n + r] + f(0.5) * p if summed else y[c * n + r]
            row_losses(p, rest, floats(a[0] + size * r * pitch, m), row, d, loss, m)
            if share != f(1.0):
                for c in range(m):
                    d[c] *= share
        for c in range(m):
            loss[c] *= share

    return sweep


# Of one output's row, not yet averaged over outputs: d <- dl/dz and loss += l.


def _entropies(dtype: str) -> dict[str, Any]:
    f, fn, smallest = REALS[dtype].f, functions(dtype), REALS[dtype].f(np.finfo(dtype).smallest_normal)
    exp, log, log1p_unit = fn.exp, fn.log, fn.log1p_unit

    @inline
    def binary_cross_entropy(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c]
            e = exp(-x if x > f(0.0) else x)
            s = f(1.0) / (f(1.0) + e)
            d[c] = (s if x > f(0.0) else e * s) - y[c]
            loss[c] += ((x if x > f(0.0) else f(0.0)) - x * y[c]) + log1p_unit(e)

    @inline
    def poisson(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c]
            mean = exp(x)
            t = y[c]
            d[c] = mean - t
            guarded = t if t > smallest else smallest
            loss[c] += mean - x * t + (t * log(guarded) - t)

    return {"binary_cross_entropy": binary_cross_entropy, "poisson": poisson}


def _distances(dtype: str) -> dict[str, Any]:
    f = REALS[dtype].f

    @inline
    def squared_error(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c] - y[c]
            d[c] = x
            loss[c] += f(0.5) * (x * x)

    @inline
    def absolute_error(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c] - y[c]
            d[c] = f(1.0) if x > f(0.0) else (f(-1.0) if x < f(0.0) else x)
            loss[c] += abs(x)

    @inline
    def huber(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c] - y[c]
            size = abs(x)
            inner = p if size > p else size
            d[c] = p if x > p else (-p if x < -p else x)
            loss[c] += inner * (size - f(0.5) * inner)

    @inline
    def quantile(p, rest, z, y, d, loss, m):
        for c in range(m):
            x = z[c] - y[c]
            d[c] = rest if x > f(0.0) else (-p if x < f(0.0) else x)
            loss[c] += rest * x if x > f(0.0) else -p * x

    found = {"squared_error": squared_error, "absolute_error": absolute_error}
    return found | {"huber": huber, "quantile": quantile}
