"""Files as people have them: each is read right, or refused in one line that says what to write, and that works.

Each is read twice, by our own reader and with pyarrow's parser allowed, which must make no difference.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.cli import main
from backprop_gpu.data import Preprocessor, Table, csv_files, plain_csv, read_table, text_files
from backprop_gpu.data.targets import infer_task
from backprop_gpu.errors import BackpropError

NAN = float("nan")
DAY = 19753.0  # 2024-01-31
N = 12  # rows, where nothing else is said


@dataclass(frozen=True)
class File:
    """A file, and what it must come to.

    ``columns``: the values of some columns, from the first row on; ``refused``: words of the error, after which
    ``fix`` are the settings that it says, and a new content where it asks for one.
    """

    content: str | bytes
    columns: dict[str, list] = field(default_factory=dict)
    target: list | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    fix: dict[str, Any] = field(default_factory=dict)
    corrected: str | bytes | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "t.csv"


def csv(head: str, *rows: str, times: int = 4) -> str:
    return "".join(line + "\n" for line in [head, *(rows * times)])


PLAIN = csv("a,town,y", "1.5,Ulm,0", "2,Köln,1", "3e2,Ulm,0")
READ: dict[str, list] = {"a": [1.5, 2.0, 300.0], "town": ["Ulm", "Köln", "Ulm"]}


def _semicolons(mark: str = ";") -> str:
    return PLAIN.replace(",", mark)


def _long(n: int = 200_000) -> str:
    return "a,y\n" + "".join(f"{i % 1000 / 8},{i % 2}\n" for i in range(n))


def _wide(n: int = 2000) -> str:
    rows = "".join(",".join(str(i + j) for j in range(n)) + f",{i % 2}\n" for i in range(4))
    return ",".join(f"c{j}" for j in range(n)) + ",y\n" + rows


CASES = {
    "plain": File(PLAIN, READ, [0, 1, 0]),
    "byte order mark": File(PLAIN.encode("utf-8-sig"), READ, [0, 1, 0]),
    "UTF-16": File(PLAIN.encode("utf-16"), READ),
    "UTF-16 without a mark": File(PLAIN.encode("utf-16-le"), READ),
    "cp1252": File(PLAIN.encode("cp1252"), READ),
    "semicolons": File(_semicolons(), READ),
    "tabs": File(_semicolons("\t"), READ),
    "tabs in .tsv": File(_semicolons("\t"), READ, name="t.tsv"),
    "pipes": File(_semicolons("|"), READ),
    "Windows line ends": File(PLAIN.replace("\n", "\r\n"), READ, [0, 1, 0]),
    "gz": File(gzip.compress(PLAIN.encode()), READ, [0, 1, 0], name="t.csv.gz"),
    "comments": File("# made by hand\n" + PLAIN, READ),
    "comments at the end": File(PLAIN + "# 12 rows\n", READ, refused="set comment: '#'", fix={"comment": "#"}),
    "blank lines": File(PLAIN.replace("Ulm,0\n2", "Ulm,0\n\n2"), READ, [0, 1, 0]),
    "delimiters at the ends of lines": File(PLAIN.replace("\n", ",\n"), READ, [0, 1, 0]),
    "blanks around cells": File(PLAIN.replace(",", " , "), READ, [0, 1, 0]),
    "no header": File(
        csv("1,2.5,0", "2,3.5,1"), refused="set header: false", fix={"header": False}, columns={"column 1": [1.0, 2.0]}
    ),
    "header only": File("a,town,y\n", refused="add rows of data", corrected=PLAIN, columns=READ),
    "empty file": File("", refused="a header line and rows of data are needed", corrected=PLAIN, columns=READ),
    "one column": File("a\n1\n2\n", refused="set delimiter, or add columns", corrected=PLAIN, columns=READ),
    "NUL bytes": File(
        b"a,y\n1\0,0\n2,1\n", refused="holds NULs; export the table as CSV", corrected=PLAIN, columns=READ
    ),
    "ragged rows": File(PLAIN + "4,Ulm\n", READ, refused="line 14: 2 cells where the header has 3", corrected=PLAIN),
    "a row too wide": File(PLAIN + "4,Ulm,0,7\n", READ, refused="name every column in the header", corrected=PLAIN),
    "duplicate headers": File(
        csv("a,a,,y", "1,2,3,0", "4,5,6,1"), {"a": [1.0, 4.0], "a.1": [2.0, 5.0], "column 3": [3.0]}
    ),
    "quotes and line breaks": File(
        csv("a,town,y", '1,"Ulm, ""South""\nBy",0', "2,Köln,1"), {"a": [1.0, 2.0], "town": ['Ulm, "South"\nBy', "Köln"]}
    ),
    "quoted cells": File(
        csv('"a","town","y"', '"1","Ulm, B","0"', '"2","007","1"'), {"a": [1.0, 2.0], "town": ["Ulm, B", "007"]}
    ),
    "an open quote": File(
        PLAIN + '4,"Ulm,0\n', READ, refused="check the quotes on and after that line", corrected=PLAIN
    ),
    "a quote within a cell": File(csv("a,town,y", '1,5" pipe,0', "2,Ulm,1"), {"town": ['5" pipe', "Ulm"]}),
    "decimal comma": File(csv("a;town;y", "1,5;Ulm;0", "2,25;Köln;1"), {"a": [1.5, 2.25]}, kinds={"a": "number"}),
    "thousands": File(csv("a;b;y", "1.234,50;1'000;0", "22,5;2'500;1"), {"a": [1234.5, 22.5], "b": [1000.0, 2500.0]}),
    "a comma that may be either": File(
        csv("a;y", "1,234;0", "5,678;1"),
        {"a": [1.234, 5.678]},
        refused="set decimal: '.' or decimal: ','",
        fix={"decimal": ","},
    ),
    "percent": File(csv("a,y", "12 %,0", "3.5%,1"), {"a": [12.0, 3.5]}),
    "currencies": File(csv("a;b;y", "$5;5,50 €;0", "$7;1.000,00 €;1"), {"a": [5.0, 7.0], "b": [5.5, 1000.0]}),
    "negatives in parentheses, Unicode minus": File(
        csv("a,b,y", "(5),−1.5,0", "7,2,1"), {"a": [-5.0, 7.0], "b": [-1.5, 2.0]}
    ),
    "leading zeros": File(
        csv("zip,a,y", "01067,0.5,0", "80331,07,1", "00501,1,1"), {"zip": ["01067", "80331", "00501"]}
    ),
    "leading zeros far below": File(
        "zip,a,y\n" + "10115,1,0\n" * 300 + "01067,2,1\n", {"zip": ["10115"]}, kinds={"zip": "text code", "a": "number"}
    ),
    "scientific notation, infinities": File(
        csv("a,b,y", "1E-3,inf,0", "-2.5e+2,-Infinity,1"), {"a": [0.001, -250.0], "b": [np.inf, -np.inf]}
    ),
    "dates": File(
        csv("d,e,y", "31.01.2024,2024-01-31 06:00,0", "1.2.2024,2024-02-01,1"),
        {"d": [DAY, DAY + 1], "e": [DAY + 0.25, DAY + 1]},
    ),
    "dates of either order": File(
        csv("d,y", "03/04/2024,0", "05/06/2024,1"),
        {"d": [DAY + 63, DAY + 126]},
        refused="set day_first: true or false",
        fix={"day_first": True},
    ),
    "dates as numbers": File(
        csv("d,y", "20240131,0", "20240201,1", times=6), {"d": [DAY, DAY + 1]}, kinds={"d": "date"}
    ),
    "months by name": File(csv("d,y", "31 Jan 2024,0", "1 Feb 2024,1"), {"d": [DAY, DAY + 1]}),
    "yes and no": File(
        csv("a,b,y", "yes,TRUE,0", "No,false,1"), {"a": [1.0, 0.0], "b": [1.0, 0.0]}, kinds={"a": "boolean"}
    ),
    "gaps in their words": File(
        csv("a,b,y", "1,NA,0", "#N/A,x,1", "-,None,1"), {"a": [1.0, NAN, NAN], "b": ["", "x", ""]}
    ),
    "a gap of its own": File(
        "a,y\n" + "".join(f"{'missing' if i == 7 else i},{i % 2}\n" for i in range(40)),
        {"a": [*map(float, range(7)), NAN]},
        refused="set na_values: ['missing']",
        fix={"na_values": ["missing"]},
    ),
    "all gaps": File(csv("a,b,y", "1,,0", "2,NA,1"), {"b": [NAN, NAN]}),
    "a row of gaps": File(PLAIN.replace("2,Köln,1\n3", "2,Köln,1\n,,\n3"), READ, [0, 1, 0]),
    "mixed types": File(
        "a,y\n" + "".join(f"{'unknown' if i == 250 else i},{i % 2}\n" for i in range(300)),
        {"a": [0.0, 1.0]},
        refused="line 252, column 'a': 'unknown' is not a number",
        fix={"na_values": ["unknown"]},
    ),
    "numbers and words": File(csv("a,b,y", "1,p,0", "two,q,1"), {"a": ["1", "two"]}, kinds={"a": "category"}),
    "a target that is a number in text": File(
        csv("a,y", "1,€1200.5", "2,€15", "3,€2350"), target=[1200.5, 15.0, 2350.0]
    ),
    "a target in quotes": File(csv("a,y", '1,"1.5"', '2,"2"'), target=[1.5, 2.0]),
    "a target of codes": File(csv("a,y", "1,007", "2,7"), target=["007", "7"]),
    "a target with gaps": File(PLAIN + "4,Ulm,\n", READ, refused="line 14: the target 'y' is missing", corrected=PLAIN),
    "a huge cell": File(csv("a,town,y", f"1,{'x' * 131_073},0", "2,Ulm,1", times=1), {"town": ["x" * 131_073, "Ulm"]}),
    "numbers in other digits": File(csv("a,y", "١,0", "٢,1"), {"a": [1.0, 2.0]}),
    "underscores": File(csv("a,y", "1_000,0", "2_500,1"), {"a": [1000.0, 2500.0]}),
    "a plus, odd points": File(csv("a,y", "+1,0", ".5,1", "5.,1"), {"a": [1.0, 0.5, 5.0]}),
    "names of gaps in odd letters": File(csv("a,y", "1,0", "nUlL,1", "nan,1"), {"a": [1.0, NAN, NAN]}),
    "2,000 columns": File(_wide(), {"c0": [0.0, 1.0], "c1999": [1999.0, 2000.0]}, [0, 1]),
    "200,000 rows": File(_long(), {"a": [0.0, 0.125]}, [0, 1]),
}


def outcome(path: Path, settings: dict[str, Any]) -> Table | str:
    """The table, or the error's message."""
    try:
        return read_table(path, target="y" if settings.get("header") is not False else -1, **settings)
    except BackpropError as error:
        return str(error)


def check(table: Table, file: File) -> None:
    """That the table is what the file must come to."""
    stored = dict(zip(table.stored_names, table.numeric.T, strict=True))
    for name, values in file.columns.items():
        got = table.categorical[name] if name in table.categorical else stored[name]
        want: Any = np.array(values) if isinstance(values[0], float) else values
        np.testing.assert_array_equal(got[: len(values)], want, err_msg=name)
    if file.target is not None:
        assert table.target is not None
        assert table.target[: len(file.target)].tolist() == file.target
    kinds = {reading.name: reading.kind for reading in table.readings}
    assert file.kinds.items() <= kinds.items()


def same(one: Table | str, other: Table | str) -> None:
    """That two readers say the same."""
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    np.testing.assert_array_equal(one.stored, other.stored)
    assert one.stored.flags.c_contiguous == other.stored.flags.c_contiguous
    assert {name: cells.tolist() for name, cells in one.categorical.items()} == {
        name: cells.tolist() for name, cells in other.categorical.items()
    }
    assert one.target is not None
    assert other.target is not None
    assert one.target.dtype == other.target.dtype
    np.testing.assert_array_equal(one.target, other.target)
    np.testing.assert_array_equal(one.lines, other.lines)
    for part in ("columns", "readings", "notes", "target_names", "others"):
        assert getattr(one, part) == getattr(other, part)


@pytest.mark.parametrize("case", CASES)
def test_awkward_files(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CASES[case]
    path = tmp_path / file.name
    path.write_bytes(file.content if isinstance(file.content, bytes) else file.content.encode())
    found = []
    for most in (1 << 60, 0):
        monkeypatch.setattr(plain_csv, "FROM_BYTES", most)
        found.append(outcome(path, file.settings))
    same(*found)
    if not file.refused:
        assert isinstance(found[1], Table), found[1]
        check(found[1], file)
        return
    assert isinstance(found[0], str), "it was read"
    assert file.refused in found[0]
    assert "\n" not in found[0]
    if file.corrected is not None:
        path.write_bytes(file.corrected if isinstance(file.corrected, bytes) else file.corrected.encode())
    again = outcome(path, file.fix)
    assert isinstance(again, Table), again
    check(again, file)


def test_what_is_said_once_a_table_is_read(tmp_path: Path) -> None:
    """One class, identifiers, more than 100 categories: found out later, in one line that says what to write."""
    path = tmp_path / "t.csv"
    path.write_text(csv("a,y", "1,no", "2,no"))
    with pytest.raises(BackpropError, match=r"'no'|one class") as caught:
        Preprocessor.fit(read_table(path, target="y"), task="binary")
    assert "\n" not in str(caught.value)
    path.write_text("id,name,a,y\n" + "".join(f"{1000 + i},n{i},{i % 3},{i % 2}\n" for i in range(150)))
    table = read_table(path, target="y")
    assert any("'id' numbers the rows" in note for note in table.notes)
    assert infer_task(table)[0] == "binary"
    with pytest.raises(BackpropError, match="150 different texts, each of which would be an input") as caught:
        Preprocessor.fit(table, task="binary")
    assert "ignore: [name]" in str(caught.value)
    assert "max_categories: 150" in str(caught.value)
    Preprocessor.fit(read_table(path, target="y", ignore=["name"]), task="binary")
    assert len(Preprocessor.fit(table, task="binary", max_categories=150).feature_names) == 152


def test_standard_input_is_trained_on_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def give(content: str) -> None:
        monkeypatch.setattr(text_files, "_input", None)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    monkeypatch.chdir(tmp_path)
    table = csv("a,town,y", "1.5,Ulm,0", "2,Köln,1", "3e2,Ulm,0", times=20)
    quick = ["--set", "training.epochs=1", "--set", "model.hidden=[2]", "--run-dir", "run"]
    give(table)
    assert main(["train", "-", "--target", "y", *quick]) == 0
    said = capsys.readouterr().out
    assert "  1 number: a\n  1 category: town (2)\n  target number: y\n" in said
    for _ in range(2):
        give(table)
        assert main(["evaluate", "run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 9
    give("")
    assert main(["evaluate", "run"]) == 2
    assert "run was trained on standard input, so give the same table again" in capsys.readouterr().err
    monkeypatch.setattr(text_files, "_input", None)


@pytest.mark.parametrize(
    "case", ["plain", "200,000 rows", "quoted cells", "leading zeros far below", "Windows line ends", "gz"]
)
def test_plain_files_are_parsed_by_pyarrow(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_csv, "FROM_BYTES", 0)
    used = []
    kept = csv_files.fill
    monkeypatch.setattr(csv_files, "fill", lambda *given: used.append(1) or kept(*given))
    path = tmp_path / CASES[case].name
    content = CASES[case].content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(read_table(path, target="y"), CASES[case])
    assert not used, "our own reader read it"
