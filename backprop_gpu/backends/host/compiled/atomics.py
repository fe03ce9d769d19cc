"""What threads tell each other: reads and writes of int64 that all of them see in one order, and ways to wait.

Like ``intrinsics``, this module imports numba; ``crew`` reaches it when the loops of a crew have to be compiled.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def add_one(typingctx: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(types.int64), generate


@intrinsic
def swap(typingctx: Any, address: Any, old: Any, new: Any) -> Any:
    """Make the int64 at an address ``new`` if it is ``old``, atomically; returns whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        found = builder.cmpxchg(place, arguments[1], arguments[2], "acq_rel", "acquire")
        return builder.zext(builder.extract_value(found, 1), ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def look(typingctx: Any, address: Any) -> Any:
    """The int64 at an address, which another thread may write."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def publish(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


# LLVM's names of the instruction that tells a core that it is in a loop that waits, and its argument if it has one.
PAUSES: dict[str, tuple[str, list[int]]] = {
    **dict.fromkeys(("x86_64", "amd64"), ("llvm.x86.sse2.pause", [])),
    **dict.fromkeys(("aarch64", "arm64"), ("llvm.aarch64.hint", [1])),
}


@intrinsic
def pause(typingctx: Any) -> Any:
    """Wait some nanoseconds, where there is such an instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name, values = PAUSES.get(platform.machine().lower(), ("", []))
        if name:
            given = [ir.Constant(ir.IntType(32), value) for value in values]
            kind = ir.FunctionType(ir.VoidType(), [x.type for x in given])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def system_yield(typingctx: Any, address: Any) -> Any:
    """Call the operating system's yield, int(void), at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate
