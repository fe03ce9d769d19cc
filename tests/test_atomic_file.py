"""A file is the old one or the new one, whatever fails in between; nothing else is left beside it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import environment
from support.io_faults import calls, faults

from backprop_gpu.atomic_file import SUFFIX, replace_file, write_file

OLD, NEW = b"old\n", b"new\n" * 5000
POSIX = pytest.mark.skipif(os.name == "nt", reason="links, pipes and permissions as POSIX has them")

WRITER = """
import sys
from backprop_gpu.atomic_file import write_file
try:
    write_file(sys.argv[1], b"new\\n" * 5000)
except OSError as error:
    sys.exit(f"{error.strerror}: {error.filename}")
"""


def written(path: Path, *rules: str, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``path`` written by a process in which these faults happen."""
    words = [sys.executable, "-c", WRITER, str(path)]
    env = environment(**faults(*rules, log=log))
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def test_it_replaces_what_is_there_and_makes_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()
    write_file(path, NEW)
    assert path.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD)

    def fails() -> None:
        with replace_file(path) as file:
            file.write(NEW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with pytest.raises(FileNotFoundError) as caught, replace_file(path):
        (tmp_path / "another").read_bytes()
    assert caught.value.filename == str(tmp_path / "another")
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_every_system_call_may_fail_or_be_the_last(tmp_path: Path) -> None:
    folder, log = tmp_path / "f", tmp_path / "log"
    folder.mkdir()
    path = folder / "a"
    path.write_bytes(OLD)
    assert written(path, log=log).returncode == 0
    made = [call for call, _ in calls(log, str(folder))]
    assert made == ["open", "write", "fsync", "rename", "fsync"]
    for error, (call, n) in [
        *(("ENOSPC", x) for x in (("open", 1), ("write", 1), ("fsync", 1))),
        *(("EIO", x) for x in (("write", 1), ("fsync", 1), ("rename", 1))),
        *(("KILL", x) for x in (("write", 1), ("fsync", 1), ("rename", 1), ("fsync", 2))),
    ]:
        path.write_bytes(OLD)
        done = written(path, f"{call}:{n}:{error}:{folder}")
        assert path.read_bytes() == (NEW if (call, n) == ("fsync", 2) else OLD)
        if error == "KILL":
            assert done.returncode == -signal.SIGKILL
            left = {x for x in folder.iterdir() if x != path}
            assert all(x.name.startswith(".a.") and x.suffix == SUFFIX for x in left)
            for x in left:
                x.unlink()
        else:
            assert done.stderr == f"{os.strerror(getattr(errno, error))}: {path}\n"
            assert list(folder.iterdir()) == [path]
    assert written(path, f"write:1+:SHORT:{folder}").returncode == 0  # is gone on with
    assert path.read_bytes() == NEW


@POSIX
def test_a_folder_that_is_gone_or_closed_is_told_by_the_name_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_file(tmp_path / "gone" / "a", OLD)
    assert caught.value.filename == str(tmp_path / "gone" / "a")
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path, OLD)
    with pytest.raises(FileNotFoundError), replace_file(tmp_path / "a"):
        next(tmp_path.glob(".a.*")).unlink()  # as whoever removes the folder does
    assert not list(tmp_path.iterdir())


@POSIX
def test_links_permissions_and_pipes_are_what_they_were(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(OLD)
    link.symlink_to(path)
    write_file(link, NEW)
    assert link.is_symlink()
    assert path.read_bytes() == NEW
    mask = os.umask(0o027)
    try:
        write_file(tmp_path / "fresh", NEW)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640
    words = [sys.executable, "-c", WRITER.replace('b"new\\n" * 5000', 'b"x"'), "/dev/stdout"]
    assert subprocess.run(words, env=environment(), capture_output=True, check=True).stdout == b"x"
    assert len(str(write_long(tmp_path).name)) == 255


def write_long(folder: Path) -> Path:
    """A file whose name is as long as file systems allow."""
    path = folder / ("n" * 255)
    write_file(path, OLD)
    return path
