"""Dropout of a layer: Philox words drawn where they are used (``maths.random``)."""

from __future__ import annotations

import functools

import numpy as np

from .calling import REALS, Kernel, array, inline, integers


# Row: 0 A, 1 derivative, 2 kept units, 3 step, 4 key (k0, k1, layer, threshold), 5 scale, 6 words, 7 first example,
# 8 n, 9 m, 10 pitch, 11 column that the first one is.
@functools.cache
def drop(dtype: str) -> Kernel:
    """A, g' <- A, g' times 1/(1 - rate) where a unit survives, else 0; which ones do is kept."""
    f, size = REALS[dtype].f, REALS[dtype].size
    floats, scalar = REALS[dtype].floats, REALS[dtype].scalar

    @inline
    def survivors(a, d, kept, words, keep, scale, m):
        for c in range(m):
            alive = np.uint64(words[c]) < keep
            kept[c] = np.uint8(1) if alive else np.uint8(0)
            a[c] = a[c] * scale if alive else f(0.0)
            d[c] = d[c] * scale if alive else f(0.0)

    @inline
    def body(address):
        a = integers(address, 12)
        n, m, key, scale = a[8], a[9], integers(a[4], 4), scalar(a[5], f(1.0))
        step, first = integers(a[3], 1)[0], integers(a[7], 1)[0] + a[11]
        threshold, pitch = np.uint64(key[3]), a[10]
        for r in range(n):
            if r & 3 == 0:
                _philox_words(np.uint64(r >> 2), first, step, key, a[6], m, pitch)
            kept = array(a[2] + r * pitch, m, np.uint8)
            lane = array(a[6] + 4 * (r & 3) * pitch, m, np.uint32)
            at = size * r * pitch
            survivors(floats(a[0] + at, m), floats(a[1] + at, m), kept, lane, threshold, scale, m)

    return Kernel("drop", dtype, body)


@inline
def _philox_words(quad, first, step, key, words_at, m, pitch):
    """Four rows of m words, ``pitch`` apart: Philox-4x32-10 of (quad, first + c, layer, step) by (k0, k1, layer)."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1, layer, now = np.uint64(key[0]), np.uint64(key[1]), np.uint64(key[2]), np.uint64(step) & low
    words = array(words_at, 4 * pitch, np.uint32)
    for c in range(m):
        c0, c1, c2, c3 = quad, np.uint64(first + c) & low, layer, now
        a0, a1 = k0, k1
        for _ in range(10):
            p0 = np.uint64(0xD2511F53) * c0
            p1 = np.uint64(0xCD9E8D57) * c2
            c0 = (p1 >> shift) ^ c1 ^ a0
            c2 = (p0 >> shift) ^ c3 ^ a1
            c1, c3 = p1 & low, p0 & low
            a0 = (a0 + np.uint64(0x9E3779B9)) & low
            a1 = (a1 + np.uint64(0xBB67AE85)) & low
        words[c] = np.uint32(c0)
        words[pitch + c] = np.uint32(c1)
        words[2 * pitch + c] = np.uint32(c2)
        words[3 * pitch + c] = np.uint32(c3)
