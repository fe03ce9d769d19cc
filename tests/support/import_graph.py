"""Which module imports which, and the circles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from support.source_tree import Source


def graph(sources: Iterable[Source], *, lazy: bool) -> dict[str, set[str]]:
    """The package's own modules that each module imports; ``lazy`` counts imports within functions too.

    Imports under ``if TYPE_CHECKING`` never run, and are left out.
    """
    known = {source.module: source for source in sources}
    names = frozenset(known)
    return {
        module: {
            used.name
            for used in source.imports(names)
            if used.name in known and used.name != module and used.line in lines
        }
        for module, source in known.items()
        for lines in [import_lines(source, lazy=lazy)]
    }


def import_lines(source: Source, *, lazy: bool) -> set[int]:
    """The lines of the imports that run when the module is loaded, or with ``lazy`` at any time."""
    found: set[int] = set()
    waiting: list[ast.AST] = list(source.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.add(node.lineno)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that reach each other, sorted: the strongly connected components of two or more."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for following in edges[waiting.pop()] - seen:
                seen.add(following)
                waiting.append(following)
        return seen

    reach = {module: reached(module) for module in edges}
    found = {
        tuple(sorted(m for m in reach[module] if module in reach[m])) for module in edges if module in reach[module]
    }
    return sorted(map(list, found))
