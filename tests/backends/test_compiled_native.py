"""Machine code of the compiled kernels on disk: found, it is used without a compiler; else it is made anew."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import ROOT, environment

pytest.importorskip("numba", reason="numba is not installed; pip install 'backprop-gpu[fast]'")
llvm = pytest.importorskip("llvmlite.binding")
compiler = pytest.importorskip("backprop_gpu.backends.host.compiled.compiler")
numbas = pytest.importorskip("backprop_gpu.backends.host.compiled.numbas")
edition = pytest.importorskip("backprop_gpu.backends.host.compiled.edition")
native = pytest.importorskip("backprop_gpu.backends.host.compiled.native")
image = pytest.importorskip("backprop_gpu.backends.host.compiled.image")
calling = pytest.importorskip("backprop_gpu.backends.host.compiled.calling")

SAYS = "backprop_gpu: compiling kernels for this machine, once: a few seconds\n"
TRAIN = """
import sys
import numpy as np
from backprop_gpu import DenseNet, Trainer
from backprop_gpu.backends.host.compiled import image
net = DenseNet([5, 4, 3], loss="categorical_cross_entropy", device="numpy", kernels="compiled", seed=0)
X, y = np.random.default_rng(0).standard_normal((20, 5)).astype("f4"), np.arange(20) % 3
Trainer(net, epochs=2, batch_size=8, progress=False).fit(X, y)
print("numba" in sys.modules, "llvmlite" in sys.modules or not image.SUPPORTED, net.params.theta.tobytes().hex())
"""
# For numba: the translator knows of no powers.
TWICE = """
import ctypes, sys
from backprop_gpu.backends.host.compiled.native import Native
from backprop_gpu.backends.host.compiled.calling import integers
def twice(at):
    integers(at, 1)[0] *= 2**1
number = ctypes.c_int64(21)
Native("twice", 1, lambda: twice)(ctypes.addressof(number))
print("numba" in sys.modules, number.value)
"""


def run(code: str, cache: Path, **variables: str) -> tuple[str, str]:
    """Output and errors of code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=environment(NUMBA_CACHE_DIR=str(cache), **variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_first_process_trains_without_numba_and_the_second_without_llvm_to_the_same_bits(tmp_path: Path) -> None:
    first, said = run(TRAIN, tmp_path)
    assert first.startswith("False True ")
    assert said == ""
    second, said = run(TRAIN, tmp_path)
    assert second == first.replace("True", str(not image.SUPPORTED), 1)
    assert said == ""


def test_what_is_not_on_disk_is_compiled(tmp_path: Path) -> None:
    """One kernel of a network is gone: it alone is made again."""
    run(TRAIN, tmp_path)
    files = sorted((tmp_path / "backprop_gpu").glob("*.code"))
    gone = next(path for path in files if path.name.startswith("update_"))
    before = {path: path.stat().st_mtime_ns for path in files if path != gone}
    gone.unlink()
    out, said = run(TRAIN, tmp_path)
    assert (out.startswith("False True "), said) == (True, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted((tmp_path / "backprop_gpu").iterdir()) == files


@pytest.mark.parametrize("damage", ["cut", "one bit", "another's"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    run(TWICE, tmp_path)
    (file,) = (tmp_path / "backprop_gpu").iterdir()
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-40] ^= 1
    file.write_bytes({"cut": whole[:-100], "one bit": bytes(changed), "another's": whole[32:]}[damage])
    assert run(TWICE, tmp_path) == ("True 42\n", SAYS)
    assert run(TWICE, tmp_path) == ("False 42\n", "")


def test_another_processor_or_setting_has_files_of_its_own(tmp_path: Path) -> None:
    for variables in ({}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_OPT": "1"}):
        assert run(TWICE, tmp_path, **variables) == ("True 42\n", SAYS)
        assert run(TWICE, tmp_path, **variables) == ("False 42\n", "")
    assert len(list((tmp_path / "backprop_gpu").iterdir())) == 3


def test_several_processes_may_find_nothing_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: run(TWICE, tmp_path), range(3)))
    assert {out.split()[1] for out, _ in found} == {"42"}
    assert [path.suffix for path in (tmp_path / "backprop_gpu").iterdir()] == [".code"]
    assert run(TWICE, tmp_path) == ("False 42\n", "")


# A thread that is about to ask for machine code when the process forks: whatever it holds then stays held in the child.
ASKING = """
import os, signal, threading
from backprop_gpu.backends.host.compiled import native
begun, ended, find = threading.Event(), threading.Event(), native._address
def waiting(*given):
    begun.set()
    ended.wait()
    return find(*given)
def named(name):
    return native.Native(name, 0, lambda: "define void @kernel() { ret void }")
native._address = waiting
asking = threading.Thread(target=named("first").prepare)
asking.start()
begun.wait()
native._address = find
child = os.fork()
if child == 0:
    signal.alarm(20)
    named("second")()
    os._exit(0)
ended.set()
asking.join()
print(os.waitpid(child, 0)[1])
"""
FORK = """
import os, signal, threading
from backprop_gpu.backends.host.compiled.native import Native
def made():
    begun.set()
    ended.wait()
    return "define void @kernel() { ret void }"
begun, ended = threading.Event(), threading.Event()
compiling = threading.Thread(target=Native("first", 0, made).prepare)
compiling.start()
begun.wait()
threading.Timer(0.2, ended.set).start()
child = os.fork()
if child == 0:
    signal.alarm(20)
    Native("second", 0, lambda: "define void @kernel() { ret void }")()
    os._exit(0)
compiling.join()
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("code", [ASKING, FORK], ids=["asks", "compiles"])
def test_a_process_may_fork_while_a_thread_asks_or_compiles(code: str, tmp_path: Path) -> None:
    assert run(code, tmp_path) == ("0\n", "")


def test_nothing_is_kept_of_sources_that_nobody_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package without them, say: all its editions would have the same digest."""
    monkeypatch.setattr(native, "folders", lambda: [tmp_path])
    monkeypatch.setattr(edition, "_sources", list)
    monkeypatch.setattr(edition, "_MARKS", [])
    native._code("test_unread", 0, lambda: "define void @kernel() { ret void }")
    assert not list(tmp_path.iterdir())


def test_without_a_folder_to_write_to_kernels_are_compiled_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("stands where the folder should be")
    for _ in range(2):
        assert run(TWICE, tmp_path / "file") == ("True 42\n", SAYS)


def test_where_machine_code_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the sources, and where that cannot be written in the user's folder, unless a folder is named."""
    beside = Path(native.__file__).parent / "__pycache__"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert native.folders() == [tmp_path / "backprop_gpu"]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    for system, variable, inside in (
        ("linux", "XDG_CACHE_HOME", "."),
        ("win32", "LOCALAPPDATA", "."),
        ("darwin", "HOME", "Library/Caches"),
    ):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setenv(variable, str(tmp_path / system))
        assert native.folders() == [beside, tmp_path / system / inside / "backprop_gpu"]


def test_without_a_home_only_the_folder_beside_the_sources_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert native.folders() == [Path(native.__file__).parent / "__pycache__"]


def test_the_first_folder_that_can_be_written_is_used_and_every_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(native, "folders", lambda: [tmp_path / "file" / "a", tmp_path / "b", tmp_path / "c"])
    made: list[int] = []

    def factory() -> Any:
        made.append(1)
        return lambda at: None

    for _ in range(2):
        assert native._code("test_folders", 1, factory)
    assert (len(made), sorted(p.name for p in tmp_path.iterdir())) == (1, ["b", "file"])


def test_threads_that_ask_at_once_get_the_same_code() -> None:
    made: list[int] = []

    def factory() -> Any:
        made.append(1)
        return lambda at: None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: native.Native("test_threads", 1, factory).address, range(8)))
    assert len(set(found)) == 1
    assert len(made) <= 1  # none if an earlier run has left it on disk


def test_any_number_of_arguments_by_address_and_by_name() -> None:
    integers = calling.integers

    def weighted(out: Any, a: Any, b: Any, c: Any) -> None:
        integers(out, 1)[0] = a + 10 * b + 100 * c

    code, out = native.Native("test_arguments", 4, lambda: weighted), np.zeros(1, np.int64)
    code(out.ctypes.data, 3, 2, -1)
    assert out[0] == 3 + 20 - 100
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(code.address)(out.ctypes.data, 4, 5, 6)
    assert out[0] == 654


def test_an_object_has_one_name_and_needs_none_of_pythons() -> None:
    """numba's names repeat from process to process, so that none may be seen from outside."""
    integers = calling.integers

    def caller(at: Any) -> None:
        integers(at, 1)[0] += 1

    for way in (compiler, numbas):
        code, alone = way.object_code("only_this", 1, caller)
        assert alone
        assert b"only_this" in code
        assert b"_ZN08NumbaEnv" not in code
    module = llvm.parse_assembly("""
        @seen = global i64 1
        define i64 @other() { %x = load i64, ptr @seen
            ret i64 %x }
        define i64 @unused() { ret i64 2 }
        define i64 @entry() { %x = call i64 @other()
            ret i64 %x }
    """)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    numbas._keep_one(module, "entry", machine)
    linkages = {x.name: x.linkage.name for x in (*module.functions, *module.global_variables)}
    assert linkages == {"entry": "external", "other": "internal", "seen": "internal"}


def test_what_needs_numba_runs_but_is_not_kept(tmp_path: Path) -> None:
    """An array of its own comes from numba's allocator, which no process has that has not imported numba."""
    code = "import numpy as np" + TWICE.replace("*= 2**1", "+= np.ones(at % 1 + 21).size")
    for _ in range(2):
        assert run(code, tmp_path) == ("True 42\n", SAYS)
    assert not (tmp_path / "backprop_gpu").exists()


def test_a_text_in_llvms_language_is_a_kernel_too() -> None:
    text = "define void @kernel(i64 %at) { %p = inttoptr i64 %at to ptr store i64 7, ptr %p ret void }"
    number = ctypes.c_int64(0)
    native.Native("test_text", 1, lambda: text)(ctypes.addressof(number))
    assert number.value == 7


def test_a_source_that_was_written_since_is_not_translated_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer the code in memory, which numba compiles."""
    monkeypatch.setattr(native, "folders", lambda: [tmp_path])
    monkeypatch.setattr(edition, "_MARKS", [(0, 0)])
    assert not edition.as_imported()
    integers = calling.integers

    def seven(at: Any) -> None:
        integers(at, 1)[0] = 7

    assert compiler._translated(1, seven) is None
    number = ctypes.c_int64(0)
    native.Native("test_written_since", 1, lambda: seven)(ctypes.addressof(number))
    assert (number.value, list(tmp_path.iterdir())) == (7, [])
    monkeypatch.setattr(edition, "_MARKS", edition._marks())
    assert compiler._translated(1, seven) is not None


def test_what_linux_does_not_say_of_the_processor_llvm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "SUPPORTED", False)
    assert llvm.get_host_cpu_name() in edition._processor()
