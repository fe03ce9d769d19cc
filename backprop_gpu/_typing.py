"""Names for types that the array-API standard leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
"""An array of any namespace: numpy, cupy, array_api_strict, torch through array-api-compat."""

Namespace: TypeAlias = Any
"""A module that follows the Python array API standard, such as ``numpy`` or ``cupy``."""

Program: TypeAlias = Callable[[], None]
"""A part of a training step: it takes nothing and writes only to buffers made beforehand."""

Before: TypeAlias = Callable[[], None]
"""What is to happen ahead of every step of a replay, such as sending its batch."""


class Replay(Protocol):
    """Runs a captured program so many times over, each time after ``before``."""

    def __call__(self, times: int, before: Before | None = None, /) -> None:
        """From Python, as few calls as the kernel set can do with."""
