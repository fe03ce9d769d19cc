"""The kernel library: built, found, checked, and done without where it cannot be had."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.cpu import library as module
from backprop_gpu.backends.cpu.library import Library, NativeUnavailableError, native_library, unavailable_reason
from backprop_gpu.native import build

ROOT = Path(__file__).resolve().parents[2]


def has_compiler() -> bool:
    try:
        return bool(build.compiler()) and build.machine() in build.INSTRUCTION_SETS
    except build.BuildError:
        return False


pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler here: apt install g++")


def test_where_there_is_a_compiler_there_are_native_kernels() -> None:
    """Else every test of them is a skip that hides a gap."""
    if os.environ.get(module.ENVIRONMENT_VARIABLE) == "none":
        pytest.skip("the environment leaves the native kernels out")
    assert unavailable_reason() == ""


def run_python(code: str, *, cwd: Path = ROOT, **environment: str) -> str:
    environment = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


WHICH = """
from backprop_gpu import DenseNet
from backprop_gpu.backends.cpu.library import native_library, unavailable_reason
net = DenseNet([3, 2], device="cpu")
print(type(net.kernels).__name__, unavailable_reason() or native_library().instruction_set)
"""


def test_each_instruction_set_can_be_asked_for() -> None:
    for name in build.INSTRUCTION_SETS[build.machine()]:
        if native_library().supports(name):
            assert run_python(WHICH, BACKPROP_GPU_INSTRUCTION_SET=name).split() == ["NativeKernels", name]


def test_one_that_is_not_there_gives_the_reference_and_says_why() -> None:
    for asked, said in (("none", "leaves the native kernels out"), ("avx1024", "use one of")):
        printed = run_python(WHICH, BACKPROP_GPU_INSTRUCTION_SET=asked)
        assert printed.startswith("ReferenceKernels")
        assert said in printed


def test_a_file_that_is_no_library_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / build.library_name()
    path.write_bytes(b"not a library")
    with pytest.raises(NativeUnavailableError, match=r"cannot be loaded \(.*build it again"):
        Library(path)
    (tmp_path / "other.cpp").write_text("int nothing;")
    subprocess.run([*build.compiler(), "-shared", "-fPIC", str(tmp_path / "other.cpp"), "-o", str(path)], check=True)
    with pytest.raises(NativeUnavailableError, match="is not this package's library"):
        Library(path)


def test_a_library_of_another_interface_or_of_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / build.library_name()
    shutil.copy(native_library().path, path)
    assert Library(path).instruction_set
    monkeypatch.setattr(module, "INTERFACE_VERSION", module.INTERFACE_VERSION + 1)
    with pytest.raises(NativeUnavailableError, match="interface version"):
        Library(path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "editable_path", lambda: path)
    monkeypatch.setattr(build, "sources_digest", lambda: "edited")
    with pytest.raises(NativeUnavailableError, match="built from other sources; build it again: scripts/build_native"):
        Library(path)


def test_python_and_c_agree_on_the_version_of_their_interface() -> None:
    text = (Path(build.__file__).parent / "cpu" / "c_api.cpp").read_text()
    assert f"#define INTERFACE_VERSION {module.INTERFACE_VERSION} " in text


def test_nonsense_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong kernel in the tested one's place."""
    library, kernel = native_library(), Library.kernel
    monkeypatch.setattr(Library, "kernel", lambda self, name: kernel(self, name.replace("tanh", "relu")))
    with pytest.raises(NativeUnavailableError, match="self-test"):
        module._self_test(library)


def test_the_library_needs_libc_alone_and_shows_nothing_but_its_interface() -> None:
    if sys.platform != "linux" or shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("reads the symbols with nm and readelf")
    path = str(native_library().path)
    shown = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    assert all(" backprop_" in line for line in shown.splitlines()), shown
    needed = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "(NEEDED)" in line]
    allowed = ("libc.so", "libpthread", "libm.so", "ld-linux", "libgcc_s")
    assert all(name.startswith(allowed) for name in libraries), libraries


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_it_compiles_without_a_warning(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    warnings = ("-Wall", "-Wextra", "-Wshadow", "-Werror")
    sources = [
        ("cpu/c_api.cpp", ""),
        *(("cpu/kernels.cpp", march) for march in build.INSTRUCTION_SETS[build.machine()].values()),
    ]
    for source, march in sources:
        flags = [flag for flag in (march, "-DKERNELS=kernels_tested") if flag]
        build.run([name, *build.FLAGS, *flags, *warnings, "-fsyntax-only", str(build.FOLDER / source)])


def test_a_wheel_with_the_library_is_for_this_machine() -> None:
    """``.ci/run`` builds one from the sdist, installs it and asks which kernels it has."""
    spec = importlib.util.spec_from_file_location("hatch_build_here", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    pytest.importorskip("hatchling")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    tag = hook.wheel_tag(build.machine())
    assert tag.startswith("py3-none-")
    assert tag.endswith({"x86_64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}[build.machine()])


def test_kernels_keep_the_floating_point_mode_of_the_caller() -> None:
    """And are not led astray by it: flush-to-zero, which -ffast-math libraries leave behind, changes no bit."""
    if build.machine() != "x86_64":
        pytest.skip("sets the mode by x86 instructions")
    code = b"\x0f\xae\x17\xc3"  # ldmxcsr [rdi]; ret
    import mmap

    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    set_mode = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    kernels = get_backend("cpu").kernels("native")
    theta, tiny = np.ones(64, np.float32), np.full(64, 1e-40, np.float32)
    average, share = np.zeros(64, np.float32), np.array([1.0], np.float32)
    call = [ctypes.c_int64(native_library().kernel("average_float32")), theta, average, share]
    from backprop_gpu.backends.cpu.calls import Call, Units, rows

    flush, usual = ctypes.c_uint32(0x9FC0), ctypes.c_uint32(0x1F80)
    made = Call(call[0].value, (rows(tiny), rows(average, written=True), share, Units(64)))
    row = np.array(made.row_addresses, np.int64)
    set_mode(ctypes.addressof(flush))
    try:
        native_library().run(ctypes.addressof(call[0]), row.ctypes.data, 1, 1)
        flushed = float(np.float32(1e-40) * np.float32(1.0))
    finally:
        set_mode(ctypes.addressof(usual))
    assert flushed == 0.0, "the caller's mode is back"
    assert average[0] == np.float32(1e-40)
    assert kernels is not None
