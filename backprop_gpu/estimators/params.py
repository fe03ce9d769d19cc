"""Constructor parameters: what each may be, and what it means in the words of ``maths/``."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)

from ..devices import KERNEL_SETS, RENAMED_KERNEL_SETS
from ..errors import BackpropError, ConfigError
from ..maths.activations import ACTIVATIONS, Activation, get_activation
from ..maths.initializers import INITIALIZERS
from ..maths.losses import LOSSES, Loss
from ..maths.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from ..maths.schedules import SCHEDULES, Constant, Schedule, get_schedule
from ..training.ranks import sharing

T = TypeVar("T")

RATE_RULES = ("constant", "invscaling", "adaptive")  # scikit-learn's; any other learning_rate is a schedule of maths/
SKLEARN_START = "sklearn"
# Parameters that are numbers of an optimizer, and what it calls them.
OPTIMIZER_FIELDS = {
    "learning_rate_init": "learning_rate",
    "momentum": "momentum",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "epsilon": "epsilon",
    "weight_average": "average",
}

_HIDDEN = {"logistic", *(name for name, a in ACTIVATIONS.items() if not a.output_only)}
_VALUE_LOSSES = {name for name, loss in LOSSES.items() if loss.labels == "values"}

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(_HIDDEN), dict, list, tuple, Activation],
    "solver": [StrOptions({"lbfgs", *OPTIMIZERS}), dict, Optimizer],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({*RATE_RULES, *SCHEDULES}), dict, Schedule],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left"), HasMethods(["split", "get_n_splits"])],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    # What scikit-learn's do not have.
    "device": [str],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "kernels": [StrOptions({"auto", *KERNEL_SETS, *RENAMED_KERNEL_SETS})],
    "initializer": [StrOptions({SKLEARN_START, "auto", *INITIALIZERS})],
    "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
    "batch_norm": ["boolean", "array-like"],
    "batch_ensemble": [Interval(Integral, 1, 2**15, closed="both")],
    "weight_average": [Real],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "validation_metrics": [list, tuple],
    "callbacks": [list, tuple],
    "preset": [StrOptions({"tabular"}), None],
    "n_members": [Interval(Integral, 1, None, closed="left")],
}
CLASSIFIER_CONSTRAINTS: dict[str, list[Any]] = {
    **CONSTRAINTS,
    "class_weight": [StrOptions({"balanced"}), dict, list, None],
    "label_smoothing": [Real],
}
REGRESSOR_CONSTRAINTS: dict[str, list[Any]] = {
    **CONSTRAINTS,
    "loss": [StrOptions(_VALUE_LOSSES), dict, Loss],
    "loss_scaling": [StrOptions({"derivative", "sklearn"})],
}


def store(estimator: Any, given: dict[str, Any]) -> None:
    """Set every constructor argument as it came: ``store(self, locals())``."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


@functools.cache
def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """Parameters of a class of estimators with their defaults."""
    return {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()}


def is_given(estimator: Any, name: str) -> bool:
    """Whether a parameter is not at its default; a number of NumPy's is the Python number that it holds."""
    default = defaults_of(estimator.__class__).get(name, inspect.Parameter.empty)
    value = getattr(estimator, name, default)
    value = value.item() if isinstance(value, np.generic) else value
    return not (value is default or (type(value) is type(default) and bool(value == default)))


def read(estimator: Any, name: str, reader: Callable[[Any], T]) -> T:
    """A parameter in the package's words.

    Raises
    ------
    InvalidParameterError
        scikit-learn's, naming the parameter, where ``reader`` raises one of ours.
    """
    try:
        return reader(getattr(estimator, name))
    except BackpropError as error:
        raise invalid(estimator, name, error) from error


def invalid(estimator: Any, name: str, reason: object) -> InvalidParameterError:
    """scikit-learn's error for a parameter's value."""
    return InvalidParameterError(f"The {name!r} parameter of {type(estimator).__name__} is not valid: {reason}")


def hidden_sizes(estimator: Any) -> list[int]:
    """Units of the hidden layers.

    Raises
    ------
    ValueError
        For a layer without units, or a number of units that is not whole.
    """
    given = estimator.hidden_layer_sizes
    sizes = list(given) if isinstance(given, Iterable) else [given]
    if any(not isinstance(n, Integral) or isinstance(n, bool | np.bool_) for n in sizes):
        raise ValueError(f"hidden_layer_sizes must be whole numbers, got {sizes}.")
    if any(n <= 0 for n in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(n) for n in sizes]


def is_logistic(given: Any) -> bool:
    """Whether an activation is the logistic function, for which scikit-learn starts with smaller weights."""
    return given == "logistic" or get_activation(_in_our_words(given)).name == "sigmoid"


def per_layer(given: Any, n_hidden: int) -> list[Any]:
    """One setting for each hidden layer: the one that was given for all, or the list as it is.

    Raises
    ------
    ConfigError
        For a list of another length.
    """
    found = list(given) if isinstance(given, list | tuple) else [given] * n_hidden
    if len(found) != n_hidden:
        raise ConfigError(f"{n_hidden} hidden layers need {n_hidden} values, got {len(found)}")
    return found


def _in_our_words(given: Any) -> Any:
    return "sigmoid" if given == "logistic" else given


def activations_of(given: Any, n_hidden: int) -> tuple[Activation, ...]:
    """The hidden layers' activations."""
    return tuple(get_activation(_in_our_words(a)) for a in per_layer(given, n_hidden))


def dropout_of(given: Any, n_hidden: int) -> tuple[float, ...]:
    """The hidden layers' dropout rates."""
    rates = per_layer(given, n_hidden)
    for rate in rates:
        if isinstance(rate, bool) or not isinstance(rate, Real) or not 0.0 <= float(rate) < 1.0:
            raise ConfigError(f"a rate must be at least 0 and below 1, got {rate!r}")
    return tuple(float(rate) for rate in rates)


def optimizer_of(estimator: Any) -> Optimizer:
    """``solver`` with its parameters and ``weight_average``."""
    found, average = get_rule(estimator, estimator.solver), float(estimator.weight_average)
    return replace(found, average=average) if average and estimator.solver != "lbfgs" else found


def get_rule(estimator: Any, solver: Any) -> Optimizer:
    """A solver that was given; scikit-learn's ``sgd`` and ``adam`` in exactly its forms.

    The others take the parameters that differ from scikit-learn's defaults, which need not be theirs.
    """
    e, given = estimator, solver
    rate = float(e.learning_rate_init)
    if isinstance(given, Optimizer):
        return given
    if given == "adam":
        betas = {"beta1": float(e.beta_1), "beta2": float(e.beta_2), "epsilon": float(e.epsilon)}
        return get_optimizer({"name": "adam", "learning_rate": rate, **betas, "variant": "epsilon_hat"})
    if given == "sgd" and e.momentum:
        # Momentum 1 is allowed by scikit-learn and not by our optimizers: the number before it rounds like it.
        momentum = min(float(e.momentum), math.nextafter(1.0, 0.0))
        name = "nesterov" if e.nesterovs_momentum else "momentum"
        return get_optimizer({"name": name, "learning_rate": rate, "momentum": momentum})
    if isinstance(given, str) and given in ("sgd", "lbfgs"):
        return get_optimizer({"name": "sgd", "learning_rate": rate})
    named = given if isinstance(given, dict) else {"name": given}
    rule = get_optimizer({"learning_rate": rate, **named})
    own = {field: getattr(e, name) for name, field in OPTIMIZER_FIELDS.items() if is_given(e, name)}
    return replace(rule, **{f: float(x) for f, x in own.items() if hasattr(rule, f) and f not in named})


def batch_norm_of(given: Any, n_hidden: int) -> tuple[bool, ...]:
    """Which hidden layers are normalized."""
    choices = per_layer(given, n_hidden)
    if not all(isinstance(choice, bool | np.bool_) for choice in choices):
        raise ConfigError(f"it must be true or false for each hidden layer, got {given!r}")
    return tuple(bool(choice) for choice in choices)


def schedule_of(given: Any) -> Schedule:
    """A schedule of ``maths/``, or the constant one for scikit-learn's own rules, which the fit loop follows."""
    return Constant() if isinstance(given, str) and given in RATE_RULES else get_schedule(given)


# -- parameters that a fit would not look at -------------------------------------------------------------------------

# A parameter is given when it differs from its default. With "sgd", "adam" and "lbfgs" scikit-learn ignores what
# belongs to another solver, and searches over solvers rely on it; so do they here. Other solvers ignore nothing.
SKLEARN_SOLVERS = ("sgd", "adam", "lbfgs")
_NO_LBFGS = ("weight_average", "clip_norm", "validation_metrics")  # what scikit-learn's lbfgs cannot be asked for


def check_given(estimator: Any, solver: Any) -> None:
    """That the fit looks at every parameter that was given; ``solver`` is what it trains with.

    Raises
    ------
    InvalidParameterError
        Naming the first that it does not look at.
    """
    for name, reason in _unused(estimator, solver).items():
        if is_given(estimator, name):
            default = defaults_of(estimator.__class__)[name]
            raise invalid(estimator, name, f"{reason}; leave it at its default, {default!r}")


def _unused(e: Any, solver: Any) -> dict[str, str]:
    """Parameters that the fit does not look at, and why."""
    if e.preset is not None:
        stops = {"early_stopping": f"preset={e.preset!r} stops early by itself, by the validation loss"}
        if solver == "lbfgs":
            return {"solver": f"preset={e.preset!r} trains with batches, a schedule and dropout, which lbfgs has not"}
        return stops | _of_others(e, solver)
    alone = {} if e.n_members == 1 else {"n_members": "it is for preset='tabular'"}
    if not (isinstance(solver, str) and solver in SKLEARN_SOLVERS):
        return alone | _of_others(e, solver)
    if solver == "lbfgs":
        alone |= dict.fromkeys(_NO_LBFGS, "solver='lbfgs' has no epochs or steps that it could follow")
        if not (isinstance(e.learning_rate, str) and e.learning_rate in RATE_RULES):
            alone["learning_rate"] = "solver='lbfgs' finds its own step sizes and takes no schedule"
        if hasattr(e.validation_fraction, "split"):
            alone["validation_fraction"] = "solver='lbfgs' follows no validation set"
    return alone


def _of_others(e: Any, solver: Any) -> dict[str, str]:
    """scikit-learn's parameters of solvers that this one is not, and what ``solver`` says itself."""
    found, rule = {"max_fun": "it is for solver='lbfgs'"}, read(e, "solver", lambda _: get_rule(e, solver))
    label, has = solver if isinstance(solver, str) else rule.name, ", ".join(f.name for f in fields(rule))
    for name, field in OPTIMIZER_FIELDS.items():
        if not hasattr(rule, field) and (name, solver) != ("momentum", "sgd"):  # which is without it if it is 0
            found[name] = f"the solver {label} does not use it: it has {has}"
        elif isinstance(solver, dict) and field in solver:
            found[name] = f"solver gives {field} too"
        elif isinstance(solver, Optimizer) and (name != "weight_average" or solver.average):
            found[name] = f"solver is an object that has its own {field}"
    if solver != "sgd":
        found["nesterovs_momentum"] = "it is for solver='sgd'; 'nesterov' and 'momentum' are solvers of their own"
        if isinstance(e.learning_rate, str) and e.learning_rate in RATE_RULES:
            found["learning_rate"] = f"{e.learning_rate!r} is for solver='sgd'; use a schedule such as 'cosine'"
    if solver != "sgd" or e.learning_rate != "invscaling":
        found["power_t"] = "it is for solver='sgd' with learning_rate='invscaling'"
    return found


def batch_rows(estimator: Any, n_samples: int) -> int:
    """Rows of a batch: ``batch_size``, at most all there are."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n_samples)


def check_shared(e: Any) -> None:
    """That ranks can share a fit of this estimator (``share_fits``)."""
    if sharing().ranks.size == 1:
        return
    if not isinstance(e.random_state, Integral):
        raise invalid(e, "random_state", "ranks that share a fit have to draw the same; give a number")
    for name, refused in (("solver", e.solver == "lbfgs"), ("preset", e.preset is not None)):
        if refused:
            value = getattr(e, name)
            raise invalid(e, name, f"{value!r} fits on one rank; leave share_fits out, or give another {name}")
