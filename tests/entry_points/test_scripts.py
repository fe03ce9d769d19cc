"""scripts/: run for real where that needs no network, with a tiny project in place of this one."""

from __future__ import annotations

import ast
import base64
import ctypes
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.native import build as native_build

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def load(path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("scripts_" + path.stem.strip("_"), str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


env = load(SCRIPTS / "_environment.py")
gpu_check = load(SCRIPTS / "gpu_check")


# --- finding a Python ---------------------------------------------------------------------------------------------


def stand_in(folder: Path, version: list[int], complete: bool = True) -> list[str]:
    """A command that answers as a Python of that version would."""
    path = folder / f"python{'.'.join(map(str, version))}.py"
    path.write_text(f"print({json.dumps(json.dumps([version, str(path), complete]))})")
    return [sys.executable, str(path)]


def test_this_python_describes_itself() -> None:
    found = env.inspect_python([sys.executable])
    assert found.version == sys.version_info[:3]
    assert os.path.samefile(found.executable, sys._base_executable)  # type: ignore[attr-defined]


def test_commands_that_do_not_start_are_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "shim.py"
    broken.write_text("raise SystemExit(127)")
    silent = tmp_path / "silent.py"
    silent.write_text("")
    commands = [[str(tmp_path / "absent")], [sys.executable, str(broken)], [sys.executable, str(silent)]]
    assert [env.inspect_python(command) for command in commands] == [None] * 3
    assert env.find_python([*commands, stand_in(tmp_path, [3, 12, 1])]).version == (3, 12, 1)


def test_an_old_python_is_named_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(env.Problem) as problem:
        env.find_python([stand_in(tmp_path, [3, 8, 18]), stand_in(tmp_path, [3, 10, 2])])
    text = str(problem.value)
    assert text.startswith("Python 3.11 or newer is needed and only Python 3.8.18 (")
    assert "3.10.2" in text
    assert "apt install" in text
    assert "\n" not in text


def test_a_supported_python_wins_over_a_newer_and_an_older_one(tmp_path: Path, capsys: Any) -> None:
    newer, older, right = (stand_in(tmp_path, [3, minor, 0]) for minor in (99, 9, 13))
    assert env.find_python([newer, older, right]).version == (3, 13, 0)
    assert capsys.readouterr().err == ""
    assert env.find_python([newer, older]).version == (3, 99, 0)
    assert "newer than the pinned packages" in capsys.readouterr().err


def test_a_python_without_ensurepip_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('left out, as Debian does')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not env.inspect_python([sys.executable]).complete
    with pytest.raises(env.Problem, match=r"ensurepip module is missing: .*apt install python3\.\d+-venv") as problem:
        env.find_python([[sys.executable]])
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("name", ["_environment.py", "train", "test"])
def test_python_3_8_can_read_it(name: str) -> None:
    ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
@pytest.mark.parametrize("name", ["train", "test", "gpu_check"])
def test_it_can_be_started_by_name(name: str) -> None:
    assert os.access(SCRIPTS / name, os.X_OK)
    assert (SCRIPTS / name).read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")


# --- the driver -----------------------------------------------------------------------------------------------------


class Driver:
    """A driver library in which ``cuDriverGetVersion`` is a C function, as in the real one."""

    def __init__(self, version: int, status: int = 0) -> None:
        def answer(out: Any) -> int:
            out[0] = version
            return status

        self.cuDriverGetVersion = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int))(answer)


@pytest.mark.parametrize(
    ("version", "extra"),
    [(13000, "cuda13x"), (13020, "cuda13x"), (14000, "cuda13x"), (12000, "cuda12x"), (12090, "cuda12x")],
)
def test_the_driver_chooses_the_extra(version: int, extra: str, capsys: Any) -> None:
    assert env.driver_cuda_version(lambda name: Driver(version)) == version
    assert env.cuda_extra(version) == extra
    assert capsys.readouterr().err == ""


def test_a_driver_that_is_too_old_means_the_cpu_and_a_note(capsys: Any) -> None:
    assert env.cuda_extra(11080) is None
    assert "CUDA 11.8" in capsys.readouterr().err


def test_no_driver_or_one_that_fails_means_the_cpu() -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    assert env.driver_cuda_version(absent) is None
    assert env.driver_cuda_version(lambda name: object()) is None
    assert env.driver_cuda_version(lambda name: Driver(13020, status=34)) is None
    assert env.cuda_extra(None) is None


# --- one run at a time ----------------------------------------------------------------------------------------------

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import _environment
with _environment.locked(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_run_waits_and_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(SCRIPTS), str(tmp_path / "lock")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with subprocess.Popen(command, text=True, **pipes) as second:
            fuse = threading.Timer(60, second.kill)  # a lock that is never let go fails the test instead of hanging it
            fuse.start()
            assert second.stdout is not None
            assert f"process {first.pid}" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.communicate()
            fuse.cancel()
        assert second.returncode == 0


# --- .venv, from nothing to the second run --------------------------------------------------------------------------

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = '''
"""A build backend that needs no package: an editable wheel of the module beside it, with extras that need nothing."""
import os
import re
import zipfile

EXTRAS = "".join(f"Provides-Extra: {name}\\n" for name in ("plot", "test", "cuda12x", "cuda13x", "broken"))

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "backprop_gpu-0-py3-none-any.whl"
    info = "backprop_gpu-0.dist-info/"
    files = {
        "here.pth": os.getcwd(),
        info + "METADATA": "Metadata-Version: 2.1\\nName: backprop-gpu\\nVersion: 0\\n" + EXTRAS,
        info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "".join(f"{path},,\\n" for path in [*files, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for path, text in {**files, info + "RECORD": record}.items():
            wheel.writestr(path, text)
    return name
'''


def offline(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a pip that may reach nothing."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    variables.update(PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS=script.parent.parent.as_uri())
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=variables, cwd=script.parent, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with these scripts and a package ``backprop_gpu`` that prints its arguments."""
    root = tmp_path_factory.mktemp("a checkout")
    (root / "scripts").mkdir()
    for name in ("train", "test", "_environment.py"):
        shutil.copy(SCRIPTS / name, root / "scripts")
    (root / "backprop_gpu").mkdir()
    (root / "backprop_gpu" / "__main__.py").write_text("import sys\nprint(sys.argv[1:])\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    hashes = {name: hashlib.sha256(write_wheel(root, name).read_bytes()).hexdigest() for name in ("a", "b", "forged")}
    hashes["forged"] = "0" * 64
    lines = ["# Extras: build, run, plot, fast, sklearn, test, cuda12x, cuda13x, broken, forged\n"]
    lines += [f"# for run\na==1.0 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{hashes['a']}\n"]
    lines += [f"# for test, plot\nb==1.0 \\\n    --hash=sha256:{hashes['b']}\n"]
    lines += [f"# for forged\nforged==1.0 \\\n    --hash=sha256:{hashes['forged']}\n"]
    lines += [f"# for broken\na-package-that-is-nowhere==1.0 \\\n    --hash=sha256:{'0' * 64}\n"]
    (root / "requirements.lock").write_text("\n".join(lines))
    return root


def write_wheel(folder: Path, name: str) -> Path:
    """A wheel of one module, with a hash of its own."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info/"
    files = {
        f"{name}_module.py": f"name = {name!r}\n",
        info + "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        info + "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in [*files, info + "RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in {**files, info + "RECORD": record}.items():
            wheel.writestr(each, text)
    return path


def test_from_nothing_to_the_second_run(project: Path) -> None:
    train, shared = project / "scripts" / "train", project / "scripts" / "_environment.py"
    venv = env.Environment(str(project))
    # a half-made .venv, as a run leaves it that was killed
    (project / ".venv" / "lib").mkdir(parents=True)
    Path(venv.mark).touch()
    assert not venv.ready(set())

    first = offline(train, "digits.yaml", "--device", "cpu", "two words")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "['train', 'digits.yaml', '--device', 'cpu', 'two words']\n"
    assert "making" in first.stderr
    assert venv.ready({"plot"})
    assert not venv.ready({"plot", "test"})

    second = offline(train)
    assert second.stdout == "['train']\n"
    assert second.stderr == ""

    more = offline(shared, "test")
    assert more.returncode == 0, more.stderr
    assert "making" not in more.stderr
    assert venv.ready({"plot", "test"})

    failed = offline(shared, "broken")
    assert failed.returncode == 1
    assert "a-package-that-is-nowhere" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: pip could not install")
    assert venv.ready({"plot", "test"})
    assert not venv.ready({"broken"})
    forged = offline(shared, "forged")
    assert forged.returncode == 1
    assert "DO NOT MATCH THE HASHES" in forged.stderr
    assert "its files must be those of requirements.lock" in forged.stderr.splitlines()[-1]
    unknown = offline(shared, "nothing")
    assert "error: requirements.lock has no nothing; it has build, run, plot" in unknown.stderr
    installed = {path.name for path in (project / ".venv").rglob("*_module.py")}
    assert installed == {"a_module.py", "b_module.py"}
    check_that_harm_is_seen(project, venv)

    with open(project / "requirements.lock", "a", encoding="utf-8") as file:
        file.write("\n# for nothing\n")
    again = offline(train)
    assert again.stdout == "['train']\n"
    assert "installing the pinned packages (" in again.stderr
    assert venv.ready({"plot", "test"})


def check_that_harm_is_seen(project: Path, venv: Any) -> None:
    """Do what must make the next run install again, or make .venv anew; undo it each time."""
    extras = {"plot", "test"}
    assert venv.usable()
    for name in ("pyproject.toml", "requirements.lock"):
        file = project / name
        before = file.read_bytes()
        file.write_bytes(before + b"# changed\n")
        assert not venv.ready(extras)
        assert venv.usable()
        file.write_bytes(before)

    Path(venv.mark).touch()  # an install that was killed
    assert not venv.ready(extras)
    assert not venv.usable()
    Path(venv.mark).unlink()

    (pip,) = (project / ".venv").rglob("site-packages/pip")
    pip.rename(pip.with_name("gone"))
    assert not venv.usable()
    pip.with_name("gone").rename(pip)

    Path(venv.python).rename(venv.python + "-gone")  # as when the Python that made it is removed
    assert not venv.ready(extras)
    assert not venv.usable()
    Path(venv.python + "-gone").rename(venv.python)

    stamp, before = Path(venv.stamp), Path(venv.stamp).read_bytes()
    stamp.write_bytes(before.replace(json.dumps(str(project)).encode(), b'"elsewhere"'))  # a folder that was moved
    assert not venv.usable()
    stamp.write_bytes(before[:10])  # damaged
    assert not venv.ready(extras)
    stamp.write_bytes(before)
    assert venv.ready(extras)


# --- count_lines ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="counts what git tracks")
def test_count_lines_measures_all_that_it_names() -> None:
    command = [sys.executable, str(SCRIPTS / "count_lines")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    found = re.findall(r"^(\S.*?) +([\d,]+)$", answer.stdout, re.MULTILINE)
    counts = {name: int(number.replace(",", "")) for name, number in found}
    assert counts["lines of Python, the package"] > counts["lines of C++, without its tests"] > 1000
    for formula in ("gelu", "Adam", "binary cross-entropy"):  # maths, native and the oracle at least
        assert counts[f"files that state {formula}"] >= 3
    assert counts["circles, when modules are loaded"] == 0
    for way, first in (("command line", "cli"), ("MLPClassifier.fit", "classifier")):
        assert 3 < counts[f"frames, {way} to kernel"] < 30
        (stack,) = re.findall(rf"^frames, {re.escape(way)} to kernel.*\n((?:    .*\n)+)", answer.stdout, re.MULTILINE)
        assert len(stack.split(" >")) == counts[f"frames, {way} to kernel"]
        assert stack.split()[0].startswith(first)


# --- gpu_check ------------------------------------------------------------------------------------------------------


def test_gpu_check_says_why_there_is_no_device(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPTS / "gpu_check"), "--report", str(report)]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    written = json.loads(report.read_text())
    assert written["exit_code"] == 2
    assert [step["status"] for step in written["steps"]] == ["passed", "no device", *["not run"] * 3]
    assert written["steps"][1]["data"]["fix"]
    assert written["steps"][1]["detail"] in answer.stdout


def test_the_benchmark_waits_for_a_device(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "gpu_check"), "--bench"]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    steps = {
        step["name"]: step["status"] for step in json.loads((tmp_path / "gpu_check_report.json").read_text())["steps"]
    }
    assert list(steps)[-4:] == ["recorded steps", "determinism", "memory comes back", "benchmark"]
    assert set(list(steps.values())[2:]) == {"not run"}


def test_gpu_check_imports_nothing_that_a_cuda_machine_may_lack(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        for name in ("pydantic", "pydantic_core", "array_api_strict", "array_api_compat", "cupy"):
            sys.modules[name] = None
        sys.path.insert(0, {str(ROOT)!r})
        import importlib.machinery, importlib.util
        loader = importlib.machinery.SourceFileLoader("gpu_check", {str(SCRIPTS / "gpu_check")!r})
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
        loader.exec_module(module)
        module.environment()
        module.device()
        import benchmarks.on_device, benchmarks.device_checks, benchmarks.device_roofline
        import benchmarks.network_worker, benchmarks.peers.naive, benchmarks.peers.ours
        import backprop_gpu.parity
    """
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_report_has_the_card_s_name() -> None:
    found = [{"name": "device", "status": "passed", "detail": "CUDA works on NVIDIA H200 (cuda:0); CUPY_TF32=1 is set"}]
    assert gpu_check.report_path(True, found).name.startswith("nvidia-h200-20")
    assert gpu_check.report_path(True, found).parent == ROOT / "benchmarks" / "results"
    for bench, status in ((False, "passed"), (True, "no device")):
        path = gpu_check.report_path(bench, [{**found[0], "status": status}])
        assert path == Path("gpu_check_report.json")


def test_gpu_check_counts_and_no_test_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "test_made_up.py"
    tests = (
        "test_a(record_property): record_property('drift', 0.5)",
        "test_b(): pytest.skip('why')",
        "test_c(): assert 1 == 2",
    )
    file.write_text("import pytest\n" + "".join(f"def {test}\n" for test in tests))
    outcome = gpu_check.run_pytest(str(file))
    assert outcome.status == "failed"
    assert outcome.data["counts"] == {"passed": 1, "failed": 1, "errors": 0, "skipped": 1}
    assert outcome.detail.startswith("1 passed, 1 failed, 1 skipped; first: ")
    assert outcome.detail.endswith("test_made_up::test_c")
    assert "assert 1 == 2" in outcome.data["faults"][0]["message"]
    assert list(outcome.data["recorded"].values()) == [{"drift": "0.5"}]
    assert gpu_check.run_pytest(str(file), "-k", "test_a").status == "passed"
    assert gpu_check.run_pytest(str(file), "-k", "test_b").status == "failed"
    assert gpu_check.run_pytest(str(file), "-k", "nothing").detail == "no test ran"


# --- wheels of other platforms ----------------------------------------------------------------------------------------


def test_a_wheel_of_another_platform_has_the_library_that_is_looked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With files in place of what takes zig minutes to build; none of these wheels has ever been run."""
    wheels = load(SCRIPTS / "wheels")
    platforms = {"linux": ("linux", "manylinux"), "macos": ("darwin", "macosx"), "windows": ("win32", "win_amd64")}
    pure = tmp_path / "backprop_gpu-1-py3-none-any.whl"
    with zipfile.ZipFile(pure, "w") as file:
        file.writestr("backprop_gpu/__init__.py", "")
        file.writestr("backprop_gpu-1.dist-info/WHEEL", "Root-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("backprop_gpu-1.dist-info/RECORD", "")
    assert {target.partition("-")[0] for target in wheels.TARGETS} == set(platforms)
    for target, (_, family, suffix, tag) in wheels.TARGETS.items():
        name, begins = platforms[target.partition("-")[0]]
        monkeypatch.setattr(sys, "platform", name)
        assert tag.startswith(begins)
        assert set(wheels.MARCHES[family]) == set(native_build.INSTRUCTION_SETS[family])
        library = tmp_path / f"library{suffix}"
        library.write_bytes(target.encode())
        made = wheels.with_library(pure, library, tag, tmp_path)
        assert made.name == f"backprop_gpu-1-py3-none-{tag}.whl"
        with zipfile.ZipFile(made) as file:
            place = f"backprop_gpu/backends/cpu/{native_build.library_name()}"
            assert file.read(place) == target.encode()
            assert file.read("backprop_gpu-1.dist-info/WHEEL").decode() == (
                f"Root-Is-Purelib: false\nTag: py3-none-{tag}\n"
            )
            digest = base64.urlsafe_b64encode(hashlib.sha256(target.encode()).digest()).rstrip(b"=").decode()
            assert f"{place},sha256={digest},{len(target)}\n" in file.read("backprop_gpu-1.dist-info/RECORD").decode()
