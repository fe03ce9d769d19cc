"""Machine code with a C address: from a file if this machine has compiled it before, else by LLVM, and then kept.

A file is loaded in a fraction of the time that importing a compiler takes. It lies beside these sources in
``__pycache__``, or where that cannot be written in the user's cache folder; the variable NUMBA_CACHE_DIR names another
place. As with Python's own caches, whoever may write there decides what runs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...kept import read, write
from ...locks import hold_while_forking
from . import image
from .edition import as_imported, stamp

_FOLDER = Path(__file__).parent
_LOCK = threading.RLock()
# A child forked while a thread compiled would wait for ever, for this lock or for one of LLVM's.
hold_while_forking(_LOCK)


class Native:
    """``void f(int64, ...)`` as machine code, made when it is first asked for.

    Parameters
    ----------
    name : str
        Tells it from all others; a file is kept under it.
    argument_count : int
        How many int64 it takes.
    factory : callable
        Called if the code is not on disk: returns the function to be compiled, plain or ``inline``, or a text in LLVM's
        language that defines it as ``@kernel``.
    """

    def __init__(self, name: str, argument_count: int, factory: Callable[[], Any]) -> None:
        self.name, self._argument_count, self._factory = name, argument_count, factory
        self._function: Any = None
        self._start = 0

    @property
    def address(self) -> int:
        """Where the machine code begins."""
        self.prepare()
        return self._start

    def prepare(self) -> None:
        """Make it, if it has not been made.

        No ``functools.cached_property``: Python 3.11's has a lock, which a child forked meanwhile would find taken.
        """
        if self._function is None:
            kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * self._argument_count)
            self._start = _address(self.name, self._argument_count, self._factory)
            self._function = kind(self._start)

    def __call__(self, *numbers: int) -> None:
        """Run, with the interpreter's lock released."""
        self.prepare()
        self._function(*numbers)


_loaded: dict[str, int] = {}


def _address(name: str, argument_count: int, factory: Callable[[], Any]) -> int:
    with _LOCK:
        if name not in _loaded:
            _loaded[name] = _load(f"backprop_gpu_{name}", _code(name, argument_count, factory))
        return _loaded[name]


def _code(name: str, argument_count: int, factory: Callable[[], Any]) -> bytes:
    """An image or object code, from the first folder that has it."""
    whole = stamp()
    file = f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}.code"
    for folder in folders():
        code = read(folder / file, whole)
        if code is not None:
            return code
    from .compiler import object_code

    symbol = f"backprop_gpu_{name}"
    code, alone = object_code(symbol, argument_count, factory())
    if image.SUPPORTED and alone:
        code = image.image(code, symbol) or code
    if alone and as_imported():
        any(write(folder / file, code, whole) for folder in folders())
    return code


def folders() -> list[Path]:
    """Where machine code is looked for; it is kept in the first that can be written."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        return [Path(named) / "backprop_gpu"]
    try:
        return [_FOLDER / "__pycache__", _users_folder() / "backprop_gpu"]
    except RuntimeError:  # there is no home
        return [_FOLDER / "__pycache__"]


def _users_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@functools.cache
def _engine() -> Any:
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _load(symbol: str, code: bytes) -> int:
    """Put machine code into memory that can be executed."""
    if code.startswith(image.MAGIC):
        return image.load(code)
    from llvmlite import binding as llvm

    _engine().add_object_file(llvm.ObjectFileRef.from_data(code))
    _engine().finalize_object()
    return int(_engine().get_function_address(symbol))
