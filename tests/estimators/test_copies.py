"""Copies of a fitted estimator in every form hold the same weights, and go on training from where it stood."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn.neural_network as theirs
import skops.io
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from support.command import ROOT, environment
from support.estimators import SETS, distance, fitted, rows, same_bits
from support.own_formulas import SNAKE, Halving, LogCosh, SignMomentum

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


TRUSTED = [f"backprop_gpu.estimators.{name}" for name in ("fitted_network.OptimizerState", "labels.MultiOutputLabels")]


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
        rate = "cosine" if solver == "momentum" else "invscaling"
        model, X, y = trained(target, solver=solver, learning_rate=rate)
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
    with pytest.warns(UserWarning, match=r"the file does not hold random_state.*path, random_state=\.\.\.\)"):
        other = by_safetensors(model, tmp_path)
    assert list(other.classes_) == ["no", "yes"]
    assert list(other.feature_names_in_) == list("abcdef")
    assert other.random_state is None
    with pytest.raises(CheckpointError, match="holds MLPClassifier, not MLPRegressor"):
        MLPRegressor.from_safetensors(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="no model file"):
        MLPRegressor.from_safetensors(tmp_path / "nothing")
    del model.feature_names_in_
    model.set_params(random_state=0).to_safetensors(tmp_path / "m.safetensors")
    changed = MLPClassifier.from_safetensors(tmp_path / "m.safetensors", device="array_api_strict")
    np.testing.assert_allclose(changed.predict_proba(X), model.predict_proba(X), rtol=1e-14)


@pytest.mark.parametrize("way", [by_pickle, by_safetensors])
@pytest.mark.parametrize(
    "settings",
    [
        {"early_stopping": True},
        {"early_stopping": True, "batch_norm": True, "weight_average": 0.9},
        {"solver": "lbfgs"},
        {"preset": "tabular", "n_members": 2, "validation_metrics": ["log_loss"]},
    ],
    ids=str,
)
def test_a_copy_has_every_attribute(settings: dict[str, Any], way: Any, tmp_path: Path) -> None:
    model, X, _ = trained("binary", **settings)
    other = way(model, tmp_path)
    for one, two in zip(
        [model, *vars(model).get("members_", [])], [other, *vars(other).get("members_", [])], strict=True
    ):
        assert set(vars(one)) - set(vars(two)) <= {"_device_state", "_random_state", "_best"}
        for name in ("n_iter_", "t_", "loss_", "loss_curve_", "validation_scores_", "validation_metric_curves_"):
            assert vars(one).get(name) == vars(two).get(name)
    assert np.array_equal(other.predict_proba(X), model.predict_proba(X))


def from_theirs(settings: dict[str, Any], X: np.ndarray, y: np.ndarray, kind: str) -> Any:
    reference = fitted(getattr(theirs, kind)(**settings), X, y)
    return getattr(backprop_gpu, kind).from_sklearn(reference, device="cpu")


@pytest.mark.parametrize("start", ["file", "sklearn", "lbfgs"])
@pytest.mark.parametrize("again", ["warm", "stopping early", "with a validation set", "partial"])
@pytest.mark.parametrize("target", ["binary", "multilabel", "outputs"])
def test_a_fit_goes_on_wherever_its_start_came_from(target: str, start: str, again: str, tmp_path: Path) -> None:
    X, y = rows(target)
    kind = "MLPRegressor" if target == "outputs" else "MLPClassifier"
    stopping = start == "file" and again == "stopping early"
    settings: dict[str, Any] = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0, "warm_start": True}
    if start == "sklearn":
        model = from_theirs(settings, X, y, kind)
    else:
        settings |= {"early_stopping": stopping, "solver": "lbfgs" if start == "lbfgs" else "adam"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = fitted(getattr(backprop_gpu, kind)(**settings), X, y)
        if start == "file":
            model = by_safetensors(model, tmp_path)
    before = len(vars(model).get("loss_curve_", []))
    model.set_params(solver="adam", early_stopping=again == "stopping early")
    if again == "partial":
        model.partial_fit(X, y)
    else:
        fitted(model, X, y, **({"X_val": X[:9], "y_val": y[:9]} if again.startswith("with") else {}))
    assert len(model.loss_curve_) == before + model.n_iter_
    assert len(model.validation_loss_curve_) == (0 if again in ("warm", "partial") else 3 + 3 * stopping)
    if again == "stopping early":
        assert model.best_validation_score_ == max(model.validation_scores_)


def test_weights_that_no_epoch_was_better_than_are_restored_from_a_file_too(tmp_path: Path) -> None:
    model, X, y = trained("regression", early_stopping=True, warm_start=True)
    model.set_params(early_stopping=False, learning_rate_init=1.0)
    fitted(model, X, y)  # far away from the best
    model.set_params(early_stopping=True)
    other = by_safetensors(model, tmp_path)
    assert not np.array_equal(model.coefs_[0], model._best["coefs_"][0])
    for copied in (model, other):
        copied.set_params(max_iter=1, learning_rate_init=1e-9)
        fitted(copied, X, y)
    assert same_bits(model, other)


@pytest.mark.parametrize(
    ("labels", "weight"),
    [
        ([0, 1], {0: 1.0, 1: 5.0}),
        ([False, True], {False: 1.0, True: 5.0}),
        ([0.0, 2.0], {0.0: 1.0, 2.0: 5.0}),
        (["no", "yes"], {"no": 1.0, "yes": 5.0}),
        ([3, 7], {np.int64(3): np.float32(1.5), np.int64(7): 5}),
    ],
    ids=str,
)
@pytest.mark.parametrize("preset", [None, "tabular"])
def test_a_file_keeps_class_weights_of_every_kind_of_label(
    labels: list[Any], weight: dict[Any, Any], preset: str | None, tmp_path: Path
) -> None:
    X, y = rows("binary")
    y = np.array(labels)[(y == "yes").astype(int)]
    model = fitted(
        MLPClassifier((4,), max_iter=2, random_state=0, class_weight=weight, preset=preset, n_members=1), X, y
    )
    other = by_safetensors(model, tmp_path)
    assert other.class_weight == weight
    assert [type(k) for k in other.class_weight] == [type(k) for k in y[[0, 1]].tolist()]
    assert same_bits(*(m if preset is None else m.members_[0] for m in (model, other)))
    again = [fitted(m, X, y) if preset else m.partial_fit(X, y) for m in (model, other)]
    assert np.array_equal(again[0].predict_proba(X), again[1].predict_proba(X))


def test_a_file_keeps_class_weights_of_several_labels_and_says_what_it_does_not_hold(tmp_path: Path) -> None:
    X, y = rows("multiclass")
    weight = [{0: 1, 1: 2, 2: 3}, {"no": 0.5}]
    both = np.array([[a, b] for a, b in zip(y, np.array(["no", "yes"])[(y > 1).astype(int)], strict=True)], object)
    model = fitted(MLPClassifier(range(3, 5), max_iter=2, random_state=0, class_weight=weight), X, both)
    other = by_safetensors(model, tmp_path)
    assert (other.class_weight, other.hidden_layer_sizes) == (weight, (3, 4))
    assert same_bits(model.partial_fit(X, both), other.partial_fit(X, both))
    model.set_params(callbacks=[backprop_gpu.Callback()], validation_fraction=StratifiedKFold(3))
    with pytest.warns(UserWarning, match="the file does not hold callbacks, validation_fraction, which are no plain"):
        model.to_safetensors(tmp_path / "m.safetensors")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("preset", [None, "tabular"])
def test_formulas_of_ones_own_are_given_again_to_what_reads_the_file(preset: str | None, tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).standard_normal((80, 3)), np.sin(np.arange(80.0))
    own = {"activation": SNAKE, "loss": LogCosh(2.0), "solver": SignMomentum(0.01), "learning_rate": Halving(5)}
    more: dict[str, Any] = {"preset": preset, "n_members": 2 if preset else 4, "batch_norm": False, "dropout": 0.0}
    model = MLPRegressor(**own, **more, hidden_layer_sizes=[6, 5], max_iter=3, random_state=0).fit(X, y)
    model.to_safetensors(tmp_path / "m")
    custom = [SNAKE, LogCosh, SignMomentum, Halving()]
    for other in (
        MLPRegressor.from_safetensors(tmp_path / "m", custom=custom),
        MLPRegressor.from_safetensors(tmp_path / "m", custom=[SNAKE, LogCosh], solver="sgd", learning_rate="constant"),
    ):
        assert np.array_equal(other.predict(X), model.predict(X))
    again = MLPRegressor.from_safetensors(tmp_path / "m", custom=custom)
    assert {name: again.get_params()[name] for name in own} == own
    assert np.array_equal(clone(again).fit(X, y).predict(X), clone(model).fit(X, y).predict(X))
    for left, name in enumerate(["snake", "log_cosh", "sign_momentum", "halving"]):
        with pytest.raises(CheckpointError, match=rf"needs the \w+ '{name}' \(support\.own_formulas\.\w+\).*custom="):
            MLPRegressor.from_safetensors(tmp_path / "m", custom=[x for i, x in enumerate(custom) if i != left])


def test_another_solver_starts_with_its_own_state() -> None:
    X, y = rows("regression")
    changes = [("sgd", "adam"), ("adam", "sgd"), ("adam", "momentum"), ("rmsprop", "adam"), ("lion", "adamw")]
    for first, then in changes:
        model = MLPRegressor(hidden_layer_sizes=(4,), solver=first, random_state=0)
        for _ in range(5):
            model.partial_fit(X, y)
        fresh = copy.deepcopy(model).set_params(solver=then)
        del fresh._optimizer
        assert same_bits(model.set_params(solver=then).partial_fit(X, y), fresh.partial_fit(X, y))
    averaged = MLPRegressor(hidden_layer_sizes=(4,), random_state=0)
    for _ in range(5):
        averaged.partial_fit(X, y)
    before = averaged.coefs_[0]
    averaged.set_params(weight_average=0.99).partial_fit(X, y)
    np.testing.assert_allclose(averaged.coefs_[0], before, atol=0.01)  # not a share of weights that were never averaged


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
    assert set(vars(reference)) - set(vars(back)) <= {"_coef_indptr", "_intercept_indptr", "_optimizer"}
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
    assert done.stdout == "MissingDependencyError scikit-learn is not installed; pip install 'scikit-learn>=1.9'\n"


def test_a_fitted_estimator_keeps_no_rows() -> None:
    X, y = np.random.default_rng(0).standard_normal((120, 4)), np.arange(120) % 2
    model = fitted(MLPClassifier((3,), max_iter=2, random_state=0), X, y)
    model.predict(X)
    assert model._device_state.kept is None  # which holds them while a fit goes on
    assert model._device_state.predictor is not None
    assert not [name for name, x in vars(model).items() if isinstance(x, np.ndarray) and 120 in x.shape]
    model.partial_fit(X, y)
    assert model._device_state.kept is not None
