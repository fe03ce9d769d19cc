"""Checks at the network's door: what is taken, and one line that names the place of what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backprop_gpu.errors import BackpropError, DataError, ShapeError
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.network.targets import check_rows, check_targets, check_weights

ONES = np.ones((4, 3))

THREE = {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}


def with_cell(row: int, column: int, value: float) -> np.ndarray:
    x = ONES.copy()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    "X",
    [ONES, ONES.astype("float32"), ONES.astype("int8"), ONES.astype(bool), ONES.tolist(), np.asfortranarray(ONES)],
    ids=["float64", "float32", "int8", "bool", "list", "fortran"],
)
def test_rows(X: Any) -> None:
    found = check_rows(X, 3)
    assert found.shape == (4, 3)
    assert found.dtype.kind == "f"  # whole numbers would be uploaded as int64 and drag the step into float64
    np.testing.assert_array_equal(found, ONES)


def test_a_single_feature_may_be_one_dimensional() -> None:
    assert check_rows([1.0, 2.0], 1).shape == (2, 1)


@pytest.mark.parametrize(
    ("X", "kind", "words"),
    [
        (ONES[0], ShapeError, "X must be (n_samples, 3), got (3,); one example is X.reshape(1, -1)"),
        (ONES[:, :2], ShapeError, "X must be (n_samples, 3), got (4, 2)"),
        (ONES[None], ShapeError, "X must be (n_samples, 3), got (1, 4, 3)"),
        (ONES[:0], DataError, "X has no rows"),
        (with_cell(2, 1, np.nan), DataError, "X has nan at row 2, column 1"),
        (with_cell(3, 0, -np.inf), DataError, "X has -inf at row 3, column 0"),
        ([["a", "b", "c"]], DataError, "X must hold numbers"),
        (ONES + 0j, DataError, "X must hold numbers"),
        (ONES.astype(object), DataError, "X must hold numbers"),
    ],
)
def test_rows_that_are_refused(X: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        check_rows(X, 3)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_the_rows_is_told() -> None:
    with pytest.raises(ShapeError, match=r"^validation X must be"):
        check_rows(ONES, 2, "validation X")


@pytest.mark.parametrize(
    ("loss", "n", "y", "shape", "dtype"),
    [
        ("binary_cross_entropy", 1, [0, 1, 1, 0], (4, 1), "int"),
        ("binary_cross_entropy", 1, [0.0, 0.25, 1.0, 0.5], (4, 1), "float"),
        ("binary_cross_entropy", 1, [True, False, True, True], (4, 1), "bool"),
        ("binary_cross_entropy", 2, np.eye(2)[[0, 1, 1, 0]], (4, 2), "float"),
        ("categorical_cross_entropy", 3, [0, 2, 1, 0], (4, 1), "labels"),
        ("categorical_cross_entropy", 3, [0.0, 2.0, 1.0, 0.0], (4, 1), "labels"),
        ("categorical_cross_entropy", 3, np.eye(3)[[0, 1, 2, 0]], (4, 3), "float"),
        ("squared_error", 1, [0.5, -3.0, 1e9, 0.0], (4, 1), "float"),
        ("huber", 2, np.ones((4, 2)), (4, 2), "float"),
        ("poisson", 1, [0, 3, 1, 2], (4, 1), "int"),
        (THREE, 3, [0.5, 3.0, 1.0, 2.0], (4, 3), "float"),
        (THREE, 6, np.ones((4, 2)), (4, 6), "float"),
        (THREE, 6, np.ones((4, 6)), (4, 6), "float"),
    ],
)
def test_targets(loss: Any, n: int, y: Any, shape: tuple[int, int], dtype: str) -> None:
    found = check_targets(y, get_loss(loss), n, 4)
    assert found.shape == shape
    given = np.asarray(y).reshape(4, -1)
    np.testing.assert_array_equal(found, np.repeat(given, shape[1] // given.shape[1], axis=1))
    np.testing.assert_array_equal(check_targets(found, get_loss(loss), n, 4), found)
    assert found.dtype == np.int64 if dtype == "labels" else found.dtype.kind == "f"


@pytest.mark.parametrize(
    ("loss", "n", "y", "kind", "words"),
    [
        ("binary_cross_entropy", 1, [0, 1, 2, 0], DataError, "y must be between 0 and 1, got [2] at row 2"),
        ("binary_cross_entropy", 1, [0, 1, 0, -1], DataError, "y must be between 0 and 1, got [-1] at row 3"),
        (
            "binary_cross_entropy",
            1,
            [0, 1, 0],
            ShapeError,
            "y must be (4, 1) for loss 'binary_cross_entropy', got (3, 1)",
        ),
        ("binary_cross_entropy", 2, [0, 1, 0, 1], ShapeError, "y must be (4, 2)"),
        ("categorical_cross_entropy", 3, [0, 1, 3, 0], DataError, "a class label from 0 to 2, got [3] at row 2"),
        ("categorical_cross_entropy", 3, [0, -1, 2, 0], DataError, "a class label from 0 to 2, got [-1] at row 1"),
        ("categorical_cross_entropy", 3, [0.5, 1, 2, 0], DataError, "a class label from 0 to 2, got [0.5] at row 0"),
        ("categorical_cross_entropy", 3, np.ones((4, 2)), ShapeError, "(4,) class labels or (4, 3)"),
        ("categorical_cross_entropy", 3, 2.0 * np.eye(3)[[0, 1, 2, 0]], DataError, "between 0 and 1"),
        ("squared_error", 2, np.ones(4), ShapeError, "y must be (4, 2)"),
        ("squared_error", 1, [0.0, np.nan, 1.0, 2.0], DataError, "y has nan at row 1, column 0"),
        ("squared_error", 1, [0.0, np.inf, 1.0, 2.0], DataError, "y has inf at row 1, column 0"),
        ("squared_error", 1, ["a", "b", "c", "d"], DataError, "y must hold numbers"),
        ("squared_error", 1, 1.0, ShapeError, "got ()"),
        ("poisson", 1, [0, 1, -1, 2], DataError, "y must be at least 0 for the poisson loss, got [-1] at row 2"),
    ],
)
def test_targets_that_are_refused(loss: str, n: int, y: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        check_targets(y, get_loss(loss), n, 4)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("w", [[1, 0, 2, 3], np.array([[0.5], [0.0], [1.0], [2.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])])
def test_weights(w: Any) -> None:
    found = check_weights(w, 4)
    assert found.shape == (4, 1)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found[:, 0], np.asarray(w).reshape(-1))


@pytest.mark.parametrize(
    ("w", "words"),
    [
        ([1, 2, 3], "sample_weight must be (4,), got (3,)"),
        (np.ones((2, 2, 1)), "sample_weight must be (4,), got (2, 2, 1)"),
        ([1, -1, 1, 1], "sample_weight must be at least 0 everywhere and positive somewhere"),
        ([0, 0, 0, 0], "sample_weight must be at least 0 everywhere and positive somewhere"),
        ([1, np.nan, 1, 1], "sample_weight has nan at row 1"),
        (["a", "b", "c", "d"], "sample_weight must hold numbers"),
    ],
)
def test_weights_that_are_refused(w: Any, words: str) -> None:
    with pytest.raises(BackpropError) as caught:
        check_weights(w, 4)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
