"""Every example in docs/ and the README runs, and prints what the page says it prints."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.command import ROOT as CHECKOUT
from support.command import Command, environment
from support.docs_blocks import blocks, examples, run_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.exists() and page.parent.name != "decisions"  # those speak of what was there at the time
]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page.read_text(encoding="utf-8"))], ids=lambda p: p.name
)
def test_page_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = run_page(page, each_alone=page.name == "README.md", commands=page.parent.name == "tutorials")
    assert not wrong, "\n".join(wrong)


def needed(extras: set[str]) -> set[str]:
    """The distributions that the package needs with these extras, as far as they are installed here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [("backprop-gpu", frozenset(extras))]
    while waiting:
        name, asked = waiting.pop()
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (asked or {""})
            )
            if wanted and requirement.name.lower() not in found:
                found.add(requirement.name.lower())
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


ALONE = """
import importlib.metadata, re, sys
from pathlib import Path

kept = set(sys.argv[2].split(","))
other = {module for module, names in importlib.metadata.packages_distributions().items()
         if not {re.sub("[-_.]+", "-", name).lower() for name in names} & kept}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in other:
            raise ModuleNotFoundError(f"No module named {name!r}, which scripts/train does not install", name=name)

sys.meta_path.insert(0, Absent())
from support.docs_blocks import run_page
wrong = run_page(Path(sys.argv[1]), each_alone=True)
sys.exit("\\n".join(wrong) if wrong else 0)
"""


def test_the_readme_needs_no_more_than_what_the_train_script_installs(tmp_path: Path) -> None:
    source = (CHECKOUT / "scripts" / "train").read_text(encoding="utf-8")
    found = re.search(r"_environment\.run\(\[(.+?)\]", source)
    assert found
    names = needed({name.strip(' "') for name in found[1].split(",")})
    assert {"numpy", "scikit-learn", "matplotlib"} <= names
    assert "array-api-strict" not in names
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(CHECKOUT / "README.md"), ",".join(sorted({*names, "backprop-gpu"}))],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_csv_of_the_readme_trains_with_its_yaml(tmp_path: Path) -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    ((header, *rows, _),) = (list(csv.reader(io.StringIO(block))) for block in blocks(text, "csv"))
    (configuration,) = blocks(text, "yaml")
    assert yaml.safe_load(configuration)["data"]["source"] == "flats.csv"
    rng = np.random.default_rng(0)
    for i in range(len(rows) + 1, 301):
        area = rng.integers(30, 140)
        town, balcony = rng.choice(["Bern", "Basel"]), rng.choice(["yes", "no", ""])
        rent = f"{500 + 17 * area + 3 * rng.normal():.0f}"
        rows.append([f"F{i:02}", str(area), str(1 + area // 30), town, balcony, rent])
    with (tmp_path / "flats.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    command, shown = Command(tmp_path), yaml.safe_load(configuration)
    ran = 0
    for line in "".join(blocks(text, "console")).splitlines():
        words = line.partition("#")[0].split()
        if "flats" in words or "flats.yaml" in words:
            out = command.ok(*words[2:])
            ran += 1
            if words[2] == "config":  # what the page shows is what was written, in short
                written = yaml.safe_load((tmp_path / "flats.yaml").read_text(encoding="utf-8"))
                assert written == shown | {"data": shown["data"] | {"task": "regression"}}
                (tmp_path / "flats.yaml").write_text(configuration, encoding="utf-8")
            assert "task: regression" in out or words[2] != "train" or "--resume" in words
            if words[2] == "predict":
                predicted = list(csv.DictReader(io.StringIO(out)))
    assert ran == 8
    assert [row["id"] for row in predicted] == [row[0] for row in rows]
    truth = np.array([float(row[5]) for row in rows])
    guess = np.array([float(row["rent"]) for row in predicted])
    assert np.corrcoef(truth, guess)[0, 1] > 0.9


def test_what_is_to_be_installed_can_be() -> None:
    """The package is on no index: it is installed from a checkout, by path; other packages have names of their own."""
    for path in [*PAGES, *sorted((ROOT / "backprop_gpu").rglob("*.py"))]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install [^#]*backprop[-_]gpu", line), (path, line)


def test_the_answer_shows_the_output_of_every_example() -> None:
    """The page promises that each of its numbers comes from a block that ran."""
    found = examples((ROOT / "docs" / "where-does-the-1-over-m-go.md").read_text(encoding="utf-8"))
    assert len(found) >= 5
    assert all(example.output for example in found)


def write(path: Path, *blocks: tuple[str, str]) -> Path:
    path.write_text("# Page\n\n" + "\n".join(f"```{kind}\n{body}```\n" for kind, body in blocks), encoding="utf-8")
    return path


def test_blocks_share_a_namespace_and_are_compared_exactly(tmp_path: Path) -> None:
    page = write(
        tmp_path / "page.md",
        ("python", "x = 2\n"),
        ("python", "print(x + 1)\n"),
        ("text", "3\n"),
        ("python", "print(x)\n"),
        ("text", "2 \n"),
    )
    (message,) = run_page(page)
    assert message.startswith("page.md, line 16:")


def test_only_an_adjacent_text_block_is_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n\nand, elsewhere:\n\n```text\n2\n```\n\n```sh\nexit 1\n```\n", encoding="utf-8"
    )
    assert [example.output for example in examples(page.read_text(encoding="utf-8"))] == [None]
    assert run_page(page) == []


def test_an_example_that_fails_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = write(tmp_path / "page.md", ("python", "x = 1\n1 / 0\n"))
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page)
    last = caught.traceback[-1]
    assert (Path(str(last.path)), last.lineno + 1) == (page, 5)


# -- files that are named ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """In backticks, from the top of the checkout or of the package; and every link to a page."""
    text = page.read_text(encoding="utf-8")
    folders = (ROOT, ROOT / "backprop_gpu")
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|h|cu|cpp|md|yaml))`", text)
    absent = [name for name in named if not any((folder / name).exists() for folder in folders)]
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    absent += [link for link in links if link and not (page.parent / link).exists()]
    assert not absent, f"{page.name} names {absent}"
