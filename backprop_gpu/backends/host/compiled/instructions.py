"""What kernels need beyond Python's words, as LLVM instructions: calls by address, the bits of a number, atomic words.

Each function takes llvmlite's builder and the values it is called with, and returns a value or None. The translator
calls them by their names; ``intrinsics`` and ``atomics`` tell numba of them.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir

ROW_MAJOR = 101  # of cblas.h

_I64, _I32 = ir.IntType(64), ir.IntType(32)


def call(builder: Any, address: Any, row: Any) -> None:
    """Call the kernel at ``address`` with ``row``."""
    kind = ir.FunctionType(ir.VoidType(), [_I64])
    builder.call(builder.inttoptr(address, kind.as_pointer()), [row])


def gemm(builder: Any, address: Any, *arguments: Any) -> None:
    """C = alpha op(A) op(B) + beta C, row-major, through ``cblas_sgemm`` or ``cblas_dgemm`` at ``address``.

    ``arguments``: transposed A?, transposed B?, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc; the type of ``alpha``
    says which function it is; integers are 64 bits wide.
    """
    real, data = arguments[5].type, ir.IntType(8).as_pointer()
    parameters = [_I32] * 3 + [_I64] * 3 + [real, data, _I64, data, _I64, real, data, _I64]
    target = builder.inttoptr(address, ir.FunctionType(ir.VoidType(), parameters).as_pointer())
    given = [ir.Constant(_I32, ROW_MAJOR), *arguments]
    for at, parameter in enumerate(parameters):
        if parameter is _I32 and at:
            given[at] = builder.trunc(given[at], _I32)
        elif parameter is data:
            given[at] = builder.inttoptr(given[at], data)
    builder.call(target, given)


def float_of_bits(builder: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32, or the float64 with those of an int64."""
    return builder.bitcast(bits, ir.FloatType() if bits.type == _I32 else ir.DoubleType())


def bits_of_float(builder: Any, x: Any) -> Any:
    """The bits of a float32 as an int32, or of a float64 as an int64."""
    return builder.bitcast(x, _I32 if x.type == ir.FloatType() else _I64)


# What threads tell each other: reads and writes of int64 that all of them see in one order, and ways to wait.


def add_one(builder: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically; returns what it was."""
    return builder.atomic_rmw("add", _word(builder, address), ir.Constant(_I64, 1), "acq_rel")


def swap(builder: Any, address: Any, old: Any, new: Any) -> Any:
    """Make the int64 at an address ``new`` if it is ``old``, atomically; returns whether it was, as an int64."""
    found = builder.cmpxchg(_word(builder, address), old, new, "acq_rel", "acquire")
    return builder.zext(builder.extract_value(found, 1), _I64)


def look(builder: Any, address: Any) -> Any:
    """The int64 at an address, which another thread may write."""
    return builder.load_atomic(_word(builder, address), "acquire", 8)


def publish(builder: Any, address: Any, value: Any) -> None:
    """Write the int64 at an address, after all that was written before."""
    builder.store_atomic(value, _word(builder, address), "release", 8)


# LLVM's names of the instruction that tells a core that it is in a loop that waits, and its argument if it has one.
PAUSES: dict[str, tuple[str, list[int]]] = {
    **dict.fromkeys(("x86_64", "amd64"), ("llvm.x86.sse2.pause", [])),
    **dict.fromkeys(("aarch64", "arm64"), ("llvm.aarch64.hint", [1])),
}


def pause(builder: Any) -> None:
    """Wait some nanoseconds, where there is such an instruction."""
    name, values = PAUSES.get(platform.machine().lower(), ("", []))
    if name:
        given = [ir.Constant(_I32, value) for value in values]
        kind = ir.FunctionType(ir.VoidType(), [x.type for x in given])
        builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), given)


def system_yield(builder: Any, address: Any) -> None:
    """Call the operating system's yield, int(void), at an address."""
    builder.call(builder.inttoptr(address, ir.FunctionType(_I32, []).as_pointer()), [])


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())
