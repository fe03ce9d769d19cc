"""Inputs: filled, standardized, one-hot, all from the training rows; the state travels exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from backprop_gpu.data import Preprocessor, Table, load_builtin, read_table, split_indices, table, table_from_arrays
from backprop_gpu.errors import CheckpointError, ConfigError, DataError

MIXED = """age,colour,size,label
30,red,1.0,yes
40,blue,,no
,green,3.0,yes
50,,5.0,no
"""


def read(folder: Path, text: str = MIXED, name: str = "train.csv", **more: object) -> Table:
    (folder / name).write_text(text, encoding="utf-8")
    return read_table(folder / name, **({"target": "label"} | more))  # type: ignore[arg-type]


def through_a_file(preprocessor: Preprocessor, folder: Path) -> Preprocessor:
    """Save and load the state as the model file does: tensors in safetensors, the rest as JSON."""
    tensors, meta = preprocessor.state()
    save_file(tensors | {"W1": np.ones((2, 2))}, folder / "model.safetensors")
    return Preprocessor.from_state(load_file(folder / "model.safetensors"), json.loads(json.dumps(meta)))


# --- what comes out --------------------------------------------------------------------------------------------------


def test_mean_fill_and_one_hot(tmp_path: Path) -> None:
    rows = read(tmp_path)
    p = Preprocessor.fit(rows, missing="mean", standardize=False, task="binary")
    assert p.feature_names == ("age", "size", "colour=missing", "colour=blue", "colour=green", "colour=red")
    assert p.transform(rows).tolist() == [
        [30, 1, 0, 0, 0, 1],
        [40, 3, 0, 1, 0, 0],
        [40, 3, 0, 0, 1, 0],
        [50, 5, 1, 0, 0, 0],
    ]
    assert p.encode_target(rows)[:, 0].tolist() == [1, 0, 1, 0]
    assert p.decode(np.array([[0.2], [0.9]])).tolist() == ["no", "yes"]


def test_a_table_of_categories_alone(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,b,label\nx,p,0\ny,q,1\nx,q,0\n")
    p = Preprocessor.fit(rows)
    assert p.feature_names == ("a=x", "a=y", "b=p", "b=q")
    assert p.transform(rows).tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]]
    assert p.transform(rows.take(np.array([1]))).tolist() == [[0, 1, 0, 1]]


def test_median_fill(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,b,label\n1,1,0\n2,,1\n,3,0\n100,4,1\n")
    p = Preprocessor.fit(rows, missing="median", standardize=False)
    assert p.transform(rows).tolist() == [[1, 1], [2, 3], [2, 3], [100, 4]]


def test_indicator_marks_the_columns_that_had_gaps_in_training(tmp_path: Path) -> None:
    train = read(tmp_path, "a,b,c,label\n1,1,5,0\n2,,6,1\n3,3,7,0\n")
    p = Preprocessor.fit(train, missing="indicator", standardize=False)
    assert p.feature_names == ("a", "b", "c", "b is missing")
    assert p.transform(train)[:, 1:].tolist() == [[1, 5, 0], [2, 6, 1], [3, 7, 0]]
    later = read(tmp_path, "a,b,c,label\n,,5,0\n", "later.csv")
    assert p.transform(later).tolist() == [[2, 2, 5, 1]]  # a gap in a column that had none is filled, not marked


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(3, 50),
    k=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e9]),
    gaps=st.booleans(),
    missing=st.sampled_from(["mean", "median", "indicator"]),
    block=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_training_rows_get_mean_zero_and_deviation_one(
    n: int, k: int, offset: float, gaps: bool, missing: str, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X = offset + rng.normal(size=(n, k)) * 10.0 ** rng.integers(-2, 3, k)
    if gaps:
        X[rng.random((n, k)) < 0.2] = np.nan
        X[:2] = offset + np.arange(2)[:, None]
    kept, table._BLOCK_VALUES = table._BLOCK_VALUES, block
    try:
        rows = table_from_arrays(X)
        out = Preprocessor.fit(rows, missing=missing).transform(rows, "float64")[:, :k]
    finally:
        table._BLOCK_VALUES = kept
    # An ulp of the input in units of the column's deviation, which gaps that were filled have made smaller.
    ulp = offset * 2.2e-16 / (np.nanstd(X, axis=0) * np.sqrt(np.mean(~np.isnan(X), axis=0)))
    assert (abs(out.mean(axis=0)) <= 1e-13 + ulp).all()
    assert (abs(out.std(axis=0) - 1.0) <= 1e-12 + ulp).all()


def test_statistics_are_of_the_training_rows_alone() -> None:
    rows = load_builtin("breast_cancer")
    train, validation, _ = split_indices(rows.n_samples, rows.target, stratify=True)
    p = Preprocessor.fit(rows.take(train), task="binary")
    changed = rows.stored.copy()
    changed[validation] *= 1000.0
    again = Preprocessor.fit(table_from_arrays(changed, rows.target).take(train), task="binary")
    assert p.mean.tobytes() == again.mean.tobytes()
    assert p.scale.tobytes() == again.scale.tobytes()
    X = p.transform(rows.take(validation), "float64")
    expected = (rows.stored[validation] - rows.stored[train].mean(axis=0)) / rows.stored[train].std(axis=0)
    np.testing.assert_allclose(X, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_any_block_size_gives_the_same_bits(dtype: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load_builtin("digits")
    p = Preprocessor.fit(rows)
    whole = ((rows.numeric.astype(np.float64) - p.mean) / p.scale).astype(dtype)
    monkeypatch.setattr(table, "_BLOCK_VALUES", block * 64)
    out = p.transform(rows, dtype)
    assert out.dtype == np.dtype(dtype)
    assert out.flags.c_contiguous
    assert out.tobytes() == whole.tobytes()
    assert np.all(out[:, 0] == 0.0)  # a pixel that is never on


def test_large_offset_in_float32_out() -> None:
    """The mean is subtracted before the cast, or 1e9 + noise would all be one number."""
    noise = np.random.default_rng(0).normal(size=(1000, 1))
    rows = table_from_arrays(1e9 + noise)
    out = Preprocessor.fit(rows).transform(rows, "float32")
    np.testing.assert_allclose(out, (noise - noise.mean()) / noise.std(), atol=1e-6)


# --- another table ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Preprocessor:
    return Preprocessor.fit(read(tmp_path), missing="mean", standardize=False, task="binary")


def test_columns_are_found_by_name(tmp_path: Path, trained: Preprocessor) -> None:
    text = "size,label,colour,age,other\n2,yes,red,20,x\n"
    rows = read(tmp_path, text, "new.csv", like=trained.schema, labelled=False)
    assert trained.transform(rows).tolist() == [[20, 2, 0, 0, 0, 1]]
    numbers_only = read(tmp_path, "b,label,a\n1,0,10\n3,1,20\n", "plain.csv")
    swapped = read(tmp_path, "a,b,label\n10,1,0\n", "swapped.csv")
    p = Preprocessor.fit(numbers_only, standardize=False)
    assert p.transform(swapped).tolist() == [[1, 10]]


def test_arrays_are_matched_by_position(tmp_path: Path) -> None:
    p = Preprocessor.fit(read(tmp_path, "b,a,label\n1,10,0\n3,20,1\n"), standardize=False)
    assert p.transform(table_from_arrays([[5.0, 6.0]])).tolist() == [[5, 6]]
    unnamed = Preprocessor.fit(table_from_arrays([[1.0, 2.0], [3.0, 4.0]]), standardize=False)
    assert unnamed.transform(read(tmp_path, "b,a,label\n1,10,0\n")).tolist() == [[1, 10]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("age,colour,label\n1,red,yes\n", "lacks the column 'size'"),
        ("age,colour,sise,label\n1,red,2,yes\n", r"lacks the column 'size', .* \(did you mean 'sise'\?\)"),
        ("age,colour,size,label\nx,red,2,yes\n", "column 'age' holds text, in training it held numbers"),
        ("age,colour,size,label\n1,3,2,yes\n", "column 'colour' holds numbers, in training it held text"),
        (
            "age,colour,size,label\n1,red,2,yes\n1,violet,2,yes\n",
            r"new.csv, line 3, column 'colour': 'violet' is not among .*\(, blue, green, red\).*unknown: ignore",
        ),
    ],
)
def test_tables_that_differ_from_training(tmp_path: Path, trained: Preprocessor, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        trained.transform(read(tmp_path, text, "new.csv"))


def test_arrays_that_differ_from_training(trained: Preprocessor) -> None:
    with pytest.raises(DataError, match="X has 2 feature columns, the training data had 3"):
        trained.transform(table_from_arrays(np.zeros((1, 2))))
    with pytest.raises(DataError, match="column 'colour' holds numbers, in training it held text"):
        trained.transform(table_from_arrays(np.zeros((1, 3))))


def test_unknown_categories_can_be_zeros(tmp_path: Path) -> None:
    text = "a,b,label\n1,p,0\n2,q,1\n"
    p = Preprocessor.fit(read(tmp_path, text), unknown="ignore", standardize=False)
    new = read(tmp_path, "a,b,label\n1,z,0\n2,p,1\n3,,1\n", "new.csv")
    assert p.transform(new).tolist() == [[1, 0, 0], [2, 1, 0], [3, 0, 0]]
    strict = Preprocessor.fit(read(tmp_path, text), missing="mean")
    gap = read(tmp_path, "a,b,label\n3,,1\n", "new.csv", categorical=["b"])
    with pytest.raises(DataError, match=r"line 2, column 'b': a missing value is not among .*\(p, q\)"):
        strict.transform(gap)


def test_unknown_categories_can_be_gaps(tmp_path: Path, trained: Preprocessor) -> None:
    p = replace(trained, unknown="missing")
    new = read(tmp_path, "age,colour,size,label\n1,violet,2,yes\n", "new.csv")
    assert p.feature_names[2:] == ("colour=missing", "colour=blue", "colour=green", "colour=red")
    assert p.transform(new).tolist() == [[1, 2, 1, 0, 0, 0]]
    full = Preprocessor.fit(read(tmp_path, "a,b,label\n1,p,0\n2,q,1\n"), unknown="missing", standardize=False)
    assert full.transform(read(tmp_path, "a,b,label\n1,z,0\n2,p,1\n", "new.csv")).tolist() == [[1, 0, 0], [2, 1, 0]]


def test_a_missing_column_can_be_filled(tmp_path: Path, trained: Preprocessor) -> None:
    p = replace(trained, missing_columns="fill")
    assert trained.fill is not None
    age = float(trained.fill[0])
    rows = read(tmp_path, "size,label\n2,yes\n", "new.csv")
    assert p.transform(rows).tolist() == [pytest.approx([age, 2, 1, 0, 0, 0])]
    like = read(tmp_path, "size,label\n2,yes\n", "new.csv", like=p.schema)
    assert p.transform(like).tolist() == p.transform(rows).tolist()
    with pytest.raises(DataError, match=r"none of the training data's columns, which are age, colour, size"):
        read(tmp_path, "other,label\n2,yes\n", "new.csv", like=p.schema)
    whole = read(tmp_path, "a,b,c,label\n1,p,5,0\n3,q,7,1\n")  # without a gap, so that no fill was learnt
    q = Preprocessor.fit(whole, missing_columns="fill")
    assert q.transform(read(tmp_path, "c,label\n7,1\n", "new.csv")).tolist() == [[0, 1, 0, 0]]
    with pytest.raises(DataError, match=r"line 2, column 'c': the value is missing"):
        q.transform(read(tmp_path, "c,d,label\n,1,1\n", "new.csv"))
    raw = Preprocessor.fit(whole, missing_columns="fill", standardize=False)
    with pytest.raises(DataError, match="lacks the column 'a', and the model knows nothing to fill it with"):
        raw.transform(read(tmp_path, "c,label\n7,1\n", "new.csv"))


def test_further_columns_are_left_out_or_refused(tmp_path: Path) -> None:
    text = "id,a,b,label\n1,1,2,0\n2,3,4,1\n"
    p = Preprocessor.fit(read(tmp_path, text, ignore=["id"]), standardize=False)
    more = read(tmp_path, "b,more,a,label\n2,9,1,0\n", "new.csv")
    assert p.transform(more).tolist() == [[1, 2]]
    strict = replace(p, extra_columns="error")
    with pytest.raises(DataError, match=r"did not have: more; leave them out, or set extra_columns: ignore"):
        strict.transform(more)
    for like in ("b,more,a,label\n2,9,1,0\n", "b,more,a,id,label\n2,9,1,0,0\n"):
        with pytest.raises(DataError, match="did not have: more;"):
            read(tmp_path, like, "new.csv", like=replace(strict, target=None).schema, labelled=True, target="label")
    rows = read(tmp_path, text, "same.csv", like=strict.schema, labelled=True, target="label")
    assert strict.transform(rows).tolist() == [[1, 2], [3, 4]]


def test_each_input_has_a_column_that_it_comes_from(trained: Preprocessor) -> None:
    assert trained.origins == ("age", "size", *["colour"] * 4)
    assert len(trained.origins) == len(trained.feature_names)
    parts = replace(trained, columns=("age", "size (cm)", "colour"), numeric=("age", "size (cm)", "size (cm) (log)"))
    assert parts.origins[:3] == ("age", "size (cm)", "size (cm)")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_missing_value_names_its_cell_and_the_cure(tmp_path: Path) -> None:
    fix = r"the value is missing; .* missing: mean \| median \| indicator"
    rows = read(tmp_path)
    with pytest.raises(DataError, match=rf"train.csv, line 3, column 'size': {fix}"):
        Preprocessor.fit(rows)
    with pytest.raises(DataError, match=rf"line 4, column 'age': {fix}"):
        Preprocessor.fit(rows.take(np.array([3, 2, 0])))
    with pytest.raises(DataError, match=rf"line 5, column 'colour': {fix}"):
        Preprocessor.fit(rows.take(np.array([0, 3])))
    whole = rows.take(np.array([0]))
    with pytest.raises(DataError, match=rf"line 3, column 'size': {fix}"):
        Preprocessor.fit(whole).transform(rows)
    X = np.ones((4, 2), dtype=np.float32)
    X[2, 1] = np.nan
    with pytest.raises(DataError, match=rf"X, row 2, column 'x1': {fix}"):
        Preprocessor.fit(table_from_arrays(X))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_values_that_do_not_fit_the_dtype(value: float) -> None:
    p = Preprocessor.fit(table_from_arrays(np.array([[1.0, 2.0], [3.0, 5.0]])))
    rows = table_from_arrays(np.array([[1.0, 2.0], [value, 1.0]]))
    with pytest.raises(DataError, match=rf"X, row 1, column 'x0': {str(value).replace('+', '.')} does not fit float32"):
        p.transform(rows)
    if np.isinf(value):
        with pytest.raises(DataError, match="row 1, column 'x0': the value is infinite"):
            Preprocessor.fit(rows)


def test_identifiers_are_not_categories(tmp_path: Path) -> None:
    text = "name,a,label\n" + "".join(f"n{i},1,{i % 2}\n" for i in range(1001))
    with pytest.raises(DataError, match=r"'name' holds 1001 different texts, .* ignore: \[name\]"):
        Preprocessor.fit(read(tmp_path, text))


def test_settings(tmp_path: Path) -> None:
    rows = table_from_arrays(np.ones((2, 1)), np.array([0, 1]))
    with pytest.raises(ConfigError, match=r"missing: 'meen' \(did you mean 'mean'\?\)"):
        Preprocessor.fit(rows, missing="meen")
    with pytest.raises(ConfigError, match="unknown: 'drop' is not one of error, ignore"):
        Preprocessor.fit(rows, unknown="drop")
    with pytest.raises(ConfigError, match="standardize_target is for regression"):
        Preprocessor.fit(rows, task="binary", standardize_target=True)
    with pytest.raises(ConfigError, match="fitted without a task"):
        Preprocessor.fit(rows).encode_target(rows)
    with pytest.raises(DataError, match="no training rows"):
        Preprocessor.fit(rows.take(np.array([], dtype=np.intp)))


def test_no_rows_give_no_inputs() -> None:
    rows = table_from_arrays(np.ones((2, 3)), np.array([0, 1]))
    p = Preprocessor.fit(rows, task="binary")
    none = rows.take(np.array([], dtype=np.intp))
    assert p.transform(none).shape == (0, 3)
    assert p.encode_target(none).shape == (0, 1)


# --- state -----------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    n=st.integers(4, 20),
    task=st.sampled_from(["binary", "multiclass", "multilabel", "regression", "count", None]),
    missing=st.sampled_from([None, "mean", "median", "indicator"]),
    standardize=st.booleans(),
    unknown=st.sampled_from(["error", "ignore"]),
)
def test_the_state_travels_exactly(
    tmp_path: Path,
    data: st.DataObject,
    n: int,
    task: str | None,
    missing: str | None,
    standardize: bool,
    unknown: str,
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    names = data.draw(st.lists(words, min_size=4, max_size=4, unique=True))
    pool = data.draw(st.lists(words, min_size=2, max_size=5, unique=True))
    X = rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-12, 12, 3)
    if missing:
        X[rng.random((n, 3)) < 0.2] = np.nan
        X[0] = 1.0
    y = {
        "binary": np.array(pool[:2])[np.arange(n) % 2],
        "multiclass": np.arange(n) % 4,
        "multilabel": rng.integers(0, 2, (n, 2)),
        None: None,
    }.get(task, rng.random(n))
    rows = Table(
        source="drawn",
        columns=tuple(names),
        stored=X,
        categorical={names[2]: np.array(pool)[rng.integers(0, len(pool), n)]},
        target=y,
        target_names=("y", "z")[: 2 if task == "multilabel" else 1],
        named=True,
    )
    p = Preprocessor.fit(
        rows,
        task=task,
        missing=missing,
        standardize=standardize,
        unknown=unknown,
        standardize_target=task == "regression" and standardize,
    )
    back = through_a_file(p, tmp_path)
    assert back.schema == p.schema
    assert back.feature_names == p.feature_names
    assert back.transform(rows, "float64").tobytes() == p.transform(rows, "float64").tobytes()
    if task is not None:
        encoded = p.encode_target(rows, "float64")
        assert back.encode_target(rows, "float64").tobytes() == encoded.tobytes()
        assert back.decode(encoded).tolist() == p.decode(encoded).tolist()
    assert json.dumps(back.state()[1]) == json.dumps(p.state()[1])
    for key, tensor in p.state()[0].items():
        assert back.state()[0][key].tobytes() == tensor.tobytes()


def test_a_damaged_state_is_refused() -> None:
    tensors, meta = Preprocessor.fit(table_from_arrays(np.ones((2, 1)), np.array([0, 1])), task="binary").state()
    for key in meta:
        with pytest.raises(CheckpointError):
            Preprocessor.from_state(tensors, {name: value for name, value in meta.items() if name != key})
    for key in tensors:
        with pytest.raises(CheckpointError, match="damaged"):
            Preprocessor.from_state({name: value for name, value in tensors.items() if name != key}, meta)
    with pytest.raises(CheckpointError, match="format 5, this version reads 3 and 4"):
        Preprocessor.from_state(tensors, meta | {"format": 5})
    before = {key: value for key, value in meta.items() if key not in ("robust", "edges")} | {"format": 3}
    assert Preprocessor.from_state(tensors, before).state()[1] == meta
    with pytest.raises(CheckpointError, match="damaged"):
        Preprocessor.from_state(tensors, meta | {"target": {"colour": 1}})
