"""What is measured, as data: networks, tables, and how many operations a step of each takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Adam, everywhere: learning rate, decay of the two moments, epsilon.
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
ULPS = 16  # of a perturbed start (see ``equal_work.bound``)


@dataclass(frozen=True)
class Workload:
    """A network (float32, mean over the batch, Adam, no penalty) and its table.

    Attributes
    ----------
    sizes : tuple of int
        Units per layer, n_0 .. n_L.
    batch_size : int
        m; in prediction, the rows taken at a time.
    checked : int
        Steps over which every peer's losses must agree.
    epochs : int
        Of a whole fit: exactly as many, or at most as many where there is a ``target``, the test accuracy to reach.
    loss : {"categorical_cross_entropy", "squared_error"}
        Of a softmax, or 1/(2 n_L) sum (Z - Y)^2.
    alike : Workload, optional
        A smaller one of the same kind, on which equal work is verified where a float64 run of this one takes too long.
    """

    name: str
    sizes: tuple[int, ...]
    batch_size: int
    rows: int
    activation: str = "relu"
    checked: int = 32
    source: str = "drawn"
    epochs: int = 0
    target: float | None = None
    loss: str = "categorical_cross_entropy"
    alike: Workload | None = None

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(n_{l-1}, n_l) for l = 1..L."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def batches(self) -> int:
        """Steps in an epoch, the ragged one included."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum((k + 1) * n for k, n in self.layers)

    @property
    def step_flops(self) -> int:
        """6 m sum n_l n_{l-1} - 2 m n_0 n_1: three products a layer, less the input's gradient, which nobody needs."""
        return self.batch_size * (6 * sum(k * n for k, n in self.layers) - 2 * self.sizes[0] * self.sizes[1])


_W4 = (64, 64, 64, 64, 10)
_STEPS = (
    Workload("W1", (784, 512, 256, 10), 128, 12_800),
    Workload("W2", (30, 64, 32, 2), 32, 32_000),
    Workload("W3", (1024, 2048, 2048, 10), 1024, 8_192, checked=24),
    Workload("W4", _W4, 256, 25_600),
    Workload("W4t", _W4, 256, 25_600, "tanh"),
    Workload("W4s", _W4, 256, 25_600, "sigmoid"),
    Workload("W4g", _W4, 256, 25_600, "gelu"),
)
_FITS = (
    Workload("W5a", (64, 64, 32, 10), 32, 1_437, source="digits", epochs=200, target=0.97),
    Workload("W5b", (50, 128, 64, 3), 256, 100_000, epochs=20),
)
WORKLOADS = {
    "step": _STEPS,
    "epoch": _STEPS,
    "fit": _FITS,
    "inference": (Workload("W1i", (784, 512, 256, 10), 8_192, 100_000),),
}


# On a device: in a and c every launch counts, b is all products, d is wide batches of narrow layers.
_B, _D = (4096,) * 9, (32, 64, 64, 64, 64, 16)
DEVICE_WORKLOADS = (
    Workload("a", (784, 512, 512, 10), 128, 32_768),
    Workload("b", _B, 8_192, 16_384, alike=Workload("b", (96,) * 9, 64, 512, checked=16)),
    Workload("c", (4, 64, 64, 1), 1_024, 262_144, loss="squared_error"),
    Workload("d", _D, 2**18, 2**20, alike=Workload("d", _D, 512, 4_096, checked=16)),
)


@dataclass(frozen=True)
class Task:
    """A workload with its numbers: W[l] (n_l, n_{l-1}), b[l] (n_l,) from l = 1, rows X (n, n_0), and y: labels (n,), or
    values (n, n_L) in float32 for the squared error.
    """

    work: Workload
    W: list[np.ndarray]
    b: list[np.ndarray]
    X: np.ndarray
    y: np.ndarray
    X_test: Any = None
    y_test: Any = None


def make_task(work: Workload, *, rows: int | None = None, perturbed: int | None = None) -> Task:
    """The same numbers in every process: He weights (LeCun's for tanh and sigmoid), labels of a noisy linear teacher.

    ``rows`` takes only so many rows. ``perturbed`` is the seed of a perturbed start: every weight goes up or down by as
    many as ULPS units in the last place.
    """
    rng, gain = np.random.default_rng(1), 2.0 if work.activation in ("relu", "gelu") else 1.0
    W = [(rng.standard_normal((n, k)) * math.sqrt(gain / k)).astype(np.float32) for k, n in work.layers]
    b = [(rng.standard_normal(n) * 0.1).astype(np.float32) for _, n in work.layers]
    if perturbed is not None:
        moved = np.random.default_rng(perturbed)
        W = [w + np.spacing(w) * moved.integers(-ULPS, ULPS + 1, w.shape).astype(np.float32) for w in W]
    n, (n_0, n_L) = rows or work.rows, (work.sizes[0], work.sizes[-1])
    if work.source == "digits":
        return Task(work, W, b, *_digits(n))
    X = rng.standard_normal((n, n_0), dtype=np.float32)
    scores = X @ rng.standard_normal((n_0, n_L), dtype=np.float32)
    scores += np.float32(0.3 * math.sqrt(n_0)) * rng.standard_normal(scores.shape, dtype=np.float32)
    if work.loss == "squared_error":
        return Task(work, W, b, X, scores / np.float32(math.sqrt(n_0)))
    return Task(work, W, b, X, scores.argmax(axis=1))


def _digits(rows: int) -> tuple[np.ndarray, ...]:
    """Four fifths of the handwritten digits to train on, pixels from 0 to 1; the rest to test on."""
    from backprop_gpu.data.sources import load_builtin

    table = load_builtin("digits")
    X, y = np.asarray(table.numeric, np.float32) / 16.0, np.asarray(table.target).reshape(-1).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:1_437][:rows], order[1_437:]
    return X[train], y[train], X[test], y[test]


def checked_orders(work: Workload) -> Iterator[np.ndarray]:
    """The orders of the epochs over which losses are compared: ``work.checked`` steps, or a few more."""
    rng, batches = np.random.default_rng(2), min(work.checked, work.rows // work.batch_size)
    for _ in range(math.ceil(work.checked / batches)):
        yield rng.permutation(batches * work.batch_size)
