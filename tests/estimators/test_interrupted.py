"""Ctrl-C in the middle of a fit: a warning, and the weights that were reached, as scikit-learn does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from support.command import ROOT, environment
from support.estimators import rows

from backprop_gpu import Callback, Checkpoint, Epoch, MLPClassifier
from backprop_gpu.training.checkpoint_file import checkpoints_in
from backprop_gpu.training.signals import Signals

SCRIPT = """
import sys, warnings
import numpy as np
from backprop_gpu import Callback, MLPClassifier, MLPRegressor

class Shout(Callback):
    def on_epoch(self, epoch):
        if epoch.epoch == 2:
            print("running", flush=True)

rng = np.random.default_rng(0)
X = rng.standard_normal((20_000, 40))
settings = dict(hidden_layer_sizes=(100, 100), random_state=0, tol=0.0, max_iter=100_000, max_fun=10**9)
settings |= dict(n_iter_no_change=10**9, callbacks=[Shout()], solver=sys.argv[1], kernels=sys.argv[2])
kind, y = (MLPRegressor, X[:, 0] * X[:, 1]) if sys.argv[3] == "values" else (MLPClassifier, X[:, 0] * X[:, 1] > 0)
model = kind(**settings, early_stopping=sys.argv[3] == "early")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model.fit(X, y)
print([str(w.message) for w in said])
assert 2 <= model.n_iter_ < 100_000 and np.isfinite(model.loss_) and model._device_state.fitting is None
assert np.isfinite(model.predict(X)).all() and len(model.coefs_) == 3
start = kind(**{**settings, "max_iter": 1, "callbacks": [], "solver": "adam", "learning_rate_init": 1e-30})
warnings.simplefilter("ignore")
start.fit(X, y)
assert model.score(X, y) > start.score(X, y)
if model.solver == "lbfgs":
    alpha_and_all = model.loss_and_gradient(X, y)[0]
    assert abs(alpha_and_all - model.loss_) < 1e-12, (alpha_and_all, model.loss_)
elif not model.early_stopping:
    assert len(model.loss_curve_) == model.n_iter_
    model.partial_fit(X, y)
print("usable", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT that is sent to one process")
@pytest.mark.parametrize(
    ("solver", "kernels", "kind"),
    [("adam", "auto", "labels"), ("adam", "native", "early"), ("sgd", "auto", "values"), ("lbfgs", "auto", "values")],
)
def test_what_was_fitted_is_kept(solver: str, kernels: str, kind: str, tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), solver, kernels, kind]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes) as process:
        try:
            first = process.stdout.readline() if process.stdout else ""
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert first == "running\n", errors
    assert (process.returncode, out.splitlines()) == (0, ["['Training interrupted by user.']", "usable"]), errors


class Interrupt(Callback):
    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.epoch == 2:
            signal.raise_signal(signal.SIGINT)


def test_signals_among_the_callbacks_have_the_checkpoint_written(tmp_path: Path) -> None:
    X, y = rows("multiclass")
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (5,),
        "batch_size": 50,
        "random_state": 0,
        "max_iter": 60,
        "tol": 0.0,
    }
    signals = Signals()
    stopped = MLPClassifier(**settings, callbacks=[Checkpoint(tmp_path, every_epochs=100), Interrupt(), signals])
    try:
        with pytest.warns(UserWarning, match="Training interrupted by user"):
            stopped.fit(X, y)
    finally:
        signals.restore()
    (path,) = checkpoints_in(tmp_path)
    with pytest.warns(ConvergenceWarning):
        again, whole = (MLPClassifier(**settings).fit(X, y, resume=each) for each in (path, None))
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))
