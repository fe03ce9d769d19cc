"""Devices, dtypes and array namespaces: where it is computed does not change what comes out."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
import sklearn
from support.estimators import SETS, distance, fitted, rows

from backprop_gpu import MLPClassifier, MLPRegressor

SETTINGS: dict[str, Any] = {"max_iter": 4, "random_state": 0, "hidden_layer_sizes": (6,), "batch_size": 50}


def model_for(target: str, **settings: Any) -> Any:
    kind = MLPRegressor if target in ("regression", "counts", "outputs") else MLPClassifier
    return kind(**{**SETTINGS, **settings})


@pytest.mark.parametrize("device", ["cpu", "numpy", "array_api_strict", "array_api_strict:device1"])
@pytest.mark.parametrize("target", SETS)
def test_every_device_gives_the_same_fit(target: str, device: str) -> None:
    X, y = rows(target)
    here = fitted(model_for(target, kernels="reference"), X, y)
    there = fitted(model_for(target, device=device, early_stopping=False), X, y)
    assert distance(here, there) < 1e-13
    assert all(isinstance(c, np.ndarray) for c in there.coefs_)


@pytest.mark.parametrize("kernels", ["reference", "host", "auto"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_every_kernel_set_gives_the_same_fit_within_rounding(kernels: str, solver: str) -> None:
    X, y = rows("multiclass")
    for dtype, bound in (("float64", 1e-9), ("float32", 1e-3)):
        a, b = (
            fitted(model_for("multiclass", kernels=k, dtype=dtype, solver=solver), X, y) for k in (kernels, "reference")
        )
        assert distance(a, b) < bound


def test_dtype_is_the_inputs_unless_it_is_given() -> None:
    X, y = rows("regression")
    for given, dtype, expected in (
        (np.float32, None, "float32"),
        (np.float64, None, "float64"),
        (np.int64, None, "float64"),
        (np.float64, "float32", "float32"),
        (np.float32, "float64", "float64"),
    ):
        model = fitted(model_for("regression", dtype=dtype), X.astype(given), y)
        assert {c.dtype.name for c in model.coefs_} == {expected}
        assert model.predict(X.astype(given)).dtype == expected
    lbfgs = fitted(model_for("regression", solver="lbfgs"), X.astype(np.float32), y)
    assert lbfgs.coefs_[0].dtype == np.float64  # as scikit-learn's, whose L-BFGS computes in float64
    assert fitted(model_for("regression", solver="lbfgs", dtype="float32"), X, y).coefs_[0].dtype == np.float32


def test_the_environments_device_is_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows("binary")
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", "array_api_strict:device1")
    assert fitted(model_for("binary"), X, y).network().backend.name == "array_api_strict:device1"
    assert fitted(model_for("binary", device="cpu"), X, y).network().backend.name == "numpy"


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
@pytest.mark.parametrize("target", SETS)
def test_the_answer_comes_in_the_namespace_of_the_question(
    target: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = rows(target)
    y = (y == "yes").astype(int) if target == "binary" else y
    place = array_api_strict.Device(device)
    there = array_api_strict.asarray(X, device=place), array_api_strict.asarray(y, device=place)
    here = fitted(model_for(target), X, y)
    with sklearn.config_context(array_api_dispatch=True):
        model = fitted(model_for(target), *there, sample_weight=array_api_strict.ones(len(X), device=place))
        methods = ["predict", *(["predict_proba", "predict_log_proba"] if hasattr(model, "predict_proba") else [])]
        for method in methods:
            answer = getattr(model, method)(there[0])
            assert answer.device == place
            assert answer.__array_namespace__() is array_api_strict
            host = np.asarray(answer.to_device(array_api_strict.Device("CPU_DEVICE")))
            np.testing.assert_allclose(host, getattr(here, method)(X), rtol=1e-10)
        with pytest.raises(
            ValueError, match=r"predict\(\) must use the same namespace.*got numpy, fitted on array_api"
        ):
            model.predict(X)


def test_text_labels_stay_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = rows("binary")
    with sklearn.config_context(array_api_dispatch=True):
        model = fitted(model_for("binary"), array_api_strict.asarray(X), y)
        assert set(model.predict(array_api_strict.asarray(X))) <= {"no", "yes"}
