"""Another commit of this repository as a peer, ``commit:REVISION``: its files in a folder, run by a worker process.

The folder is ``build/commits/`` with the commit's number, made on first use and kept. The worker takes
``backprop_gpu`` from there, and everything that measures and verifies from here: of the commit's own benchmarks only
the peer ``Ours`` is used, which knows how its network is trained.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from backprop_gpu.errors import ConfigError, DeviceError

from .peers.base import Peer
from .peers.spec import PeerSpec

PREFIX = "commit:"
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "commits"
_ALIAS = "benchmarks_of_commit"  # what the commit's ``benchmarks`` is imported as, beside ours


def commit_peer(name: str, *, estimators: bool = False) -> PeerSpec:
    """The peer ``commit:REVISION``; a network, or with ``estimators`` the module that has MLPClassifier.

    Raises
    ------
    ConfigError
        If git knows no such commit, or its kernel library cannot be built.
    """
    revision = name.removeprefix(PREFIX)
    folder = checkout(revision)
    if len(revision) > len(folder.name) and revision.startswith(folder.name):  # a whole number would fill a table
        name = PREFIX + folder.name
    # Until the kernels were written in C++, numba compiled them; without it such a commit would run others.
    by_numba = (folder / "backprop_gpu" / "backends" / "host" / "compiled").is_dir()
    kernels = {"kernels": "compiled"} if by_numba else {}
    packages = {"numba": "numba"} if by_numba else {}
    more: dict[str, Any] = {"packages": packages, "variables": {"NUMBA_CACHE_DIR": str(folder / "cache")}}
    if estimators:
        return PeerSpec(name, "backprop_gpu.estimators", kernels, path=str(folder), **more)
    options = {"folder": str(folder), "kernels": "auto", **kernels}
    return PeerSpec(name, "benchmarks.commits:ours_of", options, path=str(folder), **more)


def checkout(revision: str) -> Path:
    """The folder with a commit's files, and its kernel library where it has one to build."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found is None:
        raise ConfigError(f"git knows no commit {revision!r} in {ROOT}; give one of `git log`")
    number = found.decode().strip()
    folder = FOLDER / number[:12]
    if not folder.exists():
        print(f"making {folder}; kernels take a minute to build", file=sys.stderr, flush=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            made = Path(temporary) / "files"
            zipfile.ZipFile(io.BytesIO(_git("archive", "--format=zip", number) or b"")).extractall(made)
            _build_library(made)
            os.rename(made, folder)
    return folder


def _git(*arguments: str) -> bytes | None:
    """What git prints; None if it is not there or fails."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _build_library(folder: Path) -> None:
    script = folder / "scripts" / "build_native"
    if not script.exists():
        return
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"the kernel library of that commit does not build: {last}")


def ours_of(folder: str, kernels: str) -> Peer:
    """The commit's own peer ``Ours``, in a worker process whose ``backprop_gpu`` is the commit's.

    It is asked for what every version of it has: ``prepare(task)``, ``epoch(order)``, ``predict(X)``, ``fit(task)``.
    """
    import backprop_gpu

    if not Path(str(backprop_gpu.__file__)).is_relative_to(folder):
        raise DeviceError(f"backprop_gpu was imported from {backprop_gpu.__file__}, not from {folder}")
    if (Path(folder) / "backprop_gpu" / "bench").is_dir():
        module = importlib.import_module("backprop_gpu.bench.peers.ours")
    else:
        init = Path(folder) / "benchmarks" / "__init__.py"
        spec = importlib.util.spec_from_file_location(_ALIAS, init, submodule_search_locations=[str(init.parent)])
        if spec is None:
            raise DeviceError(f"{init} cannot be imported")
        sys.modules[_ALIAS] = importlib.util.module_from_spec(spec)
        module = importlib.import_module(f"{_ALIAS}.peers.ours")
    peer: Peer = module.Ours(kernels)
    return peer
