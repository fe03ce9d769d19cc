"""The average of the parameters over the steps (``maths.optimizers.Optimizer.step``)."""

from __future__ import annotations

import functools

from .calling import REALS, Kernel, inline, integers


# Row: 0 theta, 1 average, 2 share, 3 n.
@functools.cache
def average(dtype: str) -> Kernel:
    """average <- average + share (theta - average)."""
    floats = REALS[dtype].floats

    @inline
    def body(address):
        a = integers(address, 4)
        n, share = a[3], floats(a[2], 1)[0]
        theta, mean = floats(a[0], n), floats(a[1], n)
        for i in range(n):
            mean[i] += share * (theta[i] - mean[i])

    return Kernel("average", dtype, body)
