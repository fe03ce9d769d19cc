"""Machine code in files: what is read back is what was written, whole and for the same stamp, or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backprop_gpu.backends.kept import read, write


def test_what_is_read_is_what_was_written_under_the_same_stamp(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "code.o"
    assert read(path, "one") is None
    assert write(path, b"code", "one")
    assert read(path, "one") == b"code"
    assert read(path, "two") is None
    assert write(path, b"other", "two")
    assert (read(path, "one"), read(path, "two")) == (None, b"other")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damaged", [b"", b"short", b"\0" * 64, "cut", "longer", "one bit"])
def test_a_damaged_file_is_no_file(tmp_path: Path, damaged: bytes | str) -> None:
    path = tmp_path / "code.o"
    write(path, b"code", "stamp")
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(
        damaged
        if isinstance(damaged, bytes)
        else {"cut": whole[:-1], "longer": whole + b"\0", "one bit": flipped}[damaged]
    )
    assert read(path, "stamp") is None


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("stands where the folder should be")
    assert not write(tmp_path / "file" / "code.o", b"code")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "code.o").mkdir()
    assert not write(tmp_path / "code.o", b"code")
    assert [p.name for p in tmp_path.iterdir()] == ["code.o"]


def test_several_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "code.o"
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: (write(path, bytes([n]) * 5000), read(path)), range(64)))
    assert all(written and code is not None and len(set(code)) == 1 and len(code) == 5000 for written, code in done)
    assert list(tmp_path.iterdir()) == [path]
