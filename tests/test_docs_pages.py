"""Every example in docs/ and the README runs, and prints what the page says it prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.docs_blocks import examples, run_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page.read_text(encoding="utf-8"))], ids=lambda p: p.name
)
def test_page_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = run_page(page)
    assert not wrong, "\n".join(wrong)


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
