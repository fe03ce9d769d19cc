"""No column is misread without a word: numbers as people write them are refused, dates, identifiers and codes named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.data import Preprocessor, Table, read_table
from backprop_gpu.data.frames import table_of
from backprop_gpu.errors import DataError

N = 60
NUMBER = [f"{0.37 * i:.2f}" for i in range(N)]


def write(folder: Path, name: str = "t.csv", **columns: list[str]) -> Path:
    """A CSV, every cell quoted, with an answer of 0 and 1 unless a column is called y."""
    columns = (
        columns if "y" in columns else columns | {"y": [str(i % 2) for i in range(len(next(iter(columns.values()))))]}
    )
    lines = [",".join(f'"{name}"' for name in columns)]
    lines += [",".join(f'"{cell}"' for cell in cells) for cells in zip(*columns.values(), strict=True)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(folder: Path, **columns: list[str]) -> Table:
    return read_table(write(folder, **columns), target="y")


# -- numbers as people write them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "values", "how"),
    [
        (["1,5", "-2,25"], [1.5, -2.25], "decimal comma"),
        (["1.234,50", "7"], [1234.5, 7.0], "decimal comma, . between thousands"),
        (["1,234.50", "1,234,567"], [1234.5, 1234567.0], ", between thousands"),
        (["12,34,567", "1,234.5"], [1234567.0, 1234.5], ", between thousands"),
        (["1 234,5", "1\u202f234\u00a0567"], [1234.5, 1234567.0], "decimal comma, a blank between thousands"),
        (["1'234.5", "2’000"], [1234.5, 2000.0], "' between thousands"),
        (["1_000", "2"], [1000.0, 2.0], "_ between thousands"),
        (["12%", "12.5 %"], [12.0, 12.5], "% left out"),
        (["$5", "-$5.00", "($1,234.5)", "$-6"], [5.0, -5.0, -1234.5, -6.0], ", between thousands, $ left out"),
        (["5 €", "€ 1.234,00", "−5 €"], [5.0, 1234.0, -5.0], "decimal comma, . between thousands, € left out"),
        (["EUR 12", "EUR 3"], [12.0, 3.0], "EUR left out"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(cells: list[str], values: list[float], how: str, tmp_path: Path) -> None:
    table = read(tmp_path, price=(cells * N)[:N], a=NUMBER)
    assert table.numeric[: len(values), 0].tolist() == values
    assert (table.readings[0].kind, table.readings[0].how) == ("number", how)
    fitted = Preprocessor.from_state(*Preprocessor.fit(table, task="binary").state())  # as a saved model reads
    again = read_table(tmp_path / "t.csv", like=fitted.schema)
    np.testing.assert_array_equal(again.numeric, table.numeric)
    assert again.numeric_names == table.numeric_names


@pytest.mark.parametrize("cells", [["1a", "2"], ["5XL", "M"], ["10-20", "20-30"], ["1,2,3", "4"], ["1.2.3", "1.2"]])
def test_other_cells_are_categories(cells: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, size=cells * 30, a=NUMBER).readings[0].kind == "category"


def refused(folder: Path, target: str = "y", **columns: list[str]) -> DataError:
    with pytest.raises(DataError) as caught:
        read_table(write(folder, **columns), target=target)
    assert "\n" not in str(caught.value)
    return caught.value


def followed(folder: Path, error: DataError, column: str = "x") -> Table:
    """The same file, with the setting that the message names."""
    assert error.option is not None
    return read_table(folder / "t.csv", target="y", **{error.option[0]: error.option[1]})


def test_a_number_that_may_be_two_is_not_guessed(tmp_path: Path) -> None:
    error = refused(tmp_path, price=["1,234", "5,678"] * 30)
    assert "may mean 1234 or 1.234: set decimal: '.' or decimal: ','" in str(error)
    assert followed(tmp_path, error).numeric[0, 0] == 1234.0
    assert read_table(tmp_path / "t.csv", target="y", decimal=",").numeric[0, 0] == 1.234
    table = read(tmp_path, price=["1,234"] * N, other=["0,5"] * N)  # another column shows what a comma is
    assert table.numeric[0].tolist() == [1.234, 0.5]
    table = read(tmp_path, price=["1.234"] * N, other=["0,5", "2.000,5"] * 30)
    assert table.numeric[0].tolist() == [1234.0, 0.5]
    assert read(tmp_path, price=["1.234"] * N, a=["0.5"] * N).numeric[0].tolist() == [1.234, 0.5]


def test_what_is_mixed_is_told_apart(tmp_path: Path) -> None:
    for cells in (["1,5", "1.5"] * 30, ["5%", "5"] * 30, ["$5", "€5"] * 30, ["2024-01-05", "05.01.2024"] * 30):
        error = refused(tmp_path, x=cells, a=NUMBER)
        assert "cannot be read as the others are" in str(error)
        assert followed(tmp_path, error).readings[0].kind == "category"


def test_a_stray_text_is_told_how_to_be_a_gap(tmp_path: Path) -> None:
    error = refused(tmp_path, price=[*NUMBER[1:], "n.d."], a=NUMBER)
    assert f"line 61, column 'price': 'n.d.' is not a number, but {N - 1} other cells" in str(error)
    assert np.isnan(followed(tmp_path, error).numeric[-1, 0])
    error = refused(tmp_path, day=[*DAYS[1:], "soon"], a=NUMBER)
    assert "'soon' is not a date" in str(error)
    assert np.isnan(followed(tmp_path, error).numeric[-1, 0])
    table = read_table(
        write(tmp_path, price=["-999" if i % 3 else "1.5" for i in range(N)]), target="y", na_values=["-999"]
    )
    assert np.isnan(table.numeric).sum() == 40


@pytest.mark.parametrize("gap", ["#N/A", "None", "NULL", "-", "n/a", "NaT", "#DIV/0!"])
def test_gaps_by_their_usual_names(gap: str, tmp_path: Path) -> None:
    table = read(tmp_path, price=[gap, *NUMBER[1:]], colour=["red"] * (N - 1) + [gap])
    assert np.isnan(table.numeric[0, 0])
    assert table.categorical["colour"][-1] == ""


def test_codes_stay_text_unless_they_are_called_numbers(tmp_path: Path) -> None:
    codes = [f"0{i % 7}{i % 5}10" for i in range(N)]
    table = read(tmp_path, zip=codes, a=NUMBER)
    assert table.readings[0].kind == "text code"
    assert table.categorical["zip"].tolist() == codes
    assert read_table(tmp_path / "t.csv", target="y", types={"zip": "number"}).numeric[1, 0] == 1110.0


def test_words_for_yes_and_no(tmp_path: Path) -> None:
    table = read(tmp_path, paid=["Yes", "no", "TRUE", "0", "y", ""] * 10, a=NUMBER)
    np.testing.assert_array_equal(table.numeric[:6, 0], [1.0, 0.0, 1.0, 0.0, 1.0, np.nan])
    assert table.readings[0].kind == "boolean"
    answers = read(tmp_path, a=NUMBER, y=["Yes", "no", "TRUE", "0", "y"] * 12)
    assert answers.target is not None
    assert answers.target[:5].tolist() == ["yes", "no", "yes", "no", "yes"]


def test_a_target_of_formatted_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, a=NUMBER, y=[f"{i}.000,{i % 10} €" for i in range(1, N + 1)])
    assert table.target is not None
    assert table.target[:3].tolist() == [1000.1, 2000.2, 3000.3]
    fitted = Preprocessor.fit(table, task="regression")
    again = read_table(tmp_path / "t.csv", like=fitted.schema)
    np.testing.assert_array_equal(again.target, table.target)
    error = refused(tmp_path, a=NUMBER, y=DAYS)
    assert "'2024-01-01' is a date, which is not predicted as such" in str(error)
    assert followed(tmp_path, error).target is not None


# -- dates -----------------------------------------------------------------------------------------------------------

DAYS = [f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(N)]
NEW_YEAR = 19723  # 2024-01-01, a Monday, in days since 1970


@pytest.mark.parametrize(
    ("cells", "first", "how"),
    [
        (["2024-01-01", "2024-02-29"], NEW_YEAR, "year-month-day"),
        (["01.01.2024", "29.02.2024"], NEW_YEAR, "day first"),
        (["1/1/24", "29/2/24"], NEW_YEAR, "day first"),
        (["1/1/2024", "2/29/2024"], NEW_YEAR, "month first"),
        (["1 Jan 2024", "29 Feb 2024"], NEW_YEAR, "the month's name"),
        (["Mon, 01-Jan-2024", "Thu, 29-Feb-2024"], NEW_YEAR, "the month's name"),
        (["20240101", "20240229"] * 6, NEW_YEAR, "yyyymmdd"),
        (["2024-01", "2024-02"], NEW_YEAR, "year-month"),
        (["2024-01-01T18:00:00", "2024-02-29T00:30:00.5"], NEW_YEAR + 0.75, "year-month-day"),
        (["2024-01-01 6:00 PM", "2024-02-29 12:30 AM"], NEW_YEAR + 0.75, "year-month-day"),
        (["2024-01-01T19:00:00+01:00", "2024-02-29T00:30:00Z"], NEW_YEAR + 0.75, "year-month-day in UTC"),
        (["18:00", "00:30"], 0.75, "a time of day"),
    ],
)
def test_dates(cells: list[str], first: float, how: str, tmp_path: Path) -> None:
    table = read(tmp_path, at=(cells * N)[:N], a=NUMBER)
    assert (table.readings[0].kind, table.readings[0].how) == ("date", how)
    assert table.numeric[0, 0] == first
    _, block = next(table.blocks())
    columns = dict(zip(table.numeric_names, block[0].tolist(), strict=True))
    if first >= 1:
        assert columns["at (year)"] == 2024.0
        assert (columns["at (month sin)"], columns["at (month cos)"]) == (0.0, 1.0)
        assert (columns["at (weekday sin)"], columns["at (weekday cos)"]) == (0.0, 1.0)
    if first % 1:
        assert (columns["at (hour sin)"], columns["at (hour cos)"]) == pytest.approx((-1.0, 0.0), abs=1e-12)
    fitted = Preprocessor.from_state(*Preprocessor.fit(table, task="binary").state())
    again = read_table(tmp_path / "t.csv", like=fitted.schema)
    np.testing.assert_array_equal(fitted.transform(again), fitted.transform(table))
    frame = table_of({"at": (cells * N)[:N], "a": NUMBER}, fitted.schema, named=True)
    np.testing.assert_array_equal(fitted.transform(frame), fitted.transform(table))


def test_a_day_that_may_be_a_month_is_not_guessed(tmp_path: Path) -> None:
    error = refused(tmp_path, at=["03/04/2024", "05/06/2024"] * 30)
    assert "may have the day or the month first: set day_first: true or false" in str(error)
    assert followed(tmp_path, error).numeric[0, 0] == NEW_YEAR + 93  # 3 April
    assert read_table(tmp_path / "t.csv", target="y", day_first=False).numeric[0, 0] == NEW_YEAR + 63  # 4 March


def test_a_gap_among_dates_is_filled(tmp_path: Path) -> None:
    table = read(tmp_path, at=[*DAYS[1:], "-"], a=NUMBER)
    fitted = Preprocessor.fit(table, task="binary", missing="indicator")
    assert fitted.indicators == ("at",)
    assert np.all(np.isfinite(fitted.transform(table)))
    with pytest.raises(DataError, match="'2024-13-01' is not a date, and in training the column held dates"):
        read_table(write(tmp_path, "n.csv", at=["2024-13-01"], a=["1"]), like=fitted.schema)


# -- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        ("who", [f"K{i:04}" for i in range(N)], "looks like names or identifiers: 60 different texts in 60 rows"),
        ("who", [f"k{i % 51}" for i in range(300)], "read as 51 categories"),
        ("mixed", ["1", "2", "K"] * 20, "2 different numbers and 1 other texts"),
        ("n", [str(i) for i in range(N)], "numbers the rows"),
        ("n", [str(17 * i % N) for i in range(N)], "numbers the rows"),
        ("weight", [f"{40 + i % 30} kg" for i in range(200)], "numbers with something behind them ('40 kg', ...)"),
        ("weight", [f"{i}.5 kg" for i in range(N)], "numbers with something behind them ('0.5 kg', ...)"),  # each once
        ("temperature", [f"{i % 30}.5°C" for i in range(200)], "numbers with something behind them"),
        ("PassengerId", [str(7919 * i % 1009) for i in range(N)], "looks like an identifier"),
        ("customer_id", [str(7919 * i % 1009) for i in range(N)], "looks like an identifier"),
        ("big", [str(2**53 + i * i) for i in range(N)], "too large to be told apart"),
    ],
)  # fmt: skip
def test_a_surprising_column_is_named(
    name: str, cells: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    table = read(tmp_path, **{name: cells, "b": [f"{0.1 * i}" for i in range(len(cells))]})
    (note,) = table.notes
    assert note.startswith(f"{tmp_path / 't.csv'}: column {name!r} ")
    assert words in note
    assert [record.getMessage() for record in caplog.records] == [f"note: {note}"]
    assert table.take(np.arange(3)).notes == table.notes


@pytest.mark.parametrize(
    "cells",
    [
        ["red", "green", "blue"] * 20,
        [f"town {i % 29}" for i in range(N)],
        [str(i % 5) for i in range(N)],
        NUMBER,
        [str(2000 + i % 9) for i in range(N)],
        ["yes", ""] * 30,
    ],
)
def test_an_ordinary_column_is_not_worth_a_line(cells: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, column=cells, b=NUMBER).notes == ()


def test_a_file_that_is_read_like_the_training_table_says_nothing_again(tmp_path: Path) -> None:
    table = read(tmp_path, who=[f"K{i:04}" for i in range(N)], b=NUMBER)
    fitted = Preprocessor.fit(table, task="binary")
    assert read_table(tmp_path / "t.csv", like=fitted.schema).notes == ()


def test_a_name_that_is_unknown_is_no_reason_to_ignore_unknown_ones(tmp_path: Path) -> None:
    """Zeros in place of every later name is the trap; the column is."""
    table = read(tmp_path, who=[f"K{i}" for i in range(N)], b=NUMBER)
    fitted = Preprocessor.fit(table, task="binary")
    later = read_table(write(tmp_path, "later.csv", who=["K99"], b=["1.0"]), like=fitted.schema, labelled=False)
    with pytest.raises(DataError, match=r"little can be learnt: leave it out \(data\.ignore=\[who\]\)"):
        fitted.transform(later)


# -- classes keep their names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["007", "008", "010"], ["007", "008", "010"]),
        (["01", "1", "2"], ["01", "1", "2"]),
        (["+1", "-1"], ["-1", "+1"]),
        (["12E4", "1E5"], ["1E5", "12E4"]),
        (["9", "10"], ["9", "10"]),
        (["1.0", "2.0"], ["1", "2"]),  # what pandas makes of integers with a gap
        (["1_0", "10"], ["10", "1_0"]),
        (["18446744073709551616", "18446744073709551617"], ["18446744073709551616", "18446744073709551617"]),
        (["１", "2"], ["１", "2"]),
    ],
)  # fmt: skip
def test_classes_are_called_as_they_are_written(labels: list[str], order: list[str], tmp_path: Path) -> None:
    answers = (labels * N)[:N]
    table = read(tmp_path, a=NUMBER, y=answers)
    fitted = Preprocessor.fit(table, task="multiclass")
    assert fitted.target is not None
    assert list(fitted.target.labels) == order
    again = read_table(tmp_path / "t.csv", like=fitted.schema)
    np.testing.assert_array_equal(fitted.encode_target(again), fitted.encode_target(table))
    decoded = [str(label) for label in fitted.decode(fitted.encode_target(table))]
    assert decoded == [order[labels.index(a)] if a not in order else a for a in answers] or len(order) == len(labels)


def test_two_ways_to_write_one_number_are_named(tmp_path: Path) -> None:
    versions = ["3", "3.0", "2"] * 20
    (note,) = read(tmp_path, a=NUMBER, y=versions).notes
    assert "the target 'y' holds '3' and '3.0', which are one number; set types: {y: category}" in note
    table = read_table(tmp_path / "t.csv", target="y", categorical=["y"])
    fitted = Preprocessor.fit(table, task="multiclass")
    assert fitted.target is not None
    assert set(fitted.target.labels) == {"2", "3", "3.0"}
    again = read_table(tmp_path / "t.csv", like=fitted.schema)  # as text, too
    np.testing.assert_array_equal(fitted.encode_target(again), fitted.encode_target(table))
    renamed = (tmp_path / "t.csv").read_text().replace('"y"', '"answer"')
    (tmp_path / "renamed.csv").write_text(renamed)
    other = read_table(tmp_path / "renamed.csv", like=fitted.schema, target="answer")
    np.testing.assert_array_equal(fitted.encode_target(other), fitted.encode_target(table))


@pytest.mark.parametrize("answers", [["007", "12"], ["+1", "-2.5"], ["1e3", "2"], ["0012.5", "3"]])
def test_numbers_written_as_codes_are_numbers_of_a_regression(answers: list[str], tmp_path: Path) -> None:
    table = read(tmp_path, a=NUMBER, y=answers * (N // 2))
    fitted = Preprocessor.fit(table, task="regression")
    assert fitted.encode_target(table, "float64")[:2, 0].tolist() == [float(answer) for answer in answers]


def test_no_message_is_longer_than_a_line_or_two(tmp_path: Path) -> None:
    for note in read(tmp_path, day=DAYS, who=[f"K{i}" for i in range(N)], b=NUMBER).notes:
        assert len(note) < 350
        assert not re.search(r"\n", note)
