"""Each metric against values worked by hand, and against scikit-learn where that is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backprop_gpu.errors import ConfigError, DataError, ShapeError
from backprop_gpu.training.metrics import (
    METRICS,
    accuracy,
    confusion_matrix,
    default_metrics,
    evaluate,
    evaluate_several,
    f1,
    f1_macro,
    log_loss,
    mae,
    r2,
    rmse,
    roc_auc,
)

TASKS = ("binary", "multiclass", "multilabel", "regression", "count")


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_accuracy_counts_rows() -> None:
    assert accuracy([0, 1, 2, 1], [0, 1, 1, 1]) == 0.75
    assert accuracy([0, 1, 2, 1], [0, 1, 1, 1], [1.0, 1.0, 6.0, 2.0]) == 0.4
    assert accuracy([[1, 0], [1, 1]], [[1, 0], [1, 0]]) == 0.5  # both labels of the second row must be right


def test_labels_may_be_a_column_of_floats() -> None:
    y, predicted = np.array([[0.0], [1.0], [1.0]], dtype=np.float32), np.array([[False], [True], [False]])
    assert accuracy(y, predicted) == pytest.approx(2 / 3)
    assert f1(y, predicted) == pytest.approx(2 / 3)
    assert confusion_matrix(y, predicted).tolist() == [[1, 0], [1, 1]]


def test_log_loss_of_binary_labels() -> None:
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.6)) / 3
    assert log_loss([1, 0, 1], [0.9, 0.2, 0.6]) == pytest.approx(expected, rel=1e-15)
    assert log_loss([[1], [0], [1]], [[0.9], [0.2], [0.6]]) == pytest.approx(expected, rel=1e-15)
    weighted = -(math.log(0.9) + 3 * math.log(0.8)) / 4
    assert log_loss([1, 0, 1], [0.9, 0.2, 0.6], [1, 3, 0]) == pytest.approx(weighted, rel=1e-15)


def test_log_loss_of_classes() -> None:
    p = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
    expected = -(math.log(0.7) + math.log(0.8)) / 2
    assert log_loss([0, 2], p) == pytest.approx(expected, rel=1e-15)
    assert log_loss([[0], [2]], p) == pytest.approx(expected, rel=1e-15)
    two = [[0.7, 0.3], [0.4, 0.6]]
    assert log_loss([0, 1], two) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2, rel=1e-15)
    assert roc_auc([0, 1], two) == 1.0


def test_log_loss_of_several_labels_is_summed_over_them() -> None:
    p, y = np.array([[0.9, 0.3], [0.4, 0.5]]), np.array([[1, 0], [0, 1]])
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.6) + math.log(0.5)) / 2
    assert log_loss(y, p) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_clips_by_the_eps_of_the_dtype_only(dtype: type) -> None:
    eps = float(np.finfo(dtype).eps)
    assert log_loss([0], np.array([1.0], dtype=dtype)) == pytest.approx(-math.log(eps), rel=1e-12)
    assert log_loss([0], np.array([[0.0, 1.0]], dtype=dtype)) == pytest.approx(-math.log(eps), rel=1e-12)
    assert log_loss([1], np.array([1.0], dtype=dtype)) == pytest.approx(eps, rel=1e-6)
    small = dtype(1000 * eps)
    assert log_loss([1], np.array([small])) == pytest.approx(-math.log(float(small)), rel=1e-12)


def test_f1_by_counts() -> None:
    y, p = [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]  # TP 2, FN 1, FP 1
    assert f1(y, p) == pytest.approx(4 / 6)
    assert f1(y, p, [1, 1, 1, 4, 1]) == pytest.approx(4 / (4 + 1 + 4))
    assert f1([0, 0], [0, 0]) == 0.0  # 0/0
    assert f1_macro([0, 1, 2], [0, 2, 2]) == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert f1_macro([[1, 0], [1, 1]], [[1, 0], [0, 1]]) == pytest.approx((2 / 3 + 1) / 2)


def test_roc_auc_counts_pairs() -> None:
    y, s = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8, 0.05])
    # pairs (negative, positive): 0.1 < 0.4, 0.1 < 0.8, 0.1 > 0.05, 0.4 = 0.4, 0.4 < 0.8, 0.4 > 0.05
    assert roc_auc(y, s) == pytest.approx(3.5 / 6)
    assert roc_auc(y, -s) == pytest.approx(2.5 / 6)
    assert roc_auc(y, np.zeros(5)) == 0.5
    # weights 2 on the first negative and 3 on the last positive: (2 + 2 + 0 + .5 + 1 + 0) / (3 * 5)
    assert roc_auc(y, s, [2, 1, 1, 1, 3]) == pytest.approx(5.5 / 15)


def test_roc_auc_equals_the_count_over_all_pairs() -> None:
    rng = np.random.default_rng(5)
    y, s, w = rng.integers(0, 2, 200), rng.integers(0, 9, 200) / 9.0, rng.random(200)
    pairs = (y[:, None] == 1) & (y == 0)
    won = (s[:, None] > s) + 0.5 * (s[:, None] == s)
    weight = w[:, None] * w * pairs
    assert roc_auc(y, s, w) == pytest.approx(np.sum(weight * won) / np.sum(weight), rel=1e-12)


def test_roc_auc_leaves_out_what_is_undefined() -> None:
    assert math.isnan(roc_auc([1, 1], [0.2, 0.3]))
    assert math.isnan(roc_auc([0, 1], [0.2, 0.3], [1, 0]))
    assert math.isnan(roc_auc([0, 1], [0.2, np.nan]))
    p = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1]])
    assert roc_auc([0, 1, 1], p) == 1.0  # no sample of class 2
    assert math.isnan(roc_auc([0, 1, 1], np.where(p == 0.1, np.nan, p)))


def test_regression_by_hand() -> None:
    y, p = [1.0, 2.0, 4.0], [1.0, 4.0, 3.0]
    assert rmse(y, p) == pytest.approx(math.sqrt(5 / 3))
    assert mae(y, p) == 1.0
    assert r2(y, p) == pytest.approx(1 - 5 / (14 / 3))
    assert mae(y, p, [1, 0, 3]) == 0.75
    assert rmse([[1, 0], [1, 0]], [[2, 0], [2, 4]]) == pytest.approx((1 + math.sqrt(8)) / 2)
    assert r2([[1, 5], [3, 5]], [[1, 5], [3, 5]]) == 1.0


def test_r2_of_a_constant_target() -> None:
    assert r2([2.0, 2.0], [2.0, 2.0]) == 1.0
    assert r2([2.0, 2.0], [2.0, 3.0]) == 0.0
    assert r2([2.0, 2.0, 9.0], [2.0, 3.0, 0.0], [1, 1, 0]) == 0.0
    assert math.isnan(r2([2.0], [2.0]))


def test_large_offset_does_not_spoil_regression_scores() -> None:
    y = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    assert r2(y, y + 1.0) == pytest.approx(1 - 4 / 5, rel=1e-9)


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    assert confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0]).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion_matrix([0, 1], [1, 1], n_classes=3).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    weighted = confusion_matrix([0, 1], [1, 1], [0.5, 2.0])
    assert weighted.dtype == np.float64
    assert weighted.tolist() == [[0.0, 0.5], [0.0, 2.0]]


def test_integer_weights_equal_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(0, 4, 60)
    labels, others = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    scores, values = rng.random(60), rng.normal(size=60)
    for name, metric in METRICS.items():
        y, p = {"labels": (labels, others), "probabilities": (labels, scores), "values": (values, scores)}[metric.takes]
        repeated = metric.function(np.repeat(y, w), np.repeat(p, w))
        assert metric.function(y, p, w) == pytest.approx(repeated, rel=1e-12), name


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_what_does_not_fit_is_refused(name: str) -> None:
    function = METRICS[name].function
    with pytest.raises(ShapeError, match="do not fit"):
        function(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="no samples"):
        function(np.zeros(0), np.zeros(0))
    with pytest.raises(ShapeError, match=r"must be \(3,\)"):
        function(np.zeros(3), np.zeros(3), np.ones(2))
    for weights in ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, np.nan, 1.0]):
        with pytest.raises(DataError, match="sample_weight"):
            function(np.zeros(3), np.zeros(3), weights)


def test_labels_out_of_range_are_refused() -> None:
    p = np.full((2, 3), 1 / 3)
    for function in (log_loss, roc_auc):
        with pytest.raises(ShapeError, match="0 to 2"):
            function([0, 3], p)
        with pytest.raises(ShapeError, match="0 to 2"):
            function([-1, 0], p)
    with pytest.raises(ShapeError, match="0 to 1"):
        confusion_matrix([0, 2], [0, 1], n_classes=2)
    with pytest.raises(ShapeError, match="one label"):
        confusion_matrix([[0, 1]], [[0, 1]])
    with pytest.raises(ShapeError, match="f1_macro"):
        f1([[0, 1]], [[0, 1]])


# --- the registry ----------------------------------------------------------------------------------------------------


def test_evaluate_makes_the_labels_of_each_task() -> None:
    binary = evaluate(("accuracy", "f1"), "binary", np.array([[1.0], [0.0]]), np.array([[0.7], [0.5]]))
    assert binary == {"accuracy": 1.0, "f1": 1.0}  # exactly one half is class 0
    classes = evaluate(["accuracy"], "multiclass", np.array([2, 0]), np.array([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]]))
    assert classes == {"accuracy": 0.5}
    several = evaluate(["accuracy"], "multilabel", np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.6, 0.4]]))
    assert several == {"accuracy": 0.5}
    weighted = evaluate(["mae"], "regression", np.array([[1.0], [2.0]]), np.array([[2.0], [2.0]]), np.array([3.0, 1.0]))
    assert weighted == {"mae": 0.75}


@pytest.mark.parametrize("task", TASKS)
def test_default_metrics_can_be_evaluated(task: str) -> None:
    rng = np.random.default_rng(1)
    k = {"multiclass": 3, "multilabel": 2}.get(task, 1)
    outputs = rng.random((30, k))
    if task == "multiclass":
        y, outputs = rng.integers(0, 3, 30), outputs / outputs.sum(axis=1, keepdims=True)
    else:
        y = rng.integers(0, 2, (30, k)).astype(float)
    scores = evaluate(default_metrics(task), task, y, outputs)
    assert list(scores) == list(default_metrics(task))
    assert all(math.isfinite(score) for score in scores.values())


def test_several_labels_of_several_classes() -> None:
    y = np.array([[2, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    p = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1]])
    outputs = [p, np.ones((4, 1)), np.array([[0.4, 0.6], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])]
    found = evaluate_several(["accuracy", "log_loss", "f1_macro", "roc_auc"], y, outputs)
    assert list(found) == ["accuracy", "log_loss", "f1_macro", "roc_auc"]
    assert found["accuracy"] == 0.5  # all three labels are right in the first two rows
    logs = [log_loss(y[:, 0], p), log_loss(y[:, 2], outputs[2])]  # the label of one class adds nothing
    assert found["log_loss"] == pytest.approx(sum(logs))
    assert found["f1_macro"] == pytest.approx(np.mean([(0.8 + 0.0 + 1.0) / 3, 1.0, (0.0 + 6.0 / 7.0) / 2]))
    assert found["roc_auc"] == pytest.approx(roc_auc(y[:, 0], p))  # the last label's is not defined: all are of a class
    assert math.isnan(evaluate_several(["roc_auc"], y[:, 1:2], outputs[1:2])["roc_auc"])
    weighted = evaluate_several(["accuracy"], y, outputs, np.array([1.0, 0.0, 0.0, 3.0]))
    assert weighted == {"accuracy": 0.25}
    with pytest.raises(
        ConfigError, match="'rmse' does not go with the task several labels of several classes; use acc"
    ):
        evaluate_several(["rmse"], y, outputs)


def test_unknown_or_unfit_metrics_are_refused() -> None:
    y, p = np.zeros((2, 1)), np.zeros((2, 1))
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        evaluate(["acuracy"], "binary", y, p)
    with pytest.raises(ConfigError, match="does not go with the task regression"):
        evaluate(["accuracy"], "regression", y, p)
    with pytest.raises(ConfigError, match="does not go with the task multiclass"):
        evaluate(["f1"], "multiclass", np.zeros(2), np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="did you mean 'binary'"):
        default_metrics("binry")


@pytest.mark.parametrize("name", METRICS)
def test_better_predictions_score_better(name: str) -> None:
    metric, y = METRICS[name], np.array([0, 1, 1, 0, 1, 0])
    good, bad = {
        "labels": (y, 1 - y),
        "probabilities": (0.1 + 0.8 * y, 0.9 - 0.8 * y),
        "values": (y + 0.1, y + np.array([3.0, -3.0, 1.0, 2.0, 1.0, 0.0])),
    }[metric.takes]
    assert (metric.function(y, good) > metric.function(y, bad)) is metric.greater_is_better


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sk():  # type: ignore[no-untyped-def]
    pytest.importorskip("sklearn", reason="the comparison with scikit-learn needs scikit-learn")
    import sklearn.metrics

    return sklearn.metrics


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_classification_as_scikit_learn(sk, seed: int, weighted: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 200))
    w = rng.random(n) * rng.integers(0, 2, n) + (np.arange(n) < 10) if weighted else None
    y, s = rng.integers(0, 2, n), np.round(rng.random(n), 1)
    labels = (s > 0.5).astype(int)
    k = 4
    classes, P = np.concatenate([np.arange(k), rng.integers(0, k, n - k)]), rng.random((n, k))
    P /= P.sum(axis=1, keepdims=True)
    guess = P.argmax(axis=1)
    Y, S = rng.integers(0, 2, (n, 3)), rng.random((n, 3))
    T = (S > 0.5).astype(int)
    same = [
        (accuracy(y, labels, w), sk.accuracy_score(y, labels, sample_weight=w)),
        (accuracy(Y, T, w), sk.accuracy_score(Y, T, sample_weight=w)),
        (f1(y, labels, w), sk.f1_score(y, labels, sample_weight=w)),
        (f1_macro(classes, guess, w), sk.f1_score(classes, guess, average="macro", sample_weight=w)),
        (f1_macro(Y, T, w), sk.f1_score(Y, T, average="macro", sample_weight=w)),
        (log_loss(y, s, w), sk.log_loss(y, s, sample_weight=w)),
        (log_loss(classes, P, w), sk.log_loss(classes, P, sample_weight=w)),
        (log_loss(Y, S, w), sum(sk.log_loss(Y[:, j], S[:, j], sample_weight=w) for j in range(3))),
        (roc_auc(y, s, w), sk.roc_auc_score(y, s, sample_weight=w)),
        (roc_auc(Y, S, w), sk.roc_auc_score(Y, S, average="macro", sample_weight=w)),
        (roc_auc(classes, P, w), sk.roc_auc_score(classes, P, multi_class="ovr", sample_weight=w)),
    ]
    for ours, theirs in same:
        assert ours == pytest.approx(theirs, rel=1e-12)
    np.testing.assert_allclose(
        confusion_matrix(classes, guess, w), sk.confusion_matrix(classes, guess, sample_weight=w), rtol=1e-12
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(2,), (50,), (50, 1), (50, 3)])
def test_regression_as_scikit_learn(sk, shape: tuple[int, ...], weighted: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(len(shape))
    y, p = rng.normal(size=shape), rng.normal(size=shape)
    if y.ndim == 2:
        y[:, 0] = 2.0  # a constant target
    w = rng.random(shape[0]) if weighted else None
    assert rmse(y, p, w) == pytest.approx(sk.root_mean_squared_error(y, p, sample_weight=w), rel=1e-12)
    assert mae(y, p, w) == pytest.approx(sk.mean_absolute_error(y, p, sample_weight=w), rel=1e-12)
    assert r2(y, p, w) == pytest.approx(sk.r2_score(y, p, sample_weight=w), rel=1e-12)


def test_saturated_float32_probabilities_as_scikit_learn(sk) -> None:  # type: ignore[no-untyped-def]
    y, p = np.array([0, 1, 1, 0]), np.array([1.0, 0.0, 1.0, 1e-9], dtype=np.float32)
    assert log_loss(y, p) == pytest.approx(sk.log_loss(y, p), rel=1e-6)
