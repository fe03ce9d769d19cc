"""The recipes of docs/design.md fit the sources, and that of a backend works. ``scripts/recipes`` tries them all."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.command import ROOT, environment


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("recipes", str(ROOT / "scripts" / "recipes"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipes"] = module  # its dataclasses look for it
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def copy(recipes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with every recipe in it."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.npz")
    shutil.copytree(ROOT / "backprop_gpu", folder / "backprop_gpu", ignore=ignored)
    for recipe in recipes.RECIPES:
        for edit in recipe.edits:
            recipes.insert(folder, edit)
            if edit[0].endswith(".py"):
                ast.parse((folder / edit[0]).read_text(encoding="utf-8"))
    return folder


def test_the_table_of_the_design_names_the_files_of_each(recipes: Any, copy: Path) -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = text.partition("**To add**")[2].partition("\n\n`scripts/recipes`")[0]
    for recipe, row in zip(recipes.RECIPES, table.strip().splitlines()[2:], strict=True):
        for file in {edit[0] for edit in recipe.edits} - {"backprop_gpu/backends/namespaces.py"}:  # its example's place
            assert Path(file).name in row, (recipe.name, file)
        for test in recipe.tests:
            assert (ROOT / test).exists(), test


TRAIN = """
import numpy as np
from backprop_gpu import DenseNet, Trainer, backends
X = np.random.default_rng(0).normal(size=(60, 3))
found = []
for device in ("numpy", "compat"):
    net = DenseNet([3, 5, 1], dropout=0.2, batch_norm=True, device=device, kernels="reference", dtype="float64")
    Trainer(net, epochs=3, batch_size=16, progress=False).fit(X, (X[:, 0] > 0) * 1.0)
    found.append(np.concatenate([x.ravel() for x in net.parameters().values()]))
print(net.backend.name, backends.__file__, np.abs(found[0] - found[1]).max() < 1e-12, np.ptp(found[0]) > 0)
"""


def test_a_backend_that_is_added_by_its_recipe_trains(copy: Path) -> None:
    pytest.importorskip("array_api_compat")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        cwd=copy,
        env=environment() | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"compat {copy}/backprop_gpu/backends/__init__.py True True\n", done.stderr
