"""The arithmetic of bounds: never exceeded by real float32 arithmetic, and not much wider than it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backprop_gpu.parity.claims import bounds_of
from backprop_gpu.parity.comparator import BLOCK, Comparator, blocks, ratios
from backprop_gpu.parity.oracle import elementary as el
from backprop_gpu.parity.oracle.bounds import Bounded, Bounds, Mask
from backprop_gpu.parity.oracle.operations import largest, maximum, minimum, sign, sum_over, where
from backprop_gpu.parity.oracle.products import LONG, Product, Recorded, row_sums

B = bounds_of("numpy", "fp32")
F = np.float32


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def numbers(seed: int, low: float = -20.0, high: float = 20.0) -> np.ndarray:
    """Magnitudes over many binades, both signs, exact zeros."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], 4000) * np.exp2(rng.uniform(low, high, 4000))
    x[:50] = 0.0
    return x.astype(F)


def worst(got: Any, reference: Bounded) -> float:
    """|got - v| / bound, with the slack that the judge gives."""
    got = np.asarray(got, np.float64)
    found, _ = ratios(np.abs(got - reference.v), got, reference)
    return float(found.max()) / reference.bounds.slack


Pair = Callable[[Any, Any], Any]
ARITHMETIC: dict[str, Pair] = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: x / y,
    "1 - x * x": lambda x, y: 1.0 - x * x,
    "(x + y) * (x - y)": lambda x, y: (x + y) * (x - y),
    "x * y + x / y": lambda x, y: x * y + x / y,
    "0.1 * x + 0.9 * y": lambda x, y: 0.1 * x + 0.9 * y,
    "(x + 0.3) / (y * y + 0.7)": lambda x, y: (x + 0.3) / (y * y + 0.7),
    "2 / (x * x + 1)": lambda x, y: 2.0 / (x * x + 1.0),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_float32_arithmetic_keeps_within_its_bound_and_comes_near_it(name: str) -> None:
    x, y = numbers(1), numbers(2)
    y[y == 0.0] = 1.0
    found = worst(ARITHMETIC[name](x, y), ARITHMETIC[name](B.given(x), B.given(y)))
    assert 0.3 < found <= 1.0


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Bounded], Bounded], float, float]] = {
    "exp": (np.exp, el.exp, -10, 6),
    "expm1": (np.expm1, el.expm1, -20, 6),
    "tanh": (np.tanh, el.tanh, -20, 4),
    "sqrt": (lambda x: np.sqrt(np.abs(x)), lambda x: el.sqrt(abs(x)), -100, 100),
    "log": (lambda x: np.log(np.abs(x) + F(1e-30)), lambda x: el.log(abs(x) + 1e-30), -60, 60),
    "log1p": (lambda x: np.log1p(np.abs(x)), lambda x: el.log1p(abs(x)), -60, 60),
    "tanh of a rounded product": (lambda x: np.tanh(x * F(1.7)), lambda x: el.tanh(x * 1.7), -20, 4),
    "exp of a difference": (lambda x: np.exp(x - F(0.3)), lambda x: el.exp(x - 0.3), -10, 6),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_within_their_bound(name: str) -> None:
    real, bounded, low, high = FUNCTIONS[name]
    x = numbers(3, low, high)
    assert 0.01 < worst(real(x), bounded(B.given(x))) <= 1.0


def test_sigmoid_in_both_formulas() -> None:
    x = numbers(4, -20, 7)
    e = np.exp(-np.abs(x))
    one, two = np.where(x > 0, F(1), e) / (F(1) + e), np.where(x > 0, F(1), e) * (F(1) / (F(1) + e))
    for got in (one, two):
        assert 0.2 < worst(got, el.sigmoid(B.given(x))) <= 1.0


def test_erf_to_the_last_digits() -> None:
    x = np.concatenate([numbers(5, -40, 3).astype(np.float64), [0.0, 6.0, -6.0, 30.0, np.inf, -np.inf]])
    want = np.array([math.erf(v) for v in x])
    gap = np.abs(el.erf64(x) - want)
    assert np.all(gap <= 4 * np.spacing(np.abs(want)))
    assert np.isnan(el.erf64(np.array([np.nan]))).all()


def test_exact_operations_have_no_bound_at_all() -> None:
    x, y = B.given(numbers(6)), B.given(numbers(7))
    for result in (abs(x), -x, maximum(x, y), minimum(x, 0.0), where(x > 0.0, x, 0.0, B), largest(y, 0), sign(x)):
        assert result.exact


def test_a_comparison_of_uncertain_numbers_allows_both_branches() -> None:
    x = B.given(np.array([1.0, 1e-9, -1.0], F)) + B.given(np.array([0.0, 1e-12, 0.0], F))
    x = Bounded(B, x.v, x.top, e=np.array([1e-8, 1e-8, 1e-8]))
    mask = x > 0.0
    assert isinstance(mask, Mask)
    assert mask.undetermined is not None
    np.testing.assert_array_equal(mask.undetermined, [False, True, False])
    chosen = where(mask, 5.0, 0.0, B)
    assert worst([5.0, 5.0, 0.0], chosen) <= 1.0
    assert worst([5.0, 0.0, 0.0], chosen) <= 1.0
    assert worst([0.0, 5.0, 0.0], chosen) > 1.0


def test_masked_entries_are_0_whatever_they_were() -> None:
    x = B.given(np.array([np.nan, np.inf, 3.0], F))
    kept = where(np.array([False, False, True]), x, 0.0, B)
    np.testing.assert_array_equal(kept.v, [0.0, 0.0, 3.0])


def test_nan_and_infinity_must_be_in_the_same_places() -> None:
    x = B.given(np.array([np.nan, np.inf, -np.inf, 1.0], F))
    assert worst([np.nan, np.inf, -np.inf, 1.0], x) == 0.0
    for wrong in ([0.0, np.inf, -np.inf, 1.0], [np.nan, 7.0, -np.inf, 1.0], [np.nan, np.inf, -np.inf, np.nan]):
        assert worst(wrong, x) == np.inf


def test_a_number_beyond_float32_may_be_infinite_or_not() -> None:
    x = B.given(np.array([1e30], F)) * B.given(np.array([1e30], F))
    assert worst([np.inf], x) == 0.0
    product = x * B.given(np.array([1e-30], F))  # finite again, on a device that kept more
    for device, undecided in ((np.inf, 0), (2e30, 1), (float(product.v[0]), 0)):
        got, open_ = ratios(np.abs(np.array([device]) - product.v), np.array([device]), product)
        assert got[0] == 0.0
        assert open_ == undecided


def test_python_numbers_are_rounded_as_the_device_rounds_them() -> None:
    x = numbers(8)
    assert worst(x * F(0.1), B.given(x) * 0.1) <= 1.0
    unrounded = B.given(x) * Bounded(B, np.float64(0.1), 0.1)
    assert worst(x * F(0.1), unrounded) > 1.0


@pytest.mark.parametrize("k", [1, 2, 7, 64, LONG - 1, LONG, 1000])
def test_products_in_any_order(k: int) -> None:
    rng = np.random.default_rng(k)
    P, Q, b = (rng.standard_normal(s).astype(F) for s in ((9, k), (k, 11), (9, 1)))
    product = Product(B, Recorded(P), Recorded(Q), plus=b)
    plain = np.zeros((9, 11), F) + b  # the bias first
    for n in range(k):
        plain += P[:, n : n + 1] * Q[n : n + 1]
    for got in (P @ Q + b, P[:, ::-1] @ Q[::-1] + b, plain):
        assert worst(got, product[:]) <= 1.0
    dropped = P[:, :-1] @ Q[:-1] + b
    assert worst(dropped, product[:]) > 50.0


def test_a_scaled_and_accumulated_product() -> None:
    rng = np.random.default_rng(9)
    P, Q, old = (rng.standard_normal(s).astype(F) for s in ((5, 13), (13, 6), (5, 6)))
    s = F(0.037)
    product = Product(B, Recorded(P), Recorded(Q), plus=old, scale=float(s))
    for got in (old + s * (P @ Q), old + (s * P) @ Q, (old / s + P @ Q) * s):
        assert worst(got, product[:]) <= 1.0
    assert worst(s * (P @ Q), product[:]) > 100.0


def test_row_sums_in_any_order() -> None:
    x = np.random.default_rng(10).standard_normal((6, 999)).astype(F)
    sums = row_sums(Recorded(x), B, plus=np.ones((6, 1), F), scale=0.5)
    one_by_one = np.ones((6, 1), F)
    for n in range(x.shape[1]):
        one_by_one += F(0.5) * x[:, n : n + 1]
    for got in (1 + F(0.5) * x.sum(axis=1, keepdims=True), one_by_one):
        assert worst(got, sums) <= 1.0
    assert worst(F(0.5) * x.sum(axis=1, keepdims=True), sums) > 1.0


def test_sums_of_few_terms_in_any_order() -> None:
    x, y, z = numbers(11), numbers(12), numbers(13)
    total = B.total(B.given(x), B.given(y), B.given(z))
    for got in ((x + y) + z, x + (y + z), (x + z) + y):
        assert worst(got, total) <= 1.0
    assert worst(np.sum([x, y, z], axis=0), sum_over(B.given(np.stack([x, y, z])), axis=0)[0]) <= 1.0


def test_a_sum_too_long_for_a_bound_is_a_warning_and_no_verdict() -> None:
    coarse = Bounds(u=2.0**-4, u_sum=2.0**-4, ulps=B.ulps)
    comparator = Comparator()
    found = comparator.compare("sum", "s", np.array([[9.5]]), sum_over(coarse.given(np.ones((1, 9), F)), axis=1))
    assert found.status == "warning"
    assert "no finite bound" in found.cause


@pytest.mark.parametrize(("length", "width", "cuts"), [(1, 1, ()), (7, BLOCK, ()), (100_000, 1, (64,)), (33, 1000, ())])
def test_blocks_cover_an_axis_once(length: int, width: int, cuts: tuple[int, ...]) -> None:
    parts = list(blocks(length, width, cuts))
    assert [n for p in parts for n in range(p.start, p.stop)] == list(range(length))
    assert all((p.stop - p.start) * width <= max(BLOCK, width) for p in parts)
    assert all(not p.start < cut < p.stop for p in parts for cut in cuts)


def test_the_judge_keeps_the_worse_of_two_and_its_place() -> None:
    comparator = Comparator()
    x = np.ones((3, 40_000), F)
    comparator.compare("a", "first", x, B.given(x) * 1.1)
    comparator.compare("b", "second", x * F(1.1), B.given(x) * 1.1)
    bad = x.copy()
    bad[2, 39_999] = 2
    comparator.compare("a", "second", bad * F(1.1), B.given(x) * 1.1)
    assert list(comparator.findings) == ["first", "second"]
    found = comparator.findings["second"]
    assert (found.status, found.worst) == ("wrong", (2, 39_999))
    assert found.got == pytest.approx(2.2)
    assert found.want == pytest.approx(1.1)
    assert comparator.comparisons["second"].ratio()[2, 39_999] == pytest.approx(found.ratio, rel=1e-3)
    assert np.count_nonzero(comparator.comparisons["second"].ratio() > 1) == 1
