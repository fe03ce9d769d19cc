"""Files that come from a stranger: read or refused in one line, within limits; no pipe is waited for, no code is run.

The sample of ``scripts/fuzz`` is small; the long form is ``scripts/fuzz --inputs 1000000``.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import fuzzing
from support.command import ROOT, environment
from support.fuzzing import limits, outcome

from backprop_gpu import build, config_reading
from backprop_gpu.cli import main
from backprop_gpu.config_reading import load_config
from backprop_gpu.data import read_table
from backprop_gpu.data.inspection import inspect
from backprop_gpu.data.preprocessing import Preprocessor
from backprop_gpu.errors import BackpropError, ConfigError, DataError
from backprop_gpu.estimators import MLPClassifier
from backprop_gpu.parity import replay
from backprop_gpu.safe_files import memory_limit, parse_json
from backprop_gpu.training.callbacks import history_lines

posix = pytest.mark.skipif(os.name == "nt", reason="pipes, permissions and limits as POSIX has them")

OPENS: dict[str, Callable[[Path], Any]] = {
    "a.yaml": lambda path: load_config(str(path)),
    "a.csv": lambda path: read_table(path, target=-1),
    "a.npz": read_table,
    "a.npy": lambda path: read_table(path, labelled=False),
    "a.safetensors": lambda path: build.load(path, "cpu"),
    "estimator.safetensors": MLPClassifier.from_safetensors,
    "case.safetensors": replay,
    "history.jsonl": history_lines,
}


def refusal(read: Callable[[], Any]) -> str:
    """The one line with which the package refuses to read."""
    with pytest.raises(BackpropError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


# -- which files are opened --------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", OPENS)
def test_only_regular_files_are_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    assert "is a named pipe, and only regular files are read" in refusal(lambda: OPENS[name](path))
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device, and only regular files are read" in refusal(lambda: OPENS[name](path))


@posix
@pytest.mark.parametrize("name", OPENS)
def test_a_file_that_may_not_be_read_is_called_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = config_reading.carried()
    monkeypatch.setattr(config_reading, "carried", lambda: carried)  # the checkout may be closed to other users too
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        os.chmod(folder, 0o755)
        path = Path(folder, name)
        path.write_bytes(b"x")
        path.chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            message = refusal(lambda: OPENS[name](path))
        finally:
            os.seteuid(me)
    assert "permission denied; let the file be read (chmod u+r)" in message


@pytest.mark.parametrize("name", OPENS)
def test_a_file_that_is_not_there_is_called_so(name: str, tmp_path: Path) -> None:
    message = refusal(lambda: OPENS[name](tmp_path / name))
    assert (
        "no such file" in message
        or "no model file at" in message
        or "no parity case file" in message
        or "no conf" in message
    )
    with pytest.raises(BackpropError):
        OPENS[name](tmp_path / f"nul\0{name}")


# -- what takes much more room than the file ---------------------------------------------------------------------------


def test_an_archive_that_unpacks_to_more_than_its_size_allows_is_refused_before(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 20, 16)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("X.npy", "w") as file:
        file.write(header.getvalue())
        for _ in range(16):
            file.write(bytes(1 << 23))
    assert path.stat().st_size < 1 << 18
    assert "unpacks to 128 MiB, more than the 64 MiB that a file of its size may; save it with" in refusal(
        lambda: read_table(path, labelled=False)
    )
    rows = np.zeros((1 << 10, 16))
    np.savez_compressed(path, X=rows)  # an ordinary one is read
    assert read_table(path, labelled=False).numeric.shape == rows.shape


def test_an_index_of_too_many_entries_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(20_000):
            archive.writestr(f"array number {k}.npy", b"")
    assert "not a whole .npz file" in refusal(lambda: read_table(path))


@pytest.mark.parametrize(
    "shape", ["(1 << 40,)", "(99999999999, 9)", "(-1, 2)", "(True, 2)", "2", "(2.0, 2)", "((2, 2),)"]
)
def test_the_shape_in_a_header_is_not_believed(shape: str, tmp_path: Path) -> None:
    content = (
        b"\x93NUMPY\1\0\x76\0"
        + f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117)
        + b"\n"
    )
    (tmp_path / "a.npy").write_bytes(content + bytes(64))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", content + bytes(64))
    for name in ("a.npy", "a.npz"):
        message = refusal(lambda name=name: read_table(tmp_path / name, labelled=False))
        assert "not a whole" in message or "cut short" in message


def test_json_takes_no_more_than_its_file_allows() -> None:
    for text in ("[" * 100_000, "[" + "[]," * 2_000_000 + "1]", "9" * 5000, '{"a":' * 5000, "nul"):
        assert "JSON" in refusal(lambda text=text: parse_json(text, "a.json", DataError))
    assert parse_json('{"a": [1, 2.5, null]}', "a.json", DataError) == {"a": [1, 2.5, None]}
    assert memory_limit(0) == 64 << 20


@posix
def test_one_long_cell_does_not_make_room_for_as_long_a_cell_in_every_row(tmp_path: Path) -> None:
    n = 50_000
    path = tmp_path / "a.csv"
    path.write_text("a,y\n" + "".join(f"t{i % 7},{i % 2}\n" for i in range(n)) + "q" * 100_000 + ",0\n")
    with limits(path.stat().st_size, seconds=60, watched=False):
        table = read_table(path, target="y")
        Preprocessor.fit(table).transform(table)
    assert table.categorical["a"][-1] == "q" * 100_000
    path.write_text("a,y\n" + "".join(f"{i % 7},t{i % 2}\n" for i in range(n)) + "1," + "q" * 100_000 + "\n")
    assert f"line {n + 2}: a target of 100000 letters is too long" in refusal(lambda: read_table(path, target="y"))


def test_a_table_of_many_columns_takes_time_that_grows_with_them(tmp_path: Path) -> None:
    """The quadratic ways would take minutes; this one takes a second."""
    n, path = 20_000, tmp_path / "wide.csv"
    path.write_text(",".join(f"c{j}" for j in range(n)) + ",y\n" + (",".join(["1.5"] * n) + ",0\n") * 3)
    names = [f"c{j}" for j in range(n // 2)]
    with limits(path.stat().st_size, seconds=10, watched=False):
        table = read_table(path, target="y", ignore=names[::2], categorical=names[1::2])
        assert table.numeric.shape == (3, n // 2)
        assert len(inspect(table).columns) == len(table.columns) == n - len(names) // 2


def test_a_row_of_too_many_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text in ("a," * 600_000 + "y\n", "a,y\n" + '"\n",' * 600_000 + "1\n", "a,y\n" + "1," * 600_000 + "1\n"):
        path.write_text(text)
        assert "has a row of more than 500000 columns" in refusal(lambda: read_table(path, target="y"))


def test_yaml_of_many_values_is_refused_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: [" + "1," * 100_000 + "]")
    assert "line 1: more than 20000 values" in refusal(lambda: load_config(str(path)))
    path.write_text("# nothing\n")
    assert "is empty; name the data at least" in refusal(lambda: load_config(str(path)))


# -- odd contents under a right digest ---------------------------------------------------------------------------------


def test_a_class_list_without_a_dimension_is_refused(tmp_path: Path) -> None:
    X = np.zeros((3, 2))
    for more in ({"classes": np.array("a")}, {"feature_names": np.array("ab")}, {"classes": np.zeros((2, 2))}):
        np.savez(tmp_path / "a.npz", X=X, y=np.array([0, 1, 0]), **more)
        assert "must be a list of names" in refusal(lambda: read_table(tmp_path / "a.npz"))


def test_a_name_that_fills_a_page_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 1)), y=np.array([0, 1, 0]), feature_names=np.array(["x" * 5000]))
    (tmp_path / "a.csv").write_text("a," + "b" * 5000 + ",y\n1,2,3\n")
    for read in (lambda: read_table(tmp_path / "a.npz"), lambda: read_table(tmp_path / "a.csv", target="y")):
        assert "5000 letters; shorten it" in refusal(read)


def test_a_message_is_a_page_at_most(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"device: {'9' * 9999}x\n")
    with pytest.raises(BackpropError, match=r"there is no device '999+ \.\.\. 999+x'; use one of auto") as caught:
        load_config(str(tmp_path / "a.yaml"))
    assert len(str(caught.value)) == fuzzing.LONGEST_MESSAGE


def test_a_text_of_numbers_that_are_no_letters_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array(["ab", "c"]))
    content = bytearray((tmp_path / "y.npy").read_bytes())
    content[-1] = 0x7F
    (tmp_path / "y.npy").write_bytes(content)
    np.save(tmp_path / "X.npy", np.zeros((2, 1)))
    assert "y.npy is not a whole .npy" in refusal(
        lambda: read_table(tmp_path / "X.npy", target=str(tmp_path / "y.npy"))
    )


@pytest.mark.parametrize("line", [b"\xff\n", b"3\n", b"[" * 9999 + b"\n", b'{"a": ' + b"9" * 5000 + b"}\n", b"\n"])
def test_a_history_is_read_up_to_a_line_that_is_none(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'{"epoch": 2}\n')
    assert f"{path}, line 2" in refusal(lambda: history_lines(path))
    path.write_bytes(b'{"epoch": 1}\n' + line[:-1])  # the last one, cut short
    if line != b"3\n":
        assert history_lines(path) == [{"epoch": 1}]


@posix
def test_a_run_that_goes_on_writes_into_its_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder from a stranger may hold links to files of one's own."""
    run, own = tmp_path / "run", tmp_path / "mine.txt"
    command = ["train", "moons", "--quiet", "--set", "training.epochs=1", "--set", "model.hidden=[2]"]
    assert main([*command, "--run-dir", str(run)]) == 0
    own.write_text("mine")
    (run / "checkpoints").mkdir(exist_ok=True)
    for name in ("model.safetensors", "history.jsonl", "metrics.json", "curve.png", "checkpoints/.lock"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(own)
        capsys.readouterr()
        assert main([*command, "--resume", "auto", "--run-dir", str(run)]) == 2
        assert f"{run / name} is a link" in capsys.readouterr().err
        (run / name).unlink()
    assert own.read_text() == "mine"


# -- mutants -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_readers() -> dict[str, fuzzing.Reader]:
    return fuzzing.readers()


@posix
@pytest.mark.parametrize("name", fuzzing.NAMES)
def test_mutants_are_read_or_refused(name: str, all_readers: dict[str, fuzzing.Reader], tmp_path: Path) -> None:
    reader, path = all_readers[name], tmp_path / f"input{all_readers[name].suffix}"
    slow = name in ("diagnose", "metrics", "report")
    found = [outcome(reader, reader.input(name, number), path, seconds=60) for number in range(40 if slow else 150)]
    assert "refused" in found
    for seed in reader.seeds:
        assert outcome(reader, seed, path, seconds=60) == "read"


@posix
def test_the_limits_see_what_they_are_for(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def spin(path: Path) -> None:
        while True:
            pass

    wrong: dict[str, Callable[[Path], Any]] = {
        "more than": spin,
        "MemoryError": lambda path: np.ones(1 << 26),
        "it did exec": lambda path: exec("1"),
        "it did open": lambda path: path.write_text("x"),
        "it did os.system": lambda path: os.system("true"),
        "2 lines": lambda path: (_ for _ in ()).throw(ConfigError("a\nb")),
        "ZeroDivisionError": lambda path: 1 / 0,
    }
    for words, read in wrong.items():
        with pytest.raises(fuzzing.Wrong, match=words):
            outcome(fuzzing.Reader("", [], read, []), b"x", path, seconds=0.1 if read is spin else 60)


# -- the package's own folder ------------------------------------------------------------------------------------------


def test_no_bytecode_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    import subprocess

    ignored = shutil.ignore_patterns("__pycache__", "*.so", "native")
    shutil.copytree(ROOT / "backprop_gpu", tmp_path / "backprop_gpu", ignore=ignored)
    shutil.copytree(ROOT / "backprop_gpu" / "native", tmp_path / "backprop_gpu" / "native", ignore=ignored)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-m", "backprop_gpu", "config", "show", "moons"]
    variables = environment(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
