"""Importing the package costs next to nothing, because it loads next to nothing: counted in modules, not in time.

``scripts/startup_times`` measures the times themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.command import ROOT, environment

# Modules of the standard library that take ten milliseconds and more to load, or that start something.
HEAVY = {
    "asyncio",
    "concurrent.futures",
    "email",
    "http.client",
    "importlib.metadata",
    "multiprocessing",
    "sqlite3",
    "ssl",
    "tkinter",
    "unittest",
    "urllib.request",
    "xml.etree",
    "zipfile",
}
ENTRY_POINTS = {f"backprop_gpu.{name}" for name in ("build", "config", "config_reading", "safe_yaml", "report", "cli")}

COUNT = """
import sys
exec({before!r})
known = set(sys.modules)
exec({then!r})
print("\\n" + "\\n".join(sorted(set(sys.modules) - known)))
"""


def loaded_by(then: str, *, before: str = "") -> set[str]:
    """Names of the modules that ``then`` loads in a fresh interpreter in which ``before`` has been run."""
    command = [sys.executable, "-c", COUNT.format(before=before, then=then)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()) - {""}


@pytest.mark.parametrize("before", ["import __future__, importlib, typing", "import __future__, numpy"])
def test_importing_the_package_loads_one_module(before: str) -> None:
    assert loaded_by("import backprop_gpu", before=before) == {"backprop_gpu"}


def test_what_trains_a_network_loads_no_other_package_than_numpy_and_nothing_heavy() -> None:
    loaded = loaded_by("from backprop_gpu import DenseNet, Trainer, gradcheck, get_backend", before="import numpy")
    ours = {m for m in loaded if m.partition(".")[0] == "backprop_gpu"}
    assert {"backprop_gpu.network.dense_net", "backprop_gpu.training.trainer", "backprop_gpu.gradcheck"} <= ours
    assert not ours & ENTRY_POINTS
    assert {m.partition(".")[0] for m in loaded - ours} <= set(sys.stdlib_module_names)
    assert not loaded & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_neither_numpy_nor_what_reads_configurations(arguments: list[str]) -> None:
    loaded = loaded_by(
        f"from backprop_gpu.cli import main\ntry:\n    main({json.dumps(arguments)})\nexcept SystemExit as end:\n"
        "    assert not end.code"
    )
    assert {"backprop_gpu.cli", "argparse"} <= loaded
    third = {"numpy", "pydantic", "yaml", "rich", "safetensors", "matplotlib", "cupy"}
    assert not {m.partition(".")[0] for m in loaded} & third
    assert not loaded & HEAVY


def test_the_count_sees_what_is_loaded() -> None:
    assert {"numpy", "unittest"} <= loaded_by("import unittest, numpy")
    assert "numpy" not in loaded_by("import numpy", before="import numpy")
