"""An estimator in other forms: scikit-learn's own, bit for bit, and one safetensors file.

The file is the network as ``network.model_file`` writes it, and the fitted attributes. Nothing is pickled, so loading
runs no code. Parameters that are no plain values (callbacks, a splitter, a ``random_state`` that is a generator) are
left out with a warning.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import sklearn.neural_network as theirs
from sklearn.base import is_classifier
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from ..errors import CheckpointError, ConfigError, shown
from ..network.custom import Custom, Formula, restored, spec_of
from ..network.dense_net import DenseNet
from ..network.model_file import Extras, load_model, save_model
from . import tabular
from .fitted_network import OptimizerState, as_named, as_parameters, fitted_of, named_of
from .labels import SEVERAL, MultiOutputLabels
from .params import activations_of

# What a fit leaves, there and here.
FITTED = (
    *("n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_", "loss_", "best_loss_", "loss_curve_"),
    *("validation_scores_", "best_validation_score_", "classes_", "n_features_in_", "feature_names_in_"),
    *("_label_binarizer", "_no_improvement_count", "_random_state"),
)
_NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}
_LINKS = ("identity", "exp", "logistic", "softmax")

# What a file has of a fit, beside its tensors.
NUMBERS = (
    *("n_layers_", "n_outputs_", "out_activation_", "n_iter_", "t_", "loss_", "best_loss_", "loss_curve_"),
    *("validation_scores_", "best_validation_score_", "n_features_in_", "_no_improvement_count", "_seed"),
    *("validation_loss_curve_", "validation_metric_curves_", "_fitted_on"),
)
PLAIN = (str, int, float, bool, type(None))
FORMULAS = {"activation": "activation", "loss": "loss", "solver": "optimizer", "learning_rate": "schedule"}
PAIRS = "__pairs__"  # a dict whose keys are not all text, which JSON has no other way to write


# -- scikit-learn's estimators ----------------------------------------------------------------------------------------


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
    vectors = {name: list(chain(*as_parameters(named))) for name, named in state.vectors.items()}
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


# -- safetensors files -----------------------------------------------------------------------------------------------


def to_safetensors(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator.

    Raises
    ------
    NotFittedError, CheckpointError
        If there is nothing to write, or it cannot be written.
    """
    check_is_fitted(estimator)
    tensors: dict[str, np.ndarray] = {}
    fitted = numbers_of(estimator)
    if "feature_names_in_" in vars(estimator):
        fitted["feature_names_in_"] = [str(name) for name in estimator.feature_names_in_]
    if is_classifier(estimator):
        labels = estimator._label_binarizer
        columns = labels.classes_ if labels.y_type_ == SEVERAL else [labels.classes_]
        fitted["labels"] = {"y_type": labels.y_type_, "classes": [_plain(c.tolist()) for c in columns]}
        fitted["labels"]["dtypes"] = [c.dtype.str for c in columns]
    state = vars(estimator).get("_optimizer")
    if state is not None:
        fitted["optimizer"] = {"learning_rate": state.learning_rate, "t": state.t}
        tensors |= {f"optimizer/{s}/{k}": x for s, named in state.vectors.items() for k, x in named.items()}
    if vars(estimator).get("best_validation_score_") is not None and "_best" in vars(estimator):
        tensors |= {f"best/{k}": x for k, x in named_of(estimator._best).items()}
    net = estimator
    if "members_" in vars(estimator):
        net, tensors = estimator.members_[0], tensors | tabular.to_tensors(estimator)
        fitted["members"] = [numbers_of(member) for member in estimator.members_]
        fitted["tabular"] = tabular.to_meta(estimator)
    params = _kept(estimator.get_params(deep=False))
    meta = {"estimator": type(estimator).__name__, "params": params, "fitted": fitted}
    save_model(path, net.network(), Extras(tensors, meta))


def numbers_of(estimator: Any) -> dict[str, Any]:
    """The fitted attributes that are no tensors."""
    return {name: _plain(vars(estimator)[name]) for name in NUMBERS if name in vars(estimator)}


def _kept(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a file can hold; of the others it is said that they are left out."""
    plain = {name: _plain(value) for name, value in params.items()}
    lost = [name for name, value in plain.items() if not _fits(value)]
    if lost:
        again = ", ".join(f"{name}=..." for name in lost)
        warnings.warn(
            f"the file does not hold {', '.join(lost)}, which are no plain values; give them again when it is read: "
            f"from_safetensors(path, {again})",
            stacklevel=4,
        )
    return {name: value for name, value in plain.items() if name not in lost}


def _plain(value: Any) -> Any:
    """A value as JSON has it, and as :func:`_given` reads it; specs of our own objects."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        plain = [[_plain(k), _plain(v)] for k, v in value.items()]
        return dict(plain) if all(isinstance(k, str) for k, _ in plain) else {PAIRS: plain}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [_plain(v) for v in value]
    return _plain(spec_of(value)) if isinstance(value, Formula) else value


def _fits(plain: Any) -> bool:
    """Whether JSON gives back what :func:`_plain` made of a parameter."""
    if isinstance(plain, dict):
        return all(map(_fits, plain.values()))
    return all(map(_fits, plain)) if isinstance(plain, list) else isinstance(plain, PLAIN)


def _given(plain: Any) -> Any:
    """The inverse of :func:`_plain`, but for tuples and arrays, which come back as lists."""
    if isinstance(plain, list):
        return [_given(v) for v in plain]
    if isinstance(plain, dict):
        pairs = plain[PAIRS] if PAIRS in plain else plain.items()
        return {k: _given(v) for k, v in pairs}
    return plain


def from_safetensors(
    ours: type[Any], path: str | os.PathLike[str], changes: dict[str, Any], custom: Custom = ()
) -> Any:
    """Read what :func:`to_safetensors` wrote; the device is not needed until the estimator is used.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds something else, or needs a formula that ``custom`` does not have.
    """
    net, extras = load_model(DenseNet, path, "cpu", custom=custom)
    name = extras.meta.get("estimator")
    if name != ours.__name__:
        held = shown(name, quoted=False) if name else "a network without an estimator"
        raise CheckpointError(f"{path} holds {held}, not {ours.__name__}")
    ours(**changes)  # what the caller misspelt is no fault of the file
    try:
        return _restored(ours, net, extras, path, changes, custom)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = shown(str(error), 300, quoted=False)
        raise CheckpointError(f"{path} was written by another version of backprop_gpu ({reason})") from error


def _restored(
    ours: type[Any], net: DenseNet, extras: Extras, path: Any, changes: dict[str, Any], custom: Custom
) -> Any:
    """The estimator that a file describes."""
    fitted, tensors = dict(extras.meta["fitted"]), extras.tensors
    for numbers in (fitted, *fitted.get("members", ())):
        _check_numbers(numbers, net, "members" in fitted)
    _check_tensors(tensors, net)
    params = _given(extras.meta["params"])
    for key, kind in FORMULAS.items():
        if key in params and key not in changes:
            given = params[key] if isinstance(params[key], list) else [params[key]]
            formulas = [restored(spec, kind, custom, path) for spec in given]
            params[key] = formulas if isinstance(params[key], list) else formulas[0]
    for key, default in ours().get_params(deep=False).items():
        if isinstance(default, tuple) and isinstance(params.get(key), list):  # JSON has no tuples
            params[key] = tuple(params[key])
    made = ours(**{**params, **changes})
    made._validate_params()
    vars(made).update(fitted_of(net.parameters()))
    for key in NUMBERS:
        if key in fitted:
            setattr(made, key, fitted[key])
    if "feature_names_in_" in fitted:
        names = fitted["feature_names_in_"]
        if len(names) != made.n_features_in_ or not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{path} does not name the {made.n_features_in_} features of its network")
        made.feature_names_in_ = np.array(fitted["feature_names_in_"], dtype=object)
    if "labels" in fitted:
        made._take_labels(_labels(**fitted["labels"]))
    if "members" in fitted:
        tabular.from_tensors(made, tensors, fitted["tabular"])
        for member, numbers in zip(made.members_, fitted["members"], strict=True):
            vars(member).update(numbers)
    elif made._fitted_loss()[1] != net.sizes[-1]:
        wanted = made._fitted_loss()[1]
        raise CheckpointError(f"{path} holds a network of {net.sizes[-1]} outputs for targets of {wanted}")
    best = {key.removeprefix("best/"): tensor for key, tensor in tensors.items() if key.startswith("best/")}
    if best:
        made._best = fitted_of(best)
    if "optimizer" in fitted:
        vectors: dict[str, dict[str, np.ndarray]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, vector, parameter = key.split("/")
                vectors.setdefault(vector, {})[parameter] = tensor
        made._optimizer = OptimizerState(**fitted["optimizer"], vectors=vectors)
    return made


def _check_numbers(numbers: dict[str, Any], net: DenseNet, of_preset: bool) -> None:
    """That fitted attributes have their types, and sizes are the network's; else a TypeError or ValueError.

    ``of_preset``: the network has other inputs than the table has columns.
    """
    kinds = {
        list: ("loss_curve_", "validation_scores_", "validation_loss_curve_"),
        dict: ("validation_metric_curves_",),
    }
    kinds |= {str: ("out_activation_", "_fitted_on")}
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    for name in NUMBERS:
        value = numbers.get(name)
        if value is not None and not isinstance(value, kind_of.get(name, int | float)):
            raise TypeError(f"{name} is {type(value).__name__}")
    if numbers.get("n_features_in_") is None:
        raise KeyError("n_features_in_")
    here = {"n_layers_": len(net.sizes)} | ({} if of_preset else {"n_features_in_": net.sizes[0]})
    for name, wanted in here.items():
        if numbers.get(name, wanted) != wanted:
            raise ValueError(f"{name} is {numbers[name]}, and the network says {wanted}")


def _check_tensors(tensors: dict[str, np.ndarray], net: DenseNet) -> None:
    """That what is kept for each parameter (members, best weights, the optimizer's state) has its shape."""
    shapes = {name: x.shape for name, x in net.parameters().items()}
    for key, x in tensors.items():
        kept, _, name = key.rpartition("/")
        of_parameters = kept.startswith(("member/", "optimizer/")) or kept == "best"
        if of_parameters and (shapes.get(name) != x.shape or x.dtype.kind != "f"):
            raise ValueError(f"{shown(key)} is {x.dtype} {x.shape}")


def _labels(y_type: str, classes: list[list[Any]], dtypes: list[str]) -> Any:
    """The encoder of these labels."""
    columns = [_column(c, np.dtype(dtype)) for c, dtype in zip(classes, dtypes, strict=True)]
    if y_type == SEVERAL:
        return MultiOutputLabels().of(columns)
    if y_type.startswith("multilabel"):
        return LabelBinarizer().fit(np.array([[0] * len(columns[0]), [1] * len(columns[0])]))
    return LabelBinarizer().fit(columns[0])


def _column(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    """The labels of one column, all different; a file's dtype must not ask for more room than they need."""
    width = max(map(len, map(str, values)))
    if dtype.kind not in "biufUO" or dtype.itemsize > max(8, 4 * width):
        raise TypeError(f"labels of {len(values)} values as {dtype}")
    found = np.array(values, dtype)
    if found.ndim != 1 or len(set(found.tolist())) != len(found):
        raise ValueError("labels are not different values")
    return found
