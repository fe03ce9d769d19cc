"""The average of the parameters over the steps (``maths.optimizers.Optimizer.step``)."""

from __future__ import annotations

from .calling import floats, integers, kernel


# Row: 0 theta, 1 average, 2 share, 3 n.
@kernel
def average(address):
    """average <- average + share (theta - average)."""
    a = integers(address, 4)
    n, share = a[3], floats(a[2], 1)[0]
    theta, mean = floats(a[0], n), floats(a[1], n)
    for i in range(n):
        mean[i] += share * (theta[i] - mean[i])
