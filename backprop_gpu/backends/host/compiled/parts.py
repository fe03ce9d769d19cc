"""Functions that kernels are made of, defined without numba: it is imported if it has to compile a kernel.

The translator reads their source. numba asks a global or a free variable that it meets in a function for its type, by
the name ``_numba_type_``. What stands here answers that, and until then is no more than a Python function.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

# "contract" and "reassoc" let sums become vector code with FMA; NaN and infinities keep their meaning.
FLAGS: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}
_IN_ORDER: dict[str, Any] = {**FLAGS, "fastmath": {"contract"}}

# Parts of kernels have no callers but compiled ones: without wrappers they compile faster.
_INSIDE: dict[str, Any] = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Part:
    """A function that other compiled code calls and is inlined there."""

    def __init__(self, function: Callable[..., Any], flags: dict[str, Any]) -> None:
        self.function, self._flags = function, flags

    @property
    def fastmath(self) -> set[str]:
        """What LLVM may do with its floating numbers."""
        return set(self._flags["fastmath"])

    @functools.cached_property
    def dispatcher(self) -> Any:
        """numba's word for the function; asking for it imports numba."""
        import numba

        return numba.njit(**_INSIDE, **self._flags)(self.function)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_


def inline(function: Callable[..., Any]) -> Any:
    """A part of a kernel."""
    return Part(function, FLAGS)


def in_order(function: Callable[..., Any]) -> Any:
    """A part that relies on the order of operations; "contract" allows FMA."""
    return Part(function, _IN_ORDER)


class Late:
    """What compiled code calls, by its name in a module that imports numba."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self.name = module, name

    @functools.cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        found = getattr(importlib.import_module(self._module), self.name)
        cpu_target.typing_context.refresh()  # if the import has defined intrinsics
        return cpu_target.typing_context.resolve_value_type(found)
