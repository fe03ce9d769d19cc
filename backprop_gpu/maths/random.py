"""Random numbers that do not depend on the device: Philox-4x32-10, a counter-based generator.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._typing import Array, Namespace

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def host_generator(seed: int, *stream: int) -> np.random.Generator:
    """The host generator for initial weights and shuffles; ``stream`` separates independent uses of one seed."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))


def _mul_hi_lo(a: int, b: Array | int) -> tuple[Array, Array]:
    """High and low words of the product of two 32-bit words, a >= 2^31.

    With a - 2^32 in place of a, the int64 product lies in [-2^63, 0] and cannot wrap; since
    a b = (a - 2^32) b + 2^32 b, adding b to the high word gives back what was taken away.
    """
    product = b * (a - 2**32)
    return ((product >> 32) + b) & _MASK, product & _MASK


def philox_words(xp: Namespace, seed: int, counter: Sequence[Array | int]) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit words (as int64 arrays) for each counter.

    Parameters
    ----------
    seed : int
        64-bit key, 0 <= seed < 2**64.
    counter : four int64 arrays or ints
        Broadcast against each other; taken modulo 2**32. At least the first must be an array.
    """
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    c0, c1, c2, c3 = (c & _MASK for c in counter)
    for _ in range(ROUNDS):
        high0, low0 = _mul_hi_lo(_MULTIPLIERS[0], c0)
        high1, low1 = _mul_hi_lo(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3
