"""NVRTC by ctypes, with the functions of ``cupy.cuda.nvrtc``; and nvcc. Neither needs a card."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


def _candidates() -> list[str]:
    """The library in NVIDIA's wheels (``nvidia-cuda-nvrtc``), then the system's."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [str(path) for folder in folders for path in sorted(Path(folder).rglob("libnvrtc.so.*"))]
    found += [str(path) for folder in folders for path in sorted(Path(folder).rglob("nvrtc64_*_0.dll"))]
    return [*found, "libnvrtc.so.13", "libnvrtc.so.12"]


class Nvrtc:
    """The functions of ``cupy.cuda.nvrtc`` that the package calls."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(self.library.nvrtcGetErrorString(status).decode())

    def getSupportedArchs(self) -> tuple[int, ...]:
        count = ctypes.c_int()
        self._check(self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._check(self.library.nvrtcGetSupportedArchs(numbers))
        return tuple(numbers)

    def createProgram(self, text: str, name: str, headers: Sequence[str], names: Sequence[str]) -> ctypes.c_void_p:
        assert (headers, names) == ((), ())
        program = ctypes.c_void_p()
        self._check(self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None))
        return program

    def compileProgram(self, program: ctypes.c_void_p, options: Sequence[str]) -> None:
        words = (ctypes.c_char_p * len(options))(*(x.encode() for x in options))
        self._check(self.library.nvrtcCompileProgram(program, len(options), words))

    def _bytes(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        found = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.library, f"nvrtcGet{what}")(program, found))
        return found.raw

    def getCUBIN(self, program: ctypes.c_void_p) -> bytes:
        return self._bytes("CUBIN", program)

    def getPTX(self, program: ctypes.c_void_p) -> bytes:
        return self._bytes("PTX", program)

    def getProgramLog(self, program: ctypes.c_void_p) -> str:
        return self._bytes("ProgramLog", program).decode().rstrip("\0")

    def destroyProgram(self, program: ctypes.c_void_p) -> None:
        self._check(self.library.nvrtcDestroyProgram(ctypes.byref(program)))


@cache
def nvrtc() -> Nvrtc | None:
    """NVRTC, or None where it is not installed."""
    for name in _candidates():
        try:
            return Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
    return None


def obstacle(*, nvcc: bool = True) -> str | None:
    """Why nothing can be compiled for a card here, or None; ``nvcc``: it would do as well."""
    if nvrtc() is not None or (nvcc and shutil.which("nvcc")):
        return None
    return f"NVRTC is not installed{' and nor is nvcc' if nvcc else ''}; pip install 'backprop-gpu[cuda-test]'"


def by_nvcc(text: str, architecture: int, folder: Path) -> bytes:
    """The machine code that nvcc makes of a source; a warning is an error."""
    source, made = folder / "kernels.cu", folder / "kernels.cubin"
    source.write_text(text, encoding="utf-8")
    options = ["-std=c++17", "-Werror=all-warnings", "-cubin", f"-arch=sm_{architecture}"]
    done = subprocess.run(["nvcc", *options, str(source), "-o", str(made)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made.read_bytes()


def warnings(text: str, architecture: int, options: Sequence[str]) -> str:
    """What NVRTC says of a source that compiles."""
    compiler: Any = nvrtc()
    program = compiler.createProgram(text, "kernels.cu", (), ())
    compiler.compileProgram(program, (f"--gpu-architecture=sm_{architecture}", *options))
    log: str = compiler.getProgramLog(program)
    compiler.destroyProgram(program)
    return log
