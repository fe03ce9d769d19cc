"""``auto`` where the fast kernels cannot be had, and first fits in many threads and forked processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.command import ROOT, environment

from backprop_gpu.backends.host.openblas import numpys_openblas

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
    from backprop_gpu.backends.survey import survey
    rows = [row for section in survey("cpu") for row in section.rows if row.name == "kernels"]
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


@pytest.mark.parametrize("package", ["llvmlite", "numba"])
@pytest.mark.parametrize("fault", ["raise ImportError('a library is missing')", "raise RuntimeError('no target')", ""])
def test_a_broken_compiler_is_no_reason_not_to_train(package: str, fault: str, tmp_path: Path) -> None:
    """Its import raises, or finds a folder without what belongs in it, as frozen applications have."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(fault)
    run(TRAINS, path=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "empty"))


@pytest.mark.parametrize("package", ["llvmlite", "numba"])
def test_a_missing_compiler_is_no_reason_not_to_train(package: str, tmp_path: Path) -> None:
    run(TRAINS, before=f"import sys; sys.modules[{package!r}] = None", NUMBA_CACHE_DIR=str(tmp_path))


FORBID = """if True:
    import ctypes
    import numpy  # with its libraries
    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: no memory becomes executable from now on
        print("not here")
        raise SystemExit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of Linux")
def test_a_system_that_forbids_code_made_at_run_time_is_no_reason_not_to_train(tmp_path: Path) -> None:
    if "not here" in run(TRAINS, before=FORBID, NUMBA_CACHE_DIR=str(tmp_path)):
        pytest.skip("this kernel does not know PR_SET_MDWE")


def test_memory_that_cannot_be_made_executable_is_no_reason_not_to_train(tmp_path: Path) -> None:
    if importlib.util.find_spec("llvmlite") is None:
        pytest.skip("nothing makes code here")
    refused = """if True:
        from backprop_gpu.backends.host.compiled import native
        def refuse(*_):
            raise MemoryError("no executable memory")
        native._load = refuse
    """
    run(TRAINS, before=refused, NUMBA_CACHE_DIR=str(tmp_path))


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
    from backprop_gpu.backends.host.openblas import numpys_openblas
    X = np.random.default_rng(0).standard_normal((300, 10)); y = (X[:, 0] > 0).astype(int)
    blas = numpys_openblas.__globals__["_search"]()  # a counter of its own, to look
    print(0 if blas is None else int(blas._get()))
    barrier, counters, probabilities = threading.Barrier(16), set(), []
    def first_fit():
        barrier.wait()
        counters.add(id(numpys_openblas()))
        model = MLPClassifier((16,), max_iter=5, random_state=0, device="cpu").fit(X, y)
        probabilities.append(model.predict_proba(X))
    threads = [threading.Thread(target=first_fit) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(probabilities) == 16 and len(counters) == 1
    assert all((p == probabilities[0]).all() for p in probabilities)
    blas = numpys_openblas()
    print(0 if blas is None else blas.threads, 0 if blas is None else int(blas._get()))
"""


def test_sixteen_first_fits_at_once_leave_blas_as_it_was() -> None:
    before, told, after = run(MANY, OPENBLAS_NUM_THREADS="2").split()
    assert before == told == after


def test_ctrl_c_at_any_moment_leaves_blas_as_it_was() -> None:
    """At each line of what is run around a product: in our code, in contextlib, between them."""
    blas = numpys_openblas()
    if blas is None:
        pytest.skip("NumPy uses another BLAS")
    threads, moment, reached = blas.threads, 0, True

    def interrupted_at(n: int) -> bool:
        left = [n]

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if event == "return" or not frame.f_code.co_filename.endswith(("contextlib.py", "openblas.py")):
                return trace
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with blas.one_thread():
                pass
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return left[0] <= 0

    while reached:
        moment += 1
        reached = interrupted_at(moment)
        assert blas.threads == threads, moment
        assert not blas._users, moment
        assert int(blas._get()) == threads, moment
    assert moment > 10


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
