"""CSV: what is read, and that each thing wrong with a file is one line that names the place and the cure."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backprop_gpu import safe_files
from backprop_gpu.data import Schema, Table, read_table, text_files, text_table
from backprop_gpu.data.cells import is_missing, is_number
from backprop_gpu.errors import ConfigError, DataError

MIXED = "age,colour,size,label\n31,red,1.5,yes\n42,blue,-2e3,no\n27,red,.25,yes\n"


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, error: type[Exception] = DataError, **settings: object) -> str:
    """The message with which the file is refused: one line that names the file."""
    with pytest.raises(error) as caught:
        read_table(path, **{"target": -1, **settings})  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


def test_columns_are_sorted_into_numbers_and_categories(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, MIXED), target="label")
    assert table.columns == ("age", "colour", "size")
    assert table.numeric_names == ("age", "size")
    assert table.numeric.tolist() == [[31.0, 1.5], [42.0, -2000.0], [27.0, 0.25]]
    assert table.categorical["colour"].tolist() == ["red", "blue", "red"]
    assert table.target is not None
    assert table.target.tolist() == ["yes", "no", "yes"]
    assert table.target_names == ("label",)
    assert table.n_samples == 3
    assert table.where(2) == f"{tmp_path / 'data.csv'}, line 4"


@pytest.mark.parametrize(
    ("target", "name"), [(0, "age"), (-1, "label"), (-4, "age"), ("colour", "colour"), (2, "size")]
)
def test_target_by_name_or_position(tmp_path: Path, target: int | str, name: str) -> None:
    table = read_table(write(tmp_path, MIXED), target=target)
    assert table.target_names == (name,)
    assert name not in table.columns


def test_several_targets(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a,y1,b,y2\n1,2,3,4.5\n5,6,7,8\n"), target=["y2", 1])
    assert table.target is not None
    assert table.target.tolist() == [[4.5, 2.0], [8.0, 6.0]]
    assert table.target_names == ("y2", "y1")
    assert table.columns == ("a", "b")


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "0", "-3"], "i", [1, 0, -3]),
        (["1.0", "2", "1e3"], "f", [1.0, 2.0, 1000.0]),
        (["1", "2", "x"], "U", ["1", "2", "x"]),
        (["1_0", "2", "3"], "U", ["1_0", "2", "3"]),
    ],
)
def test_targets_are_integers_floats_or_text(tmp_path: Path, cells: list[str], kind: str, values: list) -> None:
    table = read_table(write(tmp_path, "a,y\n" + "".join(f"1,{cell}\n" for cell in cells)), target="y")
    assert table.target is not None
    assert table.target.dtype.kind == kind
    assert table.target.tolist() == values


def test_bom_blank_lines_blanks_and_quotes(tmp_path: Path) -> None:
    text = '\ufeffa, b ,y\r\n\r\n 1 ,"x, ""1""\nand more",0\r\n\r\n2, z ,1\r\n\r\n'
    table = read_table(write(tmp_path, text), target="y")
    assert table.columns == ("a", "b")
    assert table.categorical["b"].tolist() == ['x, "1"\nand more', "z"]
    assert table.lines is not None
    assert table.lines.tolist() == [3, 6]  # a quoted cell may run over lines; the row is named by its first


@pytest.mark.parametrize(
    ("name", "delimiter", "mark"), [("d.tsv", None, "\t"), ("d.csv", ";", ";"), ("d.CSV", "|", "|")]
)
def test_delimiters(tmp_path: Path, name: str, delimiter: str | None, mark: str) -> None:
    path = write(tmp_path, MIXED.replace(",", mark), name)
    assert read_table(path, target="label", delimiter=delimiter).columns == ("age", "colour", "size")


@pytest.mark.parametrize("cell", ["", " ", "NA", "NaN", "nan", "null", "NULL", "?", "n/a"])
def test_missing_cells(tmp_path: Path, cell: str) -> None:
    table = read_table(write(tmp_path, f"a,b,y\n1,p,0\n{cell},{cell},1\n"), target="y")
    assert np.isnan(table.numeric).tolist() == [[False], [True]]
    assert table.categorical["b"].tolist() == ["p", ""]


def test_columns_can_be_chosen_ignored_and_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "id,zip,a,y\nk1,10,1.5,0\nk2,20,2.5,1\n")
    table = read_table(path, target="y", ignore=["id"], categorical=["zip"])
    assert table.columns == ("zip", "a")
    assert table.categorical["zip"].tolist() == ["10", "20"]
    assert read_table(path, target="y", columns=["a", "zip"]).numeric.tolist() == [[1.5, 10.0], [2.5, 20.0]]


def test_another_file_is_read_like_the_first(tmp_path: Path) -> None:
    """Other order, another column more, no target, and a category column that happens to hold numbers only."""
    schema = Schema(("age", "colour"), ("colour",), ("label",))
    path = write(tmp_path, "extra,colour,age\n?,1,30\n?,2,40\n")
    table = read_table(path, like=schema, labelled=False)
    assert table.columns == ("age", "colour")
    assert table.categorical["colour"].tolist() == ["1", "2"]
    assert table.numeric.tolist() == [[30.0], [40.0]]
    assert table.target is None
    assert "no column 'label'" in refusal(path, like=schema, target=None)
    renamed = write(tmp_path, "y,colour,age\nno,1,30\nyes,2,40\n", "renamed.csv")
    assert read_table(renamed, like=schema, target="y").target_names == ("y",)
    short = write(tmp_path, "agee,colour\n1,red\n", "short.csv")
    assert "lacks the column 'age', which the training data had (did you mean 'agee'?)" in refusal(
        short, like=schema, labelled=False
    )
    typo = write(tmp_path, "colour,age\nred,3O\n", "typo.csv")
    assert "line 2, column 'age': '3O' is not a number" in refusal(typo, like=schema, labelled=False)


def test_text_that_turns_up_late_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_table, "_BLOCK_ROWS", 4)
    codes = ["01", "2.50"] * 5 + ["B7", "C"] * 2
    path = write(tmp_path, "a,code,y\n" + "".join(f"{i},{code},{i % 2}\n" for i, code in enumerate(codes)))
    table = read_table(path, target="y")
    assert table.categorical["code"].tolist() == codes
    assert table.numeric[:, 0].tolist() == list(range(14))
    assert table.target is not None
    assert table.target.tolist() == [i % 2 for i in range(14)]
    assert table.lines is not None
    assert table.lines.tolist() == list(range(2, 16))


def test_one_text_among_numbers_is_taken_for_a_typing_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{i},{'1O' if i == 17 else i},0" for i in range(30)]
    path = write(tmp_path, "a,b,y\n" + "\n".join(rows))
    for size in (5, 1000):  # found in a later block and in the first
        monkeypatch.setattr(text_table, "_BLOCK_ROWS", size)
        message = refusal(path)
        assert "line 19, column 'b': '1O' is not a number, but 29 other cells" in message
        assert "set types: {b: category}" in message or "set na_values" in message
    table = read_table(path, target="y", categorical=["b"])
    assert table.categorical["b"][17] == "1O"


@pytest.mark.parametrize(
    ("text", "settings", "parts"),
    [
        ("", {}, ["FILE is empty"]),
        ("\n\n", {}, ["FILE is empty"]),
        ("a,b,y\n", {}, ["no rows"]),
        ("1.5,2,0\n2.5,3,1\n", {}, ["line 1 holds numbers only", "add a header"]),
        ("0,0,1\n1,3,1\n", {}, ["line 1 holds numbers only", "add a header"]),
        ("a\n1\n", {}, ["one column only", "set delimiter"]),
        ("a,b,y\n1,2,0\n# done\n", {}, ["line 3: 1 cells", "set comment: '#'"]),
        (b"a,b\0,y\n1,2,0\n", {}, ["is not text, it holds NULs"]),
        ("a,b,y\n1,2,0\n1,2\n", {}, ["line 3: 2 cells where the header has 3"]),
        ("a,b,y\n1,2,0\n1,2,3,4\n", {}, ["line 3: 4 cells where the header has 3"]),
        ('a,b,y\n1,2,0\n1,"2,0\n1,2,1\n', {}, ["line 3: ", "quotes"]),
        ("a,b,y\n1,2,0\n1,2,\n", {}, ["line 3: the target 'y' is missing"]),
        ("a,b,y\n1,2,0\n1,2,?\n", {}, ["line 3: the target 'y' is missing"]),
        (MIXED, {"target": "lable"}, ["no column 'lable' (did you mean 'label'?)", "age, colour, size, label"]),
        (MIXED, {"target": 4}, ["4 columns", "position 4"]),
        (MIXED, {"target": -5}, ["4 columns", "position -5"]),
        (MIXED, {"ignore": ["colr"]}, ["no column 'colr' (did you mean 'colour'?)"]),
        (MIXED, {"columns": ["age", "label"]}, ["column 'label' is listed under columns and is the target"]),
        (MIXED, {"columns": ["age", "age"]}, ["'age' is listed under columns and is named twice"]),
        (MIXED, {"columns": ["age"], "ignore": ["age"]}, ["'age' is listed under columns and is ignored"]),
        (MIXED, {"ignore": ["age", "colour", "size"]}, ["no feature columns are left"]),
        (MIXED, {"categorical": ["colours"]}, ["'colours' is not a feature (did you mean 'colour'?)"]),
        (MIXED, {"categorical": ["age"]}, ["line 2, column 'colour': 'red' is not a number", "categorical"]),
        (b"a,b,y\n\xff\xfe,2,0\n", {"encoding": "utf-8"}, ["is not text in utf-8", "set encoding"]),
    ],
)
def test_each_fault_is_named(tmp_path: Path, text: str | bytes, settings: dict, parts: list[str]) -> None:
    message = refusal(write(tmp_path, text), **settings)
    for part in parts:
        assert part in message


def test_faults_of_the_call(tmp_path: Path) -> None:
    path = write(tmp_path, MIXED)
    assert "name the target column" in refusal(path, ConfigError, target=None)
    assert "options does not apply" in refusal(path, ConfigError, options={"n": 3})
    assert "there is no such file; check the path" in refusal(tmp_path / "absent.csv")
    assert "names a column twice" in refusal(path, ConfigError, target=["label", -1])
    for delimiter in ("::", "\n", '"'):
        with pytest.raises(ConfigError, match="one character"):
            read_table(path, target=-1, delimiter=delimiter)


def test_the_header_pandas_makes_for_plain_arrays_is_a_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "0,1,2\n5,6,7\n"), target=-1)
    assert table.columns == ("0", "1")
    assert table.numeric.tolist() == [[5.0, 6.0]]


# --- as they come ----------------------------------------------------------------------------------------------------

ROWS = [["31", "red", "1.5", "yes"], ["42", "blue", "2.5", "no"], ["27", "grün", "0.5", "yes"]] * 4


def _text(mark: str = ",", head: str = "age,colour,size,label", end: str = "") -> str:
    return "".join(mark.join(row) + end + "\n" for row in [head.split(","), *ROWS])


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (_text().encode("utf-8-sig"), {}),
        (_text().encode("utf-16"), {}),
        (_text().encode("utf-16-le"), {}),
        (_text().encode("cp1252"), {}),
        (_text().encode("latin-1"), {"encoding": "latin-1"}),
        (_text(";").encode(), {}),
        (_text("\t").encode(), {}),
        (_text("|").encode(), {}),
        (_text("~").encode(), {"delimiter": "~"}),
        (("sep=;\n" + _text(";")).encode(), {}),
        (("# made by hand\n# in May\n" + _text()).encode(), {}),
        (_text(end=",").encode(), {}),
        (_text().replace("label\n", "label,\n").replace("yes\n", "yes,\n").replace("no\n", "no,\n").encode(), {}),
        (_text().replace("no\n", "no\n\n,,,\n").encode(), {}),
        (_text().replace("\n", "\r\n").encode(), {}),
        (_text(";").replace(".", ",").encode(), {}),
        (re.sub(r"(\w[\w.]*)", r"'\1'", _text()).encode(), {}),
        (_text().split("\n", 1)[1].encode(), {"header": False}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_as_they_come(content: bytes, settings: dict, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("data.csv.gz" if packed else "data.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    table = read_table(path, target=-1, **settings)
    assert table.numeric.tolist() == [[float(row[0]), float(row[2])] for row in ROWS]
    assert table.categorical[table.columns[1]].tolist() == [row[1] for row in ROWS]
    assert table.target is not None
    assert table.target.tolist() == [row[3] for row in ROWS]


def test_columns_without_a_name_of_their_own(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, ",a,a,b,y\n" + "1,2,3,4,0\n5,6,7,8,1\n" * 9), target="y")
    assert table.columns == ("column 1", "a", "a.1", "b")
    assert "column 1: has no name in the header; it is called 'column 1'" in table.notes[0]
    assert "column 3: the header names 'a' again; it is called 'a.1'" in table.notes[1]


def test_a_table_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_input", None)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(_text().encode())))
    assert read_table("-", target="label").columns == ("age", "colour", "size")
    assert read_table("-", target="label").n_samples == len(ROWS)  # read once, there as often as asked for
    monkeypatch.setattr(text_files, "_input", None)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_files, "MEMORY_AT_LEAST", 1 << 16)  # else the bomb takes seconds to make
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a,b,y\n" + b"1,2,0\n" * (1 << 17)))
    assert path.stat().st_size * safe_files.MOST_EXPANSION < 6 << 17
    assert "unpacks to more than the" in refusal(path)
    path.write_bytes(gzip.compress(_text().encode())[:40])
    assert "is not a whole gzip file" in refusal(path)


# --- round trip ------------------------------------------------------------------------------------------------------

texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\r\t"), min_size=1, max_size=8
).map(str.strip)
categories = texts.filter(lambda text: not is_number(text) and not is_missing(text))
numbers = st.floats(allow_infinity=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n=st.integers(1, 12), block=st.integers(1, 6), delimiter=st.sampled_from(",;\t"))
def test_what_is_written_is_read(tmp_path: Path, data: st.DataObject, n: int, block: int, delimiter: str) -> None:
    names = data.draw(st.lists(categories, min_size=4, max_size=4, unique=True), "names")
    columns = [
        data.draw(st.lists(numbers, min_size=n, max_size=n)),
        data.draw(st.lists(categories, min_size=n, max_size=n)),
        data.draw(st.lists(numbers, min_size=n, max_size=n)),
        data.draw(st.lists(categories, min_size=n, max_size=n)),
    ]
    path = tmp_path / "round.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
    kept, text_table._BLOCK_ROWS = text_table._BLOCK_ROWS, block
    try:
        table: Table = read_table(path, target=names[3], delimiter=delimiter)
    finally:
        text_table._BLOCK_ROWS = kept
    assert table.columns == tuple(names[:3])
    np.testing.assert_array_equal(table.numeric, np.array([columns[0], columns[2]]).T)
    assert table.categorical[names[1]].tolist() == columns[1]
    assert table.target is not None
    assert table.target.tolist() == columns[3]


@pytest.mark.parametrize("cell", ["1", "-.5", "1e9", " 7 ", "inf", "-Infinity"])
def test_numbers(cell: str) -> None:
    assert is_number(cell)


@pytest.mark.parametrize("cell", ["", "nan", "-nan", "1_000", "1,5", "0x10", "one", "?"])
def test_not_numbers(cell: str) -> None:
    assert not is_number(cell)
    assert re.fullmatch(r"|-?nan|\?", cell) or not is_missing(cell)
