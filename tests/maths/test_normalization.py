"""Batch normalization: the paper's algorithm at 40 digits, the derivative by the complex step, what must not matter."""

from __future__ import annotations

from typing import Any

import array_api_strict
import mpmath as mp
import numpy as np
import pytest
from support.real_part import gradient
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.maths import normalization as bn

U = 2.0**-53
SHAPES = [(1, 2), (3, 5), (4, 16), (2, 1)]
WEIGHTS = ("none", "whole", "some 0", "fractions")


def data(n: int, m: int, weights: str) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng([n, m])
    Z = rng.normal(size=(n, m)) * 10.0 ** rng.integers(-2, 2, (n, 1)) + rng.normal(size=(n, 1))
    w: dict[str, Any] = {
        "none": None,
        "whole": rng.integers(1, 4, (1, m)) * 1.0,
        "some 0": np.arange(m)[None, :] % 3 * 1.0 + (m == 1),
        "fractions": rng.random((1, m)) + 0.1,
    }
    return Z, w[weights]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_algorithm_1_at_forty_digits(shape: tuple[int, int], weights: str) -> None:
    Z, w = data(*shape, weights)
    X, inverse_std, mean, variance = bn.batch_norm(np, Z, w)
    counts = np.ones(shape[1]) if w is None else w[0]
    with mp.workdps(40):
        share = [mp.mpf(float(c)) / mp.fsum(map(float, counts)) for c in counts]
        for row in range(shape[0]):
            z = [mp.mpf(float(x)) for x in Z[row]]
            mu = mp.fsum(s * x for s, x in zip(share, z, strict=True))
            var = mp.fsum(s * (x - mu) ** 2 for s, x in zip(share, z, strict=True))
            r = 1 / mp.sqrt(var + mp.mpf(1e-5))
            size, room = float(np.max(np.abs(Z[row]))), 8 * shape[1] * U
            assert abs(float(mu - mean[row, 0])) <= room * size
            assert abs(float(var - variance[row, 0])) <= room * size**2
            assert abs(float(r / inverse_std[row, 0] - 1)) <= room * (1.0 + size**2 * float(r) ** 2)
            for x, found, c in zip(z, X[row], counts, strict=True):
                want = (x - mu) * r if c else mp.mpf(0)
                assert abs(float(want - found)) <= room * (1.0 + size * float(r)) ** 2 * (1.0 + abs(float(want)))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_derivative_is_that_of_the_forward(shape: tuple[int, int], weights: str) -> None:
    """f = sum of C U, for any C (0 for an example that does not count, as the cost makes it)."""
    Z, w = data(*shape, weights)
    rng = np.random.default_rng(7)
    C, gamma, beta = rng.normal(size=shape), rng.normal(size=(shape[0], 1)), rng.normal(size=(shape[0], 1))
    C = C if w is None else np.where(w == 0.0, 0.0, C)

    def f(xp: Any, Z: Any, gamma: Any, beta: Any) -> Any:
        return xp.sum(C * bn.affine(bn.batch_norm(xp, Z, w)[0], gamma, beta))

    X, inverse_std, _, _ = bn.batch_norm(np, Z, w)
    dZ, dgamma = bn.batch_norm_vjp(np, C, X, inverse_std, gamma, w)
    for got, want in (
        (dZ, gradient(lambda xp, z: f(xp, z, gamma, beta), Z)),
        (dgamma, gradient(lambda xp, g: f(xp, Z, g, beta), gamma)),
        (np.sum(C, axis=1, keepdims=True), gradient(lambda xp, b: f(xp, Z, gamma, b), beta)),
    ):
        scale = np.max(np.abs(gamma * inverse_std)) * np.max(np.abs(C)) + np.max(np.abs(want))
        assert np.max(np.abs(got - want)) <= 1e-13 * scale


def test_by_hand() -> None:
    """1, 3 and 5, 11: means 2 and 8, deviations 1 and 3; weights 3 and 1 make the means 1.5 and 6.5."""
    Z = np.array([[1.0, 3.0], [5.0, 11.0]])
    X, inverse_std, mean, variance = bn.batch_norm(np, Z, None)
    assert np.array_equal(mean, [[2.0], [8.0]])
    assert np.array_equal(variance, [[1.0], [9.0]])
    np.testing.assert_allclose(inverse_std, 1.0 / np.sqrt([[1.00001], [9.00001]]), rtol=2 * U)
    np.testing.assert_allclose(X, np.array([[-1.0, 1.0], [-3.0, 3.0]]) * inverse_std, rtol=2 * U)
    _, _, mean, variance = bn.batch_norm(np, Z, np.array([[3.0, 1.0]]))
    assert np.array_equal(mean, [[1.5], [6.5]])
    assert np.array_equal(variance, [[0.75], [6.75]])
    np.testing.assert_allclose(bn.running(np, np.array([[4.0]]), np.array([[14.0]]), None), [[5.0]], rtol=2 * U)


@pytest.mark.parametrize(
    ("n", "size", "sizes", "even"),
    [
        (1001, 200, [200] * 5 + [1], [167] * 5 + [166]),
        (1025, 32, [32] * 32 + [1], [32] * 2 + [31] * 31),
        (1000, 200, [200] * 5, [200] * 5),
        (33, 32, [32, 1], [17, 16]),
        (3, 2, [2, 1], [3]),  # never a part of one, even if that takes one example more than asked for
        (5, 2, [2, 2, 1], [3, 2]),
        (7, 9, [7], [7]),
        (1, 4, [1], [1]),
    ],
)
def test_part_sizes(n: int, size: int, sizes: list[int], even: list[int]) -> None:
    assert bn.part_sizes(n, size, even=False) == sizes
    assert bn.part_sizes(n, size, even=True) == even


def test_even_parts_are_even() -> None:
    for n in range(2, 80):
        for size in range(2, 20):
            parts = bn.part_sizes(n, size, even=True)
            assert sum(parts) == n
            assert parts == sorted(parts, reverse=True)
            assert parts[0] - parts[-1] <= 1 < parts[-1]
            assert parts[0] <= size + 1
            assert len(parts) in (-(-n // size), n // 2)


def test_x_has_mean_0_and_nearly_variance_1_and_dz_neither_shifts_nor_stretches() -> None:
    Z, w = data(4, 50, "fractions")
    assert w is not None
    X, inverse_std, _, variance = bn.batch_norm(np, Z, w)
    share = w / w.sum()
    assert np.max(np.abs(np.sum(share * X, axis=1))) <= 1e-13
    np.testing.assert_allclose(np.sum(share * X * X, axis=1), (variance / (variance + 1e-5))[:, 0], rtol=1e-13)
    dZ, _ = bn.batch_norm_vjp(np, np.random.default_rng(1).normal(size=Z.shape), X, inverse_std, np.ones((4, 1)), w)
    assert np.max(np.abs(np.sum(dZ, axis=1))) <= 1e-12 * np.max(np.abs(dZ))
    # Stretching Z changes X by eps alone: sum dZ (Z - mu) = gamma sum dU X eps/(var + eps), almost nothing.
    along = np.sum(dZ * X / inverse_std, axis=1) / np.sum(np.abs(dZ * X / inverse_std), axis=1)
    assert np.max(np.abs(along)) <= 1e-5 / np.min(variance)


def test_a_shift_and_a_power_of_two_change_nothing_or_little() -> None:
    Z = np.arange(8.0).reshape(2, 4) ** 2
    X, *_ = bn.batch_norm(np, Z, None)
    assert np.array_equal(bn.batch_norm(np, Z + 1024.0, None)[0], X)  # exact sums of whole numbers
    np.testing.assert_allclose(bn.batch_norm(np, 4.0 * Z, None)[0], X, rtol=1e-5)


def test_a_weight_is_a_number_of_copies() -> None:
    Z, _ = data(3, 4, "none")
    dU = np.random.default_rng(2).normal(size=Z.shape)
    w, gamma = np.array([[2.0, 0.0, 1.0, 3.0]]), np.array([[1.5], [-0.5], [2.0]])
    dU[:, 1] = 0.0
    copies = np.repeat(np.arange(4), [2, 0, 1, 3])
    X, r, mean, variance = bn.batch_norm(np, Z, w)
    X_, r_, mean_, variance_ = bn.batch_norm(np, Z[:, copies], None)
    for one, other in ((X[:, copies], X_), (r, r_), (mean, mean_), (variance, variance_)):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    dZ, dgamma = bn.batch_norm_vjp(np, dU, X, r, gamma, w)  # dU holds the weight already, as dZ[L] does
    each = (dU / np.where(w == 0.0, 1.0, w))[:, copies]
    dZ_, dgamma_ = bn.batch_norm_vjp(np, each, X_, r_, gamma, None)
    summed = np.stack([dZ_[:, copies == i].sum(axis=1) for i in range(4)], axis=1)
    np.testing.assert_allclose(dZ, summed, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dgamma, dgamma_, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan], ids=str)
def test_an_example_of_weight_0_is_no_example(bad: float) -> None:
    Z, w = data(3, 7, "some 0")
    assert w is not None
    kept = w[0] != 0.0
    spoiled = np.where(kept, Z, bad)
    for x, y in zip(bn.batch_norm(np, spoiled, w), bn.batch_norm(np, Z, w), strict=True):
        assert np.array_equal(x, y)
    assert np.all(bn.batch_norm(np, spoiled, w)[0][:, ~kept] == 0.0)
    np.testing.assert_allclose(bn.batch_norm(np, Z, w)[2], bn.batch_norm(np, Z[:, kept], w[:, kept])[2], rtol=1e-13)


def test_a_batch_that_says_nothing() -> None:
    """One example, equal examples, no weight at all: X is 0, and nothing divides by 0."""
    for Z, w in (
        (np.array([[3.0]]), None),
        (np.full((1, 4), 3.0), None),
        (np.array([[3.0, 5.0]]), np.zeros((1, 2))),
    ):
        X, inverse_std, mean, _ = bn.batch_norm(np, Z, w)
        assert np.array_equal(X, np.zeros_like(Z))
        assert np.isfinite(inverse_std).all()
        dZ, dgamma = bn.batch_norm_vjp(np, np.ones_like(Z), X, inverse_std, np.ones((1, 1)), w)
        assert np.isfinite(dZ).all()
        assert np.array_equal(dgamma, [[0.0]])
        old = np.array([[7.0]])
        moved = bn.running(np, old, mean, w)
        assert moved == (old if w is not None else 7.0 + 0.1 * (3.0 - 7.0))


def test_inference_by_the_batchs_own_statistics_is_training() -> None:
    Z, w = data(3, 9, "fractions")
    gamma, beta = np.array([[1.5], [-0.5], [2.0]]), np.array([[0.1], [0.2], [0.3]])
    X, _, mean, variance = bn.batch_norm(np, Z, w)
    found = bn.batch_norm_inference(np, Z, gamma, beta, mean, variance)
    np.testing.assert_allclose(found, bn.affine(X, gamma, beta), rtol=1e-12)
    # Running statistics reach those of a batch that is repeated.
    old = np.zeros((3, 1))
    for _ in range(400):
        old = bn.running(np, old, mean, w)
    np.testing.assert_allclose(old, mean, rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_array_api_strict_gives_numpys_bits_on_its_device(weights: str, dtype: str, device: str) -> None:
    Z, w = data(3, 4, weights)
    Z, w = Z.astype(dtype), None if w is None else w.astype(dtype)
    gamma = np.array([[1.5], [-0.5], [2.0]], dtype)
    plain = bn.batch_norm(np, Z, w)
    plain += bn.batch_norm_vjp(np, Z, plain[0], plain[1], gamma, w)
    plain += (bn.running(np, gamma, plain[2], w), bn.batch_norm_inference(np, Z, gamma, gamma, plain[2], plain[3]))

    def up(x: Any) -> Any:
        return None if x is None else to_strict(x, device)

    xs, z, v, g = array_api_strict, up(Z), up(w), up(gamma)
    strict = bn.batch_norm(xs, z, v)
    strict += bn.batch_norm_vjp(xs, z, strict[0], strict[1], g, v)
    strict += (bn.running(xs, g, strict[2], v), bn.batch_norm_inference(xs, z, g, g, strict[2], strict[3]))
    for one, other in zip(strict, plain, strict=True):
        here = to_host(one, device)
        assert here.dtype == other.dtype == dtype
        assert np.array_equal(here, other)
