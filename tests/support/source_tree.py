"""The package's source as syntax trees: what a module imports, calls and defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "backprop_gpu"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported module: its absolute dotted name, what is taken from it, if it was written relatively, and where."""

    name: str
    taken: str
    relative: bool
    line: int


class Source:
    """One file of the package."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.relative = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8") if text is None else text
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.module = ".".join(parts[:-1] if self.is_package else parts)

    @classmethod
    def of_text(cls, text: str) -> Source:
        """A module that is not on disk, at the top of the package."""
        return cls(ROOT / PACKAGE / "example.py", text)

    def __repr__(self) -> str:
        return self.relative

    @cached_property
    def tree(self) -> ast.Module:
        """Parsed."""
        return ast.parse(self.text, self.relative)

    @property
    def inner(self) -> tuple[str, ...]:
        """The dotted name without the package's: ``("maths", "losses")``; empty for the package itself."""
        return tuple(self.module.split(".")[1:])

    def imports(self, modules: frozenset[str]) -> Iterator[Import]:
        """Every import, wherever it stands; ``from a import b`` gives a.b where that is one of ``modules``, else a."""
        package = self.module.split(".") if self.is_package else self.module.split(".")[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, "", False, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    full = f"{origin}.{alias.name}"
                    is_module = full in modules
                    yield Import(
                        full if is_module else origin, "" if is_module else alias.name, node.level > 0, node.lineno
                    )

    def functions(self) -> Iterator[Function]:
        """Every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


Place = tuple[Source, int, str]
"""Where a rule is broken: file, line, what is wrong there."""


def places(found: list[Place]) -> list[str]:
    """``file:line what`` of each."""
    return [f"{source}:{line} {what}" for source, line, what in found]


def sources(folder: str = PACKAGE) -> list[Source]:
    """Every Python file of the package, or of another folder of the checkout."""
    return [Source(path) for path in sorted((ROOT / folder).rglob("*.py"))]


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a chain of attributes, or an empty string."""
    if isinstance(node, ast.Attribute):
        front = dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return node.id if isinstance(node, ast.Name) else ""
