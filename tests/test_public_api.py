"""What a notebook sees: the names of the package, its own example, and rows of samples everywhere."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import environment

import backprop_gpu
from backprop_gpu import BackpropError, DenseNet, Trainer, load, train
from backprop_gpu.data.sources import load_builtin
from backprop_gpu.errors import DataError, ShapeError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """X (569, 30), standardized, and y (569,), as a notebook would have them."""
    table = load_builtin("breast_cancer")
    X = table.numeric
    assert table.target is not None
    return (X - X.mean(axis=0)) / X.std(axis=0), table.target


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", backprop_gpu.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(backprop_gpu, name)
    assert name in dir(backprop_gpu)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert value.__module__.startswith("backprop_gpu.")


def test_dir_shows_what_all_promises_before_it_is_used() -> None:
    assert python("import backprop_gpu as b; print(sorted(set(b.__all__) - set(dir(b))))") == "[]\n"


def test_star_import_brings_all() -> None:
    names: dict[str, Any] = {}
    exec("from backprop_gpu import *", names)
    assert set(backprop_gpu.__all__) <= set(names)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(backprop_gpu.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    seen = {(alias.asname, node.module) for node in imports for alias in node.names}
    assert seen == set(backprop_gpu._HOMES.items())
    assert {name for name, _ in seen} == set(backprop_gpu.__all__) - {"__version__"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'backprop_gpu' has no attribute 'DenseNets'"):
        _ = backprop_gpu.DenseNets
    assert not hasattr(backprop_gpu, "__wrapped__")


@pytest.mark.parametrize(("name", "member"), [("gradcheck", "TensorCheck"), ("explain", "Explanation")])
def test_the_function_is_there_whatever_was_imported_before(name: str, member: str) -> None:
    ways = (f"import backprop_gpu.{name}", f"from backprop_gpu.{name} import {member}", "pass")
    tries = [f"{way}\nfrom backprop_gpu import {name}\nprint(callable({name}))" for way in ways]
    clean = "for m in [m for m in sys.modules if m.partition('.')[0] == 'backprop_gpu']: del sys.modules[m]"
    assert python(f"import sys\n{clean}\n".join(["", *(f"{t}\n" for t in tries)])) == "True\n" * 3


PACKAGES = sorted(p.parent.relative_to(ROOT) for p in (ROOT / "backprop_gpu").rglob("__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES, ids=str)
def test_no_submodule_hides_a_public_name(folder: Path) -> None:
    """Importing ``a.b`` sets the attribute b of a: a function of that name would be gone from then on."""
    package = importlib.import_module(".".join(folder.parts))
    modules = {p.stem for p in (ROOT / folder).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    shared = modules.intersection(getattr(package, "__all__", ()))
    assert shared == (
        {"explain", "gradcheck"} if package is backprop_gpu else set()
    )  # which the package's own type guards


def test_parity_replays_whatever_was_used_before(tmp_path: Path) -> None:
    from backprop_gpu import parity

    X, y = breast_cancer()
    for name in parity.__all__:
        assert not inspect.ismodule(getattr(parity, name))
    parity.check(DenseNet([30, 4, 1], device="numpy"), X[:8], y[:8]).save(tmp_path / "case")
    for _ in range(2):
        assert parity.replay(tmp_path / "case").ok
    assert set(parity.__all__) <= set(dir(parity))


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert backprop_gpu.__version__ == project["version"]


def test_importing_and_looking_around_loads_nothing_but_the_package() -> None:
    code = "import sys, backprop_gpu as b; dir(b); help(b.__getattr__); print([m for m in {} if m in sys.modules])"
    modules = ["numpy", "yaml", "pydantic", "rich", "safetensors", "cupy", "torch", "sklearn", "matplotlib"]
    assert python(code.format(modules)).endswith("[]\n")


def python(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the example of the package's own documentation ------------------------------------------------------------------


def test_the_example_in_the_docstring_runs() -> None:
    assert backprop_gpu.__doc__ is not None
    examples = doctest.DocTestParser().get_examples(backprop_gpu.__doc__)
    assert len(examples) >= 4
    X, y = breast_cancer()
    names: dict[str, Any] = {"X": X, "y": y}
    for example in examples:
        exec(example.source, names)
    assert names["labels"].shape == y.shape
    assert np.mean(names["labels"] == y) > 0.95
    assert len(names["history"].epochs) == 20


# -- rows are samples ------------------------------------------------------------------------------------------------

CASES = [
    ("binary_cross_entropy", 1, (40,), (40,), "i"),
    ("binary_cross_entropy", 1, (40, 1), (40,), "i"),
    ("binary_cross_entropy", 3, (40, 3), (40, 3), "i"),
    ("categorical_cross_entropy", 3, (40,), (40,), "i"),
    ("categorical_cross_entropy", 3, (40, 1), (40,), "i"),
    ("categorical_cross_entropy", 3, (40, 3), (40,), "i"),
    ("squared_error", 1, (40,), (40,), "f"),
    ("squared_error", 2, (40, 2), (40, 2), "f"),
    ("poisson", 1, (40,), (40,), "f"),
]


@pytest.mark.parametrize("device", ["cpu", "array_api_strict:device1"])
@pytest.mark.parametrize(("loss", "outputs", "y_shape", "predicted_shape", "kind"), CASES)
def test_shapes_in_and_out(
    loss: str, outputs: int, y_shape: tuple[int, ...], predicted_shape: tuple[int, ...], kind: str, device: str
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5))
    y = rng.integers(0, 2, size=y_shape)
    if loss == "categorical_cross_entropy":
        labels = rng.integers(0, outputs, size=40)
        y = np.eye(outputs, dtype=int)[labels] if y_shape == (40, outputs) else labels.reshape(y_shape)
    net = DenseNet([5, 4, outputs], loss=loss, device=device)
    history = Trainer(net, epochs=2, progress=False).fit(X, y, validation=(X[:10], y[:10]), sample_weight=np.ones(40))
    assert history.epochs[-1].validation["cost"] == pytest.approx(net.cost(X[:10], y[:10]), rel=1e-6)
    assert net.predict_proba(X).shape == (40, outputs)
    assert net.predict(X).shape == predicted_shape
    assert net.predict(X).dtype.kind == kind
    assert net.predict(X[:1]).shape == (1, *predicted_shape[1:])
    assert backprop_gpu.gradcheck(net, X[:6], y[:6]).ok


def test_lists_integers_and_other_memory_orders_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(-3, 4, size=(20, 3)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    net = DenseNet([3, 4, 1], device="cpu", seed=1)
    wanted = net.predict_proba(X)
    for same in (X.tolist(), X.astype(np.int8), np.asfortranarray(X), X[::-1][::-1], X.astype(np.float64)):
        np.testing.assert_array_equal(net.predict_proba(same), wanted)
    assert net.cost(X, y.tolist()) == net.cost(X, y.astype(bool)) == net.cost(X, y)


def test_features_as_rows_are_refused_with_the_shape_that_is_wanted() -> None:
    net = DenseNet([5, 4, 1], device="cpu")
    X, y = np.zeros((40, 5)), np.zeros(40)
    with pytest.raises(ShapeError, match=r"\(n_samples, 5\), got \(5, 40\)"):
        Trainer(net, progress=False).fit(X.T, y)
    with pytest.raises(ShapeError, match=r"X\.reshape\(1, -1\)"):
        net.predict(X[0])
    with pytest.raises(ShapeError, match=r"y must be \(40, 1\)"):
        Trainer(net, progress=False).fit(X, y[:39])
    with pytest.raises(ShapeError, match="sample_weight"):
        Trainer(net, progress=False).fit(X, y, sample_weight=np.ones(39))
    with pytest.raises(DataError, match="no rows"):
        net.predict(X[:0])


def test_one_base_catches_every_error_of_the_package() -> None:
    for wrong in (
        lambda: DenseNet([5, 0, 1], device="cpu"),
        lambda: DenseNet([5, 1], device="gpu"),
        lambda: DenseNet([5, 1], device="cpu").predict([["a"] * 5]),
        lambda: load("nowhere"),
        lambda: train("nowhere"),
        lambda: backprop_gpu.load_config(None, ["seed=x"]),
        lambda: backprop_gpu.read_table("nowhere.csv", target=0),
        lambda: backprop_gpu.get_backend("array_api_strict:device9"),
    ):
        with pytest.raises(BackpropError) as caught:
            wrong()
        assert len(str(caught.value).splitlines()) == 1


def test_train_and_load_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train("moons", overrides=["training.epochs=2"], run_dir=tmp_path / "run", device="cpu")
    assert capsys.readouterr() == ("", "")
    model = load(tmp_path / "run", "cpu")
    assert isinstance(model, backprop_gpu.Model)
    X, y = (table := load_builtin("moons", n=50, seed=1)).numeric, table.target
    assert model.net.predict(X).shape == (50,)
    assert model.predict(table).shape == model.predict_proba(table)[:, 0].shape == (50,)
    assert model.evaluate(table)["accuracy"] == np.mean(model.predict(table) == y)
    np.testing.assert_array_equal(model.predict(table), outcome.model.predict(table))
    assert model.read("moons").n_samples == 1000


def test_callbacks_hear_every_epoch() -> None:
    heard: list[Any] = []

    class Listener(backprop_gpu.Callback):
        def on_start(self, epochs: int) -> None:
            heard.append(epochs)

        def on_epoch(self, epoch: backprop_gpu.Epoch) -> None:
            heard.append(epoch.epoch)

        def on_end(self) -> None:
            heard.append("end")

    X, y = breast_cancer()
    net = DenseNet([30, 1], device="cpu")
    rule = backprop_gpu.EarlyStopping(patience=5)
    trainer = Trainer(net, epochs=3, callbacks=[Listener()], progress=False, early_stopping=rule)
    history = trainer.fit(X, y, validation=(X, y))
    assert heard == [3, 1, 2, 3, "end"]
    assert isinstance(history, backprop_gpu.History)


@pytest.mark.parametrize(
    "name", ["", ".accel", ".backends", ".data", ".estimators", ".explain", ".gradcheck", ".parity", ".textbook"]
)
def test_dir_shows_nothing_but_what_is_offered(name: str) -> None:
    module = importlib.import_module(f"backprop_gpu{name}")
    shown = {each for each in dir(module) if not each.startswith(("_", "@"))}  # @: pytest's
    assert {each for each in module.__all__ if not each.startswith("_")} <= shown
    for each in shown - set(module.__all__):  # its own modules, and nothing that it has imported
        assert inspect.ismodule(getattr(module, each))
        assert getattr(module, each).__name__ == f"{module.__name__}.{each}"


def test_its_modules_need_no_import_of_their_own() -> None:
    script = "import backprop_gpu as b; print(b.parity.check.__name__, b.textbook.predict.__name__, b.maths.__name__)"
    assert python(script) == "check predict backprop_gpu.maths\n"
