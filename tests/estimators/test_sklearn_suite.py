"""scikit-learn's own tests of its MLPs, run against ours with only the import replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import sklearn.neural_network

THEIRS = Path(sklearn.neural_network.__file__).parent / "tests" / "test_mlp.py"
IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
OURS = "from backprop_gpu import MLPClassifier, MLPRegressor\n"

# It calls the private method _loss_grad_lbfgs with lists of scratch arrays that there are none of here.
# tests/estimators/test_scaling.py differentiates the same function numerically.
FAIL = {"test_gradient"}


def test_scikit_learns_own_tests_pass(tmp_path: Path) -> None:
    text = THEIRS.read_text(encoding="utf-8")
    assert text.count(IMPORT) == 1
    (tmp_path / "test_ours.py").write_text(text.replace(IMPORT, OURS), encoding="utf-8")
    (tmp_path / "conftest.py").write_text("from sklearn.conftest import *  # its fixtures\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist", "test_ours.py"]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # beside other workers
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **one_thread, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    assert failed == FAIL, done.stdout[-4000:]
    assert len(re.findall(r"^PASSED", done.stdout, re.MULTILINE)) >= 56
