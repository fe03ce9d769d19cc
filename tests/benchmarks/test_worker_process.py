"""A worker is a process: its variables, its answers, its failures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backprop_gpu.errors import DeviceError, MissingDependencyError
from benchmarks.worker_process import WorkerProcess

ECHO = "support.benchmark_peers:Echo"


def test_answers_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_REMOVED", "here")
    worker = WorkerProcess(ECHO, "good morning", variables={"BENCH_SET": "1", "BENCH_REMOVED": None})
    try:
        assert worker.call("greet", "Ada") == "good morning Ada"
        assert (worker.call("variable", "BENCH_SET"), worker.call("variable", "BENCH_REMOVED")) == ("1", None)
        with pytest.raises(DeviceError, match=r"^ValueError: two lines$"):
            worker.call("fail")
        assert worker.call("greet", "again") == "good morning again"
    finally:
        worker.close()


def test_a_closed_worker_has_no_process() -> None:
    worker = WorkerProcess(ECHO, "good morning", variables={})
    worker.close()
    with pytest.raises(DeviceError, match="its process died"):
        worker.call("greet", "Ada")


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="AttributeError"):
        WorkerProcess("support.benchmark_peers:Nobody", variables={})


def test_a_missing_package_is_named() -> None:
    from benchmarks.peers.spec import PeerSpec

    spec = PeerSpec("other", ".plain_numpy:PlainNumpy", packages={"no_such_package": "no-such-package[cpu]"})
    with pytest.raises(MissingDependencyError, match=r"^not installed: pip install no-such-package\[cpu\]$"):
        WorkerProcess(".network_worker:NetworkWorker", spec, variables={})


def test_the_process_end_is_an_error() -> None:
    from benchmarks.peers.spec import PeerSpec
    from benchmarks.workloads import WORKLOADS

    worker = WorkerProcess(
        ".network_worker:NetworkWorker", PeerSpec("breaks", "support.benchmark_peers:Breaks"), variables={}
    )
    try:
        with pytest.raises(DeviceError, match="its process died"):
            worker.call("losses", WORKLOADS["step"][1])
    finally:
        worker.close()


def test_numpy_is_not_loaded_before_the_variables_are_set() -> None:
    """BLAS reads its variables when it is loaded, and the package itself may come from another folder."""
    code = (
        "import sys, benchmarks.worker_process, benchmarks.command, benchmarks.__main__;"
        "print('numpy' in sys.modules or 'backprop_gpu' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
