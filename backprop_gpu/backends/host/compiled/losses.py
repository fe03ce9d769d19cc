"""The fused output delta: dZ[L], db[L] and the cost in one sweep over the logits (the formulas of ``maths.losses``)."""

from __future__ import annotations

import numpy as np

from . import functions as fn
from .calling import floats, inline, integers, kernel, scalar

f = np.float32

BINARY_CROSS_ENTROPY, SQUARED_ERROR, ABSOLUTE_ERROR, HUBER, POISSON, CATEGORICAL_CROSS_ENTROPY, QUANTILE = range(7)
CODES = {
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
    "squared_error": SQUARED_ERROR,
    "absolute_error": ABSOLUTE_ERROR,
    "huber": HUBER,
    "poisson": POISSON,
    "categorical_cross_entropy": CATEGORICAL_CROSS_ENTROPY,
    "quantile": QUANTILE,
}


@inline
def _row_losses(code, p, rest, z, y, d, loss, m):
    """d <- dl/dz and loss += l for one output's row, not yet averaged over outputs; ``rest`` is 1 - p."""
    if code == BINARY_CROSS_ENTROPY:
        for c in range(m):
            x = z[c]
            e = fn.exp(-x if x > f(0.0) else x)
            s = f(1.0) / (f(1.0) + e)
            d[c] = (s if x > f(0.0) else e * s) - y[c]
            loss[c] += ((x if x > f(0.0) else f(0.0)) - x * y[c]) + fn.log1p_unit(e)
    elif code == SQUARED_ERROR:
        for c in range(m):
            x = z[c] - y[c]
            d[c] = x
            loss[c] += f(0.5) * (x * x)
    elif code == ABSOLUTE_ERROR:
        for c in range(m):
            x = z[c] - y[c]
            d[c] = f(1.0) if x > f(0.0) else (f(-1.0) if x < f(0.0) else x)
            loss[c] += abs(x)
    elif code == HUBER:
        for c in range(m):
            x = z[c] - y[c]
            size = abs(x)
            inner = p if size > p else size
            d[c] = p if x > p else (-p if x < -p else x)
            loss[c] += inner * (size - f(0.5) * inner)
    elif code == QUANTILE:
        for c in range(m):
            x = z[c] - y[c]
            d[c] = rest if x > f(0.0) else (-p if x < f(0.0) else x)
            loss[c] += rest * x if x > f(0.0) else -p * x
    elif code == POISSON:
        for c in range(m):
            x = z[c]
            mean = fn.exp(x)
            t = y[c]
            d[c] = mean - t
            guarded = t if t > f(1.1754944e-38) else f(1.1754944e-38)
            loss[c] += mean - x * t + (t * fn.log(guarded) - t)


@inline
def _softmax(a, z_at, dz_at, n, m, p, rest):
    """dZ <- AL sum_k T - T and loss <- sum_k T (log sum_j e^S - S), S = Z - max Z, column by column.

    T = (1 - p) Y + p/n. Targets are labels (``a[4]`` is 1) or columns of numbers.
    """
    top, total, loss, targets = floats(a[10], m), floats(a[11], m), floats(a[12], m), floats(a[13], m)
    row = floats(a[18], m)
    first = floats(z_at, m)
    for c in range(m):
        top[c] = first[c]
        total[c] = f(0.0)
        loss[c] = f(0.0)
    for r in range(1, n):
        z = floats(z_at + 4 * r * m, m)
        for c in range(m):
            top[c] = top[c] if top[c] > z[c] else z[c]
    for r in range(n):
        z, d = floats(z_at + 4 * r * m, m), floats(dz_at + 4 * r * m, m)
        for c in range(m):
            e = fn.exp(z[c] - top[c])
            d[c] = e
            total[c] += e
    smooth = p / f(n)
    for c in range(m):
        targets[c] = f(0.0)
    for r in range(n):
        _targets_row(a, r, n, m, rest, smooth, row)
        for c in range(m):
            targets[c] += row[c]
    for c in range(m):
        loss[c] = targets[c] * fn.log(total[c])
        total[c] = targets[c] / total[c]
    for r in range(n):
        z, d = floats(z_at + 4 * r * m, m), floats(dz_at + 4 * r * m, m)
        _targets_row(a, r, n, m, rest, smooth, row)
        for c in range(m):
            d[c] = d[c] * total[c] - row[c]
            loss[c] -= row[c] * (z[c] - top[c])


@inline
def _targets_row(a, r, n, m, rest, smooth, row):
    """Output r's row of T = (1 - p) Y + p/n, from labels or from columns: the same bits either way."""
    if a[4]:
        labels = integers(a[3], m)
        for c in range(m):
            row[c] = rest * (f(1.0) if labels[c] == r else f(0.0)) + smooth
    else:
        y = floats(a[3], n * m)
        for c in range(m):
            row[c] = rest * y[c * n + r] + smooth


@inline
def _elementwise(a, code, n, m):
    """The losses whose outputs stand alone: dZ unweighted, loss summed or averaged over outputs.

    Output r has parameter r mod their number: quantiles take turns, every other loss has one.
    """
    parameters, binary = floats(a[17], 2 * a[19]), code == BINARY_CROSS_ENTROPY
    loss, row, y = floats(a[12], m), floats(a[13], m), floats(a[3], n * m)
    share = f(1.0) if binary else f(1.0) / f(n)
    for c in range(m):
        loss[c] = f(0.0)
    for r in range(n):
        d = floats(a[2] + 4 * r * m, m)
        p, rest = parameters[2 * (r % a[19])], parameters[2 * (r % a[19]) + 1]
        for c in range(m):  # T = (1 - p) Y + p/2
            row[c] = rest * y[c * n + r] + f(0.5) * p if binary else y[c * n + r]
        _row_losses(code, p, rest, floats(a[1] + 4 * r * m, m), row, d, loss, m)
        if share != f(1.0):
            for c in range(m):
                d[c] *= share
    for c in range(m):
        loss[c] *= share


# Row: 0 code, 1 Z, 2 dZ, 3 Y (examples contiguous), 4 labels?, 5 weights or 0, 6 1/D, 7 early?, 8 db, 9 accumulate?,
# 10-13 scratch (m each), 14 value, 15 n, 16 m, 17 pairs p, 1 - p, 18 scratch,
# 19 number of pairs.
@kernel
def output_delta(address):
    """dZ <- w dL/dZ (times 1/D if early);  db <- (+) row sums of dJ/dZ;  value += (1/D) sum w L."""
    a = integers(address, 20)
    code, n, m = a[0], a[15], a[16]
    if code == CATEGORICAL_CROSS_ENTROPY:
        _softmax(a, a[1], a[2], n, m, scalar(a[17], f(0.0)), scalar(a[17] + 4, f(1.0)))
    else:
        _elementwise(a, code, n, m)
    inverse, loss, factor = scalar(a[6], f(1.0)), floats(a[12], m), floats(a[11], m)
    early = inverse if a[7] else f(1.0)
    late = f(1.0) if a[7] else inverse
    if a[5]:
        w = floats(a[5], m)
        for c in range(m):
            factor[c] = w[c] * early
            loss[c] = loss[c] * w[c] if w[c] != f(0.0) else f(0.0)
    total = np.float64(0.0)
    for c in range(m):
        total += np.float64(loss[c])
    value = floats(a[14], 1)
    value[0] += f(np.float64(inverse) * total)
    db = floats(a[8], n)
    for r in range(n):
        d = floats(a[2] + 4 * r * m, m)
        if a[5]:
            w = floats(a[5], m)
            for c in range(m):
                d[c] = d[c] * factor[c] if w[c] != f(0.0) else f(0.0)
        elif a[7]:
            for c in range(m):
                d[c] *= early
        row = f(0.0)
        for c in range(m):
            row += d[c]
        db[r] = (db[r] if a[9] else f(0.0)) + late * row
