"""Philox-4x32-10 against the published vectors and against a second implementation in Python integers."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strict import to_host, to_strict

from backprop_gpu.maths.random import host_generator, philox_words

words32 = st.integers(0, 2**32 - 1)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Salmon et al. 2011, section 3.3, in unbounded integers."""
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 % 2**32, (p0 >> 32) ^ x3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


def column(*values: int) -> list[np.ndarray]:
    return [np.array([v], dtype=np.int64) for v in values]


# kat_vectors of the Random123 distribution, philox4x32 with 10 rounds: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN, ids=["zeros", "ones", "pi"])
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], want: tuple[int, ...]) -> None:
    seed = key[0] + (key[1] << 32)
    assert philox(key, counter) == want
    assert tuple(int(w[0]) for w in philox_words(np, seed, column(*counter))) == want
    # The last three may be plain integers.
    mixed = philox_words(np, seed, (column(counter[0])[0], *counter[1:]))
    assert tuple(int(w[0]) for w in mixed) == want
    strict = philox_words(array_api_strict, seed, [to_strict(c) for c in column(*counter)])
    assert tuple(int(to_host(w)[0]) for w in strict) == want


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.tuples(words32, words32), st.tuples(words32, words32, words32, words32))
def test_any_counter_equals_the_integers(key: tuple[int, int], counter: tuple[int, int, int, int]) -> None:
    got = philox_words(np, key[0] + (key[1] << 32), column(*counter))
    assert tuple(int(w[0]) for w in got) == philox(key, counter)


def test_counters_broadcast_and_wrap_at_32_bits() -> None:
    rows, columns = np.arange(3, dtype=np.int64)[:, None], np.arange(5, dtype=np.int64)[None, :] + 2**32 - 2
    got = philox_words(np, 17, (rows, columns, 4, np.array([2**40 + 9], dtype=np.int64)))
    assert all(w.shape == (3, 5) and w.dtype == np.int64 for w in got)
    assert all(int(w.min()) >= 0 and int(w.max()) < 2**32 for w in got)
    for i in range(3):
        for j in range(5):
            want = philox((17, 0), (i, (j + 2**32 - 2) % 2**32, 4, 9))
            assert tuple(int(w[i, j]) for w in got) == want


def test_no_warning_even_on_scalars_where_numpy_would_warn_of_overflow() -> None:
    big = np.int64(0xFFFFFFFF)  # NumPy warns when a product of scalars overflows; warnings are errors here.
    got = philox_words(np, 2**64 - 1, (big, big, big, big))
    assert tuple(int(w) for w in got) == KNOWN[1][2]


def test_words_look_uniform() -> None:
    """Mean and every bit within 6 standard deviations over 2^16 words: a transcription error shows, not more."""
    words = np.stack(philox_words(np, 1, (np.arange(2**14, dtype=np.int64), 0, 0, 0)))
    n = words.size
    assert abs(words.mean() / 2**32 - 0.5) < 6.0 / np.sqrt(12.0 * n)
    for bit in range(32):
        assert abs(((words >> bit) & 1).mean() - 0.5) < 3.0 / np.sqrt(n)
    assert len(np.unique(words[0])) > 2**14 - 8


def draw(*arguments: int) -> list[Any]:
    return host_generator(*arguments).bit_generator.random_raw(3).tolist()


def test_host_streams_are_fixed_and_separate() -> None:
    """NumPy keeps the bits of Philox and SeedSequence (NEP 19), so these never change."""
    assert draw(0) == PINNED[(0,)]
    assert draw(7, 1) == PINNED[(7, 1)]
    assert draw(7, 1) == draw(7, 1)
    assert len({tuple(draw(*a)) for a in ((0,), (7,), (7, 1), (1, 7), (7, 2), (7, 1, 3))}) == 6
    assert isinstance(host_generator(3).bit_generator, np.random.Philox)


PINNED = {
    (0,): [259491006799949737, 4754966410622352325, 8698845897610382596],
    (7, 1): [15726550606777476398, 7444883432361683333, 14092825244082508904],
}
