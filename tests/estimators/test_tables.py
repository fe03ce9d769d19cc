"""Tables of pandas and polars: the array's fit bit for bit, and scikit-learn's words about their columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.neural_network as theirs
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support.estimators import SETS, fitted, rows, same_bits

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor

TABLES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
NAMES = list("abcdef")
VALUES = ("regression", "counts", "outputs")
SETTINGS: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}

either = pytest.mark.parametrize("library", TABLES)


def table(library: str, X: np.ndarray, names: list[str] = NAMES) -> Any:
    return TABLES[library](dict(zip(names, X.T, strict=True)))


def column(library: str, y: np.ndarray) -> Any:
    """A Series, or a table of several columns."""
    return table(library, y, NAMES[: y.shape[1]]) if y.ndim == 2 else TABLES[library]({"y": y})["y"]


def model_for(target: str, **settings: Any) -> Any:
    return (MLPRegressor if target in VALUES else MLPClassifier)(**{**SETTINGS, **settings})


@either
@pytest.mark.parametrize("target", SETS)
def test_a_table_gives_the_arrays_fit(target: str, library: str) -> None:
    X, y = rows(target)
    weights = np.linspace(0.5, 2.0, len(X))
    T, t, w = table(library, X), column(library, y), column(library, weights)
    for settings in ({}, {"early_stopping": True}, {"preset": "tabular", "n_members": 2}):
        a = fitted(model_for(target, **settings), X, y, sample_weight=weights)
        b = fitted(model_for(target, **settings), T, t, sample_weight=w)
        assert list(b.feature_names_in_) == NAMES
        assert not hasattr(a, "feature_names_in_")
        assert np.array_equal(a.predict(X), b.predict(T))
        assert isinstance(b.predict(T), np.ndarray)
        assert b.score(T, t, w) == pytest.approx(a.score(X, y, weights), rel=1e-13)  # pandas stores columns
        if target not in VALUES:
            assert np.array_equal(a.predict_proba(X), b.predict_proba(T))
    a = fitted(model_for(target), X, y, X_val=X[:30], y_val=y[:30], sample_weight_val=weights[:30])
    b = fitted(model_for(target), T, t, X_val=T[:30], y_val=t[:30], sample_weight_val=w[:30])
    assert same_bits(a, b)
    assert a.validation_loss_curve_ == b.validation_loss_curve_
    assert a.loss_and_gradient(X, y)[0] == b.loss_and_gradient(T, t)[0]
    assert same_bits(a.partial_fit(X, y), b.partial_fit(T, t))


@either
def test_columns_of_several_types_are_numbers(library: str) -> None:
    X, y = rows("regression")
    X = np.column_stack([np.round(X[:, 0]), X[:, 1] > 0, X[:, 2].astype(np.float32), X[:, 3:]])
    types = [np.int32, np.bool_, np.float32, np.float64, np.float64, np.float64]
    columns = {n: c.astype(t) for n, c, t in zip(NAMES, X.T, types, strict=True)}
    mixed, plain = (fitted(model_for("regression"), x, y) for x in (TABLES[library](columns), X))
    assert same_bits(mixed, plain)


@either
def test_labels_keep_their_kind(library: str) -> None:
    X, _ = rows("multiclass")
    codes = np.digitize(X[:, 0], [-0.5, 0.5])
    for labels in (np.array(["low", "mid", "top"])[codes], codes, codes > 1):
        model = fitted(model_for("binary"), X, column(library, labels))
        assert list(model.classes_) == sorted(set(labels))
        assert np.array_equal(model.predict(X), fitted(model_for("binary"), X, labels).predict(X))


@either
def test_columns_of_labels_may_be_of_several_types(library: str) -> None:
    X, _ = rows("multiclass")
    sizes, marks = np.digitize(X[:, 0], [-0.5, 0.5]), X[:, 1] > 0
    for columns in (
        {"size": np.array(["low", "mid", "top"])[sizes], "mark": marks.astype(int)},
        {"mark": marks * 1, "size": sizes.astype(str)},
    ):
        model = fitted(model_for("binary"), X, TABLES[library](columns))
        predicted = model.predict(X)
        for k, labels in enumerate(columns.values()):
            assert list(model.classes_[k]) == sorted(set(labels))
            assert set(predicted[:, k]) <= set(labels)
        text = fitted(model_for("binary"), X, np.column_stack([c.astype(str) for c in columns.values()]))
        assert same_bits(model, text)
        assert np.array_equal(predicted.astype(str), text.predict(X))
        assert model.score(X, TABLES[library](columns)) == text.score(
            X, np.column_stack(list(columns.values())).astype(str)
        )


@either
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_wrong_columns_are_refused_in_scikit_learns_words(kind: str, library: str) -> None:
    X, _ = rows("binary")
    y = (X[:, 0] > 0).astype(int)
    ours, reference = (fitted(getattr(m, kind)(**SETTINGS), table(library, X), y) for m in (backprop_gpu, theirs))
    T = table(library, X)
    wrong = {
        "in the same order": T[NAMES[::-1]],
        "yet now missing:\n- f": T[NAMES[:5]],
        "unseen at fit time:\n- z": table(library, X, [*NAMES[:5], "z"]),
        "unseen at fit time:\n- g": table(library, np.column_stack([X, y]), [*NAMES, "g"]),
    }

    def said(call: Callable[[], Any]) -> str:
        with pytest.raises(ValueError, match="The feature names should match") as caught:
            call()
        return str(caught.value)

    for telling, given in wrong.items():
        expected = said(lambda given=given: reference.predict(given))  # type: ignore[misc]
        assert telling in expected
        for call in (
            lambda given=given: ours.predict(given),
            lambda given=given: ours.score(given, y),
            lambda given=given: ours.partial_fit(given, y),
            lambda given=given: ours.loss_and_gradient(given, y),
            lambda given=given: type(ours)(**SETTINGS).fit(T, y, X_val=given, y_val=y),
        ):
            assert said(call).removeprefix("X_val, y_val: ") == expected  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=f"X does not have valid feature names, but {kind} was fitted with"):
        bare = ours.predict(X)
    assert np.array_equal(bare, ours.predict(T))
    fitted(ours, X, y)
    with pytest.warns(UserWarning, match=f"X has feature names, but {kind} was fitted without feature names"):
        ours.predict(T)


@either
def test_gaps_and_text_are_refused(library: str) -> None:
    X, y = rows("binary")
    gap = X.copy()
    gap[3, 2] = np.nan
    T = table(library, gap)
    integers = pl.Series([1, None] * 60) if library == "polars" else pd.array([1, None] * 60)
    for given in (T, TABLES[library]({"a": integers})):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            model_for("binary").fit(given, y)
    with pytest.raises(ValueError, match="could not convert string to float: 'yes'"):
        model_for("binary").fit(TABLES[library]({"a": X[:, 0], "b": y}), y)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fitted(model_for("binary"), table(library, X), y).predict(T)
    _, values = rows("regression")
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model_for("regression").fit(X, column(library, np.where(np.arange(len(X)) == 3, np.nan, values)))


@either
def test_names_come_through_a_pipeline(library: str) -> None:
    """The estimators have no ``transform``; what ``set_output`` makes of the steps before them reaches them."""
    X, y = rows("binary")
    T = table(library, X[:, :2], ["size", "age"])
    T = TABLES[library]({"size": T["size"], "age": T["age"], "colour": np.where(X[:, 2] > 0, "red", "blue")})
    parts = [("scaled", StandardScaler(), ["size", "age"]), ("shown", OneHotEncoder(sparse_output=False), ["colour"])]
    pipeline = make_pipeline(ColumnTransformer(parts), model_for("binary")).set_output(transform=library)
    fitted(pipeline, T, y)
    names = ["scaled__size", "scaled__age", "shown__colour_blue", "shown__colour_red"]
    assert list(pipeline[-1].feature_names_in_) == names
    plain = fitted(make_pipeline(ColumnTransformer(parts), model_for("binary")), T, y)
    assert np.array_equal(pipeline.predict_proba(T), plain.predict_proba(T))
    assert not hasattr(model_for("binary"), "set_output")  # as scikit-learn's
