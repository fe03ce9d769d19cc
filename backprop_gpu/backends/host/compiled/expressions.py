"""A kernel's expressions in LLVM's language; see ``translator``."""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import instructions
from .parts import Late, Part
from .values import (
    TYPES,
    Array,
    Number,
    UntranslatableError,
    binary,
    common,
    compared,
    converted,
    floating,
    known,
    number,
    truth,
)

_MATHS = {np.floor: "llvm.floor", np.sqrt: "llvm.sqrt", abs: "llvm.fabs"}


@dataclass
class Slot:
    """A variable that is assigned more than once: a place in memory, which LLVM makes a register."""

    pointer: Any
    kind: str
    array: bool


class Expressions:
    """Writes the expressions of one call of a part where ``builder`` stands; ``entry`` is where memory is reserved."""

    def __init__(self, part: Part, entry: Any, builder: Any) -> None:
        self._part, self._entry, self._b = part, entry, builder
        self._flags = tuple(sorted(part.fastmath))
        self._stores: Counter[str] = Counter()  # how often a name is assigned
        self._names: dict[str, Any] = {}

    def run(self, arguments: list[Any]) -> Any:
        """Write the call; returns its value."""
        raise NotImplementedError

    def _load(self, slot: Slot) -> Any:
        return (Array if slot.array else Number)(self._b.load(slot.pointer), slot.kind)

    def _value(self, node: ast.expr) -> Any:
        write = getattr(self, f"_{type(node).__name__.lower()}_value", None)
        if write is None:
            raise UntranslatableError(type(node).__name__)
        return write(node)

    def _constant_value(self, node: ast.Constant) -> Any:
        return node.value

    def _tuple_value(self, node: ast.Tuple) -> Any:
        return tuple(self._value(x) for x in node.elts)

    def _name_value(self, node: ast.Name) -> Any:
        return self._name(node.id)

    def _name(self, name: str) -> Any:
        if name in self._names:
            found = self._names[name]
            return self._load(found) if isinstance(found, Slot) else found
        if self._stores[name]:
            raise UntranslatableError(f"{name} before it is assigned")
        function = self._part.function
        free = function.__code__.co_freevars
        if name in free:
            return (function.__closure__ or ())[free.index(name)].cell_contents
        return function.__globals__[name] if name in function.__globals__ else getattr(builtins, name)

    def _attribute_value(self, node: ast.Attribute) -> Any:
        of = self._value(node.value)
        if not known(of):
            raise UntranslatableError("an attribute of an array")
        return getattr(of, node.attr)

    def _subscript_value(self, node: ast.Subscript) -> Any:
        of = self._value(node.value)
        if isinstance(of, tuple):
            at = self._value(node.slice)
            if not known(at):
                raise UntranslatableError("a tuple's item that is not known")
            return of[at]
        place, kind = self._place(node, of)
        return Number(self._b.load(place), kind)

    def _place(self, node: ast.Subscript, of: Any = None) -> tuple[Any, str]:
        """The address of an array's number, and its type."""
        array, at = self._value(node.value) if of is None else of, self._value(node.slice)
        if not isinstance(array, Array):
            raise UntranslatableError("an item of something else than an array")
        if known(at) and at < 0:
            raise UntranslatableError("an item counted from the end")
        at = number(converted(self._b, at, "int64"))
        return self._b.gep(array.pointer, [at.value], inbounds=True), array.kind

    def _unaryop_value(self, node: ast.UnaryOp) -> Any:
        x = self._value(node.operand)
        if isinstance(node.op, ast.Not):
            test = truth(self._b, x)
            return not test if isinstance(test, bool) else Number(self._b.not_(test), "bool")
        if not isinstance(node.op, ast.USub):
            raise UntranslatableError(type(node.op).__name__)
        if known(x) and not isinstance(x, np.integer):
            return -x
        x = number(x)
        if x.kind.startswith("uint"):
            raise UntranslatableError("minus a number without a sign")
        if floating(x.kind):
            return Number(self._b.fneg(x.value, flags=self._flags), x.kind)
        return self._binary("Sub", 0, x)

    def _binop_value(self, node: ast.BinOp) -> Any:
        return self._binary(type(node.op).__name__, self._value(node.left), self._value(node.right))

    def _binary(self, name: str, x: Any, y: Any) -> Any:
        return binary(self._b, name, x, y, self._flags)

    def _compare_value(self, node: ast.Compare) -> Any:
        if len(node.ops) != 1:
            raise UntranslatableError("a chain of comparisons")
        x, y = self._value(node.left), self._value(node.comparators[0])
        return compared(self._b, type(node.ops[0]).__name__, x, y, self._flags)

    def _boolop_value(self, node: ast.BoolOp) -> Any:
        """Of bools alone; what follows is looked at only if it matters."""
        first, *rest = node.values
        decided = isinstance(node.op, ast.Or)
        found = self._value(first)
        if number(found).kind != "bool":
            raise UntranslatableError("and, or of numbers, whose value is one of them")
        x = truth(self._b, found)
        if not rest:
            return x if isinstance(x, bool) else Number(x, "bool")
        others = ast.BoolOp(node.op, rest)
        if isinstance(x, bool):
            return decided if x is decided else self._boolop_value(others)
        return self._either(x, *((lambda: decided, others) if decided else (others, lambda: decided)))

    def _ifexp_value(self, node: ast.IfExp) -> Any:
        test = truth(self._b, self._value(node.test))
        if isinstance(test, bool):
            return self._value(node.body if test else node.orelse)
        return self._either(test, node.body, node.orelse)

    def _either(self, test: Any, *nodes: Any) -> Any:
        """The first node's value if the test holds, else the second's."""
        blocks, ends, found = [self._b.append_basic_block(name) for name in ("then", "else")], [], []
        self._b.cbranch(test, *blocks)
        for block, node in zip(blocks, nodes, strict=True):
            self._b.position_at_end(block)
            found.append(node() if callable(node) else self._value(node))
            ends.append(self._b.block)
        end = self._b.append_basic_block("end")
        x, y = self._alike(ends, *found)
        for block in ends:
            self._b.position_at_end(block)
            self._b.branch(end)
        self._b.position_at_end(end)
        return self._joined(ends, x, y)

    def _alike(self, ends: list[Any], x: Any, y: Any) -> tuple[Any, Any]:
        """Both as numbers of one type, converted where each comes from."""
        if isinstance(x, tuple) and isinstance(y, tuple) and len(x) == len(y):
            pairs = [self._alike(ends, *pair) for pair in zip(x, y, strict=True)]
            return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
        x, y = number(x), number(y)
        kind = x.kind if x.kind == y.kind else common(x.kind, y.kind)
        made = []
        for block, value in zip(ends, (x, y), strict=True):
            self._b.position_at_end(block)
            made.append(number(converted(self._b, value, kind)))
        return made[0], made[1]

    def _joined(self, ends: list[Any], x: Any, y: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(self._joined(ends, *pair) for pair in zip(x, y, strict=True))
        phi = self._b.phi(x.value.type)
        for block, value in zip(ends, (x, y), strict=True):
            phi.add_incoming(value.value, block)
        return Number(phi, x.kind)

    def _call_value(self, node: ast.Call) -> Any:
        if node.keywords:
            raise UntranslatableError("a call with keywords")
        function, given = self._value(node.func), [self._value(x) for x in node.args]
        if isinstance(function, Part):
            return type(self)(function, self._entry, self._b).run(given)
        if isinstance(function, Late):
            return self._instruction(function.name, given)
        if isinstance(function, type) and issubclass(function, np.generic) and len(given) == 1:
            return converted(self._b, given[0], np.dtype(function).name)
        if function is len and known(*given):
            return len(given[0])
        if function in _MATHS and len(given) == 1:
            return self._maths(function, given[0])
        raise UntranslatableError(f"a call of {function!r}")

    def _instruction(self, name: str, given: list[Any]) -> Any:
        if name == "array":
            address, _, scalar = given
            kind = np.dtype(scalar).name
            return Array(self._b.inttoptr(number(address).value, TYPES[kind].as_pointer()), kind)
        made = getattr(instructions, name)(self._b, *(number(x).value for x in given))
        if made is None:
            return None
        kinds = {TYPES[kind]: kind for kind in ("int32", "int64", "float32", "float64")}
        return Number(made, kinds[made.type])

    def _maths(self, function: Any, x: Any) -> Any:
        if known(x):
            return function(x)
        if not floating(x.kind):
            raise UntranslatableError(f"{function} of an integer")
        declared = self._b.module.declare_intrinsic(_MATHS[function], [x.value.type])
        return Number(self._b.call(declared, [x.value], fastmath=self._flags), x.kind)
