"""Initial weights: moments within statistical bounds, exact ranges, orthogonality, determinism."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.initializers import INITIALIZERS, get_initializer
from backprop_gpu.maths.random import host_generator

N, K = 300, 500
VARIANCE: dict[str, Callable[[int, int], float]] = {
    "he_normal": lambda n, k: 2.0 / k,
    "he_uniform": lambda n, k: 2.0 / k,
    "glorot_normal": lambda n, k: 2.0 / (n + k),
    "glorot_uniform": lambda n, k: 2.0 / (n + k),
    "lecun_normal": lambda n, k: 1.0 / k,
    "lecun_uniform": lambda n, k: 1.0 / k,
    "pytorch_uniform": lambda n, k: 1.0 / (3.0 * k),
    "course_0.01": lambda n, k: 1e-4,
    "course_1/sqrt_n": lambda n, k: 1.0 / k,
}
# The published ranges, as they are printed there: sqrt 6 / sqrt(n + k), sqrt(6/k), sqrt(3/k).
RANGE: dict[str, Callable[[int, int], float]] = {
    "he_uniform": lambda n, k: math.sqrt(6.0 / k),
    "glorot_uniform": lambda n, k: math.sqrt(6.0) / math.sqrt(n + k),
    "lecun_uniform": lambda n, k: math.sqrt(3.0 / k),
    "pytorch_uniform": lambda n, k: math.sqrt(1.0 / k),
}


def draw(name: str, n: int = N, k: int = K, seed: int = 0) -> np.ndarray:
    return INITIALIZERS[name](host_generator(seed), n, k)


@pytest.mark.parametrize("shape", [(N, K), (K, N)], ids=str)
@pytest.mark.parametrize("name", VARIANCE)
def test_mean_variance_and_kurtosis(name: str, shape: tuple[int, int]) -> None:
    """Six standard errors each; the fourth moment (3 normal, 9/5 uniform) tells the two families apart."""
    W, variance = draw(name, *shape), VARIANCE[name](*shape)
    assert W.shape == shape
    assert W.dtype == np.float64
    kurtosis = 1.8 if name in RANGE else 3.0
    assert abs(W.mean()) <= 6.0 * math.sqrt(variance / W.size)
    assert abs(W.var() / variance - 1.0) <= 6.0 * math.sqrt((kurtosis - 1.0) / W.size)
    # Standard error of the fourth standardized moment: sqrt(24/N) for a normal, less for a uniform.
    assert abs(np.mean(W**4) / variance**2 - kurtosis) <= 6.0 * math.sqrt(96.0 / W.size)


@pytest.mark.parametrize("shape", [(N, K), (K, N), (1, 7)], ids=str)
@pytest.mark.parametrize("name", RANGE)
def test_uniform_ranges_are_the_published_ones(name: str, shape: tuple[int, int]) -> None:
    W, bound = np.abs(draw(name, *shape)), RANGE[name](*shape)
    assert W.max() <= bound * (1.0 + 4e-16)
    if W.size > 100:
        # The largest of N draws falls short of the bound by more than 20/N of it with probability e^-20.
        assert W.max() >= bound * (1.0 - 20.0 / W.size)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 8), (8, 3), (1, 5), (5, 1)], ids=str)
def test_orthogonal_rows_or_columns(shape: tuple[int, int]) -> None:
    W = draw("orthogonal", *shape)
    assert W.shape == shape
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    assert np.max(np.abs(gram - np.eye(min(shape)))) <= 8 * min(shape) * 2.0**-53 * max(shape)
    assert W.flags.c_contiguous


def test_orthogonal_matrices_are_drawn_uniformly() -> None:
    """Entries of a uniform orthogonal 3 x 3 matrix have mean 0 and variance 1/3; plain QR gives a biased diagonal."""
    rng = host_generator(1)
    draws = np.stack([INITIALIZERS["orthogonal"](rng, 3, 3) for _ in range(900)])
    assert np.max(np.abs(draws.mean(axis=0))) <= 6.0 * math.sqrt(1.0 / 3.0 / 900)
    assert np.max(np.abs(draws.var(axis=0) - 1.0 / 3.0)) <= 6.0 * math.sqrt(1.0 / 3.0 / 900)


def test_zeros() -> None:
    assert np.array_equal(draw("zeros", 2, 3), np.zeros((2, 3)))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_seed_decides(name: str) -> None:
    assert np.array_equal(draw(name, 4, 6, seed=3), draw(name, 4, 6, seed=3))
    if name != "zeros":
        assert not np.array_equal(draw(name, 4, 6, seed=3), draw(name, 4, 6, seed=4))


@pytest.mark.parametrize("name", VARIANCE)
def test_a_seed_gives_these_weights_for_ever(name: str) -> None:
    """The generator's own draws times the published scale: a change here changes every seeded run."""
    rng, (n, k) = host_generator(7), (5, 3)
    plain = rng.uniform(-1.0, 1.0, (n, k)) * math.sqrt(3.0) if name in RANGE else rng.standard_normal((n, k))
    assert np.allclose(draw(name, n, k, seed=7), plain * math.sqrt(VARIANCE[name](n, k)), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_auto_is_he_for_rectifiers_and_glorot_otherwise(activation: str) -> None:
    """A rectifier passes what is large and positive, and little of what is large and negative."""
    g = ACTIVATIONS[activation]
    left, right = np.abs(g.forward(np, np.array([[-100.0, 100.0]])))[0]
    assert g.rectifier == (left < 50.0 <= right <= 100.0)
    want = "he_normal" if g.rectifier else "glorot_uniform"
    assert get_initializer("auto", rectifier=g.rectifier) is INITIALIZERS[want]


def test_names() -> None:
    for name, function in INITIALIZERS.items():
        assert get_initializer(name, rectifier=True) is function
    with pytest.raises(
        ConfigError, match=r"unknown initializer 'he_norml' \(did you mean 'he_normal'\?\); known: auto,"
    ):
        get_initializer("he_norml", rectifier=True)
