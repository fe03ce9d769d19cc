"""Scores of predictions, on host arrays: rows are samples, as everywhere outside the network.

``y_true`` holds encoded targets: class indices (n_samples,) or (n_samples, 1), 0/1 labels (n_samples, n_labels), or
values (n_samples,) or (n_samples, n_outputs). Every function takes ``sample_weight`` (n_samples,), non-negative, and
raises ShapeError where shapes do not fit and DataError where there is nothing to average. Definitions are
scikit-learn's (``sklearn.metrics``) wherever that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..errors import ConfigError, ShapeError, did_you_mean
from .class_metrics import average_precision, balanced_accuracy, brier, ece, mcc
from .metric_arguments import checked, class_indices, is_multiclass, mean


def accuracy(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """The share of samples with the right label; with several labels per sample, all of them must be right."""
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    return mean(np.all(y_true == y_pred, axis=1), w)


def log_loss(y_true: np.ndarray, probabilities: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Mean negative log-likelihood, in nats.

    Class indices with (n_samples, n_classes) probabilities: -log p[class]. 0/1 labels with as many probabilities:
    -sum_k [y log p + (1 - y) log(1 - p)], summed over labels as in the binary cross-entropy of this package.
    Probabilities are clipped to [eps, 1 - eps] of their dtype, no more.
    """
    p = np.asarray(probabilities)
    p = p if p.dtype.kind == "f" else p.astype(np.float64)
    if is_multiclass(y_true, p):
        labels = class_indices(y_true, p.shape[1])
        p, labels, w = checked(p, labels, sample_weight, same_width=False)
        return mean(-np.log(_clipped(np.take_along_axis(p, labels, axis=1)))[:, 0], w)
    y_true, p, w = checked(y_true, p, sample_weight)
    y = y_true.astype(np.float64)
    return mean(-np.sum(y * np.log(_clipped(p)) + (1.0 - y) * np.log(_clipped(1 - p)), axis=1), w)


def f1(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    average: Literal["binary", "macro"] = "binary",
) -> float:
    """2 TP / (2 TP + FP + FN), and 0 where that is 0/0.

    ``binary``: of class 1, the second of the sorted labels or of the named classes. ``macro``: the plain mean over all
    classes that are in y_true or y_pred, or over labels.
    """
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    if average == "macro" and y_true.shape[1] == 1:
        classes = np.union1d(y_true, y_pred)
        return float(np.mean([_f1(y_true[:, 0] == k, y_pred[:, 0] == k, w) for k in classes]))
    if average == "binary" and y_true.shape[1] != 1:
        raise ShapeError(f"the binary F1 takes one label per sample, got {y_true.shape[1]}; use f1_macro")
    return float(np.mean([_f1(t == 1, p == 1, w) for t, p in zip(y_true.T, y_pred.T, strict=True)]))


def f1_macro(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """:func:`f1` with ``average="macro"``."""
    return f1(y_true, y_pred, sample_weight, average="macro")


def roc_auc(y_true: np.ndarray, scores: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """The probability that a positive scores above a negative, ties counting one half (Mann-Whitney U / (P N)).

    Class indices with (n_samples, n_classes) scores: one class against the rest, plain mean over classes; 0/1 labels:
    plain mean over labels. Classes without a positive or without a negative sample are left out; NaN if all are,
    or if a score is NaN.
    """
    s = np.asarray(scores)
    if is_multiclass(y_true, s):
        y_true = class_indices(y_true, s.shape[1]) == np.arange(s.shape[1])
    y_true, s, w = checked(y_true, s, sample_weight)
    if np.any(np.isnan(s)):  # would sort as the highest level
        return float("nan")
    areas = [_roc_auc(t == 1, column, w) for t, column in zip(y_true.T, s.T, strict=True)]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def rmse(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Root of the mean squared error, in the target's unit; with several outputs, the mean of their roots."""
    error, _, w = _errors(y_true, y_pred, sample_weight)
    return float(np.mean(np.sqrt(np.average(error * error, axis=0, weights=w))))


def mae(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Mean absolute error, in the target's unit; with several outputs, their mean."""
    error, _, w = _errors(y_true, y_pred, sample_weight)
    return float(np.mean(np.average(np.abs(error), axis=0, weights=w)))


def r2(y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """1 - (squared error) / (squared deviation of the target from its mean); with several outputs, their mean.

    For a constant target: 1 if it is predicted exactly, else 0. NaN for fewer than two samples.
    """
    error, y_true, w = _errors(y_true, y_pred, sample_weight)
    if len(y_true) < 2:
        return float("nan")
    deviation = y_true - np.average(y_true, axis=0, weights=w)
    residual = np.average(error * error, axis=0, weights=w)
    total = np.average(deviation * deviation, axis=0, weights=w)
    constant = np.where(residual == 0.0, 1.0, 0.0)
    return float(np.mean(np.where(total == 0.0, constant, 1.0 - residual / np.where(total == 0.0, 1.0, total))))


def confusion_matrix(
    y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None, *, n_classes: int | None = None
) -> np.ndarray:
    """Counts (n_classes, n_classes), row = true class, column = predicted; int64, or float64 sums of weights."""
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    if y_true.shape[1] != 1:
        raise ShapeError(f"a confusion matrix takes one label per sample, got {y_true.shape[1]}")
    k = 1 + int(max(y_true.max(), y_pred.max())) if n_classes is None else n_classes
    cells = class_indices(y_true, k)[:, 0] * k + class_indices(y_pred, k)[:, 0]
    return np.bincount(cells, w, minlength=k * k).reshape(k, k)


class Metric(NamedTuple):
    """A score: which way is better, and what it takes beside y_true: labels, probabilities or values."""

    function: Callable[..., float]
    greater_is_better: bool
    takes: Literal["labels", "probabilities", "values"]


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, True, "labels"),
    "balanced_accuracy": Metric(balanced_accuracy, True, "labels"),
    "log_loss": Metric(log_loss, False, "probabilities"),
    "f1": Metric(f1, True, "labels"),
    "f1_macro": Metric(f1_macro, True, "labels"),
    "mcc": Metric(mcc, True, "labels"),
    "roc_auc": Metric(roc_auc, True, "probabilities"),
    "average_precision": Metric(average_precision, True, "probabilities"),
    "brier": Metric(brier, False, "probabilities"),
    "ece": Metric(ece, False, "probabilities"),
    "rmse": Metric(rmse, False, "values"),
    "mae": Metric(mae, False, "values"),
    "r2": Metric(r2, True, "values"),
}

SEVERAL = "several labels of several classes"

_ALSO = ("balanced_accuracy", "mcc", "roc_auc", "average_precision", "brier", "ece")
_DEFAULTS = {
    "binary": ("accuracy", *_ALSO[:1], "log_loss", "f1", *_ALSO[1:]),
    "multiclass": ("accuracy", *_ALSO[:1], "log_loss", "f1_macro", *_ALSO[1:]),
    "multilabel": ("accuracy", "log_loss", "f1_macro", "roc_auc", "average_precision", "brier"),
    SEVERAL: ("accuracy", "log_loss", "f1_macro", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
    "count": ("rmse", "mae", "r2"),
}


def default_metrics(task: str) -> tuple[str, ...]:
    """The metrics that are reported for a task. Raises ConfigError for an unknown one."""
    if task not in _DEFAULTS:
        tasks = [name for name in _DEFAULTS if name != SEVERAL]
        raise ConfigError(f"unknown task {task!r}{did_you_mean(task, tasks)}; it is one of {', '.join(tasks)}")
    return _DEFAULTS[task]


def evaluate(
    names: Iterable[str],
    task: str,
    y_true: np.ndarray,
    outputs: np.ndarray,
    sample_weight: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute several metrics from a network's predictions AL (probabilities or values), rows convention.

    Labels that are not given are made here: above one half for binary and multilabel, the largest for multiclass.
    Raises ConfigError for an unknown metric, or one that does not go with the task.
    """
    names = list(names)
    check_metrics(names, task)
    if labels is None:
        labels = np.argmax(outputs, axis=1) if task == "multiclass" else np.asarray(outputs) > 0.5
    found = {}
    for name in names:
        metric = METRICS[name]
        found[name] = metric.function(y_true, labels if metric.takes == "labels" else outputs, sample_weight)
    return found


def evaluate_several(
    names: Iterable[str],
    y_true: np.ndarray,
    outputs: Sequence[np.ndarray],
    sample_weight: np.ndarray | None = None,
) -> dict[str, float]:
    """:func:`evaluate` for several labels of several classes: indices (n_samples, n_labels), probabilities by label.

    ``accuracy``: all labels must be right. ``log_loss``: the labels' sum, the likelihood of all of them. Others: the
    plain mean over labels, without those whose score is NaN.
    """
    names = list(names)
    check_metrics(names, SEVERAL)
    predicted = np.column_stack([p.argmax(axis=1) for p in outputs])
    found = {}
    for name in names:
        function, takes = METRICS[name].function, METRICS[name].takes
        if name == "accuracy":
            found[name] = function(y_true, predicted, sample_weight)
            continue
        # A label of one class says nothing: its probability is 1.
        given = predicted.T if takes == "labels" else outputs
        told = [k for k, p in enumerate(outputs) if takes == "labels" or p.shape[1] > 1]
        scores = [function(y_true[:, k], given[k], sample_weight) for k in told]
        if name == "log_loss":
            found[name] = float(np.sum(scores))
            continue
        defined = [score for score in scores if not np.isnan(score)]
        found[name] = float(np.mean(defined)) if defined else float("nan")
    return found


def check_metrics(names: Iterable[str], task: str) -> None:
    """Raise ConfigError for a metric that is unknown, or does not go with the task."""
    known = default_metrics(task)
    fits = {METRICS[name].takes for name in known}
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"unknown metric {name!r}{did_you_mean(str(name), METRICS)}; known: {', '.join(METRICS)}")
        if METRICS[name].takes not in fits or (name == "f1" and task != "binary"):
            raise ConfigError(f"the metric {name!r} does not go with the task {task}; use {', '.join(known)}")


def _errors(
    y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    y_true, y_pred, w = checked(y_true, y_pred, sample_weight)
    y_true = y_true.astype(np.float64)
    return y_pred - y_true, y_true, w


def _clipped(p: np.ndarray) -> np.ndarray:
    eps = np.finfo(p.dtype).eps
    return np.clip(p, eps, 1 - eps).astype(np.float64)


def _f1(true: np.ndarray, predicted: np.ndarray, w: np.ndarray | None) -> float:
    weight = np.ones(len(true)) if w is None else w
    hit = weight[true & predicted].sum()
    either = weight[true].sum() + weight[predicted].sum()
    return float(2.0 * hit / either) if either > 0.0 else 0.0


def _roc_auc(positive: np.ndarray, score: np.ndarray, w: np.ndarray | None) -> float:
    weight = np.ones(len(score)) if w is None else w
    levels, at = np.unique(score, return_inverse=True)
    P = np.bincount(at, weight * positive, len(levels))
    N = np.bincount(at, weight * ~positive, len(levels))
    if not P.any() or not N.any():
        return float("nan")
    below = np.cumsum(N) - 0.5 * N  # negatives under each level, and half of those on it: the mid-rank
    return float(P @ below / (P.sum() * N.sum()))
