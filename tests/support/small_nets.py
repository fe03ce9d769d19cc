"""Small networks, data and targets for tests of the step, of its gradient and of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop_gpu.network.dense_net import DenseNet

ROWS = 6

# name -> (loss, outputs, targets for ROWS rows)
_rng = np.random.default_rng(20)
LOSS_CASES: dict[str, tuple[Any, int, np.ndarray]] = {
    "binary": ("binary_cross_entropy", 1, np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])),
    "binary-3-labels": ("binary_cross_entropy", 3, _rng.integers(0, 2, (ROWS, 3)).astype(float)),
    "binary-soft": ("binary_cross_entropy", 2, _rng.uniform(0.0, 1.0, (ROWS, 2))),
    "categorical-integer": ("categorical_cross_entropy", 3, np.array([0, 2, 1, 1, 0, 2])),
    "categorical-one-hot-smoothed": (
        {"name": "categorical_cross_entropy", "label_smoothing": 0.1},
        3,
        np.eye(3)[[2, 2, 0, 1, 0, 1]],
    ),
    "squared": ("squared_error", 2, _rng.normal(size=(ROWS, 2))),
    "absolute": ("absolute_error", 2, _rng.normal(size=(ROWS, 2)) + 1.0),
    "huber": ({"name": "huber", "threshold": 0.5}, 2, _rng.normal(size=(ROWS, 2)) * 2.0),
    "binary-smoothed": ({"name": "binary_cross_entropy", "label_smoothing": 0.2}, 1, np.array([1.0, 0, 1, 1, 0, 0])),
    "quantile": ({"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}, 6, _rng.normal(size=(ROWS, 2))),
    "grouped": (
        {"name": "grouped_cross_entropy", "groups": [3, 2], "label_smoothing": 0.1},
        5,
        np.hstack([np.eye(3)[[0, 2, 1, 1, 0, 2]], np.eye(2)[[1, 1, 0, 1, 0, 0]]]),
    ),
    "poisson": ("poisson", 2, _rng.poisson(2.0, (ROWS, 2)).astype(float)),
}


def rows(n_features: int, n: int = ROWS, seed: int = 21) -> np.ndarray:
    """(n, n_features) standard normal numbers."""
    return np.random.default_rng(seed).normal(size=(n, n_features))


def targets_of(loss: Any, codes: np.ndarray) -> np.ndarray:
    """Codes (n, 1) as they are; for a grouped loss one-hot columns of each code modulo the group's classes."""
    if not isinstance(loss, dict) or "groups" not in loss:
        return codes
    return np.hstack([np.eye(k)[codes[:, 0] % k] for k in loss["groups"]])


def small_net(
    sizes: list[int], *, device: Any = "cpu", dtype: str = "float64", seed: int = 3, **settings: Any
) -> DenseNet:
    """A network whose biases, which start at zero, have been moved away from it."""
    net = DenseNet(sizes, device=device, dtype=dtype, seed=seed, **settings)
    rng = np.random.default_rng(seed)
    net.set_parameters({name: value + 0.2 * rng.normal(size=value.shape) for name, value in net.parameters().items()})
    return net


def two_moons(n: int, seed: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that a straight line cannot part: X (n, 2), y (n,) of 0.0 and 1.0."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    angle = rng.uniform(0.0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    X = np.where(y[:, None] == 1, [1.0, 0.5] - upper, upper)
    return X + noise * rng.normal(size=X.shape), y.astype(float)
