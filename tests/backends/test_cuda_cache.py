"""Compiled kernels are kept on disk, and made again where the file is damaged or cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backprop_gpu.backends.cuda.cache import folder, kept

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
    assert [kept(KEY, compiler) for _ in range(3)] == [b"\x7fELF code"] * 3
    assert compiler.times == 1
    assert [path.parent for path in place.iterdir()] == [folder()]


@pytest.mark.parametrize("place_in_key", range(len(KEY)))
def test_another_source_option_card_or_compiler_is_another_file(place: Path, place_in_key: int) -> None:
    other = tuple("other" if n == place_in_key else part for n, part in enumerate(KEY))
    assert kept(KEY, Compiler(b"one")) == b"one"
    assert kept(other, Compiler(b"two")) == b"two"
    assert kept(KEY, Compiler(b"three")) == b"one"


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 64])
def test_a_damaged_file_is_made_again(place: Path, damage: bytes) -> None:
    kept(KEY, Compiler(b"code"))
    (file,) = place.iterdir()
    file.write_bytes(damage)
    again = Compiler(b"code")
    assert kept(KEY, again) == b"code"
    assert again.times == 1
    assert kept(KEY, again) == b"code"
    assert again.times == 1


def test_a_folder_that_cannot_be_made_costs_the_compilation_alone(place: Path) -> None:
    place.write_text("a file stands where the folder should be")
    compiler = Compiler(b"code")
    assert kept(KEY, compiler) == kept(KEY, compiler) == b"code"
    assert compiler.times == 2


def test_nothing_is_kept_of_a_compilation_that_fails(place: Path) -> None:
    def fails() -> bytes:
        raise RuntimeError("no such register")

    with pytest.raises(RuntimeError):
        kept(KEY, fails)
    assert not place.exists() or os.listdir(place) == []
