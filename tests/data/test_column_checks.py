"""No column is misread without a word: numbers as people write them are refused, dates, identifiers and codes named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.data import Preprocessor, Table, read_table
from backprop_gpu.data.column_checks import formatted_number
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
    "cell",
    ["1,5", "-1,5", "1.234,50", "1,234.50", "1,234", "1.234.567", "1 234", "12,34,567",
     "1\u00a0234,5", "1\u202f234", "1'234.5", "1_000",
     "12%", "12.5 %", "$5", "5 €", "€ 1.234,00", "EUR 12", "-$5.00", "$-5.00", "(1,234)", "−5"],
)  # fmt: skip
def test_numbers_as_people_write_them(cell: str) -> None:
    assert formatted_number(cell)


@pytest.mark.parametrize(
    "cell", ["1.5", "-3", "1e5", "", "red", "A1", "1a", "5XL", "10-20", "2024-01-05", "1,2,3", "%", "1.2.3"]
)
def test_other_cells(cell: str) -> None:
    assert not formatted_number(cell)


@pytest.mark.parametrize("pattern", ["{},{}", "{}.{}0,5", "{},{}0.5", "{}{}%", "$ {}.{}", "{} {}0", "{}_{}0"])
def test_a_column_of_formatted_numbers_is_refused_and_not_one_hot(pattern: str, tmp_path: Path) -> None:
    cells = [pattern.format(1 + i % 9, 10 + i) for i in range(N)]
    with pytest.raises(
        DataError, match=r"column 'price': .* is not read as a number; write numbers like 1234.5"
    ) as caught:
        read(tmp_path, price=cells, a=NUMBER)
    assert repr(cells[0]) in str(caught.value)
    assert "or leave it out (data.ignore=[price])" in str(caught.value)
    assert read_table(tmp_path / "t.csv", target="y", ignore=["price"]).columns == ("a",)  # the advice, followed


def test_a_few_formatted_numbers_may_be_names(tmp_path: Path) -> None:
    cells = ["5%", "10%", "20%"] * 20
    with pytest.raises(DataError, match=r"'5%' is not read as a number; .* list it under categorical") as caught:
        read(tmp_path, discount=cells, a=NUMBER)
    assert caught.value.option == ("categorical", ["discount"])
    table = read_table(tmp_path / "t.csv", target="y", categorical=["discount"])
    assert (table.categorical["discount"].tolist(), table.notes) == (cells, ())


def test_what_is_left_out_already_stays_in_the_advice(tmp_path: Path) -> None:
    write(tmp_path, price=[f"{i},5" for i in range(N)], a=NUMBER, b=NUMBER)
    with pytest.raises(DataError, match=r"data\.ignore=\[b, price\]"):
        read_table(tmp_path / "t.csv", target="y", ignore=["b"])


def test_a_few_of_them_among_numbers_are_told_how_to_be_written(tmp_path: Path) -> None:
    cells = [*NUMBER[1:], "1,234"]
    with pytest.raises(DataError, match=rf"line 61, .*'1,234' is not a number, but {N - 1} other cells .*like 1234.5"):
        read(tmp_path, price=cells, a=NUMBER)


def test_a_mark_for_missing_among_many_numbers_is_no_category(tmp_path: Path) -> None:
    """However often it stands there: hundreds of numbers would become inputs of their own."""
    cells = ["-" if i % 3 == 0 else cell for i, cell in enumerate(NUMBER)]
    with pytest.raises(DataError, match=r"'-' is not a number, but 40 other cells .* leave the cell empty"):
        read(tmp_path, price=cells, a=NUMBER)
    emptied = [cell.replace("-", "") for cell in cells]
    assert np.isnan(read(tmp_path, price=emptied, a=NUMBER).numeric[:, 0]).sum() == 20


def test_the_advice_lists_every_column_of_text(tmp_path: Path) -> None:
    """Of ``categorical`` the list is the whole list: with the one column alone, the other would be refused next."""
    columns = {"colour": ["red", "blue"] * 30, "size": ["5%", "10%"] * 30, "a": NUMBER}
    with pytest.raises(DataError) as caught:
        read(tmp_path, **columns)
    assert caught.value.option == ("categorical", ["colour", "size"])
    assert read_table(tmp_path / "t.csv", target="y", categorical=caught.value.option[1]).numeric_names == ("a",)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv", target="y", categorical=["size"])
    assert caught.value.option == ("categorical", ["size", "colour"])


def test_a_target_of_formatted_numbers_is_refused(tmp_path: Path) -> None:
    prices = [f"{i},{i % 10}" for i in range(N)]
    with pytest.raises(
        DataError, match=r"line 2, target 'y': '0,0' is not read as a number; write .* 1234.5"
    ) as caught:
        read(tmp_path, a=NUMBER, y=prices)
    assert caught.value.option == ("categorical", ["y"])
    table = read_table(tmp_path / "t.csv", target="y", categorical=["y"])
    assert table.target is not None
    assert table.target.tolist() == prices


# -- notes -----------------------------------------------------------------------------------------------------------

DAYS = [f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(N)]


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        ("day", DAYS, "dates such as '2024-01-01', read as 60 categories"),
        ("day", [f"{1 + i % 28}.{1 + i % 12}.2024" for i in range(N)], "dates such as '1.1.2024'"),
        ("day", [f"{1 + i % 12}/{1 + i % 28}/24" for i in range(N)], "dates such as '1/1/24'"),
        ("day", [f"{day}T10:00:00" for day in DAYS], "dates such as '2024-01-01T10:00:00'"),
        ("day", [f"{1 + i % 28} Jan 2024" for i in range(N)], "dates such as '1 Jan 2024'"),
        ("at", [f"{i % 24:02}:15" for i in range(N)], "dates such as '00:15'"),
        ("day", [day.replace("-", "") for day in DAYS], "dates such as 20240101, read as plain numbers"),
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
        ("zip", [f"0{i % 7}{i % 5}10" for i in range(N)], "read as numbers, '00010' as 10; if these are codes"),
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


def test_an_unknown_date_or_name_is_no_reason_to_ignore_unknown_ones(tmp_path: Path) -> None:
    """Zeros in place of every later date is the trap; the column is."""
    table = read(tmp_path, day=DAYS, b=NUMBER)
    fitted = Preprocessor.fit(table, task="binary")
    later = read_table(write(tmp_path, "later.csv", day=["2025-01-01"], b=["1.0"]), like=fitted.schema, labelled=False)
    with pytest.raises(DataError, match=r"little can be learnt: leave it out \(data\.ignore=\[day\]\)"):
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
    assert "the target 'y' holds '3' and '3.0', which are one number; list the column under categorical" in note
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
