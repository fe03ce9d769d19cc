"""From the Python of a kernel to LLVM's language, in milliseconds: for the few words that kernels are written in.

They are numbers, arrays at an address, ``if``, ``while``, ``for`` over a range, and calls, which are all inlined. What
a function says beyond that, or a function without a source, raises ``UntranslatableError``, and numba compiles it.
"""

from __future__ import annotations

import ast
import functools
import tokenize
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from llvmlite import ir

from .expressions import Expressions, Slot
from .parts import FLAGS, Part
from .values import TYPES, Array, Number, UntranslatableError, converted, known, number, truth

_UNROLLED = 32  # a loop of so many rounds, if their number is known, is written out


def translate(argument_count: int, function: Callable[..., Any] | Part) -> str:
    """A module with ``void @kernel(i64, ...)``.

    Raises
    ------
    UntranslatableError
        If the function says more than is known here.
    """
    module = ir.Module("kernel")
    kind = ir.FunctionType(ir.VoidType(), [TYPES["int64"]] * argument_count)
    made = ir.Function(module, kind, "kernel")
    builder = ir.IRBuilder(made.append_basic_block("entry"))
    body = builder.append_basic_block("body")
    part = function if isinstance(function, Part) else Part(function, FLAGS)
    entry, builder = builder, ir.IRBuilder(body)
    _Call(part, entry, builder).run([Number(x, "int64") for x in made.args])
    builder.ret_void()
    entry.branch(body)
    return str(module)


@functools.cache
def _functions(file: str) -> dict[int, ast.FunctionDef]:
    """The functions of a source file by their first lines, decorators included."""
    try:
        with tokenize.open(file) as lines:
            syntax = ast.parse(lines.read())
    except (OSError, SyntaxError):
        return {}
    found = (node for node in ast.walk(syntax) if isinstance(node, ast.FunctionDef))
    return {min([node.lineno, *(d.lineno for d in node.decorator_list)]): node for node in found}


def _syntax(code: CodeType) -> ast.FunctionDef:
    node = _functions(code.co_filename).get(code.co_firstlineno)
    if node is None or node.name != code.co_name:
        raise UntranslatableError(f"{code.co_name} has no source")
    return node


@dataclass
class _Loop:
    again: Any
    end: Any


@dataclass
class _Returned:
    """Where a call ends that returns from several places, and the value's slots."""

    end: Any
    slots: list[Slot] = field(default_factory=list)


class _Call(Expressions):
    """One call of a part, written out where it is called."""

    def __init__(self, part: Part, entry: Any, builder: Any) -> None:
        super().__init__(part, entry, builder)
        self._node = _syntax(part.function.__code__)
        stored = (n.id for n in ast.walk(self._node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        augmented = (
            n.target.id for n in ast.walk(self._node) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
        )
        self._stores = Counter(stored) + Counter(augmented)
        self._loops: list[_Loop] = []
        self._returned: _Returned | None = None

    def run(self, arguments: list[Any]) -> Any:
        """Write it; returns its value."""
        names = [argument.arg for argument in self._node.args.args]
        if len(names) != len(arguments):
            raise UntranslatableError(f"{self._node.name} takes {len(names)} arguments")
        self._stores.update(names)
        for name, value in zip(names, arguments, strict=True):
            self._assign(name, value)
        *body, last = self._node.body
        returns = [n for n in ast.walk(self._node) if isinstance(n, ast.Return)]
        if not returns:
            self._block(self._node.body)
            return None
        if returns == [last]:
            self._block(body)
            assert isinstance(last, ast.Return)
            return None if last.value is None else self._value(last.value)
        self._returned = _Returned(self._b.append_basic_block("returned"))
        self._block(self._node.body)
        if not self._b.block.is_terminated:
            raise UntranslatableError("a function that may end without its return")
        self._b.position_at_end(self._returned.end)
        values = [self._load(slot) for slot in self._returned.slots]
        return values[0] if len(values) == 1 else tuple(values)

    # -- statements ----------------------------------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self._b.block.is_terminated:
                return
            write = getattr(self, f"_{type(statement).__name__.lower()}_statement", None)
            if write is None:
                raise UntranslatableError(type(statement).__name__)
            write(statement)

    def _pass_statement(self, statement: ast.Pass) -> None:
        pass

    def _expr_statement(self, statement: ast.Expr) -> None:
        self._value(statement.value)

    def _assign_statement(self, statement: ast.Assign) -> None:
        value = self._value(statement.value)
        for target in statement.targets:
            self._store(target, value)

    def _annassign_statement(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self._store(statement.target, self._value(statement.value))

    def _augassign_statement(self, statement: ast.AugAssign) -> None:
        operation = type(statement.op).__name__
        if isinstance(statement.target, ast.Name):
            before = self._name(statement.target.id)
            self._assign(statement.target.id, self._binary(operation, before, self._value(statement.value)))
            return
        if not isinstance(statement.target, ast.Subscript):
            raise UntranslatableError("an assignment to an attribute")
        place, kind = self._place(statement.target)
        before = Number(self._b.load(place), kind)
        after = self._binary(operation, before, self._value(statement.value))
        self._b.store(number(converted(self._b, after, kind)).value, place)

    def _store(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._assign(target.id, value)
        elif isinstance(target, ast.Tuple):
            if not isinstance(value, tuple) or len(value) != len(target.elts):
                raise UntranslatableError("an assignment to several names")
            for each, its in zip(target.elts, value, strict=True):
                self._store(each, its)
        elif isinstance(target, ast.Subscript):
            place, kind = self._place(target)
            self._b.store(number(converted(self._b, value, kind)).value, place)
        else:
            raise UntranslatableError(type(target).__name__)

    def _assign(self, name: str, value: Any) -> None:
        if self._stores[name] == 1:
            self._names[name] = value
            return
        if name not in self._names:
            self._names[name] = self._slot(value)
        self._put(self._names[name], value)

    def _slot(self, value: Any) -> Slot:
        value = value if isinstance(value, Array) else number(value)
        kind = value.pointer.type if isinstance(value, Array) else value.value.type
        return Slot(self._entry.alloca(kind), value.kind, isinstance(value, Array))

    def _put(self, slot: Slot, value: Any) -> None:
        value = value if isinstance(value, Array) else number(value)
        if value.kind != slot.kind or isinstance(value, Array) != slot.array:
            raise UntranslatableError(f"a variable that is first {slot.kind}, then {value.kind}")
        self._b.store(value.pointer if isinstance(value, Array) else value.value, slot.pointer)

    def _if_statement(self, statement: ast.If) -> None:
        test = truth(self._b, self._value(statement.test))
        if isinstance(test, bool):
            self._block(statement.body if test else statement.orelse)
            return
        then, otherwise, end = (self._b.append_basic_block(name) for name in ("then", "else", "end"))
        self._b.cbranch(test, then, otherwise)
        for block, statements in ((then, statement.body), (otherwise, statement.orelse)):
            self._b.position_at_end(block)
            self._block(statements)
            self._go(end)
        self._b.position_at_end(end)

    def _go(self, block: Any) -> None:
        if not self._b.block.is_terminated:
            self._b.branch(block)

    def _while_statement(self, statement: ast.While) -> None:
        again, body, end = (self._b.append_basic_block(name) for name in ("while", "body", "end"))
        self._b.branch(again)
        self._b.position_at_end(again)
        test = truth(self._b, self._value(statement.test))
        if isinstance(test, bool):
            self._b.branch(body if test else end)
        else:
            self._b.cbranch(test, body, end)
        self._round(statement, body, again, end)
        if test is True:
            ends = any(isinstance(n, ast.Break) for n in ast.walk(statement))
            if not ends:
                self._b.unreachable()

    def _round(self, statement: ast.While | ast.For, body: Any, again: Any, end: Any) -> None:
        """The statements of a loop; then go on behind it."""
        if statement.orelse:
            raise UntranslatableError("a loop with an else")
        self._b.position_at_end(body)
        self._loops.append(_Loop(again, end))
        self._block(statement.body)
        self._loops.pop()
        self._go(again)
        self._b.position_at_end(end)

    def _continue_statement(self, statement: ast.Continue) -> None:
        self._jump("again")

    def _break_statement(self, statement: ast.Break) -> None:
        self._jump("end")

    def _jump(self, where: str) -> None:
        if not self._loops:
            raise UntranslatableError("a jump out of a loop that is written out")
        self._b.branch(getattr(self._loops[-1], where))

    def _for_statement(self, statement: ast.For) -> None:
        made, target = statement.iter, statement.target
        if not isinstance(made, ast.Call) or self._value(made.func) is not range or not isinstance(target, ast.Name):
            raise UntranslatableError("a loop over something else than a range")
        given = [self._value(x) for x in made.args]
        first, stop = (0, given[0]) if len(given) == 1 else given[:2]
        if len(given) == 3:
            raise UntranslatableError("a range with steps")
        if statement.orelse:
            raise UntranslatableError("a loop with an else")
        settled = self._stores[target.id] == 1 and not self._assigned_in_branches(statement)
        if known(first, stop) and stop - first <= _UNROLLED and settled:
            loops, self._loops = self._loops, []
            for i in range(first, stop):
                self._names[target.id] = i
                self._block(statement.body)
            self._loops = loops
            return
        first, stop = (number(converted(self._b, x, "int64")).value for x in (first, stop))
        counter = self._entry.alloca(TYPES["int64"])
        self._b.store(first, counter)
        test, body, again, end = (self._b.append_basic_block(name) for name in ("for", "body", "next", "end"))
        self._b.branch(test)
        self._b.position_at_end(test)
        self._b.cbranch(self._b.icmp_signed("<", self._b.load(counter), stop), body, end)
        self._b.position_at_end(again)
        self._b.store(self._b.add(self._b.load(counter), ir.Constant(TYPES["int64"], 1), flags=("nsw",)), counter)
        self._b.branch(test)
        self._b.position_at_end(body)
        self._assign(
            target.id, Number(self._b.load(counter), "int64")
        )  # not to be seen behind the loop, where it is more
        self._round(statement, body, again, end)

    def _assigned_in_branches(self, statement: ast.For) -> bool:
        """Whether a branch in a loop assigns a name that is no variable: written out, the last round's would win."""
        branches = [n for s in statement.body for n in ast.walk(s) if isinstance(n, ast.If | ast.While | ast.For)]
        targets = {id(n.target) for n in branches if isinstance(n, ast.For)}
        names = [n for branch in branches for n in ast.walk(branch) if isinstance(n, ast.Name) and id(n) not in targets]
        return any(isinstance(n.ctx, ast.Store) and self._stores[n.id] == 1 for n in names)

    def _return_statement(self, statement: ast.Return) -> None:
        if self._returned is None or statement.value is None:
            raise UntranslatableError("a return of nothing among others")
        value = self._value(statement.value)
        values = value if isinstance(value, tuple) else (value,)
        if not self._returned.slots:
            self._returned.slots += [self._slot(x) for x in values]
        for slot, x in zip(self._returned.slots, values, strict=True):
            self._put(slot, x)
        self._b.branch(self._returned.end)
