"""Devices, dtypes and array namespaces: where it is computed does not change what comes out."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
import sklearn
from support.estimators import SETS, distance, fitted, rows, same_bits

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


@pytest.mark.parametrize("kernels", ["reference", "native", "auto"])
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


@pytest.mark.parametrize("target", [*SETS, "several"])
def test_every_door_takes_arrays_of_another_namespace(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    place = array_api_strict.Device("device1")

    def there(x: Any) -> Any:
        return array_api_strict.asarray(x, device=place)

    X, y = rows("multiclass" if target == "several" else target)
    y = np.column_stack([y, X[:, 0] > 0]).astype(int) if target == "several" else y
    y = (y == "yes").astype(int) if target == "binary" else y
    w, classes = np.linspace(0.5, 2.0, len(X)), {}
    if isinstance(model_for(target), MLPClassifier):
        known = [np.unique(c) for c in y.T] if target == "several" else np.arange(3 if y.ndim == 2 else y.max() + 1)
        classes = {"classes": known}
    a, b = model_for(target), model_for(target)
    fitted(a, X, y, sample_weight=w, X_val=X[:40], y_val=y[:40], sample_weight_val=w[:40])
    with sklearn.config_context(array_api_dispatch=True):
        V = {"X_val": there(X[:40]), "y_val": there(y[:40]), "sample_weight_val": there(w[:40])}
        fitted(b, there(X), there(y), sample_weight=there(w), **V)
        assert same_bits(a, b)
        assert a.validation_loss_curve_ == b.validation_loss_curve_
        scores = b.score(there(X), there(y)), b.loss_and_gradient(there(X), there(y), there(w))[0]
        c = model_for(target)
        given = {k: [there(x) for x in v] if target == "several" else there(v) for k, v in classes.items()}
        c.partial_fit(there(X), there(y), there(w), **given).partial_fit(there(X), there(y))
    assert scores == (pytest.approx(a.score(X, y), rel=1e-12), a.loss_and_gradient(X, y, w)[0])
    assert same_bits(c, model_for(target).partial_fit(X, y, w, **classes).partial_fit(X, y))


def test_text_labels_stay_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = rows("binary")
    with sklearn.config_context(array_api_dispatch=True):
        model = fitted(model_for("binary"), array_api_strict.asarray(X), y)
        assert set(model.predict(array_api_strict.asarray(X))) <= {"no", "yes"}
