"""The command runs a script as Python does: name, arguments, path, exit code, traceback, and nothing loaded early."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.accel import both, run

SCRIPT = """
import sys, atexit
import neighbour
assert __name__ == "__main__" and sys.modules["__main__"].neighbour is neighbour
assert "numpy" not in sys.modules, "a script may set OMP_NUM_THREADS before NumPy is loaded"
atexit.register(lambda: print("last", neighbour.word, flush=True))

def deep():
    raise ValueError("deep")

print(sys.argv, __file__, sys.path[0])
what = sys.argv[1]
if what == "exit":
    sys.exit(7)
if what == "text":
    sys.exit("bye")
if what == "interrupt":
    raise KeyboardInterrupt
if what == "raise":
    try:
        deep()
    except ValueError as error:
        raise RuntimeError("outer") from error
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "script.py").write_text(SCRIPT, encoding="utf-8")
    (inner / "bad.py").write_text("x = (\n", encoding="utf-8")
    (inner / "neighbour.py").write_text("word = 'words'\n", encoding="utf-8")
    (inner / "__main__.py").write_text("import sys, neighbour\nprint(__name__, sys.argv[1:])\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("what", "code"), [("", 0), ("exit", 7), ("text", 1), ("interrupt", 130), ("raise", 1)])
def test_output_exit_code_and_traceback_are_python_s_own(what: str, code: int, folder: Path) -> None:
    plain, accelerated = both("inner/script.py", what, "-m", "--device", folder=folder, options=("--quiet",))
    assert accelerated.out == plain.out
    assert accelerated.err == plain.err
    assert accelerated.code % 256 == code
    assert plain.code in (code, -2)  # Python ends itself by the signal, which a shell shows as 130
    assert plain.out.endswith("last words\n")
    assert not (folder / "inner" / "__pycache__" / "script.cpython-311.pyc").exists()


@pytest.mark.parametrize("words", [("inner/bad.py",), ("inner", "a"), ("-m", "inner.neighbour"), ("-m", "inner", "b")])
def test_broken_scripts_folders_and_modules(words: tuple[str, ...], folder: Path) -> None:
    plain, accelerated = both(*words, folder=folder, options=("-q", "--device", "cpu"))
    assert (accelerated.code, accelerated.out) == (plain.code, plain.out)
    assert accelerated.err.splitlines()[-1:] == plain.err.splitlines()[-1:]


def test_wrong_use_is_one_line_and_2(folder: Path) -> None:
    for words, message in (
        ((), "a script or -m module is needed"),
        (("--device", "gpu", "x.py"), "write 'cuda'"),
        (("nowhere.py",), "can't open file 'nowhere.py'"),
    ):
        done = run("-m", "backprop_gpu.accel", *words, folder=folder)
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err


def test_a_script_without_perceptrons_is_told_so(folder: Path) -> None:
    done = run("-m", "backprop_gpu.accel", "inner/script.py", "", folder=folder)
    assert (done.code, done.err) == (0, "backprop_gpu.accel: no fit of an MLPClassifier or MLPRegressor\n")
