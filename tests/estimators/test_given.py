"""Every parameter with every solver: what is given is used, or refused by name; what scikit-learn ignores stays so."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils._param_validation import InvalidParameterError

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.maths.optimizers import OPTIMIZERS, AdamW, get_optimizer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
y = (X[:, 0] + 0.3 * X[:, 1] > 0.2).astype(int)
Y = np.column_stack([X[:, 0] * 3.0, X[:, 1] - X[:, 2]])
BASE: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0, "device": "cpu"}
LARGE_STEPS = {"learning_rate_init": 0.05, "batch_size": 7}  # of which Lion sees the signs alone
STOPPING = {"tol": 10.0, "max_iter": 30}
pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


class Counting(backprop_gpu.Callback):
    """Makes the fits that it follows tell themselves from others."""

    def on_epoch(self, epoch: backprop_gpu.Epoch) -> None:
        SEEN.append(epoch.epoch)


SEEN: list[int] = []
# A value that is not the default, and what has to be set beside it for the parameter to mean anything.
GIVEN: list[tuple[str, Any, dict[str, Any]]] = [
    ("hidden_layer_sizes", (5, 4), {}),
    ("activation", "tanh", {}),
    ("alpha", 0.5, {}),
    ("batch_size", 7, {}),
    ("learning_rate", "cosine", {}),
    ("learning_rate", "invscaling", {}),
    ("learning_rate", "adaptive", {"n_iter_no_change": 1, **STOPPING}),
    ("learning_rate_init", 0.02, {}),
    ("power_t", 0.1, {"learning_rate": "invscaling"}),
    ("max_iter", 2, {}),
    ("shuffle", False, {"batch_size": 7}),
    ("random_state", 1, {}),
    ("tol", 10.0, {"n_iter_no_change": 1, "max_iter": 30}),
    ("momentum", 0.5, {}),
    ("nesterovs_momentum", False, {}),
    ("early_stopping", True, {}),
    ("validation_fraction", 0.4, {"early_stopping": True}),
    ("beta_1", 0.5, LARGE_STEPS),
    ("beta_2", 0.5, LARGE_STEPS),
    ("epsilon", 0.1, {}),
    ("n_iter_no_change", 1, STOPPING),
    ("max_fun", 3, {"max_iter": 30}),
    ("dtype", "float32", {}),
    ("initializer", "he", {}),
    ("dropout", 0.5, {}),
    ("batch_norm", True, {}),
    ("batch_ensemble", 3, {}),
    ("weight_average", 0.5, {}),
    ("clip_norm", 1e-3, LARGE_STEPS),
    ("validation_metrics", ["log_loss"], {"early_stopping": True}),
    ("callbacks", [Counting()], {}),
    ("n_members", 2, {}),
    ("class_weight", {1: 9.0}, {}),
    ("label_smoothing", 0.3, {}),
]
ELSEWHERE = {"solver", "preset", "device", "kernels", "verbose", "warm_start"}  # each has its tests
# What scikit-learn ignores with its solvers.
_ADAM, _SGD = {"beta_1", "beta_2", "epsilon"}, {"momentum", "nesterovs_momentum", "power_t"}
IGNORED = {
    "sgd": _ADAM | {"max_fun"},
    "adam": _SGD | {"max_fun", "learning_rate=invscaling", "learning_rate=adaptive"},
    "lbfgs": _ADAM
    | _SGD
    | {"batch_size", "learning_rate=invscaling", "learning_rate=adaptive", "learning_rate_init", "shuffle"}
    | {"early_stopping", "validation_fraction", "n_iter_no_change"},
}
SOLVERS = [*OPTIMIZERS, "lbfgs", *({"name": name} for name in OPTIMIZERS), AdamW(learning_rate=0.01)]


def fitted_with(given: dict[str, Any]) -> list[Any] | InvalidParameterError:
    """Everything that a fit leaves behind, or the error with which it was refused."""
    SEEN.clear()
    try:
        model = MLPClassifier(**BASE | given).fit(X, y)
    except InvalidParameterError as error:
        return error
    left: list[Any] = [model.predict_proba(X), len(SEEN)]
    for net in vars(model).get("members_", [model]):
        left += [*net.coefs_, vars(net).get("loss_curve_"), vars(net).get("validation_metric_curves_")]
    return left


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(p, q) and getattr(p, "dtype", None) == getattr(q, "dtype", None)
        for p, q in zip(a, b, strict=True)
    )


def test_every_parameter_is_here() -> None:
    assert set(inspect.signature(MLPClassifier).parameters) == {name for name, _, _ in GIVEN} | ELSEWHERE


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_what_is_given_is_used_or_refused_by_name(solver: Any, preset: str | None) -> None:
    common: dict[str, Any] = {"solver": solver} | ({} if preset is None else {"preset": preset, "n_members": 1})
    if preset and solver == "lbfgs":
        refused = fitted_with(common)
        assert isinstance(refused, InvalidParameterError)
        assert "The 'solver' parameter" in str(refused)
        return
    for name, value, beside in GIVEN:
        value = "float64" if preset and name == "dtype" else value
        without = fitted_with(common | beside)
        if isinstance(without, InvalidParameterError):  # what goes beside it is refused, so it has to be too
            beside, without = {}, fitted_with(common)
        assert not isinstance(without, InvalidParameterError), without
        given = fitted_with(common | beside | {name: value})
        ignored = IGNORED.get(solver, set()) if preset is None and isinstance(solver, str) else set()
        if ignored & {name, f"{name}={value}"}:
            assert not isinstance(given, InvalidParameterError), (name, given)
            assert same(without, given), (name, value)
        elif isinstance(given, InvalidParameterError):
            assert f"The {name!r} parameter of MLPClassifier" in str(given), (name, given)
            assert "\n" not in str(given)
        else:
            assert not same(without, given), (name, value)


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize(
    ("solver", "takes"),
    [
        ("momentum", "momentum"),
        ("nesterov", "momentum"),
        ("adamw", "beta_1 beta_2 epsilon"),
        ("amsgrad", "beta_1 beta_2 epsilon"),
        ("rmsprop", "epsilon"),
        ("adagrad", "epsilon"),
        ("lion", "beta_1 beta_2"),
        ({"name": "adamw", "weight_decay": 0.1}, "beta_1 beta_2 epsilon"),
        ({"name": "adam"}, "beta_1 beta_2 epsilon"),
        ({"name": "sgd"}, ""),
        ({"name": "adamw", "beta1": 0.8, "learning_rate": 0.1}, "beta_2 epsilon"),
    ],
    ids=str,
)
def test_which_numbers_a_solver_takes(solver: Any, takes: str, preset: str | None) -> None:
    """They are those of its rule in maths, under scikit-learn's names: as if they stood in a mapping."""
    values = {"momentum": 0.5, "beta_1": 0.5, "beta_2": 0.5, "epsilon": 0.01}
    fields = {"momentum": "momentum", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "epsilon"}
    for name, value in values.items():
        model = MLPClassifier(**BASE, solver=solver, preset=preset, **{name: value})
        if name not in takes.split():
            with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter .* leave it at its default"):
                model.fit(X, y)
            continue
        mapping = ({"name": solver} if isinstance(solver, str) else solver) | {fields[name]: value}
        other = MLPClassifier(**BASE, solver=mapping, preset=preset)
        np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), other.fit(X, y).predict_proba(X))


def test_the_preset_s_own_solver_takes_them_too() -> None:
    plain = MLPClassifier(**BASE, preset="tabular").fit(X, y).predict_proba(X)
    for name in ("beta_1", "beta_2", "epsilon"):
        given = MLPClassifier(**BASE, preset="tabular", **{name: 0.5}).fit(X, y).predict_proba(X)
        assert not np.array_equal(given, plain)
    with pytest.raises(InvalidParameterError, match=r"The 'momentum' parameter .*solver adamw does not use it"):
        MLPClassifier(**BASE, preset="tabular", momentum=0.5).fit(X, y)


def test_defaults_do_not_count_whatever_their_type() -> None:
    defaults = {"beta_2": np.float64(0.999), "momentum": np.float64(0.9), "nesterovs_momentum": True, "max_fun": 15000}
    for solver in ("lion", {"name": "rmsprop"}, get_optimizer("adamw")):
        a = MLPClassifier(**BASE, solver=solver).fit(X, y)
        b = MLPClassifier(**BASE, solver=solver, **defaults).fit(X, y)
        np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_refused_advice_followed_fits() -> None:
    """Each error names one parameter and its default; what is left after all of them fits."""
    given = {"momentum": 0.5, "beta_2": 0.5, "power_t": 0.1, "learning_rate": "adaptive", "n_members": 7, "max_fun": 9}
    model = MLPClassifier(**BASE, solver="rmsprop", **given)
    for _ in range(len(given)):
        with pytest.raises(InvalidParameterError, match="leave it at its default") as caught:
            model.fit(X, y)
        name = str(caught.value).split("'")[1]
        model.set_params(**{name: MLPClassifier().get_params()[name]})
    assert model.fit(X, y).score(X, y) >= 0.0


def test_searches_over_solvers_go_on() -> None:
    grid = {"solver": ["sgd", "adam", "lbfgs"], "beta_1": [0.8], "momentum": [0.8], "power_t": [0.3]}
    found = GridSearchCV(MLPClassifier(**BASE), grid, cv=2, error_score="raise").fit(X, y)
    assert len(found.cv_results_["params"]) == 3
    partial = clone(found.best_estimator_).set_params(solver="adamw")
    with pytest.raises(InvalidParameterError, match="'momentum' parameter"):
        partial.partial_fit(X, y, classes=[0, 1])


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize("solver", ["sgd", "lbfgs", "adamw", {"name": "momentum"}], ids=str)
def test_what_regressors_have_beside(solver: Any, preset: str | None) -> None:
    if preset and solver == "lbfgs":
        return
    plain = MLPRegressor(**BASE, solver=solver, preset=preset).fit(X, Y).predict(X)
    for name, value in {"loss": "absolute_error", "loss_scaling": "sklearn", "alpha": 3.0}.items():
        model = MLPRegressor(**BASE, solver=solver, preset=preset, **{name: value}).fit(X, Y)
        if (solver, name) != ("adamw", "loss_scaling"):  # Adam's steps do not depend on the size of the gradient
            assert not np.array_equal(model.predict(X), plain), name
