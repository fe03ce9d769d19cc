"""The architecture, read from the source: layers, imports, where CuPy is named, the signatures of kernel sets."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from support.import_graph import circles, graph
from support.source_tree import PACKAGE, ROOT, Place, Source, dotted, places, sources

from backprop_gpu.backends.cpu.kernels import NativeKernels
from backprop_gpu.backends.cuda.kernels import CudaKernels
from backprop_gpu.backends.protocol import Kernels
from backprop_gpu.backends.reference import ReferenceKernels

SOURCES = sources()
MODULES = frozenset(s.module for s in SOURCES)

# The modules and packages of each layer. A module imports only from layers below its own, or from its own package; in
# the layers of SHARED the modules may import each other.
LAYERS: dict[int, tuple[str, ...]] = {
    0: ("_notebook", "_page", "_typing", "errors", "devices", "safe_files", "atomic_file", "tensor_file", "native"),
    1: ("maths",),
    2: ("backends",),
    3: ("network",),
    4: ("data", "training", "gradcheck"),
    5: ("parity",),
    6: ("explain",),
    7: (
        "textbook",
        "config",
        "config_errors",
        "config_reading",
        "config_sections",
        "cross_validation",
        "safe_yaml",
        "rows",
        "run_fit",
        "run_folder",
        "streamed_rows",
        "resume",
        "presets",
        "importance",
        "model",
        "build",
        "planning",
    ),
    8: ("estimators",),
    9: ("report", "export", "accel", "pytest_plugin"),
    10: (
        "cli",
        "cli_completion",
        "cli_errors",
        "cli_examples",
        "cli_explain",
        "cli_export",
        "cli_init",
        "cli_models",
        "cli_parity",
        "cli_reading",
        "cli_report",
        "__main__",
    ),
}
SHARED = {0, 7, 10}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}

# The entry points, which may load what reads configurations. Everything else loads NumPy alone.
LOADS_MORE = (
    ("config",),
    ("config_errors",),
    ("config_reading",),
    ("config_sections",),
    ("cross_validation",),
    ("safe_yaml",),
    ("build",),
    ("model",),
    ("run_fit",),
    ("run_folder",),
    ("streamed_rows",),
    ("resume",),
    ("rows",),
    ("planning",),
    ("report",),
    ("estimators",),
    ("accel", "replacing"),  # loaded when scikit-learn has been
    ("cli",),
    ("cli_completion",),
    ("cli_examples",),
    ("cli_explain",),
    ("export",),
    ("cli_models",),
    ("cli_parity",),
    ("cli_reading",),
    ("cli_report",),
    ("__main__",),
    ("parity", "plugin"),
)
OPTIONAL = (
    "array_api_compat",
    "array_api_strict",
    "cupy",
    "matplotlib",
    "mpi4py",
    "onnx",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "yaml",
)

MAX_KERNELS = 23


# --- layers --------------------------------------------------------------------------------------------------------


def test_every_file_has_a_layer() -> None:
    unlisted = {s.inner[0] for s in SOURCES if s.inner} - set(LAYER_OF)
    assert not unlisted, f"add {sorted(unlisted)} to LAYERS"
    absent = set(LAYER_OF) - {s.inner[0] for s in SOURCES if s.inner}
    assert not absent, f"LAYERS names {sorted(absent)}, which are not there"


def upward_imports(source: Source) -> list[Place]:
    """Imports of the package's own modules that the layers do not allow."""
    wrong = []
    here = source.inner[0]
    for used in source.imports(MODULES):
        if used.name == PACKAGE and (here, used.taken) != ("cli", "__version__"):  # the one thing that stands there
            wrong.append((source, used.line, "imports a name of backprop_gpu/__init__.py"))
        if not used.name.startswith(f"{PACKAGE}."):
            continue
        there = used.name.split(".")[1]
        layer, target = LAYER_OF[here], LAYER_OF[there]
        if not (target < layer or here == there or (target == layer and layer in SHARED)):
            wrong.append((source, used.line, f"{here} (layer {layer}) imports {there} (layer {target})"))
        if not used.relative:
            wrong.append((source, used.line, "imports its own package by an absolute name"))
    return wrong


def test_imports_go_downward() -> None:
    wrong = [f for source in SOURCES if source.inner for f in upward_imports(source)]
    assert not wrong, places(wrong)


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("network/x.py", "from ..maths.losses import Loss", True),
        ("network/x.py", "from .memory import Workspace", True),
        ("backends/cpu/x.py", "from ...maths import ledger", True),
        ("build.py", "from .config import Config", True),
        ("maths/x.py", "from ..network.step import TrainingStep", False),
        ("maths/x.py", "def f():\n    from .. import network", False),
        ("training/x.py", "from ..data import table", False),
        ("gradcheck.py", "if TYPE_CHECKING:\n    from .training.trainer import Trainer", False),
        ("textbook/x.py", "from ..estimators import MLPClassifier", False),
        ("network/x.py", "from backprop_gpu.maths import dense", False),
        ("network/x.py", "import backprop_gpu.maths.dense", False),
        ("network/x.py", "from .. import DenseNet", False),
        ("network/x.py", "import backprop_gpu", False),
    ],
)
def test_the_rule_of_the_layers_sees_every_form_of_import(file: str, line: str, allowed: bool) -> None:
    assert (not upward_imports(Source(ROOT / PACKAGE / file, line))) == allowed


@pytest.mark.parametrize("folder", [PACKAGE, "benchmarks"])
def test_no_modules_import_each_other_in_a_circle(folder: str) -> None:
    """Imports inside functions count as well."""
    assert not circles(graph(sources(folder), lazy=True))


def test_the_search_for_circles_sees_them() -> None:
    def circles_of(*texts: str, lazy: bool = False) -> list[list[str]]:
        made = [
            Source(ROOT / PACKAGE / "network" / f"{name}.py", text) for name, text in zip("abc", texts, strict=True)
        ]
        return circles(graph(made, lazy=lazy))

    three = [f"backprop_gpu.network.{name}" for name in "abc"]
    assert circles_of("from .b import x", "from . import c", "import backprop_gpu.network.a") == [three]
    assert circles_of("from .b import x", "from .c import x", "") == []
    assert circles_of("from .b import x", "class A:\n    from .a import x", "") == [three[:2]]
    for later in ("def f():\n    from .a import x", "x = lambda: __import__('a')\ndef f():\n    from . import a"):
        assert circles_of("from .b import x", later, "") == []
        assert circles_of("from .b import x", later, "", lazy=True) == [three[:2]]
    assert circles_of("from .b import x", "if TYPE_CHECKING:\n    from .a import x", "", lazy=True) == []


def test_the_package_itself_is_lazy() -> None:
    source = next(s for s in SOURCES if not s.inner)
    standard = sys.stdlib_module_names
    for node in source.tree.body:
        if isinstance(node, ast.Import):
            assert all(alias.name.partition(".")[0] in standard for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert str(node.module).partition(".")[0] in standard
        elif isinstance(node, ast.If):
            assert dotted(node.test) == "TYPE_CHECKING"


# --- names that may stand in one place only ------------------------------------------------------------------------


LOOKS_UP_MODULES = re.compile(r"import|spec|module|namespace|version|distribution|optional", re.IGNORECASE)


def names_cupy(source: Source) -> list[Place]:
    """Imports of CuPy, identifiers called so, and its name as a string where modules are looked up."""
    found = [(source, u.line, f"imports {u.name}") for u in source.imports(MODULES) if u.name.startswith("cupy")]
    for node in ast.walk(source.tree):
        identifier = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if identifier.startswith("cupy"):
            found.append((source, node.lineno, f"uses {identifier}"))
        looked_up: list[ast.expr] = []
        if isinstance(node, ast.Call) and LOOKS_UP_MODULES.search(dotted(node.func)):
            looked_up = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Subscript) and dotted(node.value) == "sys.modules":
            looked_up = [node.slice]
        found += [
            (source, value.lineno, f"looks {value.value} up")
            for value in looked_up
            if isinstance(value, ast.Constant) and re.match(r"cupy\b", str(value.value))
        ]
    return found


def test_cupy_is_named_under_backends_cuda_only() -> None:
    found = [f for source in SOURCES for f in names_cupy(source)]
    wrong = [f for f in found if f[0].inner[:2] != ("backends", "cuda")]
    assert not wrong, places(wrong)
    assert found, "the search finds nothing where CuPy is used for certain"


def test_the_search_for_cupy_sees_every_way_to_reach_it() -> None:
    ways = """
import cupy
import cupy.cuda as c
from cupyx import jit
x = cupy.zeros(3)
x = backend.cupy
importlib.import_module("cupy")
importlib.util.find_spec("cupy.cuda")
__import__("cupy")
sys.modules["cupy"]
_namespace("cupy", "a package")
    """.strip().splitlines()
    for way in ways:
        assert names_cupy(Source.of_text(way)), way
    for fine in ('"""CuPy."""', 'Row("cupy", "missing")', 'spec.namespace == "cupy"', "# cupy"):
        assert not names_cupy(Source.of_text(fine)), fine


def test_packages_with_one_home_are_imported_there_only() -> None:
    homes = {
        "yaml": [("safe_yaml",)],
        "pydantic": [("config",), ("config_sections",), ("report", "run_files")],
        "sklearn": [("estimators",), ("accel",)],
        "scipy": [("estimators",), ("training", "lbfgs")],
    }
    wrong, seen = [], set()
    for source in SOURCES:
        for used in source.imports(MODULES):
            root = used.name.partition(".")[0]
            seen.add(root)
            if root in homes and not any(source.inner[: len(home)] == home for home in homes[root]):
                wrong.append((source, used.line, f"imports {root}"))
    assert not wrong, places(wrong)
    assert set(homes) <= seen, "a package that nobody imports needs no home"


def test_the_package_imports_neither_its_benchmarks_nor_their_peers() -> None:
    apart = ("benchmarks", "torch", "jax", "onnxruntime")
    wrong = [
        (source, used.line, f"imports {used.name}")
        for source in SOURCES
        for used in source.imports(MODULES)
        if used.name.partition(".")[0] in apart
    ]
    assert not wrong, places(wrong)


def test_importing_anything_but_the_entry_points_loads_no_optional_package() -> None:
    quiet = sorted(s.module for s in SOURCES if not any(s.inner[: len(front)] == front for front in LOADS_MORE))
    assert f"{PACKAGE}.training.trainer" in quiet
    code = """if True:
        import importlib, sys
        optional = set(sys.argv[1].split(","))
        for module in sys.argv[2:]:
            importlib.import_module(module)
            loaded = optional & set(sys.modules)
            assert not loaded, f"{module} loads {sorted(loaded)}"
    """
    command = [sys.executable, "-c", code, ",".join(OPTIONAL), *quiet]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    canary = subprocess.run([*command, "safetensors"], cwd=ROOT, capture_output=True, text=True)
    assert "safetensors loads ['safetensors']" in canary.stderr


# --- the kernel interface -------------------------------------------------------------------------------------------


def methods(cls: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Public methods with (name, kind, default) of each parameter."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_the_kernels_protocol_has_not_grown() -> None:
    assert 0 < len(methods(Kernels)) <= MAX_KERNELS


def kernel_sets() -> list[type]:
    """Every kernel set that can be imported here."""
    return [ReferenceKernels, NativeKernels, CudaKernels]


@pytest.mark.parametrize("kernel_set", kernel_sets())
def test_a_kernel_set_has_the_signatures_of_the_protocol(kernel_set: type) -> None:
    protocol, own = methods(Kernels), methods(kernel_set)
    assert {name: own.get(name) for name in protocol} == protocol


def used_of_xp(source: Source) -> dict[str, int]:
    """Names that are looked up on the namespace, with a line of each."""
    found = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node.value).rpartition(".")[2] == "xp":
            found[node.attr] = node.lineno
    return found


STANDARD_ONLY = [
    s
    for s in SOURCES
    if s.inner[:1] in (("maths",), ("network",), ("textbook",)) or s.inner == ("backends", "reference")
]


def namespaces() -> list[ModuleType]:
    """NumPy, array_api_strict, and torch and CuPy where they are installed."""
    found = [importlib.import_module("numpy"), importlib.import_module("array_api_strict")]
    if importlib.util.find_spec("torch"):
        found.append(importlib.import_module("array_api_compat.torch"))
    if importlib.util.find_spec("cupy"):
        found.append(importlib.import_module("cupy"))
    return found


@pytest.mark.parametrize("xp", namespaces(), ids=lambda xp: xp.__name__)
def test_formulas_use_only_what_every_namespace_has(xp: ModuleType) -> None:
    wrong = [(s, line, f"xp.{n}") for s in STANDARD_ONLY for n, line in used_of_xp(s).items() if not hasattr(xp, n)]
    assert not wrong, places(wrong)
    assert sum(len(used_of_xp(s)) for s in STANDARD_ONLY) > 30  # the search sees them


def test_formulas_compare_arrays_through_the_namespace() -> None:
    # gradcheck's namespace gives comparisons, abs, max and min the meaning a derivative needs; operators escape it.
    wrong = []
    for source in (s for s in SOURCES if s.inner[:1] == ("maths",)):
        for function in source.functions():
            arguments = [a.arg for a in function.args.args]
            if "xp" not in arguments:
                continue
            for node in ast.walk(ast.Module(function.body, [])):
                if isinstance(node, ast.Compare) and any(
                    isinstance(o, ast.Lt | ast.Gt | ast.LtE | ast.GtE) for o in node.ops
                ):
                    wrong.append((source, node.lineno, "compares by an operator"))
                if isinstance(node, ast.Call) and dotted(node.func) in ("abs", "max", "min", "round"):
                    known = source.module.endswith("regularization") and dotted(node.func) == "round"  # of a rate
                    if not known:
                        wrong.append((source, node.lineno, f"calls the builtin {dotted(node.func)}"))
    assert not wrong, places(wrong)
