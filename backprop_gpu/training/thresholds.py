"""The probability above which the second of two classes is predicted, chosen on rows that were not trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Counts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _f1(TP: np.ndarray, FP: np.ndarray, FN: np.ndarray, TN: np.ndarray) -> np.ndarray:
    return 2.0 * TP / (2.0 * TP + FP + FN)


def _balanced_accuracy(TP: np.ndarray, FP: np.ndarray, FN: np.ndarray, TN: np.ndarray) -> np.ndarray:
    return 0.5 * (TP / (TP + FN) + TN / (TN + FP))


def _mcc(TP: np.ndarray, FP: np.ndarray, FN: np.ndarray, TN: np.ndarray) -> np.ndarray:
    spread = (TP + FP) * (TP + FN) * (TN + FP) * (TN + FN)
    return np.where(spread > 0.0, (TP * TN - FP * FN) / np.sqrt(np.where(spread > 0.0, spread, 1.0)), 0.0)


CRITERIA: dict[str, Callable[..., np.ndarray]] = {"f1": _f1, "balanced_accuracy": _balanced_accuracy, "mcc": _mcc}
"""What a threshold can be the best of, by the counts (or weights) of TP, FP, FN and TN."""


def best_threshold(
    y_true: np.ndarray,
    probabilities: np.ndarray,
    criterion: str | tuple[float, float],
    sample_weight: np.ndarray | None = None,
) -> float:
    """The threshold t, at least 0 and below 1, for which predicting the second class where p > t is best.

    Parameters
    ----------
    y_true, probabilities : (n,)
        0/1, and the probability of 1.
    criterion : str or (float, float)
        One of ``CRITERIA``, or what a false positive and a false negative cost: their sum is to be least.
    sample_weight : (n,), optional

    Returns
    -------
    float
        Halfway between two neighbouring probabilities. Of several that are equally good, that next to 0.5; 0.5 where
        rows of one class alone are given.
    """
    positive, p = np.asarray(y_true).ravel() == 1, np.asarray(probabilities, np.float64).ravel()
    w = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if not w[positive].any() or not w[~positive].any():
        return 0.5
    levels, at = np.unique(p, return_inverse=True)
    # k: the rows of levels[k:] are predicted to be positive
    TP = np.append(np.cumsum(np.bincount(at, w * positive)[::-1])[::-1], 0.0)
    FP = np.append(np.cumsum(np.bincount(at, w * ~positive)[::-1])[::-1], 0.0)
    FN, TN = TP[0] - TP, FP[0] - FP
    if isinstance(criterion, str):
        score = CRITERIA[criterion](TP, FP, FN, TN)
    else:
        score = -(criterion[0] * FP + criterion[1] * FN)
    between = levels[:-1] + (levels[1:] - levels[:-1]) / 2.0
    between = np.where(between < levels[1:], between, levels[:-1])
    thresholds = np.concatenate([[levels[0] / 2.0], between, [(levels[-1] + 1.0) / 2.0]])
    thresholds[0] = thresholds[0] if levels[0] > 0.0 else np.nan  # p > t >= 0 cannot take a probability of 0
    possible = thresholds < 1.0
    best = np.max(score[possible])
    equal = possible & (score >= best - 1e-12 * max(1.0, abs(best)))
    return float(thresholds[equal][np.argmin(np.abs(thresholds[equal] - 0.5))])
