"""The pytest plugin as its user meets it: real runs of pytest in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command import ROOT, environment

pytest_plugins = ["pytester"]

PLUGIN = "backprop_gpu.pytest_plugin"
STRICT = ("-W", "error", "--strict-markers", "--strict-config", "-p", "no:cacheprovider")

FUNCTIONS = """
import pytest

def half(xp, x):
    return xp.exp(x) * 0.5

def off_on_strict(xp, x):
    wrong = getattr(xp, "__name__", "").startswith("array_api_strict")
    return xp.exp(x) * (0.51 if wrong else 0.5)

X = [[0.1, 0.2], [0.3, 0.4]]
"""


@pytest.fixture
def outer(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs that load this plugin and no other, whatever is installed here."""
    for name, value in environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def run(outer: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    outer.makepyfile(FUNCTIONS + text)
    return outer.runpytest_subprocess("-p", PLUGIN, *STRICT, *arguments)


def test_a_run_that_does_not_use_it_loads_nothing(outer: pytest.Pytester) -> None:
    outer.makepyfile(
        f"""
        import sys

        def test_unrelated():
            assert "{PLUGIN}" in sys.modules
            loaded = {{name for name in sys.modules if name.startswith("backprop_gpu")}}
            assert loaded == {{"backprop_gpu", "{PLUGIN}"}}
            assert not {{"numpy", "yaml", "pydantic", "rich"}} & set(sys.modules)
        """
    )
    outer.runpytest_subprocess("-p", PLUGIN, *STRICT).assert_outcomes(passed=1)


def test_its_module_imports_the_standard_library_alone() -> None:
    code = f"""if True:
        import importlib, sys, typing
        before = set(sys.modules)
        importlib.import_module("{PLUGIN}")
        new = {{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names
        assert new == {{"backprop_gpu"}}, new
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_right_function_passes_on_every_device(outer: pytest.Pytester) -> None:
    result = run(
        outer,
        """
def test_half(parity_device, assert_parity):
    report = assert_parity(half, X)
    assert [f.tensor for f in report] == [f"out on {parity_device.name}"]
        """,
        "-v",
        "--parity-devices=numpy,array_api_strict,array_api_strict:device1",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*numpy*PASSED*", "*array_api_strict:CPU_DEVICE*PASSED*", "*device1*PASSED*"])


def test_without_parity_device_all_devices_are_compared_in_one_test(outer: pytest.Pytester) -> None:
    text = """
def test_both(assert_parity, request):
    assert_parity(half, X)
    compared = [value for name, value in request.node.user_properties if name == "parity_device"]
    assert compared == ["numpy", "array_api_strict:CPU_DEVICE"]

def test_named(assert_parity):
    assert_parity(off_on_strict, X, devices=["numpy"])

def test_wrong(assert_parity):
    assert_parity(off_on_strict, X)
    """
    result = run(outer, text, "--parity-devices=numpy,array_api_strict")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*AssertionError: parity wrong at out on array_api_strict:CPU_DEVICE (off_on_strict), *"]
    )


def test_by_default_numpy_and_what_is_installed_are_compared(outer: pytest.Pytester) -> None:
    result = run(outer, "def test_half(parity_device, assert_parity):\n    assert_parity(half, X)", "-v", "-rs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*[[]numpy[]] PASSED*", "*[[]array_api_strict:CPU_DEVICE[]] PASSED*"])


def test_a_failure_names_the_operation_and_attaches_its_case(outer: pytest.Pytester) -> None:
    text = "def test_off(parity_device, assert_parity):\n    assert_parity(off_on_strict, X)"
    result = run(outer, text, "--parity-devices=numpy,array_api_strict")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: parity wrong at out on array_api_strict:CPU_DEVICE (off_on_strict), *1.02 times*",
            "*Captured parity call*",
            "case file: *",
            "wrong: off_on_strict, out on array_api_strict:CPU_DEVICE, * for *; every entry is 1.02 times *",
        ]
    )
    found = re.search(r"^case file: (.+\.safetensors)$", result.stdout.str(), re.MULTILINE)
    assert found is not None
    case = load_file(found[1])
    np.testing.assert_array_equal(case["input.0"], np.array([[0.1, 0.2], [0.3, 0.4]], np.float32))
    got, want = (case[f"out on array_api_strict:CPU_DEVICE.{part}"] for part in ("got", "want"))
    np.testing.assert_allclose(got / want, 1.02, rtol=1e-6)
    assert "plugin.py" not in result.stdout.str()  # the traceback ends in the user's test


def test_the_marker_says_what_is_claimed(outer: pytest.Pytester) -> None:
    text = """
import numpy as np

class Coarse:  # bf16 operands
    def __getattr__(self, name):
        return getattr(np, name)
    def matmul(self, a, b):
        cut = lambda x: (np.ascontiguousarray(x).view(np.int32) >> 16 << 16).view(np.float32)
        return cut(a) @ cut(b)

from backprop_gpu import Backend
DEVICE = Backend("numpy", Coarse())
Y = np.linspace(1.0, 2.0, 600).reshape(20, 30)

def product(xp, x):
    return xp.matmul(x, x.T)

def test_undeclared(assert_parity):
    assert_parity(product, Y, devices=[DEVICE])

@pytest.mark.parity(claim="fp32")
def test_single(assert_parity):
    assert_parity(product, Y, devices=[DEVICE])

@pytest.mark.parity(tolerance=0.1)
def test_stated(assert_parity):
    assert_parity(product, Y, devices=[DEVICE])

@pytest.mark.parity(tolerance=1e-9)
def test_the_call_goes_before_the_marker(assert_parity):
    assert_parity(product, Y, devices=[DEVICE], tolerance=0.1)

@pytest.mark.parity(claim="fp64")
def test_double(assert_parity):
    assert_parity(product, Y, devices=["numpy"])

@pytest.mark.parity("fp64")
def test_by_position(assert_parity):
    assert_parity(product, Y, devices=["numpy"])

@pytest.mark.parity(claims="fp64")
def test_misspelt(assert_parity):
    assert_parity(product, Y, devices=["numpy"])
    """
    result = run(outer, text, "-v")
    result.assert_outcomes(passed=3, failed=4)
    result.stdout.fnmatch_lines(["*mark it as @pytest.mark.parity(claim=*"])
    for name in ("test_undeclared", "test_single", "test_by_position", "test_misspelt"):
        result.stdout.fnmatch_lines([f"*::{name} FAILED*"])


NETWORK = """
import pytest
from backprop_gpu import DenseNet
from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels

class Doubled(ReferenceKernels):  # the bias of the second layer is there twice
    def dense(self, W, A_prev, b, activation, dropout, *, A, saved):
        super().dense(W, A_prev, b + b if W.shape == (3, 5) else b, activation, dropout, A=A, saved=saved)

class Device(Backend):
    def kernels(self, kind="auto"):
        return Doubled(self)

NET = DenseNet([4, 5, 3, 1], device="cpu", seed=1)
ROWS = [[0.1 * i, 0.2, -0.3 * i, 0.5] for i in range(8)]
LABELS = [0, 1] * 4

@pytest.mark.parity(claim="fp32")
def test_right(parity_device, assert_parity):
    report = assert_parity(NET, ROWS, LABELS)
    assert len(report.findings) > 10

def test_wrong(assert_parity):
    import numpy
    assert_parity(NET, ROWS, LABELS, devices=[Device("numpy", numpy)])
"""


def test_a_network_is_checked_too_and_its_step_is_the_case(outer: pytest.Pytester) -> None:
    result = run(outer, NETWORK, "--parity-devices=numpy,array_api_strict:device1")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*AssertionError: parity wrong at *2 (dense), *", "case file: *", "wrong: dense, *2, *"]
    )
    found = re.search(r"^case file: (.+)$", result.stdout.str(), re.MULTILINE)
    assert found is not None
    assert Path(found[1]).is_file()


def test_a_function_that_cannot_be_judged_is_an_error_in_one_line(outer: pytest.Pytester) -> None:
    text = "def test_sorted(assert_parity):\n    assert_parity(lambda xp, x: xp.sort(x), X)"
    result = run(outer, text, "--parity-devices=numpy")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cannot follow xp.sort; pass tolerance=*"])


def test_a_test_may_name_its_devices_itself(outer: pytest.Pytester) -> None:
    text = """
@pytest.mark.parametrize("parity_device", ["numpy", "array_api_strict"], indirect=True)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_half(parity_device, assert_parity, scale):
    assert_parity(lambda xp, x: half(xp, x) * scale, X)

@pytest.mark.parametrize("other, parity_device", [(1, "numpy")], indirect=["parity_device"])
def test_both(parity_device, other):
    assert parity_device.name == "numpy"
    """
    run(outer, text, "--parity-devices=array_api_strict:device1").assert_outcomes(passed=5)


ABSENT = "array_api_strict:nowhere"  # in the grammar, but there is no such device


@pytest.mark.parametrize("fixture", ["parity_device, ", ""])
def test_a_device_that_is_not_there_is_a_skip_with_its_reason(outer: pytest.Pytester, fixture: str) -> None:
    text = f"def test_half({fixture}assert_parity):\n    assert_parity(half, X)"
    result = run(outer, text, f"--parity-devices={ABSENT}", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*array_api_strict has no device 'nowhere'; it has *"])


@pytest.mark.parametrize("option", ["devices", "require"])
def test_a_name_outside_the_grammar_ends_the_run_with_advice(outer: pytest.Pytester, option: str) -> None:
    result = run(outer, "def test_half(parity_device): ...", f"--parity-{option}=nunpy")
    assert result.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    assert "did you mean 'numpy'" in result.stdout.str() + result.stderr.str()


# -- what is required -------------------------------------------------------------------------------------------------

USES = "def test_half(parity_device, assert_parity):\n    assert_parity(half, X)"
LOOKS = "def test_half(parity_device):\n    assert parity_device.name"
OTHER = "def test_other():\n    assert True"


@pytest.mark.parametrize(
    ("text", "arguments", "passes"),
    [
        (USES, ("--parity-require=array_api_strict",), True),
        (USES, ("--parity-require=array_api_strict:device1",), True),
        (USES, ("--parity-require=numpy,array_api_strict",), True),
        (USES, ("--parity-devices=numpy", "--parity-require=array_api_strict"), True),  # what is required is added
        (USES, (f"--parity-require={ABSENT}",), False),
        (LOOKS, ("--parity-require=numpy",), False),
        (OTHER, ("--parity-require=numpy",), False),
        (OTHER, (), True),
        (USES, ("--parity-require=numpy", "-k", "nothing"), False),
        (USES, ("--parity-require=numpy", "--collect-only"), True),
    ],
)
def test_a_required_device_must_have_been_compared(
    outer: pytest.Pytester, text: str, arguments: tuple[str, ...], passes: bool
) -> None:
    result = run(outer, text, *arguments)
    assert (result.ret == pytest.ExitCode.OK) == passes, result.stdout.str()
    said = "--parity-require: no test compared" in result.stdout.str()
    assert said != passes
    if not passes:
        assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_required_device_that_cannot_be_had_fails_its_tests(outer: pytest.Pytester) -> None:
    result = run(outer, USES, f"--parity-require={ABSENT}", "--parity-devices=numpy")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*--parity-require: array_api_strict has no device 'nowhere'*"])


@pytest.mark.parametrize("require", ["array_api_strict", ABSENT])
def test_it_works_on_several_workers(outer: pytest.Pytester, require: str) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    text = (
        "@pytest.mark.parametrize('scale', range(1, 7))\n"
        "def test_half(parity_device, assert_parity, scale):\n"
        "    assert_parity(lambda xp, x: half(xp, x) / scale, X)\n\n"
        "def test_off(assert_parity):\n    assert_parity(off_on_strict, X)\n"
    )
    arguments = ("-p", "xdist", "-n", "2", "--parity-devices=numpy,array_api_strict")
    result = run(outer, text, *arguments, f"--parity-require={require}")
    missing = require == ABSENT
    result.assert_outcomes(passed=12, failed=1, errors=6 if missing else 0)
    assert ("--parity-require: no test compared" in result.stdout.str()) == missing
    found = re.search(r"^case file: (.+\.safetensors)$", result.stdout.str(), re.MULTILINE)
    assert found is not None
    assert Path(found[1]).is_file()


def test_what_was_compared_on_workers_counts(outer: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    assert run(outer, USES, "-p", "xdist", "-n", "2", "--parity-require=array_api_strict").ret == pytest.ExitCode.OK
    result = run(outer, OTHER, "-p", "xdist", "-n", "2", "--parity-require=numpy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--parity-require: no test compared numpy"])


# -- the entry point --------------------------------------------------------------------------------------------------


def test_an_installed_package_brings_it_along(
    outer: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The entry point of pyproject.toml, in the metadata of a distribution that is on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = project["entry-points"]["pytest11"]
    assert entries == {"backprop_gpu": PLUGIN}
    metadata = tmp_path / "backprop_gpu_under_test-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: backprop-gpu-under-test\nVersion: 0\n")
    lines = [f"{name} = {module}\n" for name, module in entries.items()]
    (metadata / "entry_points.txt").write_text("[pytest11]\n" + "".join(lines))
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    for name, value in environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])).items():
        monkeypatch.setenv(name, value)
    outer.makepyfile(FUNCTIONS + USES)
    result = outer.runpytest_subprocess(*STRICT, "--parity-devices=numpy")
    result.assert_outcomes(passed=1)
    helped = outer.runpytest_subprocess("--help")
    helped.stdout.fnmatch_lines(["*--parity-devices=NAMES*", "*--parity-require=NAMES*"])
    assert "@pytest.mark.parity(claim" in outer.runpytest_subprocess("--markers").stdout.str()
    assert "assert_parity" in outer.runpytest_subprocess("--fixtures").stdout.str()
