"""A worker is a process: its variables, its answers, its failures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backprop_gpu.bench.process import Worker, workers
from backprop_gpu.errors import DeviceError, MissingDependencyError

ECHO = "support.peers:Echo"


def test_answers_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_REMOVED", "here")
    worker = Worker(ECHO, "good morning", variables={"BENCH_SET": "1", "BENCH_REMOVED": None})
    try:
        assert worker.ask("greet", "Ada") == "good morning Ada"
        assert (worker.ask("variable", "BENCH_SET"), worker.ask("variable", "BENCH_REMOVED")) == ("1", None)
        with pytest.raises(DeviceError, match=r"^ValueError: two lines$"):
            worker.ask("fail")
        assert worker.ask("greet", "again") == "good morning again"
    finally:
        worker.close()


def test_a_worker_for_each_name_and_none_in_the_end() -> None:
    with workers(ECHO, ["good morning", "good night"], {"BENCH_SET": "1"}) as both:
        assert [worker.ask("greet", "Ada") for worker in both.values()] == ["good morning Ada", "good night Ada"]
        assert both["good night"].ask("variable", "BENCH_SET") == "1"
    with pytest.raises(DeviceError, match="its process died"):
        both["good morning"].ask("greet", "Ada")


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="AttributeError"):
        Worker("support.peers:Nobody", variables={})


def test_a_missing_package_is_named() -> None:
    from backprop_gpu.bench.peers import PeerSpec

    spec = PeerSpec("other", ".plain_numpy:PlainNumpy", packages={"no_such_package": "no-such-package[cpu]"})
    with pytest.raises(MissingDependencyError, match=r"^not installed: pip install no-such-package\[cpu\]$"):
        Worker(".desk:Desk", spec, variables={})


def test_the_process_end_is_an_error() -> None:
    from backprop_gpu.bench.peers import PeerSpec
    from backprop_gpu.bench.workloads import WORKLOADS

    worker = Worker(".desk:Desk", PeerSpec("breaks", "support.peers:Breaks"), variables={})
    try:
        with pytest.raises(DeviceError, match="its process died"):
            worker.ask("losses", WORKLOADS["step"][1])
    finally:
        worker.close()


def test_numpy_is_not_loaded_before_the_variables_are_set() -> None:
    """BLAS reads its variables when it is loaded; the command's description must not load it either."""
    code = "import sys, backprop_gpu.bench.process, backprop_gpu.bench.command; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
