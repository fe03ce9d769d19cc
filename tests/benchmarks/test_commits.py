"""Another commit as a peer, from a repository made here: its own package is measured, other work is left out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from backprop_gpu.errors import ConfigError, DeviceError, MissingDependencyError
from benchmarks import command, commits
from benchmarks.datasets import chosen_datasets
from benchmarks.estimators import rows as estimator_rows
from benchmarks.worker_process import WorkerProcess

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This checkout's package and benchmarks, committed in a repository of its own; without kernels to compile."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    for name in ("backprop_gpu", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    git(folder, "init", "--quiet")
    commit(folder)
    monkeypatch.setattr(commits, "ROOT", folder)
    monkeypatch.setattr(commits, "FOLDER", tmp_path / "commits")
    return folder


def commit(folder: Path) -> str:
    """The number of a new commit of everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "a version")
    return git(folder, "rev-parse", "HEAD").strip()


def test_a_commit_is_measured_with_its_own_package(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--workloads", "W2", "--repeats", "1", "--min-time", "0", "--markdown")
    assert command.main(["step", *small, "--peers", "ours-reference,commit:HEAD"]) == 0
    figures = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| W2")]
    assert [line[1] for line in figures] == ["ours-reference", "commit:HEAD"]
    assert float(figures[1][4]) > 0.0

    adam = repository / "backprop_gpu" / "maths" / "optimizers.py"
    adam.write_text(
        adam.read_text(encoding="utf-8").replace("learning_rate: float = 1e-3", "learning_rate: float = 2.0")
    )
    (repository / "backprop_gpu" / "here.py").write_text("")
    number = commit(repository)
    folder = commits.checkout(number)
    assert (folder / "backprop_gpu" / "here.py").exists()
    assert folder.parent == commits.FOLDER
    assert commits.checkout(number[:9]) == folder


def test_a_commit_that_does_other_work_is_left_out(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = repository / "benchmarks" / "peers" / "ours.py"
    text = ours.read_text(encoding="utf-8")
    assert '"learning_rate": RATE' in text
    ours.write_text(text.replace('"learning_rate": RATE', '"learning_rate": 1.01 * RATE'), encoding="utf-8")
    number = commit(repository)
    arguments = ("step", "--workloads", "W2", "--peers", f"ours-reference,commit:{number}", "--repeats", "1")
    assert command.main([*arguments, "--min-time", "0", "--markdown"]) == 1
    assert f"| commit:{number[:12]} |  |  |  |  | not equal work: loss" in capsys.readouterr().out


def test_a_commit_s_estimators(repository: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn's tables and estimators")
    found = list(estimator_rows(chosen_datasets(["iris"]), ["ours", "commit:HEAD"], 1, 0.0, 5))
    assert [row["peer"] for row in found] == ["ours", "sklearn", "commit:HEAD", "sklearn", "commit:HEAD"]
    assert found[2]["score"] == pytest.approx(found[0]["score"], abs=0.02)


def test_a_commit_whose_kernels_numba_compiled_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = repository / "backprop_gpu" / "backends" / "host" / "compiled"
    compiled.mkdir(parents=True, exist_ok=True)
    (compiled / "__init__.py").write_text("")
    commit(repository)
    spec = commits.commit_peer("commit:HEAD")
    assert spec.packages == {"numba": "numba"}
    assert spec.options["kernels"] == "compiled"
    assert commits.commit_peer("commit:HEAD", estimators=True).options == {"kernels": "compiled"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"^not installed: pip install numba$"):
        spec.load_module()


def test_unknown_commits_are_one_line(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="git knows no commit 'nothing'"):
        commits.checkout("nothing")
    assert command.main(["step", "--peers", "commit:--all"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmarks: git knows no commit '--all'")


def test_the_library_of_a_commit_that_does_not_build_is_one_line(repository: Path) -> None:
    (repository / "scripts").mkdir()
    (repository / "scripts" / "build_native").write_text("raise SystemExit('no compiler here')")
    commit(repository)
    with pytest.raises(ConfigError, match="kernel library of that commit does not build: no compiler here"):
        commits.checkout("HEAD")
    assert list(commits.FOLDER.iterdir()) == []


def test_a_package_from_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"backprop_gpu was imported from .*, not from "):
        WorkerProcess("benchmarks.commits:ours_of", str(tmp_path), "reference", variables={})
