"""How compiled kernels are called: one signature, void(row), by address, with every argument in a row of int64.

That form caches on disk, and lets a recorded step be two vectors: addresses of kernels and of their rows. A kernel is
made for one floating type and one variant (an activation, a loss, an optimizer), and compiled when it is first used.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # of cblas.h

# "contract" and "reassoc" let sums become vector code with FMA; NaN and infinities keep their meaning.
FLAGS: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}

# Parts of kernels have no callers but compiled ones: without wrappers they compile faster.
_PART: dict[str, Any] = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inline = nb.njit(**_PART, **FLAGS)
# For functions that rely on the order of operations; "contract" allows FMA.
in_order = nb.njit(**_PART, **{**FLAGS, "fastmath": {"contract"}})


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def call(typingctx: Any, address: Any, row: Any) -> Any:
    """Call the kernel at ``address`` with ``row``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def gemm(
    typingctx: Any,
    address: Any,
    trans_a: Any,
    trans_b: Any,
    m: Any,
    n: Any,
    k: Any,
    alpha: Any,
    A: Any,
    lda: Any,
    B: Any,
    ldb: Any,
    beta: Any,
    C: Any,
    ldc: Any,
) -> Any:
    """C = alpha op(A) op(B) + beta C, row-major, through ``cblas_sgemm`` or ``cblas_dgemm`` at ``address``.

    The type of ``alpha`` says which; integers are 64 bits wide.
    """
    i, r = types.int64, alpha

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, enum, data = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
        real = ir.FloatType() if r == types.float32 else ir.DoubleType()
        parameters = [enum] * 3 + [wide] * 3 + [real, data, wide, data, wide, real, data, wide]
        target = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), parameters).as_pointer())
        given = [ir.Constant(enum, ROW_MAJOR), *arguments[1:]]
        for at, parameter in enumerate(parameters):
            if parameter is enum and at:
                given[at] = builder.trunc(given[at], enum)
            elif parameter is data:
                given[at] = builder.inttoptr(given[at], data)
        builder.call(target, given)
        return context.get_dummy_value()

    return types.void(i, i, i, i, i, i, r, i, i, i, i, r, i, i), generate


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32, or the float64 with those of an int64."""
    narrow = bits == types.int32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType() if narrow else ir.DoubleType())

    return (types.float32 if narrow else types.float64)(bits), generate


@intrinsic
def bits_of_float(typingctx: Any, x: Any) -> Any:
    """The bits of a float32 as an int32, or of a float64 as an int64."""
    narrow = x == types.float32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32 if narrow else 64))

    return (types.int32 if narrow else types.int64)(x), generate


@inline
def integers(address: Any, n: Any) -> Any:
    """n int64 at an address."""
    return nb.carray(pointer(address), n, np.int64)


@dataclass(frozen=True)
class Real:
    """A floating type, and how compiled code reads it.

    Attributes
    ----------
    f : type
        ``np.float32`` or ``np.float64``.
    integer : type
        The integer of the same width.
    size, mantissa, bias : int
        Bytes, bits of the mantissa, bias of the exponent.
    floats : compiled function
        ``floats(address, n)``: n numbers at an address.
    scalar : compiled function
        ``scalar(address, otherwise)``: the number at an address; ``otherwise`` for address 0.
    """

    f: Any
    integer: Any
    size: int
    mantissa: int
    bias: int
    floats: Any
    scalar: Any


def _real(f: Any, integer: Any, mantissa: int, bias: int) -> Real:
    @inline
    def floats(address: Any, n: Any) -> Any:
        return nb.carray(pointer(address), n, f)

    @inline
    def scalar(address: Any, otherwise: Any) -> Any:
        return nb.carray(pointer(address), 1, f)[0] if address != 0 else otherwise

    return Real(f, integer, np.dtype(f).itemsize, mantissa, bias, floats, scalar)


REALS = {"float32": _real(np.float32, np.int32, 23, 127), "float64": _real(np.float64, np.int64, 52, 1023)}

# A digest of this folder's sources: a change in one of them must not meet machine code of another edition.
_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_EDITION = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]

_body: Any = None


def _entry(address: int) -> None:
    _body(address)


class Kernel:
    """Machine code with a C address, from a compiled ``body(row address)``; made when it is first asked for.

    ``name`` tells it from all others: numba keeps machine code on disk under the name of the function, and all kernels
    are the same two lines around another body.
    """

    def __init__(self, name: str, dtype: str, body: Callable[[int], None]) -> None:
        self.name, self.dtype, self._inner = f"{name}_{dtype}_{_EDITION}", dtype, body

    @functools.cached_property
    def _made(self) -> Any:
        if self.dtype in REALS:
            _announce(self.dtype)
        entry = FunctionType(_entry.__code__, {"__name__": __name__, "_body": self._inner}, self.name)
        entry.__qualname__ = self.name
        return compiled(functools.partial(nb.cfunc, types.void(types.int64)), entry)

    @property
    def address(self) -> int:
        """Where the machine code begins."""
        return int(self._made.address)

    def __call__(self, row: int) -> None:
        """Run on the row at an address."""
        self._made.ctypes(row)


def compiled(decorator: Callable[..., Any], function: Callable[..., None]) -> Any:
    """Compile, and keep the machine code on disk if there is a folder to write to."""
    try:
        return decorator(cache=True, **FLAGS)(function)
    except RuntimeError:  # numba's word for having found none
        return decorator(**FLAGS)(function)


@functools.cache
def _announce(dtype: str) -> None:
    """Say once that kernels are being compiled, which takes seconds, if the disk has none of this edition."""
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent)
    if sys.stderr and not any(cache.rglob(f"*_{dtype}_{_EDITION}-*.nbi")):
        sys.stderr.write(f"backprop_gpu: compiling {dtype} kernels for this machine, once: a few seconds\n")
