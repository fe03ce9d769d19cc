"""The rules of error propagation, one at a time: whatever the inputs may be, the result is within its bound.

Inputs are moved by up to their bounds, corners included, and the operation done once more in float64; how far the
result moves is what the bound must cover, and the largest move seen is what it should be near to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backprop_gpu.maths.special import erf
from backprop_gpu.parity.bounded_array import BoundedArray, MaskArray, as_mask, received
from backprop_gpu.parity.claims import arithmetic_of
from backprop_gpu.parity.namespace import BoundedNamespace

BOUNDS = arithmetic_of("numpy", "fp64")
XP = BoundedNamespace(BOUNDS)
MOVES = 60


class Plain:
    """NumPy, and erf."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def erf(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(erf(np, x))


def uncertain(rng: np.random.Generator, shape: tuple[int, ...], size: float, low: float | None = None) -> BoundedArray:
    v = rng.normal(size=shape) if low is None else low + rng.exponential(size=shape)
    return BoundedArray(BOUNDS, v, size * rng.uniform(0.0, 1.0, shape) * (rng.uniform(size=shape) < 0.8))


def moved(rng: np.random.Generator, inputs: list[BoundedArray]) -> list[np.ndarray]:
    corner = rng.integers(0, 3)
    found = []
    for x in inputs:
        sides = rng.choice([-1.0, 1.0], x.shape) if corner < 2 else rng.uniform(-1.0, 1.0, x.shape)
        found.append(x.v + sides * x.e)
    return found


# name: (operation on xp, shapes, smallest values of the inputs or None, how near the bound must be to what was seen)
RULES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], float | None, float]] = {
    "add": (lambda xp, a, b: a + b, [(4, 5), (4, 5)], None, 2.0),
    "add row": (lambda xp, a, b: a + b, [(4, 5), (1, 5)], None, 2.0),
    "subtract": (lambda xp, a, b: a - b, [(4, 5), (4, 5)], None, 2.0),
    "number minus": (lambda xp, a: 0.5 - a, [(4, 5)], None, 1.1),
    "multiply": (lambda xp, a, b: a * b, [(4, 5), (4, 1)], None, 4.0),
    "square": (lambda xp, a: xp.square(a), [(4, 5)], None, 3.0),
    "divide": (lambda xp, a, b: a / b, [(4, 5), (4, 5)], 0.5, 4.0),
    "reciprocal": (lambda xp, a: 2.0 / a, [(4, 5)], 0.5, 3.0),
    "power": (lambda xp, a: a**3, [(4, 5)], None, 6.0),
    "even power": (lambda xp, a: xp.pow(a, 2), [(4, 5)], None, 6.0),
    "root": (lambda xp, a: a**0.5, [(4, 5)], 0.5, 2.0),
    "negative power": (lambda xp, a: a**-1.5, [(4, 5)], 0.5, 4.0),
    "matmul": (lambda xp, a, b: xp.matmul(a, b), [(3, 6), (6, 4)], None, 8.0),
    "matmul of rows": (lambda xp, a, b: a @ b, [(2, 3, 6), (2, 6, 4)], None, 8.0),
    "matvec": (lambda xp, a, b: a @ b, [(3, 6), (6,)], None, 8.0),
    "vecdot": (lambda xp, a, b: xp.vecdot(a, b, axis=0), [(6, 3), (6, 3)], None, 8.0),
    "sum": (lambda xp, a: xp.sum(a, axis=0), [(6, 4)], None, 4.0),
    "sum of all": (lambda xp, a: xp.sum(a), [(3, 2)], None, 6.0),
    "sum of two axes": (lambda xp, a: xp.sum(a, axis=(0, 2), keepdims=True), [(2, 3, 2)], None, 6.0),
    "mean": (lambda xp, a: xp.mean(a, axis=1, keepdims=True), [(6, 4)], None, 4.0),
    "max": (lambda xp, a: xp.max(a, axis=1), [(6, 4)], None, 8.0),
    "min": (lambda xp, a: xp.min(a, axis=0, keepdims=True), [(6, 4)], None, 8.0),
    "maximum": (lambda xp, a, b: xp.maximum(a, b), [(4, 5), (4, 5)], None, 2.0),
    "minimum": (lambda xp, a: xp.minimum(a, 0.1), [(4, 5)], None, 2.0),
    "clip": (lambda xp, a: xp.clip(a, -0.2, 0.3), [(4, 5)], None, 4.0),
    "abs": (lambda xp, a: xp.abs(a), [(4, 5)], None, 2.0),
    "sign": (lambda xp, a: xp.sign(a), [(40, 50)], None, 1.1),
    "where": (lambda xp, a, b: xp.where(a > b, a, 2.0 * b), [(40, 50), (40, 50)], None, 4.0),
    "where less": (lambda xp, a: xp.where(xp.less_equal(a, 0.0), 3.0, a), [(40, 50)], None, 2.0),
    "exp": (lambda xp, a: xp.exp(a), [(4, 5)], None, 2.0),
    "expm1": (lambda xp, a: xp.expm1(a), [(4, 5)], None, 2.0),
    "log": (lambda xp, a: xp.log(a), [(4, 5)], 0.5, 3.0),
    "log1p": (lambda xp, a: xp.log1p(a), [(4, 5)], -0.5, 3.0),
    "tanh": (lambda xp, a: xp.tanh(a), [(4, 5)], None, 2.0),
    "erf": (lambda xp, a: xp.erf(a), [(4, 5)], None, 2.0),
    "sqrt": (lambda xp, a: xp.sqrt(a), [(4, 5)], 0.5, 2.0),
    "sin": (lambda xp, a: xp.sin(a), [(4, 5)], None, 50.0),
    "cos": (lambda xp, a: xp.cos(a), [(4, 5)], None, 50.0),
    "concat": (lambda xp, a, b: xp.concat([a, b], axis=1), [(4, 5), (4, 2)], None, 1.1),
    "stack": (lambda xp, a, b: xp.stack([a, b]), [(4, 5), (4, 5)], None, 1.1),
    "transpose": (lambda xp, a: a.T[1:, ::2], [(4, 5)], None, 1.1),
    "reshape": (lambda xp, a: xp.reshape(a, (10, 2)).mT, [(4, 5)], None, 1.1),
}


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.3])
@pytest.mark.parametrize("rule", RULES)
def test_a_bound_covers_every_move_of_the_inputs(rule: str, size: float) -> None:
    fn, shapes, low, nearness = RULES[rule]
    rng = np.random.default_rng(sum(map(ord, rule)))
    inputs = [uncertain(rng, s, min(size, 0.4) if low is not None else size, low) for s in shapes]
    with np.errstate(all="ignore"):
        out = fn(XP, *inputs)
        seen = np.zeros(out.shape)
        for _ in range(MOVES):
            seen = np.maximum(seen, np.abs(np.asarray(fn(Plain(), *moved(rng, inputs))) - out.v))
        here = 1e-15 * (1.0 + np.abs(out.v))  # of v + e - v
    assert np.all(seen <= out.e + here), float(np.max(seen - out.e))
    if size == 1e-4:  # small enough to be linear, large enough to hide the rounding of float64
        biggest = np.max(seen)
        assert biggest > 0.0
        assert float(np.max(out.e)) <= nearness * biggest


def test_a_chain_of_rules_covers_every_move() -> None:
    def chain(xp: Any, a: Any, b: Any) -> Any:
        z = xp.matmul(a, b.T) + 0.5
        h = xp.where(z > 0.0, xp.tanh(z), 0.1 * xp.expm1(xp.minimum(z, 0.0)))
        return xp.sum(h / (1.0 + xp.exp(-h)), axis=0) - xp.mean(h)

    rng = np.random.default_rng(0)
    inputs = [uncertain(rng, (5, 4), 1e-3), uncertain(rng, (6, 4), 1e-3)]
    out = chain(XP, *inputs)
    for _ in range(300):
        assert np.all(np.abs(chain(np, *moved(rng, inputs)) - out.v) <= out.e)


# -- comparisons ------------------------------------------------------------------------------------------------------

STATES = [(False, False), (True, False), (False, True), (True, True)]  # value, open


@pytest.mark.parametrize(
    ("combine", "plain"),
    [
        (lambda a, b: a & b, np.logical_and),
        (lambda a, b: a | b, np.logical_or),
        (lambda a, b: a ^ b, np.logical_xor),
        (lambda a, b: ~a & b, lambda a, b: ~a & b),
        (XP.logical_and, np.logical_and),
        (XP.logical_or, np.logical_or),
        (XP.logical_xor, np.logical_xor),
    ],
)
def test_combined_masks_are_open_exactly_where_a_device_may_differ(combine: Any, plain: Any) -> None:
    for (va, oa), (vb, ob) in itertools.product(STATES, STATES):
        a, b = MaskArray(np.array([va]), np.array([oa])), MaskArray(np.array([vb]), np.array([ob]))
        out = as_mask(combine(a, b))
        possible = {
            bool(plain(np.bool(x), np.bool(y)))
            for x in ({False, True} if oa else {va})
            for y in ({False, True} if ob else {vb})
        }
        assert bool(out.value[0]) == bool(plain(np.bool(va), np.bool(vb)))
        assert bool(out.undetermined[0]) == (len(possible) == 2)


@pytest.mark.parametrize("relation", ["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"])
def test_a_comparison_is_open_where_the_operands_may_cross(relation: str) -> None:
    v = np.array([1.0, 1.0, 1.0, 1.0, 5.0])
    a = BoundedArray(BOUNDS, v, np.array([0.0, 0.5, 0.0, 0.1, 0.1]))
    b = BoundedArray(BOUNDS, np.array([1.0, 1.0, 1.2, 1.3, 4.0]), np.array([0.0, 0.0, 0.3, 0.1, 0.1]))
    mask = as_mask(getattr(XP, relation)(a, b))
    np.testing.assert_array_equal(mask.value, getattr(np, relation)(a.v, b.v))
    np.testing.assert_array_equal(mask.undetermined, [False, True, True, False, False])
    operators = {"greater": a > b, "greater_equal": a >= b, "less": a < b, "less_equal": a <= b, "equal": a == b}
    if relation in operators:
        np.testing.assert_array_equal(as_mask(operators[relation]).undetermined, mask.undetermined)


def test_masks_move_with_their_doubt() -> None:
    mask = MaskArray(np.array([[True, False]]), np.array([[False, True]]))
    np.testing.assert_array_equal(XP.reshape(mask, (2,)).undetermined, [False, True])
    np.testing.assert_array_equal(mask[0, ::-1].undetermined, [True, False])
    np.testing.assert_array_equal(XP.concat([mask, np.array([[True]])], axis=1).undetermined, [[False, True, False]])
    np.testing.assert_array_equal(XP.astype(mask, XP.float64).e, [[0.0, 1.0]])
    assert mask.shape == (1, 2)


# -- what is exact ----------------------------------------------------------------------------------------------------


def test_what_moves_or_selects_numbers_adds_no_error() -> None:
    x = received(BOUNDS, np.random.default_rng(1).normal(size=(4, 6)))
    for out in (
        x.T,
        -x,
        abs(x),
        x[1:, ::2],
        XP.max(x, axis=0),
        XP.maximum(x, 0.5),
        XP.where(x > 0.0, x, 0.0),
        XP.clip(x, -1.0, 1.0),
        XP.concat([x, XP.zeros((1, 6))]),
        XP.sum(x[:1, :], axis=0),
        x + 0.0,
        x * 0.0,
        x**1,
        XP.sign(x),
        XP.ones_like(x),
        XP.full((2, 2), 0.5),
    ):
        assert not out.e.any()
    assert (x * 2.0).e.any()


def test_terms_are_counted() -> None:
    x = received(BOUNDS, np.ones((4, 6)))
    assert (x + 1.0).k == 1
    assert XP.matmul(x, x.T).k == 6
    assert XP.sum(XP.matmul(x, x.T)).k == 16
    assert XP.mean(x, axis=(0, 1)).k == 24
    assert XP.concat([x, XP.sum(x, axis=0, keepdims=True)]).k == 4
    assert len(x) == 4
    assert (x.ndim, x.size, x.dtype) == (2, 24, np.float64)
