"""Targets of each task: encoded, decoded, and refused with the row that is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from backprop_gpu.data import Table, TargetCodec, table_from_arrays
from backprop_gpu.data.targets import infer_task
from backprop_gpu.errors import ConfigError, DataError


def table_of(y: object, **more: object) -> Table:
    y = np.asarray(y)
    return table_from_arrays(np.zeros((len(y), 1)), y, source="data", **more)


def refused(table: Table, task: str, match: str, codec: TargetCodec | None = None) -> None:
    with pytest.raises(DataError, match=match) as caught:
        codec.encode(table) if codec else TargetCodec.fit(table, task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "labels", "encoded"),
    [
        (["yes", "no", "yes"], ("no", "yes"), [1, 0, 1]),
        ([5, 3, 5], ("3", "5"), [1, 0, 1]),
        ([10, 9, 10], ("9", "10"), [1, 0, 1]),  # in numeric order, not as text
        ([-1.0, 1.0, 1.0], ("-1", "1"), [0, 1, 1]),
        ([True, False, False], ("0", "1"), [1, 0, 0]),
    ],
)
def test_binary(y: list, labels: tuple[str, ...], encoded: list[int]) -> None:
    codec = TargetCodec.fit(table_of(y), "binary")
    assert codec.labels == codec.class_names == labels
    assert codec.n_outputs == 1
    for dtype in ("float32", "float64"):
        out = codec.encode(table_of(y), dtype)
        assert (out.dtype, out.shape) == (np.dtype(dtype), (3, 1))
        assert out[:, 0].tolist() == encoded
        assert codec.decode(out).tolist() == y
    assert codec.decode(np.array([[0.5], [0.51]])).tolist() == codec.decode(np.array([0, 1])).tolist()


def test_multiclass() -> None:
    y = ["b", "a", "c", "b"]
    codec = TargetCodec.fit(table_of(y), "multiclass")
    out = codec.encode(table_of(y))
    assert (out.dtype, out.tolist(), codec.n_outputs) == (np.int64, [1, 0, 2, 1], 3)
    assert codec.decode(out).tolist() == y
    assert codec.decode(np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])).tolist() == ["c", "a"]
    many = np.arange(12)[::-1].repeat(2)
    codec = TargetCodec.fit(table_of(many), "multiclass")
    assert codec.encode(table_of(many)).tolist() == many.tolist()
    assert codec.decode(codec.encode(table_of(many))).tolist() == many.tolist()


def test_classes_that_the_source_names() -> None:
    """All of them count, though the training rows lack one; the names go with the indices."""
    table = table_of([2, 0, 2], class_names=["ant", "bee", "cat"])
    codec = TargetCodec.fit(table, "multiclass")
    assert codec.n_outputs == 3
    assert codec.encode(table).tolist() == [2, 0, 2]
    assert codec.encode(table_of([1])).tolist() == [1]
    assert [codec.class_names[k] for k in codec.encode(table)] == ["cat", "ant", "cat"]
    assert codec.decode(np.array([1])).tolist() == [1]


def test_labels_agree_across_kinds_of_file() -> None:
    """1, 1.0 and "1" are the same label: a CSV, an integer array and a column that once had gaps."""
    codec = TargetCodec.fit(table_of([1, 2, 1]), "binary")
    for y in ([1.0, 2.0], ["1", "2"], np.array([1, 2], dtype=np.uint8), [[1], [2]]):
        assert codec.encode(table_of(y))[:, 0].tolist() == [0.0, 1.0]


def test_a_column_of_targets_stays_a_column() -> None:
    for y, task in ((np.array([[0], [1]]), "binary"), (np.array([[3], [4]]), "multiclass"), (np.eye(2), "regression")):
        codec = TargetCodec.fit(table_of(y), task)
        assert codec.decode(codec.encode(table_of(y))).tolist() == y.tolist()


def test_multilabel() -> None:
    y = np.array([[1, 0, 1], [0, 0, 1]])
    codec = TargetCodec.fit(table_of(y), "multilabel")
    out = codec.encode(table_of(y))
    assert (out.dtype, out.tolist(), codec.n_outputs) == (np.float32, y.tolist(), 3)
    assert codec.decode(np.array([[0.9, 0.5, 0.6], [0.0, 0.1, 1.0]])).tolist() == y.tolist()
    refused(table_of([[0, 1], [2, 1]]), "multilabel", r"data, row 1, target 'y0' is 2: labels must be 0 or 1")


def test_regression_and_its_scale() -> None:
    y = np.array([[1e9, 0.0], [1e9 + 1, 4.0], [1e9 + 2, 8.0]])
    plain = TargetCodec.fit(table_of(y), "regression")
    np.testing.assert_array_equal(plain.encode(table_of(y), "float64"), y)
    codec = TargetCodec.fit(table_of(y), "regression", standardize=True)
    out = codec.encode(table_of(y), "float64")
    np.testing.assert_allclose(out.mean(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(out.std(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(codec.decode(out), y, rtol=1e-15, atol=1e-14)
    flat = TargetCodec.fit(table_of(y[:, 1]), "regression", standardize=True)
    assert flat.encode(table_of(y[:, 1])).shape == (3, 1)
    np.testing.assert_allclose(flat.decode(flat.encode(table_of(y[:, 1]), "float64")), y[:, 1], atol=1e-14)
    constant = TargetCodec.fit(table_of([7.0, 7.0]), "regression", standardize=True)
    assert constant.encode(table_of([7.0, 8.0])).tolist() == [[0.0], [1.0]]


def test_count() -> None:
    codec = TargetCodec.fit(table_of([0, 3, 2]), "count")
    assert codec.encode(table_of([0, 3, 2])).tolist() == [[0.0], [3.0], [2.0]]
    assert codec.decode(np.array([[0.5], [2.0]])).tolist() == [0.5, 2.0]
    refused(table_of([0.0, 1.0, -0.5]), "count", r"data, row 2, target 'y' is -0.5: counts must not be negative")


@pytest.mark.parametrize(
    ("y", "task", "match"),
    [
        ([1, 1, 1], "binary", r"one class only \(1\)"),
        (["a", "a"], "multiclass", r"one class only \(a\)"),
        ([1, 2, 3], "binary", r"this one has 3 \(1, 2, 3\)"),
        ([0.5, 1.0], "binary", "row 0, target 'y' is 0.5: a class label must be an integer or text"),
        ([0.0, 1e300], "binary", "row 1, target 'y' is 1e.300: a class label must be"),
        ([0.0, np.nan], "multiclass", "row 1, target 'y' is nan: the target is missing"),
        (["a", ""], "multiclass", "row 1, target 'y' is '': the target is missing"),
        ([[0, 1], [1, 0]], "binary", "one target column, found 2"),
        ([1.0, np.nan], "regression", "row 1, target 'y' is nan: the target is missing"),
        ([1.0, np.inf], "regression", "row 1, target 'y' is inf: the target is infinite"),
        (["1.5", "x"], "regression", "row 1, target 'y' is 'x': the target is not a number"),
        ([["1", "2"], ["3", "x"]], "multilabel", "row 1, target 'y1' is 'x': the target is not a number"),
    ],
)
def test_targets_that_do_not_fit_the_task(y: list, task: str, match: str) -> None:
    refused(table_of(y), task, match)


def test_targets_that_differ_from_training() -> None:
    codec = TargetCodec.fit(table_of(["a", "b"]), "multiclass")
    refused(table_of(["a", "c"]), "", r"row 1: the label 'c' is not a class of the training rows \(a, b\)", codec)
    refused(table_of([["a", "b"]]), "", "the target has 2 columns, in training it had 1", codec)
    refused(table_from_arrays(np.zeros((1, 1))), "", "no target column", codec)
    large = TargetCodec.fit(table_of([1.0, 2.0]), "regression")
    refused(table_of([1.0, 1e300]), "", r"row 1, target 'y' is 1e.300: the value does not fit float32", large)
    assert large.encode(table_of([1e300]), "float64").tolist() == [[1e300]]


def test_long_lists_of_classes_are_cut() -> None:
    codec = TargetCodec.fit(table_of(np.arange(50)), "multiclass")
    refused(table_of([99]), "", re.escape("(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (50 in all))"), codec)


def test_settings() -> None:
    with pytest.raises(ConfigError, match="did you mean 'regression'"):
        TargetCodec.fit(table_of([0, 1]), "regresion")
    with pytest.raises(ConfigError, match="standardize_target is for regression; the task is binary"):
        TargetCodec.fit(table_of([0, 1]), "binary", standardize=True)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["yes", "no"] * 9, "binary"),
        ([0, 1] * 9, "binary"),
        ([-1.0, 1.0] * 9, "binary"),
        ([True, False] * 9, "binary"),
        (["a", "b", "c"], "multiclass"),
        ([0, 1, 2] * 9, "multiclass"),
        ([3.0, 5.0, 8.0] * 9, "multiclass"),
        (list(range(20)) * 5, "multiclass"),
        (list(range(21)) * 5, "regression"),
        (list(range(12)), "regression"),  # as many values as rows
        ([0.5, 1.0, 2.0] * 9, "regression"),
        ([[0, 1], [1, 1]], "multilabel"),
        ([[0.0, 2.0], [1.0, 1.0]], "regression"),
    ],
)
def test_the_task_that_a_target_suggests(y: list, task: str) -> None:
    found, why = infer_task(table_of(y))
    assert found == task
    assert "y" in why
    TargetCodec.fit(table_of(y), found)


@pytest.mark.parametrize(
    ("labels", "y", "task"),
    [
        ("values", [0, 1, 2] * 9, "regression"),
        ("classes", list(range(50)), "multiclass"),
        ("binary", [0, 1], "binary"),
        ("binary", [[0, 1], [1, 1]], "multilabel"),
    ],
)
def test_a_loss_settles_the_task(labels: str, y: list, task: str) -> None:
    assert infer_task(table_of(y), labels)[0] == task
