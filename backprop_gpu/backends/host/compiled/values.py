"""Numbers as the translator sees them, with numba's rules for their types.

What is known while translating stays Python's own: an int, a NumPy number, a tuple, a function. What is known only when
the kernel runs is a ``Number`` or an ``Array``.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir


class UntranslatableError(Exception):
    """A function says what the translator does not know: numba compiles it."""


@dataclass(frozen=True)
class Number:
    """A value and the name of its NumPy type."""

    value: Any
    kind: str


@dataclass(frozen=True)
class Array:
    """A pointer to numbers of a NumPy type."""

    pointer: Any
    kind: str


TYPES: dict[str, Any] = {
    "bool": ir.IntType(1),
    "uint8": ir.IntType(8),
    "uint32": ir.IntType(32),
    "uint64": ir.IntType(64),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
}
_OPERATIONS = {
    "Add": (operator.add, "add", "fadd"),
    "Sub": (operator.sub, "sub", "fsub"),
    "Mult": (operator.mul, "mul", "fmul"),
    "Div": (operator.truediv, "", "fdiv"),
    "BitAnd": (operator.and_, "and_", ""),
    "BitOr": (operator.or_, "or_", ""),
    "BitXor": (operator.xor, "xor", ""),
    "LShift": (operator.lshift, "shl", ""),
    "RShift": (operator.rshift, "ashr", ""),
    "Mod": (operator.mod, "mod", ""),
}
_COMPARISONS = {
    "Eq": ("==", operator.eq),
    "NotEq": ("!=", operator.ne),
    "Lt": ("<", operator.lt),
    "LtE": ("<=", operator.le),
    "Gt": (">", operator.gt),
    "GtE": (">=", operator.ge),
}


def known(*values: Any) -> bool:
    """Whether all are known while translating."""
    return not any(isinstance(x, Number | Array) for x in values)


def floating(kind: str) -> bool:
    """Whether it is a type of floating numbers."""
    return kind.startswith("float")


def signed(kind: str) -> bool:
    """Whether it is a type of integers with a sign."""
    return kind.startswith("int")


def number(x: Any) -> Number:
    """As a value in the kernel."""
    if isinstance(x, Number):
        return x
    if isinstance(x, bool | np.bool_):
        return Number(ir.Constant(TYPES["bool"], int(x)), "bool")
    if isinstance(x, int):
        return Number(ir.Constant(TYPES["int64"], x), "int64")
    kind = "float64" if isinstance(x, float) else x.dtype.name if isinstance(x, np.generic) else ""
    if kind not in TYPES:
        raise UntranslatableError(f"{x!r} is no number")
    return Number(ir.Constant(TYPES[kind], x.item() if isinstance(x, np.generic) else x), kind)


def converted(b: Any, x: Any, kind: str) -> Any:
    """``x`` as a number of another type, as NumPy converts it."""
    if known(x) and isinstance(x, int | float | np.generic):
        try:
            with np.errstate(all="ignore"):
                return np.dtype(kind).type(x)
        except (OverflowError, ValueError) as error:
            raise UntranslatableError(str(error)) from error
    x, to = number(x), TYPES[kind]
    if x.kind == kind:
        return x
    if kind == "bool":
        raise UntranslatableError("a number as a bool")
    if floating(x.kind) and floating(kind):
        return Number((b.fpext if kind == "float64" else b.fptrunc)(x.value, to), kind)
    if floating(x.kind):
        return Number((b.fptosi if signed(kind) else b.fptoui)(x.value, to), kind)
    if floating(kind):
        return Number((b.sitofp if signed(x.kind) else b.uitofp)(x.value, to), kind)
    wide = to.width - x.value.type.width
    if wide > 0:
        return Number((b.sext if signed(x.kind) else b.zext)(x.value, to), kind)
    return Number(b.trunc(x.value, to) if wide < 0 else x.value, kind)


def common(a: str, b: str) -> str:
    """The type of what is made of two numbers: integers are int64, or uint64 if both have no sign."""
    if floating(a) or floating(b):
        return "float32" if {a, b} <= {"float32", "uint8", "bool"} else "float64"
    unsigned = [kind.startswith("uint") for kind in (a, b)]
    if any(unsigned) and not all(unsigned):
        if "uint64" in (a, b):
            raise UntranslatableError("integers with and without a sign")
        return "int64"
    return "uint64" if all(unsigned) else "int64"


def binary(b: Any, name: str, x: Any, y: Any, flags: tuple[str, ...]) -> Any:
    """``x`` and ``y`` under one of Python's operators, by the name of its syntax."""
    if name not in _OPERATIONS:
        raise UntranslatableError(name)
    python, integers, reals = _OPERATIONS[name]
    if known(x, y):
        try:
            with np.errstate(all="ignore"):
                return python(*_alike(x, y))
        except (TypeError, ArithmeticError) as error:
            raise UntranslatableError(str(error)) from error
    x, y = number(x), number(y)
    shift = name in ("LShift", "RShift") and not floating(y.kind)  # how far says nothing of a sign
    kind = common(x.kind, x.kind if shift else y.kind)
    x, y = (number(converted(b, z, kind)).value for z in (x, y))
    if floating(kind):
        if not reals:
            raise UntranslatableError(f"{name} of floating numbers")
        return Number(getattr(b, reals)(x, y, flags=flags), kind)
    if not integers:
        raise UntranslatableError(f"{name} of integers")
    if integers == "mod":
        return Number(_mod(b, x, y, signed(kind)), kind)
    if integers == "ashr" and not signed(kind):
        integers = "lshr"
    return Number(getattr(b, integers)(x, y), kind)


def _alike(x: Any, y: Any) -> tuple[Any, Any]:
    """Two known numbers in the type of what is made of them, where NumPy would take one that is smaller."""
    if not any(isinstance(z, np.generic) for z in (x, y)):
        return x, y
    kind = common(number(x).kind, number(y).kind)
    return np.dtype(kind).type(x), np.dtype(kind).type(y)


def _mod(b: Any, x: Any, y: Any, signs: bool) -> Any:
    """The remainder with the sign of ``y``; 0 where ``y`` is 0, for which, as for -1, a processor may stop."""
    zero, one = ir.Constant(x.type, 0), ir.Constant(x.type, 1)
    odd = b.icmp_unsigned("<=", b.add(y, one), one) if signs else b.icmp_unsigned("==", y, zero)
    divisor = b.select(odd, one, y)
    if not signs:
        return b.urem(x, divisor)
    rest = b.srem(x, divisor)
    wrong = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, y), zero))
    return b.select(wrong, b.add(rest, y), rest)


def compared(b: Any, name: str, x: Any, y: Any, flags: tuple[str, ...]) -> Any:
    """Whether ``x`` and ``y`` compare so; NaN is unequal to all."""
    if name not in _COMPARISONS:
        raise UntranslatableError(name)
    sign, python = _COMPARISONS[name]
    if known(x, y):
        return python(*_alike(x, y))
    x, y = number(x), number(y)
    kind = common(x.kind, y.kind)
    x, y = (number(converted(b, z, kind)).value for z in (x, y))
    if floating(kind):
        compare = b.fcmp_unordered if sign == "!=" else b.fcmp_ordered
        return Number(compare(sign, x, y, flags=flags), "bool")
    return Number((b.icmp_signed if signed(kind) else b.icmp_unsigned)(sign, x, y), "bool")


def truth(b: Any, x: Any) -> Any:
    """Whether it counts as true: Python's bool if that is known, else an i1."""
    if known(x):
        return bool(x)
    x = number(x)
    if x.kind == "bool":
        return x.value
    if floating(x.kind):
        return b.fcmp_unordered("!=", x.value, ir.Constant(x.value.type, 0.0))
    return b.icmp_signed("!=", x.value, ir.Constant(x.value.type, 0))
