"""The float64 formulas are written apart: what they share with ``maths`` could excuse itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from backprop_gpu import parity

FOLDER = Path(parity.__file__).parent
ORACLE = sorted((FOLDER / "oracle").glob("*.py"))
COMPARING = [FOLDER / f"{name}.py" for name in ("comparator", "step_end", "step_replay", "diagnosis/products")]


def imported(path: Path) -> set[str]:
    """Modules that a file imports, relative ones with their dots, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", [*ORACLE, *COMPARING], ids=lambda p: p.stem)
def test_the_reference_imports_nothing_of_maths(path: Path) -> None:
    assert not [module for module in imported(path) if "maths" in module]


@pytest.mark.parametrize("path", ORACLE, ids=lambda p: p.stem)
def test_the_oracle_needs_nothing_of_the_package(path: Path) -> None:
    """Only its own files, NumPy and the standard library."""
    assert not [module for module in imported(path) if module.startswith(("..", "backprop_gpu"))]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.stem)
def test_cupy_is_not_imported_here(path: Path) -> None:
    assert not [module for module in imported(path) if module.startswith("cupy")]
