"""What numba is told of the ``instructions`` that threads use.

Like ``intrinsics``, this module imports numba; ``crew`` reaches it when numba has to compile the loops of a crew.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from . import instructions
from .intrinsics import written


@intrinsic
def add_one(typingctx: Any, address: Any) -> Any:
    """See ``instructions``, here and below."""
    return types.int64(types.int64), written(instructions.add_one)


@intrinsic
def swap(typingctx: Any, address: Any, old: Any, new: Any) -> Any:
    """Compare and swap."""
    return types.int64(types.int64, types.int64, types.int64), written(instructions.swap)


@intrinsic
def look(typingctx: Any, address: Any) -> Any:
    """Read."""
    return types.int64(types.int64), written(instructions.look)


@intrinsic
def publish(typingctx: Any, address: Any, value: Any) -> Any:
    """Write."""
    return types.void(types.int64, types.int64), written(instructions.publish)


@intrinsic
def pause(typingctx: Any) -> Any:
    """Wait some nanoseconds."""
    return types.void(), written(instructions.pause)


@intrinsic
def system_yield(typingctx: Any, address: Any) -> Any:
    """Let others run."""
    return types.void(types.int64), written(instructions.system_yield)
