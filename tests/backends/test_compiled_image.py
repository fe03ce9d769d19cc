"""Images of machine code: loaded anywhere, without a linker; what they cannot hold stays an object file."""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")
compiler = pytest.importorskip("backprop_gpu.backends.host.compiled.compiler")
image = pytest.importorskip("backprop_gpu.backends.host.compiled.image")
native = pytest.importorskip("backprop_gpu.backends.host.compiled.native")
kept = pytest.importorskip("support.compiled")
data = pytest.importorskip("backprop_gpu.backends.host.compiled.data")
functions = pytest.importorskip("backprop_gpu.backends.host.compiled.functions")

linux = pytest.mark.skipif(not image.SUPPORTED, reason="images are for Linux on x86-64")
STORE = "define void @kernel(i64 %at) {{ %p = inttoptr i64 %at to ptr {0} ret void }}"
SEVEN = STORE.format("store i64 7, ptr %p")


def image_of(text: str) -> bytes | None:
    made: bytes | None = image.image(compiler.object_code("test_image", 1, text)[0], "test_image")
    return made


def run(address: int, number: int = 0) -> int:
    """What the int64 becomes that the function is given the address of."""
    word = ctypes.c_int64(number)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(ctypes.addressof(word))
    return word.value


@linux
def test_an_image_runs_from_several_places() -> None:
    made = image_of(SEVEN)
    assert made is not None
    addresses = [image.load(made) for _ in range(5)]
    assert [run(address) for address in addresses] == [7] * 5
    assert len({address % mmap.PAGESIZE for address in addresses}) == 5, "all would share few lines of the cache"


@linux
def test_memory_is_never_written_and_run_at_once() -> None:
    made = image_of(SEVEN)
    assert made is not None
    address = image.load(made)
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, _, end = line.split()[0].partition("-")
        if int(first, 16) <= address < int(end, 16):
            assert line.split()[1] == "r-xp"
            return
    raise AssertionError("it lies nowhere")


@linux
def test_constants_and_calls_of_the_c_library_come_along() -> None:
    text = """
        @table = private constant [4 x i64] [i64 3, i64 1, i64 4, i64 1]
        declare ptr @memcpy(ptr, ptr, i64)
        declare ptr @memset(ptr, i32, i64)
    """ + STORE.format("""
        %i = load i64, ptr %p
        %from = getelementptr i64, ptr @table, i64 %i
        %a = call ptr @memset(ptr %p, i32 255, i64 8)
        %b = call ptr @memcpy(ptr %p, ptr %from, i64 4)
    """)
    made = image_of(text)
    assert made is not None
    assert [run(image.load(made), i) & 0xFFFFFFFF for i in range(4)] == [3, 1, 4, 1]


@linux
@pytest.mark.parametrize(
    "text",
    [
        "@word = global i64 0 " + STORE.format("store i64 7, ptr @word"),
        "@zeros = global [9 x i64] zeroinitializer " + STORE.format("store i64 7, ptr @zeros"),
        "declare void @there_is_no_such_function() " + STORE.format("call void @there_is_no_such_function()"),
        "@far = external global i64 " + STORE.format("store i64 7, ptr @far"),
    ],
    ids=["variables", "zeros", "an unknown function", "an unknown variable"],
)
def test_what_an_image_cannot_hold(text: str) -> None:
    assert image_of(text) is None


@linux
def test_a_section_that_no_image_can_align_is_left_to_the_linker() -> None:
    elf = bytearray(compiler.object_code("test_image", 1, SEVEN)[0])
    assert image.image(bytes(elf), "test_image") is not None
    table, size = struct.unpack_from("<Q", elf, 0x28)[0], struct.unpack_from("<H", elf, 0x3A)[0]
    text = next(i for i, section in enumerate(image._sections(bytes(elf))) if section[0] == ".text")
    struct.pack_into("<Q", elf, table + size * text + 0x30, 128)
    assert image.image(bytes(elf), "test_image") is None


@linux
def test_an_object_without_the_function_is_none() -> None:
    assert image.image(compiler.object_code("test_image", 1, SEVEN)[0], "another") is None


@linux
def test_every_kernel_can_be_an_image_or_a_sample_of_them() -> None:
    for kernel in list(kept.all_kernels())[::7]:
        code, alone = compiler.object_code(kernel.name, kernel._argument_count, kernel._factory())
        assert alone
        assert image.image(code, kernel.name), kernel.name


@linux
def test_a_system_that_forbids_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = image_of(SEVEN)
    assert made is not None

    class Strict:
        mmap = staticmethod(image._system().mmap)
        mprotect = staticmethod(lambda *_: -1)

    monkeypatch.setattr(image, "_system", lambda: Strict)
    with pytest.raises(image.DeviceError, match="use kernels: host"):
        image.load(made)


def test_elsewhere_object_files_are_kept_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems, on this one."""
    monkeypatch.setattr(native, "folders", lambda: [tmp_path])
    for module in (image, compiler):
        monkeypatch.setattr(module, "SUPPORTED", False)
    compiler.target_machine.cache_clear()
    try:
        kernel = data.gather("float64")
        code = native._code("test_elsewhere", 1, kernel._factory)
        assert not code.startswith(image.MAGIC)
        assert native._code("test_elsewhere", 1, pytest.fail) == code
        source, order, counters = np.arange(6.0).reshape(3, 2), np.array([2, 0, 1]), np.zeros(2, np.int64)
        out = np.zeros((3, 2))
        row: Any = [source, order, counters, 3, out, 3, 2]
        words = np.array([x if isinstance(x, int) else x.ctypes.data for x in row], np.int64)
        address = native._load("backprop_gpu_test_elsewhere", code)
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(words.ctypes.data)
        np.testing.assert_array_equal(out, source[order])
        assert struct.calcsize("P") == 8
    finally:
        compiler.target_machine.cache_clear()
