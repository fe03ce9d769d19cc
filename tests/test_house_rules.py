"""Style checks, read from the source: who may print, nothing runs what it reads, docstrings, order, size."""

from __future__ import annotations

import ast

import pytest
from support.source_tree import Place, Source, dotted, places, sources

SOURCES = sources()
MODULES = frozenset(s.module for s in SOURCES)

MAX_LINES, MAX_FUNCTION_LINES = 400, 70
# The entry points; the course's predict, which prints the accuracy; ``verbose``, as scikit-learn's estimators have it.
MAY_PRINT = (
    ("cli",),
    ("cli_completion",),
    ("cli_explain",),
    ("cli_export",),
    ("cli_init",),
    ("cli_models",),
    ("cli_parity",),
    ("cli_report",),
    ("report", "terminal"),
    ("textbook", "application"),
    ("estimators", "sklearn_rules"),
)

# Tells joblib's workers, who unpickle what they are sent as they always do, where our methods are.
MAY_NAME_JOBLIB = ("accel", "workers")


def forbidden_calls(source: Source) -> list[Place]:
    """Printing outside the entry points, and what runs code that was read as data."""
    found = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "print" and source.inner not in MAY_PRINT:
            found.append((source, node.lineno, "prints"))
        if name in ("eval", "exec", "compile", "__import__"):
            found.append((source, node.lineno, f"calls {name}"))
        if name in ("yaml.load", "yaml.load_all") and not safe_loader(source, keywords.get("Loader")):
            found.append((source, node.lineno, "reads YAML with a loader that is not a SafeLoader"))
        if name.startswith(("yaml.unsafe", "yaml.full")):
            found.append((source, node.lineno, f"calls {name}"))
        allowed = keywords.get("allow_pickle")
        if allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
            found.append((source, node.lineno, "allows pickle"))
    return found


def safe_loader(source: Source, loader: ast.expr | None) -> bool:
    """Whether a loader is PyYAML's safe one, or a class made from it in the same file."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and [dotted(base) for base in node.bases] in ([s] for s in sorted(safe)):
            safe.add(node.name)
    return loader is not None and dotted(loader) in safe


def test_nothing_prints_but_the_entry_points_and_nothing_runs_what_it_reads() -> None:
    wrong = [f for s in SOURCES for f in forbidden_calls(s)]
    for source in SOURCES:
        wrong += [
            (source, used.line, f"imports {used.name}")
            for used in source.imports(MODULES)
            if used.name.partition(".")[0] in ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")
            and source.inner != MAY_NAME_JOBLIB
        ]
    assert not wrong, places(wrong)


def test_the_search_for_forbidden_calls_sees_them() -> None:
    for wrong in (
        "print(1)",
        "eval('1')",
        "exec('1')",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "class L(yaml.FullLoader): pass\nyaml.load(text, Loader=L)",
        "np.load(path, allow_pickle=True)",
    ):
        assert forbidden_calls(Source.of_text(wrong)), wrong
    for fine in (
        "class L(yaml.SafeLoader): pass\nyaml.load(text, Loader=L)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "parser.print_help()",
    ):
        assert not forbidden_calls(Source.of_text(fine)), fine


def public(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module or a class, in order."""
    return [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def test_everything_public_in_maths_says_what_it_is() -> None:
    silent = []
    for source in (s for s in SOURCES if s.inner[:1] == ("maths",)):
        assert ast.get_docstring(source.tree), f"{source} has no docstring"
        for node in public(source.tree.body):
            members = public(node.body) if isinstance(node, ast.ClassDef) else []
            silent += [(source, n.lineno, n.name) for n in (node, *members) if not ast.get_docstring(n)]
    assert not silent, places(silent)


def tree_of(*inner: str) -> ast.Module:
    """The tree of one module."""
    return next(s for s in SOURCES if s.inner == inner).tree


@pytest.mark.parametrize(
    ("module", "ending"), [("activations", "_vjp"), ("regularization", "_grad"), ("regularization", "_vjp")]
)
def test_every_backward_stands_directly_under_its_forward(module: str, ending: str) -> None:
    functions = [n.name for n in tree_of("maths", module).body if isinstance(n, ast.FunctionDef)]
    backward = [name for name in functions if name.endswith(ending)]
    assert backward
    for name in backward:
        assert functions[functions.index(name) - 1] == name.removesuffix(ending)


def test_every_delta_stands_directly_under_the_value_whose_derivative_it_is() -> None:
    losses = [n for n in tree_of("maths", "losses").body if isinstance(n, ast.ClassDef)]
    both = 0
    for loss in losses:
        names = [n.name for n in loss.body if isinstance(n, ast.FunctionDef)]
        assert ("value" in names) == ("delta" in names), f"{loss.name} redefines one of value and delta alone"
        if "delta" in names:
            both += 1
            assert names[names.index("delta") - 1] == "value", loss.name
    assert both >= 7  # the base and six losses


def test_a_file_is_short_and_a_function_fits_a_screen() -> None:
    long = []
    for source in [*SOURCES, *sources("benchmarks")]:
        lines = source.text.count("\n")
        if lines > MAX_LINES:
            long.append((source, lines, f"lines are more than {MAX_LINES}"))
        for function in source.functions():
            size = (function.end_lineno or 0) - function.lineno + 1
            if size > MAX_FUNCTION_LINES:
                long.append((source, function.lineno, f"{function.name} has {size} lines"))
    assert not long, places(long)
