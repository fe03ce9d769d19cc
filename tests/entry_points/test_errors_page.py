"""The table of bad input: each row is refused in the line that docs/errors.md shows, and works after the change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.bad_input import PAGE, PARTS, Row, message_of, page, run, write_files

pytestmark = pytest.mark.skipif(os.name == "nt", reason="named pipes, and paths as POSIX writes them")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad input")
    write_files(path)
    return path


@pytest.mark.parametrize("title", [title for title, _ in PARTS])
def test_each_row_is_refused_as_shown_and_works_after_the_change(
    title: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)
    shown = PAGE.read_text(encoding="utf-8")
    messages = {(other, row.what): "" for other, rows in PARTS for row in rows}
    (rows,) = [rows for other, rows in PARTS if other == title]
    for row in rows:
        messages[title, row.what] = refused(row, folder)
        works(row)
    section = page(messages).split(f"## {title}\n")[1].split("\n## ")[0]
    assert section.strip() in shown, "run .venv/bin/python tests/support/bad_input.py"


def refused(row: Row, folder: Path) -> str:
    before = files(folder)
    code, errors = run(row.command)
    assert code == 2, (row, errors)
    message = message_of(errors)
    assert "Traceback" not in errors, row
    assert files(folder) == before, row
    return message


def works(row: Row) -> None:
    command = row.fix if isinstance(row.fix, str) else row.command
    if not isinstance(row.fix, str):
        name, content = row.fix
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if command.startswith("train") and "--run-dir" not in command:
        command += f" --run-dir 'after {row.what}'"
    code, errors = run(command)
    assert code == 0, (row, errors)


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything in the folder, with the time of its last change and its size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_there_are_enough_rows_and_each_says_what_to_change() -> None:
    rows = [row for _, rows in PARTS for row in rows]
    assert len(rows) >= 60
    assert len({row.command for row in rows}) == len(rows)
    for row in rows:
        assert row.change
