"""A trained model takes rows as people have them: data frames, mappings, arrays, paths; all as the file was read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.runs import quick, run
from support.tables import shop_rows, write_csv

from backprop_gpu import load
from backprop_gpu.build import Model
from backprop_gpu.errors import DataError

SHOP = {"data": {"source": "shop.csv", "target": "kauft", "missing": "indicator"}}
FRAMES: dict[str, Callable[[str], Any]] = {"pandas": pd.read_csv, "polars": pl.read_csv}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


@pytest.fixture
def shop() -> Model:
    write_csv(Path("shop.csv"), shop_rows())
    run("shop", quick(**SHOP))
    return load("shop")


@pytest.mark.parametrize("frame", FRAMES)
def test_a_data_frame_is_its_file(shop: Model, frame: str) -> None:
    table, rows = shop.read("shop.csv"), FRAMES[frame]("shop.csv")
    want = shop.predict_proba(table)
    np.testing.assert_array_equal(shop.predict_proba(rows), want)
    np.testing.assert_array_equal(shop.predict(rows), shop.predict(table))
    np.testing.assert_array_equal(shop.predict_proba(rows[rows.columns[::-1]]), want)  # found by name
    np.testing.assert_array_equal(shop.predict_proba({name: rows[name] for name in rows.columns}), want)
    columns = list(shop.preprocessor.columns)
    np.testing.assert_array_equal(shop.predict_proba(rows[columns].to_numpy()), want)  # by position
    whole = shop.evaluate(shop.read("shop.csv", labelled=True))
    assert shop.evaluate(rows) == shop.evaluate("shop.csv") == shop.evaluate(Path("shop.csv")) == whole


def test_a_mapping_for_each_row(shop: Model) -> None:
    """As JSON has rows: a column that one lacks is a missing value there, one that all lack is named."""
    frame = pd.read_csv("shop.csv")
    records = frame.to_dict("records")
    np.testing.assert_array_equal(shop.predict_proba(records), shop.predict_proba(frame))
    assert shop.evaluate(records) == shop.evaluate(frame)
    frame.loc[1, "höhe"] = np.nan
    del records[1]["höhe"]
    for missing in (None, np.nan):  # never a text of its own, also beside texts
        with pytest.raises(DataError, match="column 'farbe': a missing value is not among"):
            shop.predict([records[0], records[2] | {"farbe": missing}])
    with pytest.raises(DataError, match="X lacks the column 'farbe'"):
        shop.predict([{"größe": 1.0, "höhe": 0.5}])
    with pytest.raises(DataError, match="row 0, column 'höhe': 'tall' is not a number"):
        shop.predict([{"größe": 1.0, "höhe": "tall", "farbe": "rot"}])


def test_a_path_and_a_built_in_name_are_read(shop: Model) -> None:
    want = shop.predict(shop.read("shop.csv"))
    for source in ("shop.csv", Path("shop.csv")):
        np.testing.assert_array_equal(shop.predict(source), want)
    run("moons", quick(data={"source": "moons"}))
    moons = load("moons")
    np.testing.assert_array_equal(moons.predict("moons"), moons.predict(moons.read("moons")))


def test_rows_of_a_numeric_table(tmp_path: Path) -> None:
    """Without names in training by position; with them, names decide where they are given."""
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = X @ [1.0, -2.0, 0.5]
    np.savez("named.npz", X=X, y=y, feature_names=np.array(["a", "b", "c"]))
    np.savez("plain.npz", X=X, y=y)
    for name in ("named", "plain"):
        run(name, quick(data={"source": f"{name}.npz", "task": "regression"}))
        model, frame = load(name), pd.DataFrame(X, columns=["a", "b", "c"])
        want = model.predict(model.read(f"{name}.npz"))
        for rows in (X, X.tolist(), frame, np.asfortranarray(X), pd.DataFrame(X), X.astype(object)):
            np.testing.assert_array_equal(model.predict(rows), want)
        turned = model.predict(frame[["c", "b", "a"]])
        assert np.array_equal(turned, want) == (name == "named")
        assert model.predict(X[:1]).shape == (1,)


def test_missing_values_are_those_of_pandas_too(shop: Model) -> None:
    frame = pd.read_csv("shop.csv")
    frame.loc[:4, list(shop.preprocessor.numeric)] = np.nan
    want = shop.predict_proba(frame)
    for empty in (None, pd.NA, float("nan")):
        changed = frame.astype(object)
        changed.loc[:4, list(shop.preprocessor.numeric)] = empty
        np.testing.assert_array_equal(shop.predict_proba(changed), want)
    np.testing.assert_array_equal(shop.predict_proba(frame.convert_dtypes()), want)


def test_categories_that_pandas_took_for_numbers() -> None:
    rows = [[str(i % 3), str(i), "ab"[i % 2]] for i in range(40)]
    write_csv(Path("t.csv"), rows, ["code", "size", "y"])
    run("t", quick(data={"source": "t.csv", "target": "y", "categorical": ["code"]}))
    model, frame = load("t"), pd.read_csv("t.csv")
    want = model.predict_proba("t.csv")
    for code in (
        frame["code"],
        frame["code"].astype(float),
        frame["code"].astype(str),
        frame["code"].astype("category"),
    ):
        np.testing.assert_array_equal(model.predict_proba(frame.assign(code=code)), want)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, c: f.drop(columns=c[0]), "X lacks the column '{0}', which the training data had"),
        (lambda f, c: f.rename(columns={c[0]: c[0] + "s"}), "(did you mean '{0}s'?)"),
        (lambda f, c: f[c].to_numpy()[:, :2], "it must be (n_samples, {n}), with the columns"),
        (lambda f, c: f[c].to_numpy()[0], "one example is X.reshape(1, -1)"),
        (lambda f, c: pd.concat([f, f], axis=1), "each name must be there once"),
        (lambda f, c: dict.fromkeys(c, 1.0), "X: column '{0}' has shape (); it must be (n_samples,)"),
        (lambda f, c: {name: [1.0] * (1 + i) for i, name in enumerate(c)}, "X: its columns differ in length"),
        (lambda f, c: f[:0], "X has no rows"),
        (lambda f, c: 3, "X is no rows; give a data frame, a mapping, a path, or an array (n, {n})"),
        (lambda f, c: None, "X is no rows"),
    ],
)
def test_what_cannot_be_read_is_said(shop: Model, change: Callable[..., Any], words: str) -> None:
    columns = list(shop.preprocessor.columns)
    with pytest.raises(DataError) as caught:
        shop.predict(change(pd.read_csv("shop.csv"), columns))
    assert words.format(*columns, n=len(columns)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_among_numbers_and_a_target_that_is_not_there(shop: Model) -> None:
    frame, name = pd.read_csv("shop.csv"), shop.preprocessor.numeric[0]
    with pytest.raises(DataError, match=rf"^X, row 3, column '{name}': 'much' is not a number; correct it$"):
        shop.predict(frame.astype(object).assign(**{name: ["1", "2", None, "much", *range(len(frame) - 4)]}))
    with pytest.raises(DataError, match=r"^X has no column 'kauft', the target; give a data frame that has it$"):
        shop.evaluate(frame.drop(columns="kauft"))
