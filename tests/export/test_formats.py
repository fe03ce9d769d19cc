"""ONNX files run by onnxruntime, and the file that needs NumPy alone, predict what the model predicts."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification
from support.exported import bound_of, imported, run_onnx

from backprop_gpu import DenseNet, MLPClassifier, MLPRegressor, Model, Preprocessor, load, read_table, train
from backprop_gpu.errors import ConfigError
from backprop_gpu.export import to_numpy_file, to_onnx
from backprop_gpu.export.portable import portable
from backprop_gpu.maths.activations import ACTIVATIONS, Activation

HIDDEN = [name for name, a in ACTIVATIONS.items() if not a.output_only]
WORDS = {"yes": 1.0, "no": 0.0, "": math.nan}
LINKS = {"binary_cross_entropy": 1, "categorical_cross_entropy": 3, "squared_error": 2, "poisson": 1}


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
        {"members": 2, "adapters": "none"},
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
    path, command = str(model.path), [sys.executable, "-I", "-c", guard, str(tmp_path / "model.py")]  # type: ignore[attr-defined]
    (tmp_path / "latin.csv").write_bytes("größe\n1\n".encode("cp1252"))
    refused = subprocess.run([*command, str(tmp_path / "latin.csv")], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "latin.csv is not in UTF-8; save it as CSV in UTF-8, with commas" in refused.stderr
    done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
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


def frame_of_flats(n: int) -> pd.DataFrame:
    """Numbers, texts, truth values, days and times, with gaps in three of the columns."""
    rng = np.random.default_rng(5)
    when = pd.Timestamp("1965-03-01") + pd.to_timedelta(rng.uniform(0, 30_000, n), unit="D")
    frame = pd.DataFrame(
        {
            "area": rng.normal(50, 10, n),
            "town": rng.choice(np.array(["Bern", "Basel", None], object), n),
            "seen": when.floor("s"),
            "balcony": rng.random(n) > 0.5,
            "built": when.normalize(),
        }
    )
    frame.loc[::7, "area"], frame.loc[::11, "seen"] = np.nan, pd.NaT
    return frame


def texts_of_frame(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The frame's columns as onnxruntime takes them."""
    columns = {name: frame[name].to_numpy(float)[:, None] for name in ("area", "balcony")}
    columns["town"] = frame["town"].fillna("").to_numpy(object)[:, None]
    for name, form in (("seen", "%Y-%m-%dT%H:%M:%S"), ("built", "%Y-%m-%d")):
        columns[name] = frame[name].dt.strftime(form).fillna("").to_numpy(object)[:, None]
    return columns


def test_the_preset_predicts_from_a_data_frame_within_the_derived_bound(tmp_path: Path) -> None:
    frame = frame_of_flats(120)
    kind = np.array(["large", "small", "medium"])[np.arange(120) % 3]
    model = MLPClassifier(preset="tabular", n_members=2, max_iter=2, random_state=0, device="cpu").fit(frame, kind)
    to_onnx(model, tmp_path / "model.onnx")
    to_numpy_file(model, tmp_path / "model.py")
    want, bound = bound_of(portable(model), model.inputs_(model.columns_.codes(frame)))
    found, own = run_onnx(tmp_path / "model.onnx", texts_of_frame(frame)), imported(tmp_path / "model.py")
    rows = {name: column[:, 0] for name, column in texts_of_frame(frame).items()}
    for got in (found["probabilities"], own.outputs(frame), own.outputs(rows), model.predict_proba(frame)):
        assert np.all(np.abs(got - want) <= np.minimum(bound, 2e-6))  # the worst that could be is much more
    np.testing.assert_array_equal(found["label"], model.predict(frame))
    np.testing.assert_array_equal(own.predict(frame), model.predict(frame))


def test_the_preset_predicts_values_of_an_array_within_the_derived_bound(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    X = rng.standard_normal((80, 4))
    X[:, 2], X[::9, 1] = np.round(X[:, 2]), np.nan
    Y = np.stack([X[:, 0] * 1e5, X[:, 3] + 1e6], axis=1)
    model = MLPRegressor(preset="tabular", n_members=3, max_iter=2, random_state=0, device="cpu").fit(X, Y)
    to_onnx(model, tmp_path / "model.onnx")
    to_numpy_file(model, tmp_path / "model.py")
    X[0] = [1e200, -1e200, 1e9, 0.0]  # far from all that was seen
    want, bound = bound_of(portable(model), model.inputs_(X))
    want, bound = want * model.target_spread_ + model.target_centre_, (bound + 1e-13) * model.target_spread_
    found = run_onnx(tmp_path / "model.onnx", {"X": X})["value"]
    for got in (found, imported(tmp_path / "model.py").predict(X), model.predict(X)):
        assert np.all(np.abs(got - want) <= np.minimum(bound, 1e-5 * model.target_spread_))


def test_a_graph_refuses_rows_that_the_model_refuses(tmp_path: Path) -> None:
    lines = ["label,area,kind", *(f"{'ab'[i % 2]},{i % 7},{i % 2}" for i in range(20))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    p = Preprocessor.fit(read_table(str(tmp_path / "rows.csv"), target="kind"), task="binary")
    made = Model(DenseNet([len(p.feature_names), 1], device="cpu"), p)
    to_onnx(made, tmp_path / "model.onnx")
    right = {"label": np.array([["a"]], object), "area": np.array([[3.0]])}
    found = run_onnx(tmp_path / "model.onnx", right)
    assert found["label_"].tolist() == made.predict({"label": ["a"], "area": [3.0]}).tolist()  # label is a column
    for column, value, problem in (
        ("label", "c", "column 'label': a category that training did not see"),
        ("area", np.nan, "a number is missing"),
    ):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException, match=problem):
            run_onnx(tmp_path / "model.onnx", right | {column: np.array([[value]], right[column].dtype)})


def test_an_activation_that_a_format_has_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that was added to maths and native alone."""
    added = Activation("added", lambda xp, Z: xp.cos(Z), lambda xp, dA, Z, A: -dA * xp.sin(Z))
    monkeypatch.setitem(ACTIVATIONS, "added", added)
    net = DenseNet([2, 3, 1], activation=added)
    for write, format_ in ((to_numpy_file, "a NumPy file"), (to_onnx, "ONNX")):
        with pytest.raises(ConfigError, match=f"the activation 'added' has no form in {format_} yet"):
            write(net, tmp_path / "model")


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    double = Activation("double", lambda xp, Z: 2.0 * Z, lambda xp, dA, Z, A: 2.0 * dA)
    net = DenseNet([2, 3, 1], activation=double, device="cpu", kernels="reference")
    with pytest.raises(ConfigError, match="'double' is a formula of your own"):
        to_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="a Model, a DenseNet or a fitted estimator can be exported, got int"):
        to_numpy_file(3, tmp_path / "three.py")
    assert not list(tmp_path.iterdir())
