"""The metrics of rare classes and of calibration: by hand, and equal to scikit-learn's, ties and weights included."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from backprop_gpu.training.class_metrics import average_precision, balanced_accuracy, brier, calibration, ece, mcc


def test_by_hand() -> None:
    y, p = [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]  # TP 2, FN 1, FP 1, TN 1
    assert balanced_accuracy(y, p) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mcc(y, p) == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    # in the order of the scores: hit, miss, the tie of a hit and a miss, hit: 1/3 (1 + 2/4 + 3/5)
    assert average_precision([1, 0, 1, 0, 1], [0.9, 0.8, 0.5, 0.5, 0.1]) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert brier([1, 0], [0.8, 0.4]) == pytest.approx((0.04 + 0.16) / 2)
    assert brier([2, 0], [[0.0, 0.5, 0.5], [0.6, 0.4, 0.0]]) == pytest.approx((0.5 + 0.32) / 2)
    assert ece([1, 0, 1, 1], [0.25, 0.25, 0.95, 0.95]) == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)
    assert ece([1, 0], [[0.3, 0.7], [0.35, 0.65]]) == pytest.approx(0.175)  # 0.7 was right, 0.65 was not: two in a bin
    first, last = calibration([1, 0, 1, 1], [0.25, 0.25, 0.95, 0.95])
    assert first == {"from": 0.2, "to": 0.3, "samples": 2, "predicted": 0.25, "observed": 0.5}
    assert (last["from"], last["to"], last["observed"]) == (0.9, 1.0, 1.0)


def _cases() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    rng = np.random.default_rng(3)
    y, ties, w = rng.integers(0, 2, 200), rng.integers(0, 7, 200) / 6.0, rng.integers(0, 3, 200) / 2.0
    return [
        ("distinct", y, rng.random(200), None),
        ("ties", y, ties, None),
        ("weights", y, ties, w),
        ("floats", y.astype(np.float32)[:, None], ties.astype(np.float32)[:, None], w),
        ("only positives", np.ones(20), ties[:20], None),
        ("only negatives", np.zeros(20), ties[:20], w[:20]),
        ("a constant score", y, np.full(200, 0.25), w),
    ]


@pytest.mark.parametrize(("name", "y", "p", "w"), _cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_two_classes_as_scikit_learn(name: str, y: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> None:
    t, s, labels = y.ravel(), p.ravel(), p > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about a class that is missing
        want = {
            balanced_accuracy: sk.balanced_accuracy_score(t, labels.ravel(), sample_weight=w),
            mcc: sk.matthews_corrcoef(t, labels.ravel(), sample_weight=w),
            average_precision: sk.average_precision_score(t, s, sample_weight=w),
            brier: sk.brier_score_loss(t, s, sample_weight=w, labels=[0, 1]),
        }
    for function, value in want.items():
        takes = labels if function in (balanced_accuracy, mcc) else p
        assert function(y, takes, w) == pytest.approx(value, rel=1e-6, abs=1e-12), function
    if w is None:
        shares, means = calibration_curve(t, s, n_bins=10) if len(set(t)) == 2 else (None, None)
        table = calibration(y, p)
        assert sum(row["samples"] for row in table) == len(t)
        if shares is not None:
            np.testing.assert_allclose([row["observed"] for row in table], shares)
            np.testing.assert_allclose([row["predicted"] for row in table], means)
        gap = [row["samples"] * abs(row["predicted"] - row["observed"]) for row in table]
        assert ece(y, p) == pytest.approx(sum(gap) / len(t))


def test_several_classes_as_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    y, w = rng.integers(0, 3, 150), rng.random(150)
    p = rng.dirichlet(np.ones(3), 150).round(1) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    labels: Any = p.argmax(axis=1)
    for weights in (None, w):
        assert balanced_accuracy(y, labels, weights) == pytest.approx(
            sk.balanced_accuracy_score(y, labels, sample_weight=weights)
        )
        assert mcc(y, labels, weights) == pytest.approx(sk.matthews_corrcoef(y, labels, sample_weight=weights))
        assert average_precision(y, p, weights) == pytest.approx(
            sk.average_precision_score(y, p, sample_weight=weights)
        )
        assert brier(y, p, weights) == pytest.approx(sk.brier_score_loss(y, p, sample_weight=weights))
    two = y < 2  # a class that no sample has, but predictions name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert balanced_accuracy(y[two], labels[two]) == pytest.approx(sk.balanced_accuracy_score(y[two], labels[two]))
    assert mcc(y[two], labels[two]) == pytest.approx(sk.matthews_corrcoef(y[two], labels[two]))
    assert brier(y[two], p[two]) == pytest.approx(sk.brier_score_loss(y[two], p[two], labels=[0, 1, 2]))
    rest = [sk.average_precision_score(y[two] == k, p[two, k]) for k in (0, 1)]
    assert average_precision(y[two], p[two]) == pytest.approx(np.mean(rest))  # the third is left out


def test_several_labels_are_averaged() -> None:
    rng = np.random.default_rng(5)
    y, p, w = rng.integers(0, 2, (80, 3)), rng.random((80, 3)).round(1), rng.random(80)
    y[:, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last label has no positive
        assert average_precision(y, p, w) == pytest.approx(sk.average_precision_score(y, p, sample_weight=w))
    for function, given in ((brier, p), (ece, p), (mcc, p > 0.5), (balanced_accuracy, p > 0.5)):
        each = [function(y[:, j], given[:, j], w) for j in range(3)]
        assert function(y, given, w) == pytest.approx(np.mean(each))


def test_nan_is_no_score() -> None:
    for function in (average_precision, brier, ece):
        assert math.isnan(function([0, 1], [0.2, math.nan]))
    assert calibration([0, 1], [0.2, math.nan]) == []
