"""Names for types that the array-API standard leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of any namespace: numpy, cupy, array_api_strict, torch through array-api-compat."""

Namespace: TypeAlias = Any
"""A module that follows the Python array API standard, such as ``numpy`` or ``cupy``."""

Program: TypeAlias = Callable[[], None]
"""A part of a training step: it takes nothing and writes only to buffers made beforehand."""

Replay: TypeAlias = Callable[[int], None]
"""Runs a captured program so many times over."""
