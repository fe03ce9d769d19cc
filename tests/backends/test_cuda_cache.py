"""Compiled kernels are cached on disk, and made again where the file is damaged or cannot be written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backprop_gpu.backends.cuda.cache import cached, folder, read, write

KEY = ("source", "--option", "90", "13.0")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


class Compiler:
    """Counts how often it is asked."""

    def __init__(self, code: bytes) -> None:
        self.code, self.times = code, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.code


def test_compiled_once_and_read_from_then_on(place: Path) -> None:
    compiler = Compiler(b"\x7fELF code")
    assert [cached(KEY, compiler) for _ in range(3)] == [b"\x7fELF code"] * 3
    assert compiler.times == 1
    assert [path.parent for path in place.iterdir()] == [folder()]


@pytest.mark.parametrize("place_in_key", range(len(KEY)))
def test_another_source_option_card_or_compiler_is_another_file(place: Path, place_in_key: int) -> None:
    other = tuple("other" if n == place_in_key else part for n, part in enumerate(KEY))
    assert cached(KEY, Compiler(b"one")) == b"one"
    assert cached(other, Compiler(b"two")) == b"two"
    assert cached(KEY, Compiler(b"three")) == b"one"


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 64])
def test_a_damaged_file_is_made_again(place: Path, damage: bytes) -> None:
    cached(KEY, Compiler(b"code"))
    (file,) = place.iterdir()
    file.write_bytes(damage)
    again = Compiler(b"code")
    assert cached(KEY, again) == b"code"
    assert again.times == 1
    assert cached(KEY, again) == b"code"
    assert again.times == 1


def test_a_folder_that_cannot_be_made_costs_the_compilation_alone(place: Path) -> None:
    place.write_text("a file stands where the folder should be")
    compiler = Compiler(b"code")
    assert cached(KEY, compiler) == cached(KEY, compiler) == b"code"
    assert compiler.times == 2


def test_nothing_is_kept_of_a_compilation_that_fails(place: Path) -> None:
    def fails() -> bytes:
        raise RuntimeError("no such register")

    with pytest.raises(RuntimeError):
        cached(KEY, fails)
    assert not place.exists() or os.listdir(place) == []


# -- files -----------------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written_last(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "code.o"
    assert read(path) is None
    assert write(path, b"code")
    assert read(path) == b"code"
    assert write(path, b"other")
    assert read(path) == b"other"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damaged", [b"", b"short", b"\0" * 64, "cut", "longer", "one bit"])
def test_a_damaged_file_is_no_file(tmp_path: Path, damaged: bytes | str) -> None:
    path = tmp_path / "code.o"
    write(path, b"code")
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(
        damaged
        if isinstance(damaged, bytes)
        else {"cut": whole[:-1], "longer": whole + b"\0", "one bit": flipped}[damaged]
    )
    assert read(path) is None


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
