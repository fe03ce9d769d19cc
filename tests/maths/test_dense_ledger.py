"""The affine map, and the two places of the 1/m.

Bounds: with nonnegative majorants (|W|, |dZ|, ...) in place of the matrices, a chain of products and sums of r
roundings per path differs from the exact result by at most gamma_r times the majorant (Higham 2002, section 3), and two
evaluations of it by twice that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.real_part import gradient
from support.strict import to_host, to_strict

from backprop_gpu.errors import ConfigError, DataError
from backprop_gpu.maths.activations import ACTIVATIONS, Activation
from backprop_gpu.maths.dense import dense, dense_vjp_bias, dense_vjp_input, dense_vjp_weights
from backprop_gpu.maths.ledger import Denominator, split_scale, weigh
from backprop_gpu.maths.losses import LOSSES, Loss

FEW = settings(max_examples=60, derandomize=True, deadline=None)
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def gamma(r: int, dtype: str) -> float:
    """r u / (1 - r u)."""
    return r * UNIT[dtype] / (1.0 - r * UNIT[dtype])


def ordered(x: np.ndarray, order: str) -> np.ndarray:
    """The same numbers in C order, Fortran order, or as every second column of something larger."""
    if order == "strided":
        wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
        wide[:, ::2] = x
        return wide[:, ::2]
    return np.array(x, order=order)


orders = st.sampled_from(["C", "F", "strided"])
sizes = st.integers(1, 6)
dtypes = st.sampled_from(["float32", "float64"])


@dataclass
class Net:
    """Two layers of any activation, and a loss: enough to see where a factor goes."""

    W1: Any
    b1: Any
    W2: Any
    b2: Any
    hidden: Activation
    loss: Loss

    def forward(self, xp: Any, X: Any) -> tuple[Any, Any, Any]:
        Z1 = dense(xp, self.W1, X, self.b1)
        A1 = self.hidden.forward(xp, Z1)
        return Z1, A1, dense(xp, self.W2, A1, self.b2)

    def cost(self, xp: Any, X: Any, Y: Any, inverse: float, weights: Any = 1.0) -> Any:
        return inverse * xp.sum(weights * self.loss.value(xp, self.forward(xp, X)[2], Y))

    def backward(
        self, X: Any, Y: Any, convention: str, inverse: float, weights: Any = None, seen: tuple[Any, ...] | None = None
    ) -> dict[str, Any]:
        """Every derivative by name; ``seen``: the forward results to start from."""
        first, last = split_scale(convention, inverse)
        Z1, A1, Z2 = self.forward(np, X) if seen is None else seen
        dZ2 = self.loss.delta(np, Z2, Y)
        dZ2 = weigh(np, weights, dZ2)
        dZ2 = dZ2 if first is None else first * dZ2
        dA1 = dense_vjp_input(np, self.W2, dZ2)
        dZ1 = self.hidden.vjp(np, dA1, Z1, A1)
        out = {"dZ2": dZ2, "dA1": dA1, "dZ1": dZ1}
        for layer, dZ, A_prev in ((2, dZ2, A1), (1, dZ1, X)):
            dW, db = dense_vjp_weights(np, dZ, A_prev), dense_vjp_bias(np, dZ)
            out[f"dW{layer}"] = dW if last is None else last * dW
            out[f"db{layer}"] = db if last is None else last * db
        return out

    def majorant(self, X: Any, dZ2: Any, g: Any, A1: Any) -> dict[str, Any]:
        """|dW|, |db| with every term positive: what a relative rounding is multiplied with."""
        D2 = np.abs(dZ2).astype(float)
        D1 = (np.abs(self.W2).T.astype(float) @ D2) * np.abs(g).astype(float)
        bounds = {}
        for layer, D, A in ((2, D2, A1), (1, D1, X)):
            bounds[f"dW{layer}"] = D @ np.abs(A).T.astype(float)
            bounds[f"db{layer}"] = D.sum(axis=1, keepdims=True)
        return bounds


def make(seed: int, n0: int, n1: int, n2: int, dtype: str, order: str, loss: str, hidden: str = "tanh") -> Net:
    rng = np.random.default_rng(seed)
    shapes = ((n1, n0), (n1, 1), (n2, n1), (n2, 1))
    parameters = (ordered(rng.normal(size=s).astype(dtype), order) for s in shapes)
    return Net(*parameters, hidden=ACTIVATIONS[hidden], loss=LOSSES[loss]())


def batch(seed: int, n0: int, n2: int, m: int, dtype: str, order: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed + 1000)
    X = ordered(rng.normal(size=(n0, m)).astype(dtype), order)
    return X, ordered((rng.random((n2, m)) < 0.5).astype(dtype), order)


def test_dense_by_hand() -> None:
    W, b = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([[10.0], [20.0]])
    A_prev, dZ = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 3.0], [2.0, 4.0]])
    assert np.array_equal(dense(np, W, A_prev, b), [[17.0, 12.0], [36.0, 25.0]])
    assert np.array_equal(dense_vjp_input(np, W, dZ), [[9.0, 19.0], [12.0, 26.0], [15.0, 33.0]])
    assert np.array_equal(dense_vjp_weights(np, dZ, A_prev), [[1.0, 3.0, 2.0], [2.0, 4.0, 4.0]])
    assert np.array_equal(dense_vjp_bias(np, dZ), [[4.0], [6.0]])


@FEW
@given(sizes, sizes, sizes, orders, st.integers(0, 99))
def test_dense_vjps_are_gradients(n: int, k: int, m: int, order: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    W, A_prev, b, dZ = (ordered(rng.normal(size=s), order) for s in ((n, k), (k, m), (n, 1), (n, m)))
    for got, f, x in (
        (dense_vjp_input(np, W, dZ), lambda xp, v: dZ * dense(xp, W, v, b), A_prev),
        (dense_vjp_weights(np, dZ, A_prev), lambda xp, v: dZ * dense(xp, v, A_prev, b), W),
        (dense_vjp_bias(np, dZ), lambda xp, v: dZ * dense(xp, W, A_prev, v), b),
    ):
        assert got.shape == x.shape
        assert np.max(np.abs(got - gradient(f, x))) <= 1e-13


@FEW
@given(sizes, sizes, st.integers(1, 40), dtypes, orders, st.integers(0, 99))
def test_adjoint_identities(n: int, k: int, m: int, dtype: str, order: str, seed: int) -> None:
    """<dZ, W A> = <W^T dZ, A> = <dZ A^T, W> and <dZ, b 1^T> = <db, b>, each to gamma of its own terms."""
    rng = np.random.default_rng(seed)
    W, A, b, dZ = (ordered(rng.normal(size=s).astype(dtype), order) for s in ((n, k), (k, m), (n, 1), (n, m)))
    dW, db = dense_vjp_weights(np, dZ, A), dense_vjp_bias(np, dZ)

    def inner(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.sum(x.astype(float) * y.astype(float)))

    forward = inner(dZ, dense(np, W, A, np.zeros_like(b)))
    bound = gamma(n + m + k + 2, dtype) * inner(np.abs(dZ), np.abs(W) @ np.abs(A)) * 3.0
    assert abs(forward - inner(dense_vjp_input(np, W, dZ), A)) <= bound
    assert abs(forward - inner(dW, W)) <= bound
    affine = dense(np, np.zeros_like(W), A, b)
    assert abs(inner(dZ, affine) - inner(db, b)) <= 3.0 * gamma(m + 2, dtype) * inner(np.abs(dZ), np.abs(affine))


def test_permuting_units_permutes_gradients() -> None:
    """Exact on small whole numbers: rows of dZ, columns of W and rows of A may be renamed."""
    rng = np.random.default_rng(0)
    W, A, dZ = (rng.integers(-4, 5, s).astype(float) for s in ((5, 4), (4, 6), (5, 6)))
    rows, columns = rng.permutation(5), rng.permutation(4)
    dW, db = dense_vjp_weights(np, dZ, A), dense_vjp_bias(np, dZ)
    assert np.array_equal(dense_vjp_weights(np, dZ[rows], A[columns]), dW[rows][:, columns])
    assert np.array_equal(dense_vjp_bias(np, dZ[rows]), db[rows])
    moved = dense_vjp_input(np, W[rows][:, columns], dZ[rows])
    assert np.array_equal(moved, dense_vjp_input(np, W, dZ)[columns])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_on_array_api_strict_is_numpys(dtype: str) -> None:
    rng = np.random.default_rng(3)
    W, A, b, dZ = (rng.integers(-4, 5, s).astype(dtype) for s in ((5, 4), (4, 6), (5, 1), (5, 6)))
    Ws, As, bs, dZs = map(to_strict, (W, A, b, dZ))
    for strict, plain in (
        (dense(array_api_strict, Ws, As, bs), dense(np, W, A, b)),
        (dense_vjp_input(array_api_strict, Ws, dZs), dense_vjp_input(np, W, dZ)),
        (dense_vjp_weights(array_api_strict, dZs, As), dense_vjp_weights(np, dZ, A)),
        (dense_vjp_bias(array_api_strict, dZs), dense_vjp_bias(np, dZ)),
    ):
        assert to_host(strict).dtype == dtype
        assert np.array_equal(to_host(strict), plain)


def test_place_names_one_factor() -> None:
    assert split_scale("early", 0.25) == (0.25, None)
    assert split_scale("late", 0.25) == (None, 0.25)
    with pytest.raises(ConfigError, match=r"'early' or 'late', got 'latte' \(did you mean 'late'\?\)"):
        split_scale("latte", 0.25)


def test_weigh_multiplies_columns_and_silences_weight_zero() -> None:
    x = np.array([[1.0, np.inf, 3.0, -4.0], [5.0, np.nan, 7.0, np.inf]])
    with np.errstate(invalid="ignore"):
        got = weigh(np, np.array([[2.0, 0.0, 0.5, -1.0]]), x)
    assert np.array_equal(got, [[2.0, 0.0, 1.5, 4.0], [10.0, 0.0, 3.5, -np.inf]])
    assert weigh(np, None, x) is x
    assert weigh(np, np.ones((1, 4), np.float32), np.ones((2, 4), np.float32)).dtype == np.float32
    weights, columns = to_strict(np.array([[2.0, 0.0]])), to_strict(np.array([[1.0, 3.0]]))
    assert np.array_equal(to_host(weigh(array_api_strict, weights, columns)), [[2.0, 0.0]])


def test_denominators() -> None:
    assert Denominator.of("mean", 8) == Denominator(8.0)
    assert Denominator.of("mean", 8, 3.5) == Denominator(3.5)
    assert Denominator.of("sum", 8) == Denominator.of("sum", 8, 3.5) == Denominator(1.0)
    assert Denominator(8.0).inverse == 0.125
    assert Denominator.of("mean", 3).inverse == 1.0 / 3.0


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, float("nan"), float("inf"), float("-inf")])
def test_a_denominator_is_positive_and_finite(value: float) -> None:
    for make_one in (lambda: Denominator(value), lambda: Denominator.of("mean", 4, value)):
        with pytest.raises(DataError, match=r"must be positive and finite, got .* at least one example") as caught:
            make_one()
        assert "\n" not in str(caught.value)


def test_a_batch_without_examples_has_no_mean() -> None:
    with pytest.raises(DataError, match="at least one example"):
        Denominator.of("mean", 0)
    with pytest.raises(ConfigError, match=r"unknown reduction 'men' \(did you mean 'mean'\?\)"):
        Denominator.of("men", 4)


@FEW
@given(
    sizes,
    sizes,
    sizes,
    st.sampled_from([1, 2, 4, 8, 16]),
    dtypes,
    orders,
    st.sampled_from(sorted(LOSSES)),
    st.integers(0, 99),
)
def test_late_is_early_bit_for_bit_for_powers_of_two(
    n0: int, n1: int, n2: int, m: int, dtype: str, order: str, loss: str, seed: int
) -> None:
    net, (X, Y) = make(seed, n0, n1, n2, dtype, order, loss), batch(seed, n0, n2, m, dtype, order)
    inverse = Denominator.of("mean", m).inverse
    late, early = net.backward(X, Y, "late", inverse), net.backward(X, Y, "early", inverse)
    for name, value in late.items():
        assert value.dtype == early[name].dtype == dtype
        # Derivatives of L against derivatives of J for activations; both of J for parameters.
        want = value if name[:2] in ("dW", "db") else inverse * value
        assert np.array_equal(early[name], want), name


@FEW
@given(sizes, sizes, sizes, st.integers(1, 40), dtypes, orders, st.sampled_from(sorted(LOSSES)), st.integers(0, 99))
def test_late_is_early_within_the_bound_for_any_m(
    n0: int, n1: int, n2: int, m: int, dtype: str, order: str, loss: str, seed: int
) -> None:
    net, (X, Y) = make(seed, n0, n1, n2, dtype, order, loss), batch(seed, n0, n2, m, dtype, order)
    inverse = Denominator.of("mean", m).inverse
    late, early = net.backward(X, Y, "late", inverse), net.backward(X, Y, "early", inverse)
    Z1, A1, _ = net.forward(np, X)
    size = net.majorant(X, late["dZ2"], net.hidden.vjp(np, np.ones_like(Z1), Z1, A1), A1)
    # Roundings on either path: 1/m itself, one by 1/m, n2 in W^T dZ, two by g', m in dW.
    for name, bound in size.items():
        assert np.all(np.abs(early[name].astype(float) - late[name]) <= 2 * gamma(n2 + m + 4, dtype) * inverse * bound)


@pytest.mark.parametrize("convention", ["late", "early"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_both_conventions_are_the_gradient_of_the_weighted_cost(loss: str, convention: str) -> None:
    net, (X, Y) = make(3, 3, 4, 2, "float64", "C", loss), batch(3, 3, 2, 5, "float64", "C")
    weights = np.array([[0.5, 2.0, 0.0, 1.0, 3.0]])
    inverse = Denominator.of("mean", 5, float(weights.sum())).inverse
    got = net.backward(X, Y, convention, inverse, weights)
    for name in ("W1", "b1", "W2", "b2"):

        def cost(xp: Any, value: np.ndarray, name: str = name) -> Any:
            moved = Net(**{**vars(net), name: value})
            return moved.cost(xp, X, Y, inverse, weights)

        want = gradient(cost, getattr(net, name))
        assert np.max(np.abs(got["d" + name] - want)) <= 1e-14


@FEW
@given(st.integers(1, 24), st.integers(0, 99), st.sampled_from(["late", "early"]), st.data())
def test_micro_batches_of_any_sizes_sum_to_the_full_gradient(m: int, seed: int, convention: str, data: Any) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, m), max_size=4), label="cuts"))
    net, (X, Y) = make(seed, 3, 4, 2, "float64", "C", "binary_cross_entropy"), batch(seed, 3, 2, m, "float64", "C")
    inverse = Denominator.of("mean", m).inverse  # of the whole batch
    seen = net.forward(np, X)
    full = net.backward(X, Y, convention, inverse)
    total = {name: np.zeros_like(full[name]) for name in ("dW1", "db1", "dW2", "db2")}
    for start, stop in zip([0, *cuts], [*cuts, m], strict=True):
        part = slice(start, stop)
        parts = tuple(v[:, part] for v in seen)
        for name, value in net.backward(X[:, part], Y[:, part], convention, inverse, seen=parts).items():
            if name in total:
                total[name] += value
    Z1, A1, Z2 = seen
    size = net.majorant(X, net.loss.delta(np, Z2, Y), net.hidden.vjp(np, np.ones_like(Z1), Z1, A1), A1)
    for name, bound in size.items():
        assert np.all(np.abs(total[name] - full[name]) <= 2 * gamma(2 + m + 4 + 5, "float64") * inverse * bound), name


def whole_numbers(m: int) -> tuple[Net, np.ndarray, np.ndarray]:
    """Small integers, ReLU and squared error of two outputs: every number is exact in any order of summation."""
    rng = np.random.default_rng(11)
    W1, b1, W2, b2 = (rng.integers(-3, 4, s).astype(float) for s in ((4, 3), (4, 1), (2, 4), (2, 1)))
    net = Net(W1, b1, W2, b2, ACTIVATIONS["relu"], LOSSES["squared_error"]())
    return net, rng.integers(-3, 4, (3, m)).astype(float), rng.integers(-3, 4, (2, m)).astype(float)


@pytest.mark.parametrize("convention", ["late", "early"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_whole_numbers_splits_orders_and_duplicates_agree_bit_for_bit(convention: str, dtype: str) -> None:
    net, X, Y = whole_numbers(8)
    net = Net(*(np.asarray(p, dtype) for p in (net.W1, net.b1, net.W2, net.b2)), hidden=net.hidden, loss=net.loss)
    X, Y = X.astype(dtype), Y.astype(dtype)
    names = ("dW1", "db1", "dW2", "db2")
    full = net.backward(X, Y, convention, 1 / 8)
    for part in ([1, 7], [3, 3, 2], [1] * 8):
        edges = np.cumsum([0, *part])
        got = [net.backward(X[:, a:b], Y[:, a:b], convention, 1 / 8) for a, b in itertools.pairwise(edges)]
        for name in names:
            assert np.array_equal(sum(g[name] for g in got), full[name])
    order = np.random.default_rng(1).permutation(8)
    shuffled = net.backward(X[:, order], Y[:, order], convention, 1 / 8)
    # The mean of a batch twice over, and of integer weights 2, 1, 0, 3, ... (sum 16) against duplicates.
    twice = net.backward(np.tile(X, 2), np.tile(Y, 2), convention, Denominator.of("mean", 16).inverse)
    counts = np.array([2, 1, 0, 3, 4, 2, 1, 3])
    by_weight = net.backward(
        X, Y, convention, Denominator.of("mean", 8, float(counts.sum())).inverse, counts[None, :].astype(dtype)
    )
    by_copy = net.backward(np.repeat(X, counts, 1), np.repeat(Y, counts, 1), convention, 1 / 16)
    for name in names:
        assert np.array_equal(shuffled[name], full[name])
        assert np.array_equal(twice[name], full[name])
        assert np.array_equal(by_weight[name], by_copy[name])
        assert np.any(full[name])


@FEW
@given(st.lists(st.integers(0, 4), min_size=1, max_size=9).filter(any), st.integers(0, 99), dtypes)
def test_integer_weights_are_duplicated_examples(counts: list[int], seed: int, dtype: str) -> None:
    m, total = len(counts), sum(counts)
    X, Y = batch(seed, 3, 2, m, dtype, "C")
    net = make(seed, 3, 4, 2, dtype, "C", "categorical_cross_entropy")
    inverse = Denominator.of("mean", m, float(total)).inverse
    seen = net.forward(np, X)
    weights = np.array([counts], dtype)
    weighted = net.backward(X, Y, "late", inverse, weights, seen)
    copies = [np.repeat(v, counts, axis=1) for v in (X, Y, *seen)]
    repeated = net.backward(*copies[:2], "late", Denominator.of("mean", total).inverse, seen=tuple(copies[2:]))
    Z1, A1, Z2 = seen
    size = net.majorant(X, weights * net.loss.delta(np, Z2, Y), net.hidden.vjp(np, np.ones_like(Z1), Z1, A1), A1)
    for name, bound in size.items():
        limit = 2 * gamma(2 + total + 5, dtype) * inverse * bound
        assert np.all(np.abs(weighted[name].astype(float) - repeated[name]) <= limit), name


@pytest.mark.parametrize("convention", ["late", "early"])
@pytest.mark.parametrize("size", [1.0, 1e150])
def test_a_zero_weighted_example_contributes_nothing_however_large(convention: str, size: float) -> None:
    net, X, Y = whole_numbers(5)
    X[:, 2] *= size
    weights = np.array([[1.0, 2.0, 0.0, 4.0, 1.0]])
    kept = weights[0] > 0
    with_it = net.backward(X, Y, convention, 1 / 8, weights)
    without = net.backward(X[:, kept], Y[:, kept], convention, 1 / 8, weights[:, kept])
    for name in ("dW1", "db1", "dW2", "db2"):
        assert np.array_equal(with_it[name], without[name])
    assert net.cost(np, X[:, kept], Y[:, kept], 1 / 8, weights[:, kept]) == net.cost(np, X, Y, 1 / 8, weights)
