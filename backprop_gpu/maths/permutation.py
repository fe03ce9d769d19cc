"""Permutations of n numbers that are computed, not stored: any part of one is there without the rest.

A permutation of n rows takes 8 n bytes in memory. Of more rows than ``MOST_STORED`` it is a keyed bijection of
{0, ..., n-1} instead: a Feistel network on pairs (L, R) of digits to the base a = ceil(sqrt(n)), applied until the
result is below n ("generalized Feistel cipher" and "cycle walking": Black & Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002). The round function is the finalizer of SplitMix64 (Steele, Lea & Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014); its keys are drawn by the host's Philox generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .random import host_generator

MOST_STORED = 2**24
"""Numbers of which a permutation is drawn and stored, which takes 128 MiB; it is exactly uniform then."""
ROUNDS = 8  # Luby and Rackoff need 4; a permutation is as good as drawn long before
_BLOCK = 4096  # numbers that are computed at a time: their words stay in the cache
_HALF = np.uint64(32)


class KeyedPermutation:
    """A bijection of {0, ..., n-1} that a key of 64 bytes gives.

    ``p[2:5]`` and ``p[np.array([2, 3, 4])]`` are the numbers at these places, as of an array; all of them are ``p[:]``.

    Parameters
    ----------
    n : int
        From 1 to 2^62.
    seed, stream : int
        Of the keys, as ``host_generator`` takes them.
    """

    def __init__(self, n: int, seed: int, *stream: int) -> None:
        self.n = n
        self._base = np.uint64(math.isqrt(n - 1) + 1)
        self._keys = host_generator(seed, *stream).integers(0, 2**64, ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """The numbers at these places (m,), int64."""
        return self._walked(_numbers(places, self.n), self._forward)

    def inverse(self, numbers: slice | np.ndarray) -> np.ndarray:
        """The places of these numbers (m,), int64."""
        return self._walked(_numbers(numbers, self.n), self._backward)

    def _walked(self, start: np.ndarray, step: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        out = np.empty(len(start), np.int64)
        limit = np.uint64(self.n)
        for at in range(0, len(start), _BLOCK):
            found = step(start[at : at + _BLOCK].astype(np.uint64))
            while len(outside := np.flatnonzero(found >= limit)):
                found[outside] = step(found[outside])
            out[at : at + _BLOCK] = found
        return out

    def _forward(self, x: np.ndarray) -> np.ndarray:
        left, right = np.divmod(x, self._base)
        for key in self._keys:  # (L, R) <- (R, L + F(R) mod a)
            left += self._round(right, key)
            np.subtract(left, self._base, out=left, where=left >= self._base)
            left, right = right, left
        return left * self._base + right

    def _backward(self, x: np.ndarray) -> np.ndarray:
        left, right = np.divmod(x, self._base)
        for key in self._keys[::-1]:  # (L, R) <- (R - F(L) mod a, L)
            right += self._base - self._round(left, key)
            np.subtract(right, self._base, out=right, where=right >= self._base)
            left, right = right, left
        return left * self._base + right

    def _round(self, x: np.ndarray, key: np.uint64) -> np.ndarray:
        """F(x) in {0, ..., a-1}: the upper half of the mixed word, times a, over 2^32."""
        x = x ^ key
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        x >>= _HALF
        x *= self._base
        x >>= _HALF
        return x


Permutation = np.ndarray | KeyedPermutation


def permutation(n: int, seed: int, *stream: int) -> Permutation:
    """The permutation of n numbers that a seed and its stream give: drawn where it can be stored, else keyed."""
    if n <= MOST_STORED:
        return host_generator(seed, *stream).permutation(n)
    return KeyedPermutation(n, seed, *stream)


def _numbers(places: slice | np.ndarray, n: int) -> np.ndarray:
    return np.arange(*places.indices(n)) if isinstance(places, slice) else np.asarray(places, np.int64)
