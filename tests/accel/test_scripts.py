"""Unchanged scripts, in the manner of scikit-learn's gallery: the same output alone and accelerated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.accel import SCRIPTS, both, run

# Script -> how many fits are replaced, and how far scores may be apart: L-BFGS to convergence, and searches on
# validation rows, turn roundings into a row or two of 40.
GALLERY = {
    "digits_weights": (1, 1e-9),
    "regularization": (9, 0.051),
    "strategies": (12, 1e-6),
    "comparison": (4, 1e-9),
    "partial_dependence": (1, 0.02),
}


@pytest.mark.parametrize("name", GALLERY if os.environ.get("BACKPROP_GPU_LONG_TESTS") else ("strategies", "comparison"))
def test_a_script_of_the_gallery_gives_the_same_scores(name: str) -> None:
    fits, apart = GALLERY[name]
    plain, accelerated = both(f"{name}.py", folder=SCRIPTS)
    assert (plain.code, plain.err) == (0, ""), plain.err
    assert accelerated.code == 0, accelerated.err
    assert accelerated.rest() == plain.rest()
    assert len(plain.scores()) >= 2
    assert accelerated.scores() == pytest.approx(plain.scores(), rel=0.0, abs=apart)
    (line,) = accelerated.err.splitlines()
    assert line.startswith("backprop_gpu.accel: MLP")
    assert f".fit: {fits} call{'s' * (fits > 1)} ran on " in line


def test_worker_processes_are_accelerated_and_counted() -> None:
    plain, accelerated = both("search.py", "--a", "-v", folder=SCRIPTS, options=("--device", "cpu"))
    assert (plain.code, accelerated.code) == (0, 0), plain.err + accelerated.err
    assert accelerated.rest() == plain.rest()
    assert accelerated.rest()[-1] == "arguments ['--a', '-v']"
    assert accelerated.scores() == pytest.approx(plain.scores(), rel=0.0, abs=1e-6)
    assert accelerated.report == [
        "backprop_gpu.accel: MLPClassifier.fit: 9 calls ran on numpy, 8 of them in worker processes",
        "backprop_gpu.accel: MLPRegressor.fit: 2 calls ran on numpy, 2 of them in worker processes",
    ]


FALLS_BACK = """
import pickle, sys, warnings
import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
warnings.simplefilter("ignore")

class Mine(MLPClassifier):
    def _more(self):
        return 1

X = np.random.RandomState(0).normal(size=(60, 4))
y = (X[:, 0] > 0).astype(int)
generator = np.random.RandomState(5)
for net in (MLPClassifier((4,), max_iter=3, random_state=generator), Mine((4,), max_iter=3, random_state=generator)):
    clone(net)
    assert is_classifier(net) and type(net).__mro__[-4:] == MLPClassifier.__mro__[-4:]
    print("score", net.fit(X, y).predict_proba(X)[0, 0])
try:
    MLPClassifier(alpha=-1.0).fit(X, y)
except ValueError as error:
    print(error)
try:
    MLPClassifier(max_iter=2).fit(X, generator.randint(0, 3, (60, 2)))
except ValueError as error:
    print(error)
twice = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=5, random_state=0)
print("score", twice.partial_fit(X, y).partial_fit(X, y).score(X, y))
print(repr(net.set_params(random_state=None)))
"""


def test_what_is_left_to_scikit_learn_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FALLS_BACK, encoding="utf-8")
    plain, accelerated = both("script.py", folder=tmp_path, options=("--device", "array_api_strict:device9"))
    assert (plain.code, accelerated.code) == (0, 0), plain.err + accelerated.err
    assert accelerated.out == plain.out  # the generator is where it was: the very same fit
    reasons = [line.removeprefix("backprop_gpu.accel: ").split(": ", 2) for line in accelerated.report]
    assert [(what, times) for what, times, _ in reasons] == [
        ("MLPClassifier.fit", "1 call left to scikit-learn"),
        ("MLPClassifier.fit", "1 call left to scikit-learn"),
        ("MLPClassifier.predict", "1 call left to scikit-learn"),
        ("MLPRegressor.partial_fit", "2 calls left to scikit-learn"),
        ("MLPRegressor.predict", "1 call left to scikit-learn"),
        ("Mine.fit", "1 call left to scikit-learn"),
    ]
    device, labels, _, again, _, inherits = (reason for *_, reason in reasons)
    assert "device9" in device
    assert labels == "several labels of several classes"
    assert again == "partial_fit with solver='lbfgs'"
    assert inherits == "a subclass of MLPClassifier"
    cpu = run("-m", "backprop_gpu.accel", "-v", "--device", "cpu", "script.py", folder=tmp_path)
    assert cpu.scores() == pytest.approx(plain.scores(), rel=1e-9)
    assert cpu.report[0] == "backprop_gpu.accel: MLPClassifier.fit: numpy"
    assert len(cpu.report) == 5 + 4  # each call as it ends; each kind of call at the end


IN_CODE = """
import copy, pickle, sys, types, warnings
from sklearn.neural_network import MLPClassifier, MLPRegressor   # before install: no matter
import numpy as np
from sklearn.exceptions import ConvergenceWarning
import backprop_gpu.accel as accel

X = np.random.RandomState(0).normal(size=(80, 4))
t = X[:, 0] ** 2
warnings.filterwarnings("error")
warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
own = vars(MLPClassifier)["partial_fit"], MLPClassifier.fit
accel.load_ipython_extension(None)
accel.install(device="cpu", dtype="float32")
for solver in ("adam", "sgd"):
    for settings in ({"learning_rate": "adaptive"}, {"momentum": 0.0}):
        net = MLPRegressor(hidden_layer_sizes=(5,), solver=solver, max_iter=4, random_state=0, **settings).fit(X, t)
        assert net.coefs_[0].dtype == np.float32
        accel.install(device="cpu")
        net = MLPRegressor(hidden_layer_sizes=(5,), solver=solver, max_iter=4, random_state=0, **settings).fit(X, t)
        file = pickle.dumps(net)
        assert b"backprop_gpu" not in file
        alike = copy.deepcopy(net), pickle.loads(file)
        accel.uninstall()
        alone = pickle.loads(file)
        direct = MLPRegressor(hidden_layer_sizes=(5,), solver=solver, max_iter=4, random_state=0, **settings).fit(X, t)
        assert set(vars(direct)) == set(vars(net)), set(vars(direct)) ^ set(vars(net))
        alone.partial_fit(X, t), direct.partial_fit(X, t)
        accel.install(device="cpu", dtype="float32")
        accel.install(device="cpu")
        for other in (net, *alike, alone):
            if other is not alone:
                other.partial_fit(X, t)
            np.testing.assert_allclose(other.predict(X), direct.predict(X), rtol=1e-9)
            np.testing.assert_allclose(other.loss_curve_, direct.loss_curve_, rtol=1e-9)
        accel.install(device="cpu", dtype="float32")
accel.unload_ipython_extension(None)
assert (vars(MLPClassifier)["partial_fit"], MLPClassifier.fit) == own
assert "fit" not in vars(MLPClassifier)
print(accel.report())
"""


def test_install_at_any_time_pickles_and_optimizers_go_both_ways(tmp_path: Path) -> None:
    done = run("-c", IN_CODE, folder=tmp_path)
    assert (done.code, done.err) == (0, ""), done.err
    assert done.out.splitlines() == [
        "backprop_gpu.accel: MLPRegressor.fit: 8 calls ran on numpy",
        "backprop_gpu.accel: MLPRegressor.partial_fit: 12 calls ran on numpy",
    ]


def test_scikit_learn_s_own_tests_of_its_perceptrons_pass(tmp_path: Path) -> None:
    # All of them do; these are the quick ones that look at coefs, gradients, warnings and messages.
    chosen = "gradient or alpha or partial_fit_errors or sparse_matrices or tolerance or warm_start_full or iterations"
    module = "sklearn.neural_network.tests.test_mlp"
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--pyargs", module, "-k", chosen)
    done = run("-m", "backprop_gpu.accel", *words, folder=tmp_path)
    assert done.code == 0, done.out
    assert "MLPClassifier.fit: " in done.err
