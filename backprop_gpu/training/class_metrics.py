"""Scores that stay honest where classes are rare, and of whether probabilities mean what they say.

The arguments are those of ``metrics``; so are the definitions: scikit-learn's, wherever that has one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric_arguments import checked, class_indices, is_multiclass, mean

BINS = 10
"""Bins of equal width in which :func:`ece` compares probabilities with shares."""


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """The mean over the classes of y_true of the share of their samples that is found; 0/1 labels: mean over labels."""
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    found = []
    for t, p in zip(y_true.T, y_pred.T, strict=True):
        C = _counts(t, p, w)
        total = C.sum(axis=1)
        found.append(np.mean(np.diag(C)[total > 0.0] / total[total > 0.0]))
    return float(np.mean(found))


def mcc(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Matthews' correlation of true and predicted classes, 0 where that is 0/0; 0/1 labels: mean over labels.

    Of several classes: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    found = []
    for t, p in zip(y_true.T, y_pred.T, strict=True):
        C = _counts(t, p, w)
        true, predicted, n = C.sum(axis=1), C.sum(axis=0), C.sum()
        spread = (n * n - true @ true) * (n * n - predicted @ predicted)
        found.append((np.trace(C) * n - true @ predicted) / np.sqrt(spread) if spread > 0.0 else 0.0)
    return float(np.mean(found))


def average_precision(y_true: np.ndarray, scores: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """The area under precision over recall, a step at each different score: sum (R_n - R_(n-1)) P_n.

    Without a positive sample it is 0. Class indices with (n_samples, n_classes) scores: one class against the rest,
    plain mean over the classes that y_true has; 0/1 labels: plain mean over labels. NaN if a score is NaN.
    """
    s = np.asarray(scores)
    several = is_multiclass(y_true, s)
    if several:
        y_true = class_indices(y_true, s.shape[1]) == np.arange(s.shape[1])
    y_true, s, w = checked(y_true, s, sample_weight)
    if np.any(np.isnan(s)):  # would sort as the highest level
        return float("nan")
    weight = np.ones(len(s)) if w is None else w
    columns = [(t == 1, column) for t, column in zip(y_true.T, s.T, strict=True)]
    areas = [_average_precision(t, c, weight) for t, c in columns if not several or np.any(weight[t])]
    return float(np.mean(areas))


def brier(y_true: np.ndarray, probabilities: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """The mean squared difference between probability and truth; several classes: summed over them; labels: their mean.

    Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if is_multiclass(y_true, p):
        labels = class_indices(y_true, p.shape[1])
        p, labels, w = checked(p, labels, sample_weight, same_width=False)
        return mean(np.sum((p - (labels == np.arange(p.shape[1]))) ** 2, axis=1), w)
    y_true, p, w = checked(y_true, p, sample_weight)
    return mean(np.mean((p - y_true) ** 2, axis=1), w)


def ece(y_true: np.ndarray, probabilities: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Expected calibration error: how far probabilities are from shares, the mean over the bins of :func:`calibration`.

    Several classes: of the largest probability; 0/1 labels: mean over labels. NaN if a probability is NaN. Naeini,
    Cooper & Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    parts = _told(y_true, probabilities, sample_weight)
    return float(np.mean([_ece(truth, p, w) for truth, p, w in parts]))


def calibration(
    y_true: np.ndarray, probabilities: np.ndarray, sample_weight: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """The table behind :func:`ece`: bins of equal width that hold samples, all labels in one table.

    Returns
    -------
    list of dict
        ``from``, ``to`` (inclusive), ``samples``; ``predicted``: the mean probability, ``observed``: the share of
        samples for which it was right to say so.
    """
    parts = _told(y_true, probabilities, sample_weight)
    truth, p = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    weight = np.concatenate([np.ones(len(part[0])) if part[2] is None else part[2] for part in parts])
    table: list[dict[str, Any]] = []
    if np.any(np.isnan(p)):
        return table
    for k, (total, predicted, observed) in enumerate(zip(*_bins(truth, p, weight), strict=True)):
        if total > 0.0:
            samples = int(np.count_nonzero(_bin_of(p) == k))
            shares = {"predicted": float(predicted / total), "observed": float(observed / total)}
            table.append({"from": k / BINS, "to": (k + 1) / BINS, "samples": samples, **shares})
    return table


def _counts(t: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """The confusion matrix of the labels that are in either, in float64."""
    found, codes = np.unique(np.concatenate([t, p]).astype(np.float64), return_inverse=True)
    k = len(found)
    weight = np.ones(len(t)) if w is None else w
    return np.bincount(codes[: len(t)] * k + codes[len(t) :], weight, minlength=k * k).reshape(k, k)


def _average_precision(positive: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    levels, at = np.unique(-score, return_inverse=True)  # the highest score first
    TP = np.cumsum(np.bincount(at, weight * positive, len(levels)))
    taken = np.cumsum(np.bincount(at, weight, len(levels)))
    if TP[-1] == 0.0:
        return 0.0
    precision = TP / np.where(taken > 0.0, taken, 1.0)
    return float(np.diff(TP, prepend=0.0) @ precision / TP[-1])


def _told(
    y_true: np.ndarray, probabilities: np.ndarray, sample_weight: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """For each label: whether what was told is true (n,), its probability (n,), the weights."""
    p = np.asarray(probabilities, dtype=np.float64)
    if is_multiclass(y_true, p):
        labels = class_indices(y_true, p.shape[1])
        p, labels, w = checked(p, labels, sample_weight, same_width=False)
        return [(p.argmax(axis=1) == labels[:, 0], p.max(axis=1), w)]
    y_true, p, w = checked(y_true, p, sample_weight)
    return [(t == 1, column, w) for t, column in zip(y_true.T, p.T, strict=True)]


def _bin_of(p: np.ndarray) -> np.ndarray:
    """Bin k is (k / BINS, (k + 1) / BINS]; 0 is in the first."""
    return np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], p)


def _bins(truth: np.ndarray, p: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each bin the sums of weights, of weighted probabilities and of weighted truths, (BINS,) each."""
    at = _bin_of(p)
    total, predicted, observed = (np.bincount(at, weight * x, BINS) for x in (np.ones(len(p)), p, truth))
    return total, predicted, observed


def _ece(truth: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> float:
    if np.any(np.isnan(p)):
        return float("nan")
    total, predicted, observed = _bins(truth, p, np.ones(len(p)) if w is None else w)
    return float(np.sum(np.abs(predicted - observed)) / total.sum())
