"""To scikit-learn's own estimators and back, bit for bit; arrays of any namespace, under ``array_api_dispatch``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import sklearn.neural_network as theirs
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import is_classifier
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.utils._array_api import _convert_to_numpy, get_namespace_and_device
from sklearn.utils.validation import check_is_fitted

from ..errors import ConfigError
from .fitted_network import OptimizerState, as_named, as_parameters
from .labels import SEVERAL
from .params import activations_of

# What a fit leaves, there and here.
FITTED = (
    *("n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_", "loss_", "best_loss_", "loss_curve_"),
    *("validation_scores_", "best_validation_score_", "classes_", "n_features_in_", "feature_names_in_"),
    *("_label_binarizer", "_no_improvement_count", "_random_state"),
)
_NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
_LINKS = ("identity", "exp", "logistic", "softmax")


def _copy_fitted(source: Any, target: Any) -> None:
    for name in FITTED:
        if name in vars(source):
            setattr(target, name, copy.deepcopy(vars(source)[name]))
    target.coefs_ = [np.array(c) for c in source.coefs_]
    target.intercepts_ = [np.array(b) for b in source.intercepts_]


def from_sklearn(ours: type[Any], fitted: Any, changes: dict[str, Any]) -> Any:
    """An estimator of class ``ours`` with a fitted one's parameters, weights and optimizer state.

    Raises
    ------
    ConfigError
        If it is not scikit-learn's estimator of that name.
    NotFittedError
    """
    if type(fitted).__name__ != ours.__name__ or not isinstance(fitted, theirs.MLPClassifier | theirs.MLPRegressor):
        raise ConfigError(f"{ours.__name__}.from_sklearn takes a fitted sklearn {ours.__name__}, got {fitted!r}")
    check_is_fitted(fitted)
    scaling = {} if is_classifier(fitted) else {"loss_scaling": "sklearn"}
    made = ours(**{**fitted.get_params(deep=False), **scaling, **changes})
    _copy_fitted(fitted, made)
    if "_best_coefs" in vars(fitted):
        made._best = copy.deepcopy({"coefs_": fitted._best_coefs, "intercepts_": fitted._best_intercepts})
    state = optimizer_state(fitted)
    if state is not None:
        made._optimizer = state
    return made


def optimizer_state(fitted: Any) -> OptimizerState | None:
    """Where the optimizer of scikit-learn's estimator stands; None if it has none."""
    optimizer = vars(fitted).get("_optimizer")
    if isinstance(optimizer, AdamOptimizer):
        return OptimizerState(float(fitted.learning_rate_init), optimizer.t, _vectors(m=optimizer.ms, v=optimizer.vs))
    if isinstance(optimizer, SGDOptimizer):
        return OptimizerState(float(optimizer.learning_rate), 0, _vectors(v=optimizer.velocities))
    return None


def _vectors(**vectors: Sequence[np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """State vectors in our names from scikit-learn's lists, coefs first."""
    return {name: as_named((list(v[: len(v) // 2]), list(v[len(v) // 2 :]))) for name, v in vectors.items()}


def to_sklearn(estimator: Any) -> Any:
    """scikit-learn's estimator of the same name with these weights; parameters that it has not are left out.

    Raises
    ------
    ConfigError
        If scikit-learn's would predict something else: it has one activation of four for all hidden layers.
    NotFittedError
    """
    check_is_fitted(estimator)
    activations = {a.name for a in activations_of(estimator.activation, estimator.n_layers_ - 2)} or {"relu"}
    if len(activations) > 1 or not activations <= set(_NAMES):
        raise ConfigError(
            f"scikit-learn has one of {', '.join(_NAMES.values())} for all hidden layers, not {sorted(activations)}"
        )
    if vars(estimator).get("_label_binarizer") is not None and estimator._label_binarizer.y_type_ == SEVERAL:
        raise ConfigError("scikit-learn's MLPClassifier has no several labels of several classes")
    if estimator.batch_ensemble > 1:
        raise ConfigError("scikit-learn's estimators have no ensembles; set batch_ensemble=1")
    if "norms_" in vars(estimator):
        raise ConfigError("scikit-learn's estimators have no batch normalization")
    if estimator.out_activation_ not in _LINKS:
        raise ConfigError(f"scikit-learn has no outputs of the kind {estimator.out_activation_!r}")
    kind = theirs.MLPClassifier if is_classifier(estimator) else theirs.MLPRegressor
    made = kind(activation=_NAMES[activations.pop()])
    given = {k: v for k, v in estimator.get_params(deep=False).items() if k in made.get_params() and k != "activation"}
    defaults = made.get_params(deep=False)
    for name, value in given.items():
        fits = any(c.is_satisfied_by(value) for c in _constraints(kind, name))
        made.set_params(**{name: value if fits else defaults[name]})
    _copy_fitted(estimator, made)
    best = copy.deepcopy(vars(estimator).get("_best", estimator._held()))
    made._best_coefs, made._best_intercepts = best["coefs_"], best["intercepts_"]
    state = vars(estimator).get("_optimizer")
    if state is not None and estimator.solver == made.solver != "lbfgs":
        carry_optimizer(state, made)
    return made


def _constraints(kind: type[Any], name: str) -> list[Any]:
    from sklearn.utils._param_validation import make_constraint

    return [make_constraint(c) for c in kind._parameter_constraints[name]]


def carry_optimizer(state: OptimizerState, made: Any) -> None:
    """Give scikit-learn's estimator, which has its weights and one of its solvers, an optimizer that stands there."""
    params = [*made.coefs_, *made.intercepts_]
    vectors = {name: list(chain(*as_parameters(slot))) for name, slot in state.vectors.items()}
    if made.solver == "adam":
        made._optimizer = AdamOptimizer(params, made.learning_rate_init, made.beta_1, made.beta_2, made.epsilon)
        made._optimizer.t = state.t
        made._optimizer.ms, made._optimizer.vs = vectors["m"], vectors["v"]
        return
    rule = (made.learning_rate, made.momentum, made.nesterovs_momentum, made.power_t)
    made._optimizer = SGDOptimizer(params, made.learning_rate_init, *rule)
    made._optimizer.learning_rate = state.learning_rate
    if "v" in vectors:
        made._optimizer.velocities = vectors["v"]


# -- arrays of any namespace -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """Where an input lives: its namespace and device; ``xp`` is None for NumPy, lists, tables and sparse matrices."""

    xp: Any
    device: Any

    @property
    def name(self) -> str:
        """The namespace with its device, for comparison and messages."""
        return "numpy" if self.xp is None else f"{self.xp.__name__} on {self.device}"


def origin_of(X: Any) -> Origin:
    """Where X lives; NumPy unless array_api_dispatch is on."""
    if not get_config()["array_api_dispatch"] or isinstance(X, np.ndarray):
        return Origin(None, None)
    xp, is_array_api, device = get_namespace_and_device(X)
    plain = not is_array_api or xp.__name__.rpartition(".")[2] == "numpy"
    return Origin(None, None) if plain else Origin(xp, device)


def dense(X: Any) -> np.ndarray:
    """Rows as the network takes them, of a sparse table too."""
    return X.toarray() if issparse(X) else X


def on_host(x: Any) -> Any:
    """An array as a NumPy array; anything else as it is."""
    origin = origin_of(x)
    return x if origin.xp is None else _convert_to_numpy(x, origin.xp)


def in_kind(result: np.ndarray, origin: Origin) -> Any:
    """A result in the namespace and on the device of an input; text, which no other namespace holds, stays NumPy's."""
    if origin.xp is None or result.dtype.kind not in "biuf":
        return result
    return origin.xp.asarray(result, device=origin.device)


def check_origin(origin: Origin, fitted: str, method: str) -> None:
    """That a method's input lives where ``fit``'s did, under array_api_dispatch, where that is scikit-learn's rule.

    Raises
    ------
    ValueError
        Naming both.
    """
    if get_config()["array_api_dispatch"] and origin.name != fitted:
        raise ValueError(
            f"Inputs passed to {method}() must use the same namespace and the same device as those passed to fit(): "
            f"got {origin.name}, fitted on {fitted}; convert the input, or fit again."
        )
