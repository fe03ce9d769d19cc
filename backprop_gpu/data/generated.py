"""Data sets that are drawn, not read: the same seed gives the same rows."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError


def moons(n: int = 1000, *, noise: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw two interleaved half circles: the smallest task that no linear classifier solves.

    Class 0 is (cos t, sin t) and class 1 is (1 - cos t, 1/2 - sin t), t from 0 to pi, with normal noise added.

    Parameters
    ----------
    n : int
        Number of rows, at least 2; class 0 gets the odd one.
    noise : float
        Standard deviation of the noise, in units of the radius.
    seed : int
        Seed of the counter-based generator.

    Returns
    -------
    X : ndarray of float64, shape (n, 2)
    y : ndarray of int64, shape (n,)
    """
    _check(n, noise, seed, least=2)
    rng = np.random.Generator(np.random.Philox(seed))
    y = (np.arange(n) >= (n + 1) // 2).astype(np.int64)
    t = np.concatenate([np.linspace(0.0, np.pi, (n + 1) // 2), np.linspace(0.0, np.pi, n // 2)])
    side = 1.0 - 2.0 * y
    X = np.stack([side * np.cos(t) + y, side * np.sin(t) + 0.5 * y], axis=1)
    X += noise * rng.standard_normal((n, 2))
    order = rng.permutation(n)
    return X[order], y[order]


def friedman1(n: int = 2000, *, features: int = 10, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the regression table Friedman #1: an interaction, a curve, two lines, and columns that do not matter.

    y = 10 sin(pi x0 x1) + 20 (x2 - 1/2)^2 + 10 x3 + 5 x4 + noise e, with x uniform on [0, 1) and e standard normal.
    Source: J. H. Friedman, "Multivariate adaptive regression splines", Annals of Statistics 19(1), 1991, section 4.3.

    Parameters
    ----------
    n : int
        Number of rows, at least 1.
    features : int
        Number of columns, at least 5; all after the fifth are noise.
    noise : float
        Standard deviation of the noise; the noise-free part has one of about 4.9.
    seed : int
        Seed of the counter-based generator.

    Returns
    -------
    X : ndarray of float64, shape (n, features)
    y : ndarray of float64, shape (n,)
    """
    _check(n, noise, seed, least=1)
    if not isinstance(features, int) or features < 5:
        raise ConfigError(f"features must be an integer of at least 5, got {features!r}")
    rng = np.random.Generator(np.random.Philox(seed))
    X = rng.random((n, features))
    y = 10.0 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20.0 * (X[:, 2] - 0.5) ** 2 + 10.0 * X[:, 3] + 5.0 * X[:, 4]
    return X, y + noise * rng.standard_normal(n)


def _check(n: int, noise: float, seed: int, least: int) -> None:
    if not isinstance(n, int) or n < least:
        raise ConfigError(f"n must be an integer of at least {least}, got {n!r}")
    if not isinstance(noise, int | float) or not 0.0 <= noise < np.inf:
        raise ConfigError(f"noise must be a finite number of at least 0, got {noise!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be an integer of at least 0, got {seed!r}")
