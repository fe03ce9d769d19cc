"""Moving on to the next batch inside a recorded step."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .calling import REALS, Kernel, array, inline, integers


# Row: 0 source, 1 order, 2 counters, 3 stride, 4 out, 5 m, 6 width.
@functools.cache
def gather(dtype: str) -> Kernel:
    """out[i] <- source[order[stride k + i]]: rows of float32, float64 or int64."""
    scalar: Any = np.dtype(dtype).type
    size = np.dtype(dtype).itemsize

    @inline
    def body(address):
        a = integers(address, 7)
        m, width = a[5], a[6]
        rows = integers(a[1] + 8 * a[3] * integers(a[2], 1)[0], m)
        for i in range(m):
            taken = array(a[0] + size * width * rows[i], width, scalar)
            out = array(a[4] + size * width * i, width, scalar)
            for c in range(width):
                out[c] = taken[c]

    return Kernel("gather", dtype, body)


# Row: 0 counters, 1 table, 2 values, 3 hyper, 4 value, 5 numbers in a row of the table.
@functools.cache
def advance(dtype: str) -> Kernel:
    """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
    f, size, floats = REALS[dtype].f, REALS[dtype].size, REALS[dtype].floats

    @inline
    def body(address):
        a = integers(address, 6)
        counters, value, n = integers(a[0], 2), floats(a[4], 1), a[5]
        if counters[0] >= 0:
            floats(a[2] + size * counters[0], 1)[0] = value[0]
        counters[0] += 1
        counters[1] += 1
        value[0] = f(0.0)
        hyper, row = floats(a[3], n), floats(a[1] + size * n * counters[0], n)
        for i in range(n):
            hyper[i] = row[i]

    return Kernel("advance", dtype, body)
