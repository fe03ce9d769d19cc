"""Moving on to the next batch inside a recorded step."""

from __future__ import annotations

import numpy as np

from .calling import floats, integers, kernel

f = np.float32


# Row: 0 source, 1 order, 2 counters, 3 stride, 4 out, 5 m, 6 width.
@kernel
def gather(address):
    """out[i] <- source[order[stride k + i]], float32 rows."""
    a = integers(address, 7)
    m, width = a[5], a[6]
    rows = integers(a[1] + 8 * a[3] * integers(a[2], 1)[0], m)
    for i in range(m):
        taken, out = floats(a[0] + 4 * width * rows[i], width), floats(a[4] + 4 * width * i, width)
        for c in range(width):
            out[c] = taken[c]


@kernel
def gather_labels(address):
    """The same for int64 rows."""
    a = integers(address, 7)
    m, width = a[5], a[6]
    rows = integers(a[1] + 8 * a[3] * integers(a[2], 1)[0], m)
    for i in range(m):
        taken, out = integers(a[0] + 8 * width * rows[i], width), integers(a[4] + 8 * width * i, width)
        for c in range(width):
            out[c] = taken[c]


# Row: 0 counters, 1 table, 2 values, 3 hyper, 4 value, 5 numbers in a row of the table.
@kernel
def advance(address):
    """values[k] <- value;  counters += 1;  value <- 0;  hyper <- table[counters[0]]."""
    a = integers(address, 6)
    counters, value, n = integers(a[0], 2), floats(a[4], 1), a[5]
    if counters[0] >= 0:
        floats(a[2] + 4 * counters[0], 1)[0] = value[0]
    counters[0] += 1
    counters[1] += 1
    value[0] = f(0.0)
    hyper, row = floats(a[3], n), floats(a[1] + 4 * n * counters[0], n)
    for i in range(n):
        hyper[i] = row[i]
