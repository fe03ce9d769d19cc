"""ONNX files run by onnxruntime, and the file that needs NumPy alone, predict what the model predicts."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification

from backprop_gpu import DenseNet, MLPClassifier, MLPRegressor, Model, Preprocessor, load, read_table, train
from backprop_gpu.errors import ConfigError
from backprop_gpu.export import to_numpy_file, to_onnx
from backprop_gpu.export.portable import Portable, portable
from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation
from backprop_gpu.parity.bounded_array import received
from backprop_gpu.parity.claims import arithmetic_of
from backprop_gpu.parity.namespace import BoundedNamespace

HIDDEN = [name for name, a in ACTIVATIONS.items() if not a.output_only]
WORDS = {"yes": 1.0, "no": 0.0, "": math.nan}
FLOAT32 = arithmetic_of("numpy", "fp32")
LINKS = {"binary_cross_entropy": 1, "categorical_cross_entropy": 3, "squared_error": 2, "poisson": 1}


def run_onnx(path: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name, of a file that the checker accepts as a whole."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([x.name for x in session.get_outputs()], session.run(None, columns), strict=True))


def imported(path: Path) -> ModuleType:
    """The module of a file."""
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bound_of(plain: Portable, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of float32 rows in float64, and how far float32 may be from them."""
    xp = BoundedNamespace(FLOAT32)
    A: Any = received(FLOAT32, X.T)
    for layer in plain.members[0]:
        W, b = (received(FLOAT32, x.astype(np.float32)) for x in (layer.W, layer.b[:, None]))
        g = get_activation({"name": layer.activation, **layer.parameters} if layer.parameters else layer.activation)
        A = g.forward(xp, W @ A + b)
    return A.v.T, A.errors().T


@pytest.mark.parametrize("loss", LINKS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_and_output_within_the_derived_bound(activation: str, loss: str, tmp_path: Path) -> None:
    net = DenseNet([7, 11, 5, LINKS[loss]], activation=activation, loss=loss, device="cpu", seed=1)
    X = np.random.default_rng(0).standard_normal((40, 7)).astype("f4") * 3
    to_onnx(net, tmp_path / "net.onnx")
    to_numpy_file(net, tmp_path / "net.py")
    want, bound = bound_of(portable(net), X)
    found = run_onnx(tmp_path / "net.onnx", {"X": X})
    outputs = found["value"] if "value" in found else found["probabilities"]
    outputs = outputs[:, 1:] if loss == "binary_cross_entropy" else outputs
    for got in (outputs, imported(tmp_path / "net.py").outputs(X), net.predict_proba(X)):
        assert np.all(np.abs(got - want) <= bound)
    assert np.all(bound <= 1e-3 * (1.0 + np.abs(want)))  # so that it says something


@pytest.mark.parametrize("activation", [{"name": "leaky_relu", "slope": 0.3}, {"name": "elu", "alpha": 0.5}])
def test_parameters_and_normalized_layers_travel_along(activation: dict[str, Any], tmp_path: Path) -> None:
    net = DenseNet([3, 6, 4, 2], activation=activation, batch_norm=[True, False], loss="squared_error", device="cpu")
    rng = np.random.default_rng(2)
    net.set_parameters({name: rng.uniform(0.5, 1.5, x.shape) for name, x in net.parameters().items()})
    X = rng.standard_normal((20, 3)).astype("f4")
    to_onnx(net, tmp_path / "net.onnx")
    to_numpy_file(net, tmp_path / "net.py")
    want = net.predict_proba(X)
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", {"X": X})["value"], want, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(imported(tmp_path / "net.py").outputs(X), want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "parts",
    [
        {"input_scaling": True},
        {"parametric_activation": True},
        {"periodic_embedding": {"columns": 2, "sigma": 1.0}, "input_scaling": True},
        {"members": 3},
        {"members": 3, "adapters": "all", "input_scaling": True, "parametric_activation": [True, False]},
    ],
    ids=str,
)
def test_the_parts_of_networks_for_tables(parts: dict[str, Any], tmp_path: Path) -> None:
    net = DenseNet([3, 6, 4, 2], activation="silu", loss="categorical_cross_entropy", device="cpu", **parts)
    rng = np.random.default_rng(3)
    net.set_parameters({name: rng.uniform(-1.5, 1.5, x.shape) for name, x in net.parameters().items()})
    X = rng.standard_normal((20, 3)).astype("f4")
    to_onnx(net, tmp_path / "net.onnx")
    to_numpy_file(net, tmp_path / "net.py")
    want = net.predict_proba(X)
    got = run_onnx(tmp_path / "net.onnx", {"X": X})["probabilities"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(imported(tmp_path / "net.py").outputs(X), want, rtol=1e-5, atol=2e-6)


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with texts, gaps in both kinds of columns, and labels that are texts."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("export") / "flats.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["area", "town", "balcony", "year", "rent", "kind"])
        for i in range(120):
            area, town = float(rng.integers(25, 140)), ["Bern", "Basel", "Zürich"][i % 3]
            gap = "" if i % 7 == 0 else f"{1900 + i}"
            balcony = "" if i % 5 == 0 else ["yes", "no"][i % 2]
            kind = "large" if area > 90 else "small" if area < 60 else "medium"
            rows.writerow([area, town, balcony, gap, 1e6 + 18 * area + 100 * (i % 3), kind])
    return path


@pytest.fixture(scope="module", params=["rent", "kind", "balcony"])
def model(request: pytest.FixtureRequest, flats: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of values, of three classes, of two."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = [f"data.target={request.param}", "data.missing=indicator", "data.unknown=missing", "training.epochs=3"]
    source = flats
    if request.param == "balcony":  # a label may not be missing
        source = out.parent / "whole.csv"
        lines = flats.read_text(encoding="utf-8").splitlines(keepends=True)
        source.write_text("".join(line for line in lines if line.split(",")[2]), encoding="utf-8")
    train(str(source), overrides=settings, run_dir=out, device="cpu", progress=False)
    made = load(out)
    made.path = source  # type: ignore[attr-defined]
    return made


def raw_columns(model: Model) -> dict[str, np.ndarray]:
    """Columns of the file as onnxruntime takes them, (n, 1): numbers, and texts as they stand there."""
    with open(model.path, newline="", encoding="utf-8") as file:  # type: ignore[attr-defined]
        rows = list(csv.DictReader(file))
    p, columns = model.preprocessor, {}
    for name in p.columns:
        cells = [row[name] for row in rows]
        numbers = name in p.numeric
        columns[name] = (
            np.array([[WORDS[cell] if cell in WORDS else float(cell)] for cell in cells])
            if numbers
            else np.array([[cell] for cell in cells], object)
        )
    return columns


def test_a_model_of_a_csv_predicts_from_raw_columns(model: Model, tmp_path: Path) -> None:
    to_onnx(model, tmp_path / "model.onnx")
    to_numpy_file(model, tmp_path / "model.py")
    columns = raw_columns(model)
    columns["town"][0, 0] = "Chur"  # which training did not see
    rows = {name: [None if x != x else x for x in column[:, 0].tolist()] for name, column in columns.items()}
    want, AL = model.predict(rows), model.predict_proba(rows)
    found, own = run_onnx(tmp_path / "model.onnx", columns), imported(tmp_path / "model.py")
    if model.preprocessor.target is not None and model.preprocessor.target.task == "regression":
        np.testing.assert_allclose(found["value"][:, 0], want, rtol=1e-6)
        np.testing.assert_allclose(own.predict(rows), want, rtol=1e-6)
        return
    p = np.concatenate([1 - AL, AL], axis=1) if AL.shape[1] == 1 else AL
    np.testing.assert_allclose(found["probabilities"], p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.predict_proba(rows), p, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["label"], want)
    np.testing.assert_array_equal(own.predict(rows), want)


def test_the_file_alone_predicts_a_csv_without_this_package(model: Model, tmp_path: Path) -> None:
    to_numpy_file(model, tmp_path / "model.py")
    guard = "import sys; sys.modules['backprop_gpu'] = None; sys.argv = sys.argv[1:]; import runpy; "
    guard += "runpy.run_path(sys.argv[0], run_name='__main__')"
    path = str(model.path)  # type: ignore[attr-defined]
    done = subprocess.run(
        [sys.executable, "-I", "-c", guard, str(tmp_path / "model.py"), path],
        capture_output=True,
        text=True,
        check=True,
    )
    header, *rows = csv.reader(io.StringIO(done.stdout))
    want = model.predict(path)
    assert tuple(header) == model.preprocessor.target.names  # type: ignore[union-attr]
    if want.dtype.kind == "f":
        np.testing.assert_allclose([float(row[0]) for row in rows], want, rtol=1e-6)
    else:
        assert [row[0] for row in rows] == want.tolist()


def test_a_threshold_travels_along(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    np.savez(tmp_path / "rows.npz", X=X, y=(X[:, 0] > 0).astype(int))
    table = read_table(str(tmp_path / "rows.npz"))
    p = Preprocessor.fit(table, task="binary")
    made = Model(DenseNet([3, 4, 1], device="cpu"), p).set_policies(threshold=0.7)
    to_onnx(made, tmp_path / "model.onnx")
    columns = {name: X[:, j : j + 1] for j, name in enumerate(p.columns)}
    found = run_onnx(tmp_path / "model.onnx", columns)
    np.testing.assert_array_equal(found["label"], made.predict(X))
    to_numpy_file(made, tmp_path / "model.py")
    rows = {name: column[:, 0] for name, column in columns.items()}
    np.testing.assert_array_equal(imported(tmp_path / "model.py").predict(rows), made.predict(X))


# -- estimators --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("names", [None, ["setosa", "versicolor", "virginica"]])
def test_estimators_of_classes_give_labels_and_probabilities(names: list[str] | None, tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    y = y if names is None else np.array(names)[y]
    for rows in (slice(None), slice(0, 100)):  # three classes, and two
        model = MLPClassifier(max_iter=5, random_state=0, device="cpu", tol=0).fit(X[rows], y[rows])
        to_onnx(model, tmp_path / "model.onnx")
        found = run_onnx(tmp_path / "model.onnx", {"X": X.astype("f4")})
        np.testing.assert_array_equal(found["label"], model.predict(X))
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(X), atol=2e-6)
        to_numpy_file(model, tmp_path / "model.py")
        np.testing.assert_array_equal(imported(tmp_path / "model.py").predict(X), model.predict(X))


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_estimators_of_values_and_of_several_labels(tmp_path: Path) -> None:
    X, Y = make_multilabel_classification(80, 5, n_classes=3, random_state=0)
    labels = MLPClassifier(max_iter=5, random_state=0, device="cpu", tol=0).fit(X, Y)
    to_onnx(labels, tmp_path / "labels.onnx")
    found = run_onnx(tmp_path / "labels.onnx", {"X": X.astype("f4")})
    np.testing.assert_array_equal(found["labels"], labels.predict(X))
    values = MLPRegressor(max_iter=5, random_state=0, device="cpu", tol=0).fit(X, X[:, :2] * 3.0)
    to_onnx(values, tmp_path / "values.onnx")
    got = run_onnx(tmp_path / "values.onnx", {"X": X.astype("f4")})["value"]
    np.testing.assert_allclose(got, values.predict(X), rtol=2e-5, atol=2e-5)


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    double = Activation("double", lambda xp, Z: 2.0 * Z, lambda xp, dA, Z, A: 2.0 * dA)
    net = DenseNet([2, 3, 1], activation=double, device="cpu", kernels="reference")
    with pytest.raises(ConfigError, match="'double' is a formula of your own"):
        to_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="a Model, a DenseNet or a fitted estimator can be exported, got int"):
        to_numpy_file(3, tmp_path / "three.py")
    assert not list(tmp_path.iterdir())
