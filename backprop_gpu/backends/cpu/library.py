"""The kernel library: find it, load it, check that it is the right one and that it works.

It is built when the package is installed (``hatch_build.py``) where there is a C++ compiler, and lies beside this file;
an editable installation has it in ``build/native/`` of the checkout. Where there is none, or it does not work, the
reference kernels run, and ``backprop-gpu devices`` says why.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import numpy as np

from ...errors import DeviceError
from ...native import build

INTERFACE_VERSION = 1  # of what Python and C++ agree on; the same number stands in native/cpu/c_api.cpp
ENVIRONMENT_VARIABLE = "BACKPROP_GPU_INSTRUCTION_SET"
_CHECKOUT = Path(__file__).resolve().parents[3]


class NativeUnavailableError(DeviceError):
    """Why the native kernels cannot run here, and what to do about it."""


class Library:
    """A loaded kernel library, and one of its instruction sets.

    Attributes
    ----------
    instruction_set : str
        ``"avx512"``, ``"avx2"`` or ``"neon"``.
    run, run_schedule, call_workers : ctypes functions
        See ``native/cpu/c_api.cpp``.
    """

    def __init__(self, path: Path, instruction_set: str | None = None) -> None:
        self.path = path
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise NativeUnavailableError(f"{path.name} cannot be loaded ({error}); {_REBUILD}") from None
        self._check_version()
        self.instruction_set = self._choose(instruction_set)
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        self.run = self._function("run", ctypes.c_int, pointer, pointer, word, word)
        self.run_schedule = self._function("run_schedule", ctypes.c_int, pointer, word, word)
        self.call_workers = self._function("call_workers", ctypes.c_int, word, ctypes.c_int)
        self._kernel = self._function("kernel", pointer, ctypes.c_char_p, ctypes.c_char_p)
        self._addresses: dict[str, int] = {}

    def _function(self, name: str, result: object, *arguments: object) -> ctypes._NamedFuncPointer:
        try:
            function = getattr(self._library, f"backprop_{name}")
        except AttributeError:
            raise NativeUnavailableError(f"{self.path.name} is not this package's library; {_REBUILD}") from None
        function.restype, function.argtypes = result, arguments
        return function

    def _check_version(self) -> None:
        version = self._function("interface_version", ctypes.c_int)()
        if version != INTERFACE_VERSION:
            raise NativeUnavailableError(
                f"{self.path.name} has interface version {version}, needed is {INTERFACE_VERSION}; {_REBUILD}"
            )
        digest = self._function("sources_digest", ctypes.c_char_p)().decode()
        if self.path.parent == editable_path().parent and digest != build.sources_digest():
            raise NativeUnavailableError(f"{self.path.name} was built from other sources; {_REBUILD}")

    def _choose(self, wanted: str | None) -> str:
        """The fastest instruction set that this processor has, or the one that was asked for."""
        known = build.INSTRUCTION_SETS.get(build.machine(), {})
        there = [name for name in known if self.supports(name)]
        if not there:
            raise NativeUnavailableError(f"this processor has none of the instruction sets {', '.join(known)}")
        if wanted and wanted not in there:
            raise NativeUnavailableError(f"{ENVIRONMENT_VARIABLE}={wanted}: use one of {', '.join(there)}, or none")
        return wanted or there[0]

    def supports(self, instruction_set: str) -> bool:
        """Whether this processor has it."""
        return bool(self._function("supports", ctypes.c_int, ctypes.c_char_p)(instruction_set.encode()))

    def kernel(self, name: str) -> int:
        """A kernel's address.

        Raises
        ------
        KeyError
            There is none of this name.
        """
        if name not in self._addresses:
            address = self._kernel(self.instruction_set.encode(), name.encode())
            if not address:
                raise KeyError(name)
            self._addresses[name] = address
        return self._addresses[name]


_REBUILD = "build it again: scripts/build_native (in a checkout), or install backprop_gpu again"


def installed_path() -> Path:
    """Where a wheel has the library."""
    return Path(__file__).resolve().with_name(build.library_name())


def editable_path() -> Path:
    """Where a checkout has it: in a folder that git ignores and wheels leave out."""
    return _CHECKOUT / "build" / "native" / build.library_name()


@functools.cache
def _found() -> Library | NativeUnavailableError:
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if wanted == "none":
        return NativeUnavailableError(f"{ENVIRONMENT_VARIABLE}=none leaves the native kernels out")
    path = next((path for path in (installed_path(), editable_path()) if path.exists()), None)
    if path is None:
        return NativeUnavailableError(
            "the kernel library was not built, since no C++ compiler was there when backprop_gpu was installed; "
            "install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install), then backprop_gpu again"
        )
    try:
        library = Library(path, wanted or None)
        _self_test(library)
    except NativeUnavailableError as error:
        return error
    return library


def native_library() -> Library:
    """The library, loaded once in a process.

    Raises
    ------
    NativeUnavailableError
        It is not there or does not work; says why, and what to do.
    """
    found = _found()
    if isinstance(found, NativeUnavailableError):
        raise NativeUnavailableError(str(found))  # a new object: its traceback references no earlier caller
    return found


def unavailable_reason() -> str:
    """Why the native kernels cannot run here; empty if they can."""
    found = _found()
    return str(found) if isinstance(found, NativeUnavailableError) else ""


def _self_test(library: Library) -> None:
    """One layer, tanh(W A + b), against NumPy: a library that computes nonsense here is not used."""
    numbers = np.sin(np.arange(77.0))  # arbitrary; importing numpy.random would take longer than the rest
    W, A_prev, b = numbers[:15].reshape(5, 3), numbers[15:72].reshape(3, 19), numbers[72:].reshape(5, 1)
    A, parameter = np.empty((5, 19)), np.zeros(1)
    # The fields of ``Dense`` in native/cpu/layers.h.
    fields = [W, 0, A_prev, b, A, 5, 3, 19, parameter, 0, 19]
    row = np.array([x.ctypes.data if isinstance(x, np.ndarray) else x for x in fields], np.int64)
    kernels, rows = (np.array([x], np.int64) for x in (library.kernel("dense_tanh_float64"), row.ctypes.data))
    if library.run(kernels.ctypes.data, rows.ctypes.data, 1, 1):
        raise NativeUnavailableError("there is no memory for the kernels' workspace")
    if not np.allclose(A, np.tanh(W @ A_prev + b), rtol=0.0, atol=1e-14):
        raise NativeUnavailableError(f"{library.path.name} failed its self-test; {_REBUILD}")
