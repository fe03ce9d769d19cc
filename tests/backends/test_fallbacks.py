"""``auto`` where the fast kernels cannot be had, and first fits in many threads and forked processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ROOT, environment

from backprop_gpu.backends.cpu.library import unavailable_reason

TRAINS = """if True:
    import numpy as np
    from backprop_gpu import DenseNet, Trainer
    X = np.random.default_rng(0).standard_normal((60, 4))
    trained = []
    for kernels in ("reference", "auto"):
        net = DenseNet([4, 5, 1], loss="squared_error", device="cpu", kernels=kernels)
        Trainer(net, epochs=3, batch_size=16, progress=False).fit(X, X[:, 0])
        trained.append(net.predict(X))
    np.testing.assert_allclose(trained[1], trained[0], rtol=1e-4, atol=1e-5)
    from backprop_gpu.backends.device_report import device_report
    rows = [row for section in device_report("cpu") for row in section.rows if row.name == "kernels"]
    assert len(rows) == 1 and rows[0].ok, rows
    print(net.kernels_kind, "|", rows[0].text)
"""


def run(code: str, *, before: str = "", path: Path | None = None, **settings: str) -> str:
    """What a fresh process prints."""
    given = environment() | settings | ({} if path is None else {"PYTHONPATH": str(path)})
    done = subprocess.run(
        [sys.executable, "-c", before + "\n" + code], cwd=ROOT, env=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORBID = """if True:
    import ctypes
    import numpy  # with its libraries
    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: no memory becomes executable from now on
        print("not here")
        raise SystemExit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of Linux")
def test_a_system_that_forbids_code_made_at_run_time_is_no_reason_not_to_train() -> None:
    """The kernels are an ordinary library: no code is made while a program runs."""
    printed = run(TRAINS, before=FORBID)
    if "not here" in printed:
        pytest.skip("this kernel does not know PR_SET_MDWE")
    assert unavailable_reason() or printed.startswith("native")


def test_without_the_library_the_formulas_train() -> None:
    kernels, _, row = run(TRAINS, BACKPROP_GPU_INSTRUCTION_SET="none").partition(" | ")
    assert kernels == "reference"
    assert "native kernels would be several times faster, but" in row


def test_cupy_is_looked_for_once() -> None:
    looks = """if True:
        import sys
        class Finder:
            found = 0
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                cls.found += name == "cupy"
        sys.meta_path.insert(0, Finder)
        sys.modules.pop("cupy", None)
        from backprop_gpu import DenseNet
        for _ in range(4):
            DenseNet([3, 2, 1])
        print(Finder.found)
    """
    assert int(run(looks)) <= 1


MANY = """if True:
    import threading, warnings
    import numpy as np
    warnings.simplefilter("ignore")
    from backprop_gpu import MLPClassifier
    from backprop_gpu.backends.cpu.openblas import thread_limit
    X = np.random.default_rng(0).standard_normal((300, 10)); y = (X[:, 0] > 0).astype(int)
    print(thread_limit())
    barrier, probabilities = threading.Barrier(16), []
    def first_fit():
        barrier.wait()
        model = MLPClassifier((16,), max_iter=5, random_state=0, device="cpu").fit(X, y)
        probabilities.append(model.predict_proba(X))
    threads = [threading.Thread(target=first_fit) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(probabilities) == 16
    assert all((p == probabilities[0]).all() for p in probabilities)
    print(thread_limit())
"""


def test_sixteen_first_fits_at_once_leave_blas_as_it_was() -> None:
    before, after = run(MANY, OPENBLAS_NUM_THREADS="2").split()
    assert before == after


FORKS = """if True:
    import os, signal, threading, warnings
    import numpy as np
    warnings.simplefilter("ignore")
    from backprop_gpu import MLPClassifier
    X = np.random.default_rng(0).standard_normal((120, 6)); y = (X[:, 0] > 0).astype(int)
    def fit():
        return MLPClassifier((8,), max_iter=3, random_state=0).fit(X, y).predict_proba(X)
    stop, started = threading.Event(), threading.Event()
    def keep_fitting():
        started.set()
        while not stop.is_set():
            fit()
    thread = threading.Thread(target=keep_fitting)
    thread.start()
    started.wait()
    answers = []
    for _ in range(12):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(60)
            os.write(write, fit().tobytes()[:64])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "a forked process hangs or fails"
        answers.append(os.read(read, 64))
    stop.set()
    thread.join()
    assert set(answers) == {fit().tobytes()[:64]}
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_processes_forked_during_the_first_fits_fit_too() -> None:
    run(FORKS)
