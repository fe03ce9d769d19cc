"""``backprop-gpu explain`` as a user runs it: the examples of its help, pages, and what is said of wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.command import SHORT, Command

from backprop_gpu.cli import main
from backprop_gpu.cli_explain import EXPLAIN

FLATS = "area,rooms,rent\n" + "".join(f"{50 + 7 * i % 90},{1 + i % 3},{900 + 110 * i % 990}\n" for i in range(40))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    monkeypatch.setenv("COLUMNS", "90")


def data_of(page: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return dict(json.loads(found[1]))


def test_the_examples_of_the_help_do_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flats.csv").write_text(FLATS, encoding="utf-8")
    (tmp_path / "flats.yaml").write_text("data: {source: flats.csv, target: rent}\nmodel: {hidden: [4]}\n")
    assert main(["train", "flats.yaml", "--quiet", "--run-dir", "runs/flats", *SHORT]) == 0
    capsys.readouterr()
    lines = [re.split(r"\s{2,}", line.strip())[0].split()[1:] for line in EXPLAIN.splitlines()[1:]]
    assert len(lines) == 5
    out = []
    for words in lines:
        assert main(words) == 0
        out.append(capsys.readouterr().out)
    assert "All 13 parameters against the complex step, at every place of the 1/m: right" in out[0]
    assert out[1] == "one-over-m.html: open it in a browser\n"
    assert "flats, a network [2, 3, 1] with initial weights, m = 6" in out[2]
    assert "the batch in parts of 5 + 1" in out[2]
    assert data_of(tmp_path / "flats.html")["sizes"] == [2, 4, 1]
    assert data_of(tmp_path / "flats.html")["features"] == ["area", "rooms"]
    assert "standardized; --set data.standardize=false takes them as they are." in " ".join(out[2].split())
    assert "flats, a network [2, 4, 1] with trained weights, m = 4" in out[4]
    assert "backprop-gpu explain --data flats.csv" in Command(tmp_path).ok("explain", "--help")


def test_a_part_of_another_size_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--split", "2,2"]) == 0
    out = capsys.readouterr().out
    assert "right, as the parts are even" in out
    assert "WRONG by up to 100%" in out
    assert main(["explain", "--data", "moons", "--set", "regularization.l2=0.1"]) == 0
    assert "note: The penalty is left out: J is the mean of the losses alone.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "1,1"], "add up to m = 4"),
        (["--split", "a"], "--split takes sizes such as 3,1"),
        (["--rows", "0"], "rows must be from 1 to 8"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--run", "nowhere"], "is no run folder"),
        (["--run", "nowhere", "--target", "y"], "leave --data, --target and --set away"),
        (["--target", "y"], "--data FILE --target"),
        (["--config", "digits"], "--set model.hidden=[3]"),
        (["--config", "moons", "--set", "model.batch_norm=true"], "model.batch_norm: false"),
        (["--html", "no/folder/page.html"], "cannot write no/folder/page.html: No such file"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_wrong_input_ends_in_one_line_that_says_what_to_do(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_rows_of_a_file_are_its_first_ones_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows of a small file, none kept for a test."""
    (tmp_path / "own.csv").write_text("x1,x2,y\n0.5,1,0\n-1,0.2,1\n2,-1,1\n1.5,0.5,1\n0.25,0.75,0\n", encoding="utf-8")
    as_read = ["--set", "data.standardize=false"]
    assert main(["explain", "--data", "own.csv", "--target", "y", "--rows", "5", *as_read]) == 0
    out = capsys.readouterr().out
    assert "  [0.5000     -1      2 1.5000 0.2500]\n  [     1 0.2000     -1 0.5000 0.7500]\n" in out
    assert "standardized" not in out


def test_the_page_does_not_overwrite_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flats.csv").write_text(FLATS, encoding="utf-8")
    assert main(["explain", "--data", "flats.csv", "--target", "rent", "--html", "flats.csv"]) == 2
    assert "would overwrite the data" in capsys.readouterr().err
    assert (tmp_path / "flats.csv").read_text(encoding="utf-8") == FLATS
    for _ in range(2):  # of a built-in set, which is no file; the second page takes the place of the first
        assert main(["explain", "--data", "moons", "--html", "moons.html"]) == 0
