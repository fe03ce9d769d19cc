"""What is shipped: the pins, the wheel's contents, and nothing in the repository that belongs to one machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = PROJECT["project"]["name"]

# --- pins -----------------------------------------------------------------------------------------------------------


def pin_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins() -> dict[str, Version]:
    """Version of each pinned package, by its canonical name."""
    found = {}
    for line in pin_lines():
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def requirements() -> list[Requirement]:
    """Everything pyproject.toml asks for: to run, in each extra, and to build."""
    project = PROJECT["project"]
    texts = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for name, extra in project["optional-dependencies"].items():
        # The peers of the benchmarks are gigabytes that no script installs; their versions stand in BENCHMARKS.md.
        texts += [] if name == "bench" else extra
    return [requirement for requirement in map(Requirement, texts) if requirement.name != OWN]


def test_constraints_hold_one_exact_pin_a_line_and_nothing_else() -> None:
    names = []
    for line in pin_lines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; .+)?", line), line
        names.append(canonicalize_name(Requirement(line).name))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def needs(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed distribution needs here when it is asked for with these extras."""
    for text in metadata.requires(requirement.name) or []:
        need = Requirement(text)
        marker = need.marker or Marker("python_version > '3'")
        if any(marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}):
            yield need


def test_what_the_requirements_bring_along_is_pinned_too() -> None:
    """As far as it is installed here."""
    pinned, seen, waiting = pins(), set(), requirements()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        # cuda-toolkit is one name for CUDA 12 and 13; what it chooses among is pinned
        if name in seen or name == "cuda-toolkit":
            continue
        seen.add(name)
        assert name in pinned
        try:
            waiting += needs(requirement)
        except metadata.PackageNotFoundError:
            continue
    assert {"numpy", "pytest", "pluggy"} <= seen


def test_the_scripts_and_the_package_support_the_same_pythons() -> None:
    text = (ROOT / "scripts" / "_environment.py").read_text(encoding="utf-8")
    match = re.search(r"^OLDEST, NEWEST = \((\d+), (\d+)\), \((\d+), (\d+)\)", text, re.MULTILINE)
    assert match is not None
    oldest, newest = "{}.{} {}.{}".format(*match.groups()).split()
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    classifiers = PROJECT["project"]["classifiers"]
    stated = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert (stated[0], stated[-1]) == (oldest, newest)


# --- hashes -----------------------------------------------------------------------------------------------------------


def locked() -> dict[str, tuple[str, list[str], list[str]]]:
    """Of each requirement in requirements.lock, by name and version: version, extras that it is for, hashes."""
    found = {}
    for block in (ROOT / "requirements.lock").read_text(encoding="utf-8").split("\n\n")[1:]:
        first, requirement, *hashes = block.strip().splitlines()
        parsed = Requirement(requirement.removesuffix(" \\"))
        (specifier,) = parsed.specifier
        extras = first.removeprefix("# for ").split(", ")
        found[f"{canonicalize_name(parsed.name)}=={specifier.version}"] = specifier.version, extras, hashes
    return found


def test_the_lock_has_the_pins_and_hashes_of_every_file() -> None:
    """``scripts/lock`` writes it; run that after a change of constraints.txt or pyproject.toml."""
    entries = locked()
    pinned = {f"{name}=={version}" for name, version in pins().items()}
    assert {entry for entry in entries if not entry.startswith("cuda-toolkit==")} == pinned
    for entry, (_, _, hashes) in entries.items():
        assert hashes, entry
        for line in hashes:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), (entry, line)


def test_the_bill_of_materials_is_valid_and_names_each_locked_package_with_licence_and_hashes(tmp_path: Path) -> None:
    reason = "scripts/bill_of_materials needs pip install cyclonedx-bom"
    validators = pytest.importorskip("cyclonedx.validation.json", reason=reason)
    schemas = pytest.importorskip("cyclonedx.schema", reason=reason)
    path = tmp_path / "bill.json"
    subprocess.run(
        [sys.executable, str(ROOT / "scripts/bill_of_materials"), str(path)], check=True, capture_output=True
    )
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    version = schemas.SchemaVersion.from_version(found["specVersion"])
    assert validators.JsonStrictValidator(version).validate_str(text) is None
    components = {f"{canonicalize_name(c['name'])}=={c['version']}": c for c in found["components"]}
    checked = 0
    for entry, (number, _, hashes) in locked().items():
        name = entry.partition("==")[0]
        if util.find_spec(name.replace("-", "_")) is None or metadata.version(name) != number:
            continue  # of an extra that is not installed here
        component = components[entry]
        assert component["licenses"], entry
        references = [r for r in component["externalReferences"] if r["type"] == "distribution"]
        given = {(h["alg"], h["content"]) for reference in references for h in reference.get("hashes", [])}
        assert given == {("SHA-256", line.strip(" \\").removeprefix("--hash=sha256:")) for line in hashes}, entry
        checked += 1
    assert checked >= 10


def test_the_lock_knows_which_extra_needs_what() -> None:
    entries = locked()
    extras = PROJECT["project"]["optional-dependencies"]
    header = (ROOT / "requirements.lock").read_text(encoding="utf-8").split("\n\n")[0]
    assert header.endswith(f"# Extras: {', '.join(['build', 'run', *(e for e in extras if e != 'bench')])}")
    asked = {"run": PROJECT["project"]["dependencies"], "build": PROJECT["build-system"]["requires"], **extras}
    del asked["bench"]
    for extra, texts in asked.items():
        for requirement in map(Requirement, texts):
            if requirement.name == OWN:
                continue
            for_extras = [
                names
                for entry, (_, names, _) in entries.items()
                if entry.startswith(f"{canonicalize_name(requirement.name)}==")
            ]
            assert any({extra, "run"} & set(names) for names in for_extras), (extra, requirement)


# --- the wheel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """As a machine without a compiler builds it, which takes no time."""
    path, _ = built_wheel(tmp_path_factory.mktemp("wheel"), {"CXX": "no-such-compiler"})
    with zipfile.ZipFile(path) as file:
        yield file


def built_wheel(folder: Path, environment: dict[str, str]) -> tuple[Path, str]:
    """A wheel of this checkout, and what its build printed."""
    if util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; scripts/test installs it")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert answer.returncode == 0, answer.stderr
    (path,) = folder.glob("*.whl")
    return path, answer.stdout + answer.stderr


def test_without_a_compiler_the_wheel_is_pure_and_one_line_says_what_to_do(tmp_path: Path) -> None:
    path, printed = built_wheel(tmp_path, {"CXX": "no-such-compiler"})
    assert path.name.endswith("-py3-none-any.whl")
    (line,) = [line for line in printed.splitlines() if "native kernels" in line]
    assert "no C++ compiler (no-such-compiler)" in line
    assert "install one" in line


def test_a_compiler_that_fails_gives_a_pure_wheel_too(tmp_path: Path) -> None:
    path, printed = built_wheel(tmp_path, {"CXX": "false"})
    assert path.name.endswith("-py3-none-any.whl")
    assert "native kernels are left out" in printed


def test_the_wheel_holds_the_package_and_the_configs(wheel: zipfile.ZipFile) -> None:
    sources = [
        path for path in (ROOT / "backprop_gpu").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    configs = {f"backprop_gpu/configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    assert "backprop_gpu/configs/breast_cancer.yaml" in configs
    assert "backprop_gpu/py.typed" in expected
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected | configs
    for path in (ROOT / "configs").iterdir():
        assert wheel.read(f"backprop_gpu/configs/{path.name}") == path.read_bytes()


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"backprop_gpu-{PROJECT['project']['version']}.dist-info/"
    assert wheel.read(info + "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "backprop-gpu = backprop_gpu.__main__:entry" in wheel.read(info + "entry_points.txt").decode()
    stated = wheel.read(info + "METADATA").decode()
    assert "License-Expression: BSD-3-Clause AND CC-BY-4.0" in stated
    data = (ROOT / "backprop_gpu" / "data" / "builtin" / "ATTRIBUTION.md").read_bytes()
    assert wheel.read(info + "licenses/backprop_gpu/data/builtin/ATTRIBUTION.md") == data
    notices = wheel.read(info + "licenses/NOTICES.md").decode()
    for words in ("GCC Runtime Library Exception", "LLVM Exceptions", "libstdc++", "libc++"):
        assert words in notices
    assert "Requires-Python: >=3.11" in stated


def test_configs_have_one_home() -> None:
    assert not (ROOT / "backprop_gpu" / "configs").exists()


# --- the repository -------------------------------------------------------------------------------------------------

# written in pieces, so that this file does not find itself
FOREIGN = {
    "an index address": r"https?://[^\s'\"<>)]*" + r"(?:/simple\b|pypi\.|pythonhosted)",
    "an index option": r"--(?:extra-)?index" + r"-url|--find" + r"-links|--trusted" + r"-host",
    "a path of one machine": r"(?<![\w.~-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/\w+|Us" + r"ers/\w+)/",
}


def repository_files() -> list[Path]:
    """Files under version control and new ones that are not ignored; without git, those of the source distribution."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    else:
        named = [ROOT / name for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
        paths = [path for top in named for path in ([top] if top.is_file() else sorted(top.rglob("*")))]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_one_machine_or_an_index(what: str) -> None:
    files = repository_files()
    assert ROOT / "pyproject.toml" in files
    found = []
    for path in files:
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(FOREIGN[what], text)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    samples = ["https://mirror.example/" + "simple", "--extra-index" + "-url x", "cd /ho" + "me/someone/x"]
    for pattern, sample in zip(FOREIGN.values(), samples, strict=True):
        assert re.search(pattern, sample)
