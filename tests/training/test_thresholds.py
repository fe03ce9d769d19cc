"""The threshold of two classes: no other one is better on the rows that it is chosen on."""

from __future__ import annotations

import numpy as np
import pytest

from backprop_gpu.training.class_metrics import balanced_accuracy, mcc
from backprop_gpu.training.metrics import f1
from backprop_gpu.training.thresholds import CRITERIA, best_threshold

SCORES = {"f1": f1, "balanced_accuracy": balanced_accuracy, "mcc": mcc}


def _rows(seed: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(80) < 0.25).astype(np.int64)
    p = np.clip(0.2 * y + rng.random(80) * 0.6, 0.0, 1.0).round(2 if seed % 2 else 6).astype(dtype)
    return y, p, rng.random(80)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_other_threshold_has_a_better_score(criterion: str, seed: int) -> None:
    y, p, w = _rows(seed, "float32")
    for weights in (None, w):
        t = best_threshold(y, p, criterion, weights)
        assert 0.0 <= t < 1.0
        at = [
            SCORES[criterion](y, p.astype(np.float64) > other, weights) for other in (t, *np.linspace(0.0, 0.999, 400))
        ]
        assert at[0] >= max(at) - 1e-12


@pytest.mark.parametrize("seed", [0, 1])
def test_the_cost_is_least(seed: int) -> None:
    y, p, w = _rows(seed)

    def cost(t: float, fp: float, fn: float) -> float:
        return float(np.sum(w * (fp * ((p > t) & (y == 0)) + fn * ((p <= t) & (y == 1)))))

    for fp, fn in ((1.0, 1.0), (1.0, 9.0), (5.0, 1.0)):
        t = best_threshold(y, p, (fp, fn), w)
        assert cost(t, fp, fn) <= min(cost(other, fp, fn) for other in np.linspace(0.0, 0.999, 400)) + 1e-12
    assert best_threshold(y, p, (1.0, 9.0), w) < best_threshold(y, p, (9.0, 1.0), w)


def test_ties_and_ends() -> None:
    assert best_threshold([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9], "f1") == 0.5
    assert best_threshold([0, 1], [0.1, 0.3], "f1") == pytest.approx(0.2)
    assert best_threshold([1, 1], [0.1, 0.3], "f1") == 0.5  # one class says nothing
    assert best_threshold([1, 0, 1], [0.1, 0.3, 0.3], "f1") == pytest.approx(0.05)  # all of them
    assert best_threshold([1, 0, 0], [0.2, 0.9, 1.0], (1.0, 0.0)) < 1.0  # none cannot be had: 1.0 is above any
    one, above = np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))
    t = best_threshold([0, 1], np.array([one, above]), "f1")
    assert float(one) <= t < float(above)
