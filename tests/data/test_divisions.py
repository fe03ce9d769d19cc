"""Groups stay whole, time goes forward, a column says which part; folds hold each row once."""

from __future__ import annotations

import numpy as np
import pytest

from backprop_gpu.data import Table, table_from_arrays
from backprop_gpu.data.divisions import Division, folds_of, only_one, times_of
from backprop_gpu.errors import ConfigError, DataError


def table(n: int, y: np.ndarray | None = None) -> Table:
    return table_from_arrays(np.arange(n, dtype=float)[:, None], y)


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_whole_and_parts_have_their_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 60, 600)
    parts = Division(groups=groups).split(table(600), validation=0.2, test=0.1, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(600))
    held = [set(groups[rows]) for rows in parts]
    assert len(set.union(*held)) == sum(map(len, held))
    largest = np.bincount(groups).max()
    for rows, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert abs(len(rows) - 600 * share) <= largest
    again = Division(groups=groups).split(table(600), validation=0.2, test=0.1, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    three = Division(groups=np.repeat(["a", "b", "c"], 5)).split(table(15), validation=0.1, test=0.1, seed=seed)
    assert [len(rows) for rows in three] == [5, 5, 5]  # each part has a group
    with pytest.raises(DataError, match="2 groups are too few for 3 parts"):
        Division(groups=np.arange(20) % 2).split(table(20), validation=0.1, test=0.1, seed=0)


def test_the_last_rows_by_time_are_tested_on() -> None:
    times = np.array([5.0, 1.0, 4.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    parts = Division(times=times).split(table(10), validation=0.2, test=0.2, seed=0)
    assert [times[rows].tolist() for rows in parts] == [[5, 1, 4, 4, 2, 3], [7, 6], [9, 8]]
    tied = np.array([1.0, 2.0, 2.0, 2.0, 3.0])  # rows of one time are not divided
    train, validation, test = Division(times=tied).split(table(5), validation=0.2, test=0.2, seed=0)
    assert (tied[train].tolist(), tied[validation].tolist(), tied[test].tolist()) == ([1], [2, 2, 2], [3])
    with pytest.raises(DataError, match="1 different times leave none for train"):
        Division(times=np.ones(9)).split(table(9), validation=0.2, test=0.2, seed=0)


def test_times_are_numbers_or_dates() -> None:
    cells = np.array(["2024-01-02", "2024-01-01 12:00", "2024-01-01T12:00:00+01:00"], dtype=np.dtypes.StringDType())
    assert np.argsort(times_of(cells, table(3), "day")).tolist() == [2, 1, 0]
    assert times_of(np.array(["10", "9.5"]), table(2), "t").tolist() == [10.0, 9.5]
    assert times_of(np.array([3, 2]), table(2), "t").tolist() == [3.0, 2.0]
    days = np.array(["31.1.2024", "1 Feb 2024"])
    with pytest.raises(DataError, match=r"X, row 1, column 'day': .* are dates in two forms"):
        times_of(days, table(2), "day")
    assert times_of(np.array(["31.1.2024", "1.2.2024"]), table(2), "day").tolist() == [19753 * 86400, 19754 * 86400]
    with pytest.raises(DataError, match="set day_first: true or false") as caught:
        times_of(np.array(["3/4/2024", "5/6/2024"]), table(2), "day")
    assert caught.value.option == ("day_first", True)
    for wrong in ("", "soon"):
        with pytest.raises(DataError, match=r"X, row 1, column 'day': .* is neither a number nor a date; write dates"):
            times_of(np.array(["2024-01-31", wrong]), table(2), "day")


def test_a_column_says_which_part() -> None:
    parts = Division(parts=np.array(["train", "Test", " val", "train", "dev"])).split(
        table(5), validation=0.1, test=0.1, seed=0
    )
    assert [rows.tolist() for rows in parts] == [[0, 3], [2, 4], [1]]
    with pytest.raises(DataError, match="X, row 1: the part 'tst' is not train, validation or test"):
        Division(parts=np.array(["train", "tst"])).split(table(2), validation=0.1, test=0.1, seed=0)
    with pytest.raises(DataError, match="no row's part is train"):
        Division(parts=np.array(["test", "test"])).split(table(2), validation=0.1, test=0.1, seed=0)
    with pytest.raises(ConfigError, match=r"data.group_column and data.time_column both divide"):
        only_one(group_column="a", time_column="b", split_column=None)


@pytest.mark.parametrize("kind", ["plain", "classes", "groups", "named"])
def test_each_row_is_in_one_fold(kind: str) -> None:
    rng = np.random.default_rng(0)
    n, k = 203, 5
    y, groups = (rng.random(n) < 0.12).astype(int), rng.integers(0, 40, n)
    named = np.array(["abcde"[i] for i in rng.integers(0, 5, n)])
    division = {
        "plain": Division(),
        "classes": Division(labels=y),
        "groups": Division(groups=groups),
        "named": Division(parts=named),
    }[kind]
    folds = division.folds(n, k, 1)
    assert sorted(np.concatenate([rows for _, rows in folds]).tolist()) == list(range(n))
    for rest, rows in folds:
        assert sorted([*rest, *rows]) == list(range(n))
        if kind == "groups":
            assert not set(groups[rest]) & set(groups[rows])
        if kind == "named":
            assert len(set(named[rows])) == 1
        else:
            assert abs(len(rows) - n / k) <= (np.bincount(groups).max() if kind == "groups" else 1)
        if kind == "classes":
            assert abs(y[rows].sum() - y.sum() / k) < 1
    for other, words in ((Division(groups=np.arange(n) % 3), "3 groups"), (Division(parts=named[:4]), "names")):
        with pytest.raises(DataError, match=words):
            other.folds(n, 6, 0)
    with pytest.raises(DataError, match="3 rows are too few for 5 folds"):
        Division().folds(3, 5, 0)


def test_folds_by_time_train_on_the_past() -> None:
    times = np.random.default_rng(0).permutation(60) // 2.0
    folds = list(folds_of(Division(times=times), table(60, np.arange(60)), 4, validation=0.25, seed=0))
    ends = []
    for train, validation, test in folds:
        assert validation is not None
        spans = [times[part.rows] for part in (train, validation, test)]
        assert spans[0].max() < spans[1].min() <= spans[1].max() < spans[2].min()
        assert len(spans[1]) == pytest.approx(0.25 * (len(spans[0]) + len(spans[1])), abs=2)
        ends.append(spans[2].max())
    assert ends == sorted(ends)
    assert ends[-1] == times.max()
    with pytest.raises(DataError, match="2 different times are too few for 4 folds"):
        Division(times=np.arange(20) % 2).folds(20, 4, 0)
