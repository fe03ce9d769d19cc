"""The float64 formulas are written apart: what they share with ``maths`` could excuse itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from backprop_gpu import parity

FOLDER = Path(parity.__file__).parent
REFERENCE = (
    "bounds",
    "elementary",
    "formulas64",
    "norms64",
    "updates64",
    "products",
    "judge",
    "step_end",
    "step_replay",
    "hypotheses",
)
TEXT_ALONE = ("bounds", "elementary", "formulas64", "norms64", "updates64", "products")


def imported(name: str) -> set[str]:
    """Modules that a file of the room imports, relative ones with their dots, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_imports_nothing_of_maths(name: str) -> None:
    assert not [module for module in imported(name) if "maths" in module]


@pytest.mark.parametrize("name", TEXT_ALONE)
def test_the_formulas_need_nothing_of_the_package(name: str) -> None:
    """Only each other, NumPy and the standard library."""
    assert not [module for module in imported(name) if module.startswith(("..", "backprop_gpu"))]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_cupy_is_not_imported_here(path: Path) -> None:
    assert not [module for module in imported(path.stem) if module.startswith("cupy")]
