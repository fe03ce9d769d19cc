"""Copies of a fitted estimator in every form hold the same weights, and go on training from where it stood."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn.neural_network as theirs
import skops.io
from sklearn.base import clone
from support.command import ROOT, environment
from support.estimators import SETS, distance, fitted, rows, same_bits

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor, parity
from backprop_gpu.errors import CheckpointError, ConfigError


def trained(target: str, **settings: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """An estimator of ours after three epochs, and its rows."""
    X, y = rows(target)
    kind = MLPRegressor if target in ("regression", "counts", "outputs") else MLPClassifier
    settings = {"max_iter": 3, "random_state": 0, "hidden_layer_sizes": (7, 5), **settings}
    if target == "counts":
        settings["loss"] = "poisson"
    return fitted(kind(**settings), X, y), X, y


def by_pickle(model: Any, path: Path) -> Any:
    return pickle.loads(pickle.dumps(model))


def by_joblib(model: Any, path: Path) -> Any:
    joblib.dump(model, path / "m.joblib")
    return joblib.load(path / "m.joblib")


def by_deepcopy(model: Any, path: Path) -> Any:
    return copy.deepcopy(model)


TRUSTED = [f"backprop_gpu.estimators.{name}" for name in ("engine.SolverState", "labels.MultiOutputLabels")]


def by_skops(model: Any, path: Path) -> Any:
    skops.io.dump(model, path / "m.skops")
    own = f"{type(model).__module__}.{type(model).__name__}"
    return skops.io.load(path / "m.skops", trusted=[own, *TRUSTED])


def by_safetensors(model: Any, path: Path) -> Any:
    model.to_safetensors(path / "m.safetensors")
    return type(model).from_safetensors(path / "m.safetensors")


WAYS = [by_pickle, by_joblib, by_deepcopy, by_safetensors, by_skops]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", SETS)
def test_a_copy_predicts_the_same_bits_and_goes_on_alike(target: str, way: Any, tmp_path: Path) -> None:
    for solver in ("adam", "sgd", "momentum"):
        model, X, y = trained(target, solver=solver, learning_rate="invscaling")
        other = way(model, tmp_path)
        assert same_bits(model, other)
        assert np.array_equal(model.predict(X), other.predict(X))
        assert other.get_params() == model.get_params()
        model.partial_fit(X, y)
        other.partial_fit(X, y)
        assert same_bits(model, other)
        assert other.loss_curve_ == model.loss_curve_


def test_clone_is_unfitted_with_the_same_parameters() -> None:
    model, X, y = trained("binary", dropout=[0.1, 0.2], solver={"name": "adamw"})
    twin = clone(model)
    assert not hasattr(twin, "coefs_")
    assert twin.get_params() == model.get_params()
    assert same_bits(model, fitted(twin, X, y))


def test_a_pickle_holds_no_device_and_loads_without_one() -> None:
    model, X, _ = trained("binary", device="array_api_strict:device1")
    blob = pickle.dumps(model)
    assert b"array_api_strict.device" not in blob
    other = pickle.loads(blob).set_params(device="cpu")
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), rtol=1e-14)


def test_safetensors_keep_names_and_labels_and_run_no_code(tmp_path: Path) -> None:
    model, X, _ = trained("binary", random_state=np.random.RandomState(0))
    model.feature_names_in_ = np.array(list("abcdef"), dtype=object)
    other = by_safetensors(model, tmp_path)
    assert list(other.classes_) == ["no", "yes"]
    assert list(other.feature_names_in_) == list("abcdef")
    assert other.random_state is None
    with pytest.raises(CheckpointError, match="holds MLPClassifier, not MLPRegressor"):
        MLPRegressor.from_safetensors(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="no model file"):
        MLPRegressor.from_safetensors(tmp_path / "nothing")
    del model.feature_names_in_
    model.to_safetensors(tmp_path / "m.safetensors")
    changed = MLPClassifier.from_safetensors(tmp_path / "m.safetensors", device="array_api_strict")
    np.testing.assert_allclose(changed.predict_proba(X), model.predict_proba(X), rtol=1e-14)


@pytest.mark.parametrize("target", SETS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_from_and_to_scikit_learn(target: str, solver: str) -> None:
    X, y = rows(target)
    kind = "MLPRegressor" if target in ("regression", "counts", "outputs") else "MLPClassifier"
    extra = {"loss": "poisson"} if target == "counts" else {}
    settings: dict[str, Any] = {"solver": solver, "max_iter": 6, "random_state": 0, "activation": "logistic", **extra}
    reference = fitted(getattr(theirs, kind)(**settings), X, y)
    ours = getattr(backprop_gpu, kind).from_sklearn(reference, device="cpu")
    assert same_bits(reference, ours)
    if kind == "MLPClassifier":
        np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), rtol=1e-12)
    else:
        np.testing.assert_allclose(ours.predict(X), reference.predict(X), rtol=1e-12, atol=1e-14)
    back = ours.to_sklearn()
    assert type(back) is type(reference)
    assert same_bits(back, reference)
    assert np.array_equal(back.predict(X), reference.predict(X))
    if solver != "lbfgs":
        for model in (reference, ours, back):
            model.partial_fit(X, y)
        assert distance(reference, ours) < 1e-14
        assert same_bits(reference, back)


def test_what_scikit_learn_would_predict_otherwise_is_refused() -> None:
    for settings in ({"activation": "gelu"}, {"activation": ["relu", "tanh"]}):
        model, _, _ = trained("binary", **settings)
        with pytest.raises(ConfigError, match="scikit-learn has one of"):
            model.to_sklearn()
    model, X, _ = trained("binary", activation=["tanh", "tanh"], solver="adamw", dropout=0.2)
    back = model.to_sklearn()
    assert (back.activation, back.solver) == ("tanh", "adam")
    assert np.array_equal(back.predict(X), model.predict(X))
    with pytest.raises(ConfigError, match="takes a fitted sklearn MLPClassifier, got MLPRegressor"):
        MLPClassifier.from_sklearn(theirs.MLPRegressor())


@pytest.mark.parametrize("target", SETS)
def test_parity_judges_a_fitted_estimator(target: str) -> None:
    model, X, y = trained(target)
    report = parity.check(model, X, y)
    assert report.ok, report.summary()


def test_weights_that_are_set_are_used() -> None:
    model, X, _ = trained("regression")
    model.coefs_[-1][:] = 0.0
    model.intercepts_[-1][:] = 2.5
    assert np.array_equal(model.predict(X), np.full(len(X), 2.5))
    model.set_params(activation="tanh").coefs_[-1][:] = 1.0
    reference = model.to_sklearn()
    np.testing.assert_allclose(model.predict(X), reference.predict(X), rtol=1e-12)


def test_without_scikit_learn_the_package_works_and_the_estimators_name_the_extra() -> None:
    code = """if True:
        import sys
        sys.modules["sklearn"] = None
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == "sklearn" else find(name, *a)
        import backprop_gpu
        backprop_gpu.DenseNet([2, 1])
        try:
            backprop_gpu.MLPClassifier
        except ImportError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.stdout == "MissingDependencyError scikit-learn is not installed; pip install 'backprop-gpu[sklearn]'\n"


def test_a_fitted_estimator_keeps_no_rows() -> None:
    X, y = np.random.default_rng(0).standard_normal((120, 4)), np.arange(120) % 2
    model = fitted(MLPClassifier((3,), max_iter=2, random_state=0), X, y)
    model.predict(X)
    assert model._runtime.engine is None  # which holds them while a fit goes on
    assert model._runtime.network is not None
    assert not [name for name, x in vars(model).items() if isinstance(x, np.ndarray) and 120 in x.shape]
    model.partial_fit(X, y)
    assert model._runtime.engine is not None
