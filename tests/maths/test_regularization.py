"""Penalties, dropout whose bits belong to the example and not to the device or the batch, and clipping."""

from __future__ import annotations

import itertools
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.real_part import gradient
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.maths.random import philox_words
from backprop_gpu.maths.regularization import (
    clip_factor,
    dropout,
    dropout_mask,
    dropout_vjp,
    l1,
    l1_grad,
    l2,
    l2_grad,
)


def mask(
    n: int,
    m: int,
    rate: float,
    *,
    seed: int = 5,
    layer: int = 1,
    step: int = 3,
    first: int = 0,
    xp: Any = np,
    device: str = "device1",
) -> np.ndarray:
    """The mask of a micro-batch of m examples that starts at ``first`` of the global batch."""
    quads, examples = np.arange(-(-n // 4), dtype=np.int64)[:, None], np.arange(m, dtype=np.int64)[None, :]
    places = (np.array([step], dtype=np.int64), np.array([first], dtype=np.int64))
    if xp is np:
        return dropout_mask(np, n, rate, seed, layer, quads, examples, *places)
    moved = (to_strict(v, device) for v in (quads, examples, *places))
    return to_host(dropout_mask(xp, n, rate, seed, layer, *moved), device)


def test_penalties_by_hand() -> None:
    theta = np.array([3.0, -1.0, 0.0, 2.0])
    assert l2(np, theta, 0.5) == 3.5  # 0.5/2 * 14
    assert np.array_equal(l2_grad(np, theta, 0.5), [1.5, -0.5, 0.0, 1.0])
    assert l1(np, theta, 0.5) == 3.0  # 0.5 * 6
    assert np.array_equal(l1_grad(np, theta, 0.5), [0.5, -0.5, 0.0, 0.5])


@pytest.mark.parametrize(("value", "grad"), [(l2, l2_grad), (l1, l1_grad)])
def test_penalty_gradients_are_complex_steps(value: Any, grad: Any) -> None:
    theta = np.random.default_rng(0).normal(size=(3, 4))
    want = gradient(lambda xp, t: value(xp, t, 0.3), theta)
    assert np.max(np.abs(grad(np, theta, 0.3) - want)) <= 1e-15


@pytest.mark.parametrize("function", [l1, l1_grad, l2, l2_grad])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_penalties_keep_the_dtype_on_any_namespace(function: Any, dtype: str) -> None:
    theta = np.array([3.0, -1.0, 0.0, 2.0], dtype)
    for strength in (0.5, np.array(0.5, dtype)):
        plain = function(np, theta, strength)
        strict = function(
            array_api_strict, to_strict(theta), strength if isinstance(strength, float) else to_strict(strength)
        )
        assert plain.dtype == dtype
        assert np.array_equal(to_host(strict), plain)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 3), (5, 2), (7, 6), (8, 1)])
def test_the_mask_is_the_documented_draw(n: int, m: int) -> None:
    """Unit u of example e: word u mod 4 of Philox(seed; u // 4, first + e, layer, step) < (1 - rate) 2^32."""
    got = mask(n, m, 0.3, seed=2**40 + 9, layer=2, step=7, first=11)
    assert got.shape == (n, m)
    assert got.dtype == bool
    for u in range(n):
        for e in range(m):
            counter = [np.array([v], dtype=np.int64) for v in (u // 4, 11 + e, 2, 7)]
            word = int(philox_words(np, 2**40 + 9, counter)[u % 4][0])
            assert bool(got[u, e]) == (word < 0.7 * 2**32)


@pytest.mark.parametrize("u", range(4))
def test_a_word_equal_to_the_threshold_is_dropped(u: int) -> None:
    """``rate`` holds every multiple of 2^-32 exactly, so the comparison can be probed at the word itself."""
    word = int(philox_words(np, 5, [np.array([v], dtype=np.int64) for v in (0, 0, 1, 3)])[u][0])
    assert not mask(4, 1, 1.0 - word / 2**32)[u, 0]
    assert mask(4, 1, 1.0 - (word + 1) / 2**32)[u, 0]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.data())
def test_every_split_of_the_batch_draws_the_same_bits(n: int, m: int, data: Any) -> None:
    cuts = sorted({0, m, *data.draw(st.lists(st.integers(0, m), max_size=4), label="cuts")})
    whole = mask(n, m, 0.4)
    parts = [mask(n, b - a, 0.4, first=a) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 6, 8])
def test_every_device_draws_the_same_bits(n: int, device: str) -> None:
    assert np.array_equal(mask(n, 9, 0.4, first=2, xp=array_api_strict, device=device), mask(n, 9, 0.4, first=2))


def test_a_wider_layer_keeps_the_first_units_bits() -> None:
    assert np.array_equal(mask(9, 5, 0.5)[:6], mask(6, 5, 0.5))


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.5, 0.9])
def test_the_rate_is_honoured(rate: float) -> None:
    """Kept counts over 512 x 512 draws, all units and all examples, within 6 binomial standard deviations."""
    kept = mask(512, 512, rate)
    for counts, draws in ((kept.sum(), kept.size), (kept.sum(axis=0), 512), (kept.sum(axis=1), 512)):
        assert np.all(np.abs(counts - (1.0 - rate) * draws) <= 6.0 * np.sqrt(draws * rate * (1.0 - rate)))


@pytest.mark.parametrize("change", [{"layer": 2}, {"step": 4}, {"seed": 6}, {"seed": 5 + 2**32}, {"first": 64}])
def test_layer_step_seed_and_example_draw_independently(change: dict[str, int]) -> None:
    """Agreement of two independent fair masks is binomial(n m, 1/2)."""
    one, other = mask(64, 64, 0.5), mask(64, 64, 0.5, **change)
    assert abs((one == other).mean() - 0.5) <= 6.0 * 0.5 / 64.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_scales_the_survivors_in_both_directions(dtype: str) -> None:
    A = np.array([[1.0, -2.0, np.inf], [3.0, 4.0, 5.0]], dtype)
    kept = np.array([[True, False, False], [True, True, False]])
    for function in (dropout, dropout_vjp):
        got = function(np, A, kept, 0.75)
        assert got.dtype == dtype
        assert np.array_equal(got, [[4.0, 0.0, 0.0], [12.0, 16.0, 0.0]])
        assert np.array_equal(to_host(function(array_api_strict, to_strict(A), to_strict(kept), 0.75)), got)


def test_dropout_vjp_is_the_gradient() -> None:
    rng = np.random.default_rng(0)
    A, dA, kept = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.random((3, 4)) < 0.6
    want = gradient(lambda xp, a: dA * dropout(xp, a, kept, 0.4), A)
    assert np.max(np.abs(dropout_vjp(np, dA, kept, 0.4) - want)) <= 1e-15


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_changes_no_expectation(rate: float) -> None:
    A = np.full((512, 512), 3.0)
    mean = dropout(np, A, mask(512, 512, rate), rate).mean()
    assert abs(mean - 3.0) <= 6.0 * 3.0 * np.sqrt(rate / (1.0 - rate)) / 512.0


def test_rate_zero_is_the_identity() -> None:
    A = np.random.default_rng(0).normal(size=(5, 6))
    assert mask(5, 6, 0.0).all()
    assert np.array_equal(dropout(np, A, mask(5, 6, 0.0), 0.0), A)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_factor(dtype: str) -> None:
    norm = np.array([0.0, 0.5, 2.0, 2.5, 8.0, 1e30, np.inf], dtype)
    got = clip_factor(np, norm, 2.0)
    assert got.dtype == dtype
    assert np.allclose(got, [1.0, 1.0, 1.0, 0.8, 0.25, 2e-30, 0.0], rtol=1e-6 if dtype == "float32" else 1e-15)
    assert np.array_equal(to_host(clip_factor(array_api_strict, to_strict(norm), 2.0)), got)


def test_clipping_caps_the_norm_and_keeps_the_direction() -> None:
    g = np.random.default_rng(0).normal(size=50) * 10.0
    for limit in (0.1, 1.0, 1e6):
        clipped = clip_factor(np, np.sqrt(np.sum(g * g)), limit) * g
        assert np.linalg.norm(clipped) == pytest.approx(min(limit, np.linalg.norm(g)), rel=1e-14)
        assert np.allclose(clipped / np.linalg.norm(clipped), g / np.linalg.norm(g), rtol=1e-13)
